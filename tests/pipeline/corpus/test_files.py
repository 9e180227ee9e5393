"""Corpus files: which files paths match, and their names."""

from pathlib import Path

import pytest

from logitcask.pipeline.corpus.files import CorpusFile, find_corpus, scan_corpus
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
    with pytest.raises(CorpusError, match=r"none of a supported format \(unsupported format \.pdf\); supported: \.txt"):
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
    monkeypatch.setattr("logitcask.pipeline.corpus.files.storage.expand", lambda pattern, skipped: found)
    with pytest.raises(CorpusError, match=r"several files are https://host/get\.jsonl without user"):
        find_corpus(["https://host/"])


def write_files(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")


def test_hidden_and_unsupported_files_are_left_out_and_counted(tmp_path: Path) -> None:
    write_files(tmp_path, "a.jsonl", "._a.jsonl", ".ipynb_checkpoints/a.jsonl", "b.pdf", "c.jsonl.bz2", "README")
    for pattern in (str(tmp_path), f"{tmp_path}/**/*"):
        corpus = scan_corpus([pattern])
        assert [file.name for file in corpus.files] == ["a.jsonl"]
        assert corpus.num_skipped()["hidden"] >= 1
        assert corpus.num_skipped()["unsupported format .pdf"] == 1
        assert f"no file name suffix: 1 ({tmp_path}/README)" in corpus.describe_skipped()


@pytest.mark.parametrize("name", [".hidden.jsonl", ".cache/a.jsonl"])
def test_a_hidden_file_that_is_named_is_read(tmp_path: Path, name: str) -> None:
    write_files(tmp_path / ".root", name, "b.pdf")
    for pattern in (f"{tmp_path}/.root/{name}", f"{tmp_path}/.root/.c*/*" if "/" in name else f"{tmp_path}/.root/.h*"):
        assert len(find_corpus([pattern])) == 1


def test_a_named_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    write_files(tmp_path, "a.jsonl", "b.pdf")
    with pytest.raises(CorpusError, match=r"b\.pdf: 1 file\(s\), none of a supported format"):
        find_corpus([str(tmp_path / "a.jsonl"), str(tmp_path / "b.pdf")])


def test_links_that_loop_or_repeat_files_are_left_out(tmp_path: Path) -> None:
    write_files(tmp_path, "b/real.jsonl", "c/other.jsonl")
    (tmp_path / "b/up").symlink_to(tmp_path)
    (tmp_path / "b/c").symlink_to(tmp_path / "c")
    (tmp_path / "c/b").symlink_to(tmp_path / "b")
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "again.jsonl").symlink_to(tmp_path / "b/real.jsonl")
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nowhere")
    (tmp_path / "itself.jsonl").symlink_to(tmp_path / "itself.jsonl")
    corpus = scan_corpus([str(tmp_path)])
    assert [file.name for file in corpus.files] == ["b/real.jsonl", "c/other.jsonl"]
    assert corpus.num_skipped()["link to nothing"] == 2
    assert corpus.num_skipped()["link to a directory above it"] >= 2
    assert corpus.num_skipped()["link to another file of the corpus"] >= 2


def test_a_dataset_begun_by_the_first_rules_has_the_same_files(tmp_path: Path) -> None:
    write_files(tmp_path, "a.jsonl", ".hidden/a.jsonl", "b.json", "c.csv")
    assert [file.name for file in scan_corpus([str(tmp_path)], token_rules=1).files] == [".hidden/a.jsonl", "a.jsonl"]
    assert [file.name for file in find_corpus([str(tmp_path)])] == ["a.jsonl", "b.json", "c.csv"]
