"""Rejections: their JSON keeps the raw bytes."""

from pathlib import Path

from corpus_reading import read_one

from logitcask.pipeline.corpus.documents import Rejected


def test_a_rejection_keeps_bytes_that_are_not_utf_8(tmp_path: Path) -> None:
    found = read_one(tmp_path / "a.txt", b"caf\xe9")
    assert isinstance(found, Rejected)
    assert found.to_json()["raw_base64"] == "Y2Fm6Q=="
