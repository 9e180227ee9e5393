"""Groups of sources follow from the paths given and the files found, and are few."""

from pathlib import Path

import pytest

from logitcask.pipeline.corpus.files import find_corpus
from logitcask.pipeline.corpus.source_groups import group_sources
from logitcask.schemas.stats.by_source import MAX_GROUPS, OTHER_SOURCES


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for name, size in [("web/a.txt", 10), ("web/deep/b.txt", 20), ("books/c.jsonl", 30), ("d.md", 5), ("webs.txt", 1)]:
        file = tmp_path / "corpus" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x" * size)
    return tmp_path / "corpus"


def groups_of(patterns: list[str]) -> dict[str, str]:
    files = find_corpus(patterns)
    groups = group_sources(patterns, files)
    return {file.name: groups.of_source(f"{file.redacted_url}#1") for file in files}


def test_one_directory_is_grouped_by_what_lies_directly_below(corpus):
    expected = {"web/a.txt": "web", "web/deep/b.txt": "web", "books/c.jsonl": "books", "d.md": "d.md"}
    assert groups_of([str(corpus)]) == expected | {"webs.txt": "webs.txt"}


def test_a_glob_is_grouped_below_its_fixed_part(corpus):
    assert groups_of([f"{corpus}/*/*.txt"]) == {"web/a.txt": "web"}
    assert groups_of([f"{corpus}/**/*.txt"]) == {
        "web/a.txt": "web",
        "web/deep/b.txt": "web",
        "webs.txt": "webs.txt",
    }


def test_several_paths_are_the_groups(corpus):
    patterns = [str(corpus / "web"), f"{corpus}/books/*.jsonl", str(corpus / "d.md")]
    assert groups_of(patterns) == {
        "a.txt": patterns[0],
        "deep/b.txt": patterns[0],
        "c.jsonl": patterns[1],
        "d.md": patterns[2],
    }


def test_a_relative_path_names_the_same_groups(corpus, monkeypatch):
    monkeypatch.chdir(corpus.parent)
    assert groups_of(["corpus"]) == groups_of([str(corpus)])


def test_one_file_is_its_own_group(corpus):
    assert groups_of([str(corpus / "d.md")]) == {"d.md": "d.md"}


def test_beyond_the_limit_the_smallest_groups_are_counted_together(tmp_path):
    for index in range(MAX_GROUPS + 10):
        (tmp_path / f"{index:03d}.txt").write_text("x" * (1000 - index))
    found = groups_of([str(tmp_path)])
    named = [group for group in found.values() if group != OTHER_SOURCES]
    assert named == [f"{index:03d}.txt" for index in range(MAX_GROUPS - 1)]
    assert len(found) - len(named) == 11
