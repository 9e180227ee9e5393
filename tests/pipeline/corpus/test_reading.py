"""Every supported format can be read."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from corpus_reading import read

from logitcask.pipeline.corpus.documents import RawDocument
from logitcask.pipeline.corpus.files import FORMATS


def test_a_document_can_be_read_from_every_format(tmp_path: Path) -> None:
    for suffix in (".txt", ".md"):
        (tmp_path / f"a{suffix}").write_text("text")
    for suffix in (".jsonl", ".ndjson", ".json"):
        (tmp_path / f"a{suffix}").write_text(json.dumps({"text": "text"}))
    for suffix in (".csv", ".tsv"):
        (tmp_path / f"a{suffix}").write_text("text\ntext\n")
    table = pa.table({"text": ["text"]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pa.ipc.new_stream(tmp_path / "a.arrow", table.schema) as stream:
        stream.write_table(table)
    with pa.ipc.new_file(tmp_path / "a.feather", table.schema) as file:
        file.write_table(table)
    found = read(tmp_path)
    assert [one.text for one in found if isinstance(one, RawDocument)] == ["text"] * len(FORMATS)
