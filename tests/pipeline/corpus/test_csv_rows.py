"""CSV files: quoted cells, and rows that do not match the header."""

import csv
from pathlib import Path

import pytest
from corpus_reading import read, reasons

from logitcask.pipeline.corpus.documents import RawDocument
from logitcask.pipeline.corpus.fields import Fields

ROWS = [["1", 'a "quoted", text\nof two lines'], ["2", "é\t🙂"], ["3", "plain"]]


@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".tsv", "\t")])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_what_a_csv_writer_wrote_is_read(tmp_path: Path, suffix: str, delimiter: str, encoding: str) -> None:
    with (tmp_path / f"a{suffix}").open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=delimiter).writerows([["id", "text"], *ROWS])
    found = read(tmp_path)
    assert [(one.id, one.text) for one in found if isinstance(one, RawDocument)] == [tuple(row) for row in ROWS]


def test_a_bad_row_costs_one_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"id,text\n1,a\n2,b,c\n3\n\n4,\xff\n5,e\n6,f\0\n")
    assert reasons(read(tmp_path)) == ["ok", "malformed_csv", "malformed_csv", "undecodable", "ok", "ok"]


def test_a_missing_column_names_the_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,body\n1,a\n")
    [found] = read(tmp_path)
    assert "no field 'text'; fields: 'id', 'body'" in found.detail  # pyright: ignore


@pytest.mark.parametrize("data", ["text\na\n" + "b" * 2000 + "\nc\n", 'text\na\n"' + "b\n" * 1000])
def test_a_cell_above_the_limit_ends_the_file(tmp_path: Path, data: str) -> None:
    (tmp_path / "a.csv").write_text(data)
    assert reasons(read(tmp_path, Fields(document_bytes=1000))) == ["ok", "malformed_csv"]
