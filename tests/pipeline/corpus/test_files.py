"""Corpus files: which files paths match, and their names."""

from pathlib import Path

import pytest

from logitcask.pipeline.corpus.files import CorpusFile, find_corpus
from logitcask.schemas.errors import CorpusError
from logitcask.schemas.storage import StoredFile


def test_names_are_relative_to_the_common_root_and_each_file_counts_once(tmp_path: Path) -> None:
    for name in ("b/x.jsonl", "a/x.jsonl", "a/deep/y.txt", "a/skipped.pdf"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    files = find_corpus([str(tmp_path / "b"), f"{tmp_path}/a/*.jsonl", str(tmp_path)])
    assert [file.name for file in files] == ["a/deep/y.txt", "a/x.jsonl", "b/x.jsonl"]


def test_a_missing_corpus_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="nowhere: no file found"):
        find_corpus([str(tmp_path / "nowhere")])


def test_a_corpus_without_a_supported_file_names_the_supported_formats(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_text("x")
    with pytest.raises(CorpusError, match=r"none of a supported format; supported: \.txt"):
        find_corpus([str(tmp_path)])


def test_an_empty_corpus_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(CorpusError, match="are empty"):
        find_corpus([str(tmp_path)])


def test_records_and_fingerprints_contain_no_credentials() -> None:
    url = "s3://key:secret@bucket/a.txt?token=secret"
    file = CorpusFile(url=url, name="a.txt", format="text", compression=None, size_bytes=1, etag="e")
    assert "secret" not in file.redacted_url
    assert "secret" not in str(file.identity())


def test_files_that_differ_only_in_credentials_are_refused(monkeypatch):
    found = [StoredFile(url=f"https://host/get.jsonl?id={number}", size_bytes=1, etag="e") for number in (1, 2)]
    monkeypatch.setattr("logitcask.pipeline.corpus.files.storage.expand", lambda pattern: found)
    with pytest.raises(CorpusError, match=r"several files are https://host/get\.jsonl without user"):
        find_corpus(["https://host/"])
