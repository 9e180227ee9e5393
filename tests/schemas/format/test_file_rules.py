"""Each rule of FORMAT.md that a file breaks by its types, encodings or pages, broken alone."""

import dataclasses
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from repository import GOLDEN

from logitcask.schemas.errors import CorruptShardError
from logitcask.schemas.format.file_rules import broken_file_rules
from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.format.writer import encode_shard


def with_type(table: pa.Table, name: str, type_: pa.DataType, *, nullable: bool = False) -> pa.Table:
    field = pa.field(name, type_, nullable=nullable)
    return table.set_column(table.column_names.index(name), field, table[name].cast(type_))


def list_of(type_: pa.DataType, *, nullable: bool = False) -> pa.DataType:
    return pa.list_(pa.field("element", type_, nullable=nullable))


@pytest.mark.parametrize(
    ("name", "type_", "nullable"),
    [
        ("window", pa.int64(), False),
        ("window", pa.int32(), True),
        ("document", pa.uint32(), False),
        ("token", pa.float32(), False),
        ("token", pa.int16(), False),
        ("kind", pa.int32(), False),
        ("kind", pa.uint8(), True),
        ("ids", list_of(pa.int64()), False),
        ("ids", list_of(pa.int32(), nullable=True), False),
        ("ids", list_of(pa.int32()), True),
        ("q", list_of(pa.uint16()), False),
        ("tail", pa.int32(), True),
        ("next_q", pa.uint8(), True),
        ("entropy", pa.float32(), True),
    ],
)
def test_a_column_of_another_type_is_refused(rewrite, name, type_, nullable):
    def change(table, metadata):
        column = table[name]
        if name == "next_q":
            column = pa.chunked_array([pa.array([0] * len(column), pa.uint8())])
            return table.set_column(table.column_names.index(name), pa.field(name, type_), column), metadata
        return with_type(table, name, type_, nullable=nullable), metadata

    with pytest.raises(CorruptShardError, match=f"column '{name}' is stored as .*, not as "):
        ShardReader(rewrite(change))


def test_a_value_without_nulls_is_refused_for_rows_without_a_target(rewrite):
    def change(table, metadata):
        filled = pa.chunked_array([table["tail"].combine_chunks().fill_null(0)])
        field = pa.field("tail", pa.uint16(), nullable=False)
        return table.set_column(table.column_names.index("tail"), field, filled), metadata

    with pytest.raises(CorruptShardError, match="column 'tail' is stored as"):
        ShardReader(rewrite(change))


def test_a_column_that_occurs_twice_is_refused(rewrite):
    path = rewrite(lambda table, m: (table.append_column(table.schema.field("tail"), table["tail"]), m))
    with pytest.raises(CorruptShardError, match="column 'tail' occurs 2 times"):
        ShardReader(path)


@pytest.mark.parametrize("names", [["tail@1"], ["tail@1.0"], ["tail@2", "tail@2.0"]])
def test_temperatures_are_different_numbers_other_than_one(rewrite, names):
    def change(table, metadata):
        for name in names:
            table = table.append_column(pa.field(name, pa.uint16()), table["tail"])
        return table, metadata

    with pytest.raises(CorruptShardError, match="tails at the temperatures"):
        ShardReader(rewrite(change))


def test_other_columns_may_have_any_type(rewrite):
    path = rewrite(lambda table, m: (table.append_column("note", pa.array([["x"]] * table.num_rows)), m))
    with ShardReader(path) as reader:
        assert reader.read().targets is not None


def broken(data: bytes) -> list[str]:
    return list(broken_file_rules(data, pq.read_metadata(io.BytesIO(data))))


@pytest.mark.parametrize("layout", ["plain", "compact"])
def test_our_shards_break_no_rule_of_files(windows, targets, metadata, layout):
    assert broken(encode_shard(windows, targets, dataclasses.replace(metadata, layout=layout)).data) == []


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("v*/*.parquet")), ids=lambda path: path.stem)
def test_golden_shards_break_no_rule_of_files(path):
    assert broken(path.read_bytes()) == []


def written(encoded, **settings) -> list[str]:
    table, sink = pq.read_table(io.BytesIO(encoded.data)), io.BytesIO()
    pq.write_table(table, sink, compression="zstd", **{"write_page_checksum": True, **settings})
    return broken(sink.getvalue())


def test_pages_without_checksums_are_named(encoded):
    found = written(encoded, write_page_checksum=False, use_dictionary=False)
    assert len(found) == 9
    assert found[0] == "column 'window', row group 0: 1 pages without a checksum"


def test_dictionary_pages_and_all_data_pages_are_counted(encoded):
    found = written(encoded, write_page_checksum=False, use_dictionary=["window"], max_rows_per_page=100)
    assert found[:2] == [
        "column 'window', row group 0: 4 pages without a checksum",
        "column 'document', row group 0: 3 pages without a checksum",
    ]


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_pages_of_both_versions_have_checksums(encoded, version):
    assert written(encoded, data_page_version=version, write_statistics=True) == []


def test_byte_stream_split_is_named(encoded):
    found = written(encoded, use_dictionary=False, column_encoding={"token": "BYTE_STREAM_SPLIT"})
    assert found == ["column 'token', row group 0: BYTE_STREAM_SPLIT, which other software cannot read"]
