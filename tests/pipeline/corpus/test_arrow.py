"""Arrow files: both forms of IPC, and values that cannot be read."""

from pathlib import Path

import pyarrow as pa
import pytest
from corpus_reading import read, reasons

from logitcask.pipeline.corpus.documents import RawDocument, Rejected
from logitcask.pipeline.corpus.fields import Fields


def write(path: Path, table: pa.Table, kind: str) -> None:
    with getattr(pa.ipc, f"new_{kind}")(path, table.schema) as sink:
        sink.write_table(table, max_chunksize=300)


@pytest.mark.parametrize("kind", ["stream", "file"])
def test_rows_of_all_batches_are_documents(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "a.arrow", pa.table({"x": range(1000), "text": [f"text {n}" for n in range(1000)]}), kind)
    found = read(tmp_path)
    assert [one.text for one in found if isinstance(one, RawDocument)] == [f"text {n}" for n in range(1000)]
    assert [one.place.row for one in found] == [*range(1, 1001)]


@pytest.mark.parametrize("kind", ["stream", "file"])
def test_an_invalid_value_costs_one_row(tmp_path: Path, kind: str) -> None:
    values = [b"good"] * 1000
    values[700] = b"bad \xff"
    write(tmp_path / "a.arrow", pa.table({"text": pa.array(values, pa.binary()).view(pa.string())}), kind)
    found = read(tmp_path)
    assert reasons(found).count("ok") == 999
    assert reasons(found)[700] == "undecodable"
    assert found[700].place.row == 701


def test_a_cut_stream_keeps_the_rows_before(tmp_path: Path) -> None:
    write(tmp_path / "a.arrow", pa.table({"text": ["text"] * 1000}), "stream")
    data = (tmp_path / "a.arrow").read_bytes()
    (tmp_path / "a.arrow").write_bytes(data[: len(data) * 2 // 3])
    found = reasons(read(tmp_path))
    assert found == ["ok"] * 600 + ["corrupt_stream"]
    (tmp_path / "a.arrow").write_bytes(b"no arrow at all")
    assert reasons(read(tmp_path)) == ["corrupt_stream"]


def test_a_missing_column_names_the_columns(tmp_path: Path) -> None:
    write(tmp_path / "a.arrow", pa.table({"id": [1, 2], "body": ["a", "b"]}), "stream")
    found = read(tmp_path)
    assert [one.detail for one in found if isinstance(one, Rejected)] == ["no field 'text'; fields: 'id', 'body'"] * 2


def test_null_keys_of_a_chat_are_absent(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": None, "tool_calls": [{"x": None}]}]
    write(tmp_path / "a.arrow", pa.table({"chat": [chat]}), "stream")
    [found] = read(tmp_path, Fields(chat="chat", rich_messages=True))
    assert isinstance(found, RawDocument)
    assert found.messages == ({"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [{}]})
