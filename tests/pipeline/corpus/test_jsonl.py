"""JSON lines: a record on each line, read in byte ranges."""

import gzip
import itertools
import json
from pathlib import Path

import pytest
import zstandard
from corpus_reading import line, read, reasons

from logitcask.pipeline.corpus.documents import RawDocument
from logitcask.pipeline.corpus.fields import Fields
from logitcask.pipeline.corpus.files import FileSlice, find_corpus
from logitcask.pipeline.corpus.jsonl import read_jsonl


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_lines_are_documents_with_any_compression(tmp_path: Path, suffix: str) -> None:
    data = line(text="one", id="first") + b"\n" + line(text="two", id=7) + json.dumps({"text": "three"}).encode()
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[suffix]
    (tmp_path / f"a.jsonl{suffix}").write_bytes(pack(data))
    found = read(tmp_path)
    assert [one.text for one in found if isinstance(one, RawDocument)] == ["one", "two", "three"]
    assert [one.id for one in found if isinstance(one, RawDocument)] == ["first", "7", f"a.jsonl{suffix}#4"]
    assert [one.place.row for one in found] == [1, 3, 4]
    assert [one.place.offset_bytes for one in found] == [
        data.index(b"{" + key) for key in (b'"text": "one', b'"text": "two', b'"text": "three')
    ]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"text": "\xff"}', "undecodable"),
        (b'{"text": "\\ud800"}', "undecodable"),
        (b'{"text": "cut', "malformed_json"),
        (b"[" * 100_000, "malformed_json"),
        (b'["no object"]', "malformed_json"),
        (b'{"body": "x"}', "missing_field"),
        (b'{"text": null}', "wrong_type"),
        (b'{"text": 3}', "wrong_type"),
        (b'{"text": " \\n"}', "empty"),
        (b'{"text": "' + b"x" * 200_000 + b'"}', "too_large"),
    ],
)
def test_a_bad_line_is_rejected_with_its_reason_and_the_others_are_read(
    tmp_path: Path, bad: bytes, reason: str
) -> None:
    (tmp_path / "a.jsonl").write_bytes(line(text="before") + bad + b"\n" + line(text="after"))
    found = read(tmp_path, Fields(document_bytes=150_000))
    assert reasons(found) == ["ok", reason, "ok"]
    assert found[1].place.row == 2
    assert found[1].place.offset_bytes == len(line(text="before"))


def test_byte_ranges_return_every_line_exactly_once(tmp_path: Path) -> None:
    data = b"".join(line(text=f"{n}" * (n % 7 + 1)) for n in range(200))
    (tmp_path / "a.jsonl").write_bytes(data)
    [file] = find_corpus([str(tmp_path)])
    for count in (2, 3, 17, 400):
        bounds = [len(data) * index // count for index in range(count + 1)]
        pieces = [FileSlice(file=file, start=a, stop=b, is_whole=False) for a, b in itertools.pairwise(bounds)]
        found = [one for piece in pieces for one in read_jsonl(piece, Fields())]
        assert [one.text for one in found if isinstance(one, RawDocument)] == [f"{n}" * (n % 7 + 1) for n in range(200)]
        assert all(one.place.row is None and one.place.source.endswith(f"@{one.place.offset_bytes}") for one in found)
