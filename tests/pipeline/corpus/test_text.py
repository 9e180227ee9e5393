"""Text files: one document each."""

import gzip
from pathlib import Path

import pytest
import zstandard
from corpus_reading import read, read_one, reasons

from logitcask.pipeline.corpus.documents import RawDocument, Rejected
from logitcask.pipeline.corpus.fields import Fields


def test_a_text_file_is_one_document(tmp_path: Path) -> None:
    found = read_one(tmp_path / "a.md", "\ufeffGrüße\n\nalle".encode())
    assert isinstance(found, RawDocument)
    assert (found.text, found.id) == ("Grüße\n\nalle", "a.md#1")
    assert found.place.source == f"{tmp_path}/a.md#1"


@pytest.mark.parametrize(("data", "reason"), [(b"", "empty"), (b"caf\xe9", "undecodable"), (b"x" * 101, "too_large")])
def test_a_bad_text_file_is_one_rejection(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "good.txt").write_text("good")
    (tmp_path / "bad.txt").write_bytes(data)
    assert reasons(read(tmp_path, Fields(document_bytes=100))) == [reason, "ok"]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_corrupt_compressed_text_file_is_one_rejection(tmp_path: Path, suffix: str) -> None:
    pack = {".gz": gzip.compress, ".zst": zstandard.compress}[suffix]
    found = read_one(tmp_path / f"a.txt{suffix}", pack(b"some text, some more text" * 100)[:-3])
    assert isinstance(found, Rejected)
    assert found.reason == "corrupt_stream"
