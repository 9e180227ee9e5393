"""JSON files: arrays, records one after the other, and records on lines."""

import gzip
import json
from pathlib import Path

import pytest
from corpus_reading import read, reasons

from logitcask.pipeline.corpus import json_values
from logitcask.pipeline.corpus.documents import RawDocument, Rejected
from logitcask.pipeline.corpus.fields import Fields

RECORDS = [{"text": f"é {n}", "number": n * 10**n, "more": [[{"a": None}], n / 3]} for n in range(40)]
SHAPES = {
    "array": json.dumps(RECORDS),
    "indented array": json.dumps(RECORDS, indent=2, ensure_ascii=False),
    "objects": "\n".join(json.dumps(one, indent=1) for one in RECORDS),
    "objects without space": "".join(json.dumps(one) for one in RECORDS),
    "lines": "\n".join(json.dumps(one) for one in RECORDS),
    "mark": "\ufeff" + json.dumps(RECORDS, ensure_ascii=False),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("read_bytes", [1, 7, 1 << 20])
def test_every_record_is_a_document(
    tmp_path: Path, shape: str, read_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_values, "_READ_BYTES", read_bytes)
    (tmp_path / "a.json").write_text(SHAPES[shape])
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(SHAPES[shape].encode()))
    found = read(tmp_path)
    assert [one.text for one in found if isinstance(one, RawDocument)] == [one["text"] for one in RECORDS] * 2
    assert [one.place.row for one in found] == [*range(1, 41)] * 2


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"[]", []),
        (b'[{"text": "a\xff"}, {"text": "\\ud800"}, 3, {"body": "b"}, {"text": "c"}]', [
            "undecodable", "undecodable", "malformed_json", "missing_field", "ok"
        ]),
        (b'[{"text": "a"}, {"text": }, {"text": "c"}]', ["ok", "malformed_json"]),
        (b'[{"text": "a"}', ["ok", "malformed_json"]),
        (b'[{"text": "a"}] x', ["ok", "malformed_json"]),
        (b'{"text": "a"}\n{bad\n{"text": "c"}', ["ok", "malformed_json", "ok"]),
        (b"[" * 20_000, ["malformed_json"]),
    ],
)  # fmt: skip
def test_damage_costs_as_little_as_possible(tmp_path: Path, data: bytes, expected: list[str]) -> None:
    (tmp_path / "a.json").write_bytes(data)
    (tmp_path / "z.txt").write_text("ok")
    assert reasons(read(tmp_path)) == [*expected, "ok"]


def test_a_record_above_the_limit_stops_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{"text": "a"}, {"text": "b" * 3_000_000}, {"text": "c"}]))
    found = read(tmp_path, Fields(document_bytes=1000))
    assert reasons(found)[0] == "ok"
    assert isinstance(found[-1], Rejected)
    assert len(found) <= 3
