"""Ids taken straight from their page: only from pages laid out like ours, and only where rows agree."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.plain_pages import plain_list_values

WIDTHS = np.array([3, 0, 5, 1])
IDS = np.arange(9, dtype=np.int32) * 1000
OPTIONS = {"compression": "zstd", "use_dictionary": ["q.list.element"], "write_page_checksum": True}


def write(widths_of_q: np.ndarray = WIDTHS, **changes) -> bytes:
    type_ = pa.list_(pa.field("element", pa.int32(), nullable=False))
    table = pa.table(
        [lists(IDS, WIDTHS, type_), lists(np.arange(9, dtype=np.int32), widths_of_q, type_)],
        schema=pa.schema([pa.field(name, type_, nullable=False) for name in ("ids", "q")]),
    )
    sink = io.BytesIO()
    pq.write_table(table, sink, **{**OPTIONS, "write_statistics": False, **changes})
    return sink.getvalue()


def lists(values: np.ndarray, widths: np.ndarray, type_: pa.DataType) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(np.append(0, np.cumsum(widths)).astype(np.int32)), values, type=type_)


def take(data: bytes) -> np.ndarray | None:
    row_group = pq.read_metadata(io.BytesIO(data)).row_group(0)
    column, shape = row_group.column(0), row_group.column(1)
    return plain_list_values(lambda offset, length: data[offset : offset + length], column, shape, len(IDS))


def test_values_of_a_page_like_ours_are_taken():
    np.testing.assert_array_equal(take(write()), IDS)


def test_lists_of_other_lengths_are_not_taken():
    assert take(write(np.array([2, 1, 5, 1]))) is None


@pytest.mark.parametrize(
    "change",
    [
        {"compression": "snappy"},
        {"use_dictionary": True},
        {"write_page_checksum": False},
        {"data_page_version": "2.0"},
        {"write_statistics": True},
        {"use_dictionary": ["q.list.element"], "max_rows_per_page": 1, "write_batch_size": 1},
    ],
)
def test_pages_laid_out_otherwise_are_left_to_the_library(change):
    assert take(write(**change)) is None


def test_no_flipped_bit_of_the_page_is_taken():
    data = write()
    chunk = pq.read_metadata(io.BytesIO(data)).row_group(0).column(0)
    first, last = 8 * chunk.data_page_offset, 8 * (chunk.data_page_offset + chunk.total_compressed_size)
    for bit in range(first, last):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        assert take(bytes(damaged)) is None, bit
