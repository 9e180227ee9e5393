"""Lists read directly from their pages: only from pages in our layout, and only if their lengths are known."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from logitcask.schemas.format.parquet.list_pages import ListPages
from logitcask.schemas.format.ragged import Lists, offsets_from_lengths

WIDTHS = [3, 0, 5, 1]
IDS = np.arange(9, dtype=np.int32) * 1000
BYTES = (np.arange(9) * 29).astype(np.uint8)
OPTIONS = {"compression": "zstd", "use_dictionary": ["q.list.element"], "write_page_checksum": True}


class File:
    """A file of one row group with the lists `ids` and `q`, read from its pages."""

    def __init__(self, widths_of_ids: list[int], widths_of_q: list[int], *, is_nullable: bool = False, **changes):
        columns = {"ids": lists(IDS, widths_of_ids, is_nullable), "q": lists(BYTES, widths_of_q, is_nullable)}
        schema = pa.schema([pa.field(name, column.type, nullable=False) for name, column in columns.items()])
        sink = io.BytesIO()
        options = {**OPTIONS, "write_statistics": False, **changes}
        pq.write_table(pa.table(list(columns.values()), schema=schema), sink, **options)
        self.data, self.num_rows = sink.getvalue(), len(widths_of_ids)

    def read(self, column: str, *, after: str | None = None) -> Lists | None:
        """A column's lists, optionally after the library decoded those of another column."""
        file = pq.ParquetFile(io.BytesIO(self.data))
        pages = ListPages(lambda offset, length: self.data[offset : offset + length])
        chunks = {name: (self.chunk(name), file.schema.column(index)) for index, name in enumerate(("ids", "q"))}
        if after:
            decoded = file.read(columns=[after])[after].combine_chunks()
            pages.remember(*chunks[after], decoded.offsets.to_numpy().astype(np.int64))
        return pages.read(*chunks[column], self.num_rows)

    def chunk(self, column: str) -> pq.ColumnChunkMetaData:
        return pq.read_metadata(io.BytesIO(self.data)).row_group(0).column(0 if column == "ids" else 1)

    def is_read(self, column: str, *, after: str | None = None) -> bool:
        return self.read(column, after=after) is not None


def lists(values: np.ndarray, widths: list[int], is_nullable: bool) -> pa.ListArray:
    type_ = pa.list_(pa.field("element", pa.from_numpy_dtype(values.dtype), nullable=is_nullable))
    offsets = offsets_from_lengths(widths).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values), type=type_)


def check(found: Lists | None, values: np.ndarray, widths: list[int]) -> None:
    assert found is not None
    assert found.values.dtype == values.dtype
    np.testing.assert_array_equal(found.values, values)
    np.testing.assert_array_equal(found.offsets, offsets_from_lengths(widths))


@pytest.mark.parametrize("width", [1, 3, 9])
def test_lists_of_one_length_are_read(width):
    widths = [width] * (9 // width)
    file = File(widths, widths)
    check(file.read("ids"), IDS, widths)


def test_bytes_with_narrower_indices_are_left_to_the_library():
    assert not File([3, 3, 3], [3, 3, 3]).is_read("q")


def test_lists_with_the_lengths_of_decoded_ones_are_read():
    check(File(WIDTHS, WIDTHS).read("ids", after="q"), IDS, WIDTHS)


def test_lists_of_unknown_lengths_are_left_to_the_library():
    assert not File(WIDTHS, WIDTHS).is_read("ids")


def test_lists_with_other_lengths_are_left_to_the_library():
    assert not File(WIDTHS, [2, 1, 5, 1]).is_read("ids", after="q")
    assert not File([4, 0, 4, 1], WIDTHS).is_read("ids", after="q")


@pytest.mark.parametrize(
    "change",
    [
        {"compression": "snappy"},
        {"use_dictionary": True},
        {"write_page_checksum": False},
        {"data_page_version": "2.0"},
        {"write_statistics": True},
        {"use_dictionary": ["q.list.element"], "max_rows_per_page": 1, "write_batch_size": 1},
        {"is_nullable": True},
    ],
)
def test_pages_with_another_layout_are_left_to_the_library(change):
    assert not File(WIDTHS, WIDTHS, **change).is_read("ids", after="q")


def check_no_flipped_bit_is_read(file: File, column: str, first_byte: int, step: int = 1) -> None:
    chunk, data = file.chunk(column), file.data
    for bit in range(8 * first_byte, 8 * (first_byte + chunk.total_compressed_size), step):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        file.data = bytes(damaged)
        assert not file.is_read(column), bit
    file.data = data


def test_no_flipped_bit_of_a_plain_page_is_read():
    file = File([3, 3, 3], [3, 3, 3])
    assert file.is_read("ids")
    check_no_flipped_bit_is_read(file, "ids", file.chunk("ids").data_page_offset)


def many_bytes() -> File:
    """Lists with enough distinct bytes that their indices take eight bits."""
    file = object.__new__(File)
    values = np.tile(np.random.default_rng(0).permutation(256), 24).astype(np.uint8)
    values[1000:1100] = 7  # a run of equal ones
    widths = [64] * 96
    columns = [lists(values.astype(np.int32), widths, False), lists(values, widths, False)]
    schema = pa.schema([pa.field(n, c.type, nullable=False) for n, c in zip(("ids", "q"), columns, strict=True)])
    sink = io.BytesIO()
    pq.write_table(pa.table(columns, schema=schema), sink, **OPTIONS, write_statistics=False)
    file.data, file.num_rows = sink.getvalue(), len(widths)
    return file


def test_bytes_are_read_from_their_dictionary():
    file = many_bytes()
    found, expected = file.read("q"), file.read("ids")
    assert expected is not None
    check(found, expected.values.astype(np.uint8), [64] * 96)


def test_no_flipped_bit_of_a_dictionary_or_its_indices_is_read():
    file = many_bytes()
    first_byte = file.chunk("q").dictionary_page_offset
    assert first_byte is not None
    check_no_flipped_bit_is_read(file, "q", first_byte, step=11)
