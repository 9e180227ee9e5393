"""Parquet files: a record in each row, read by row groups."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from corpus_reading import read, reasons

from logitcask.pipeline.corpus.documents import RawDocument, Rejected
from logitcask.pipeline.corpus.fields import Fields
from logitcask.pipeline.corpus.files import FileSlice, find_corpus
from logitcask.pipeline.corpus.parquet import read_parquet, row_group_bytes


def parquet_file(path: Path, rows: int = 30, group: int = 10) -> None:
    table = pa.table({"text": [f"text {n} " + "x" * 50 for n in range(rows)], "id": list(range(rows))})
    pq.write_table(
        table, path, row_group_size=group, use_dictionary=False, compression="none", write_page_checksum=True
    )


def test_row_groups_are_read_with_rows_counted_in_the_file(tmp_path: Path) -> None:
    parquet_file(tmp_path / "a.parquet")
    [file] = find_corpus([str(tmp_path)])
    assert len(row_group_bytes(file)) == 3
    found = list(read_parquet(FileSlice(file=file, start=1, stop=3, is_whole=False), Fields()))
    assert [one.place.row for one in found] == list(range(11, 31))
    assert [one.id for one in found if isinstance(one, RawDocument)] == [str(n) for n in range(10, 30)]


def test_a_damaged_row_group_is_one_rejection_and_the_others_are_read(tmp_path: Path) -> None:
    parquet_file(tmp_path / "a.parquet")
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[data.index(b"text 15 ")] ^= 0xFF
    (tmp_path / "a.parquet").write_bytes(data)
    found = read(tmp_path)
    assert reasons(found) == ["ok"] * 10 + ["corrupt_stream"] + ["ok"] * 10


def test_a_truncated_file_is_one_rejection(tmp_path: Path) -> None:
    parquet_file(tmp_path / "a.parquet")
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-20])
    [file] = find_corpus([str(tmp_path)])
    assert row_group_bytes(file) == ()
    assert reasons(read(tmp_path)) == ["corrupt_stream"]


def test_rows_without_the_field_are_rejected_one_by_one(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["a", "b"]}), tmp_path / "a.parquet")
    assert reasons(read(tmp_path)) == ["missing_field"] * 2


def test_an_invalid_value_costs_one_row(tmp_path: Path) -> None:
    values = [b"good %d" % n for n in range(1000)]
    values[300] = b"bad \xff"
    pq.write_table(pa.table({"text": pa.array(values, pa.binary()).view(pa.string())}), tmp_path / "a.parquet")
    found = read(tmp_path)
    assert reasons(found) == ["ok"] * 300 + ["undecodable"] + ["ok"] * 699
    assert found[300].place.row == 301


def test_a_missing_column_names_the_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1], "body": ["a"], "lang": ["en"]}), tmp_path / "a.parquet")
    [found] = read(tmp_path)
    assert isinstance(found, Rejected)
    assert found.detail == "no field 'text'; fields: 'id', 'body', 'lang'"
