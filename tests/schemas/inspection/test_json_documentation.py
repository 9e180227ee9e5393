"""docs/inspect-json.md names every key that is printed, and no other."""

import json
import re

import pytest
from json_paths import leaves
from repository import ROOT

from logitcask.schemas import cli

PAGE = ROOT / "docs/inspect-json.md"
ROWS = ("total", "splits.<split>", "sources.<source>")
PREFIXES = {"rows": ROWS, "source": ("sources.<source>",), "files": ROWS[:2]}


def documented(section: str) -> set[str]:
    """Patterns of the keys of a section, with the prefixes that its tables stand for."""
    (text,) = [part for part in PAGE.read_text().split("\n## ") if part.startswith(f"`{section}`")]
    found = set()
    for table in re.findall(r"^\| .*?(?=\n\n|\Z)", text, re.MULTILINE | re.DOTALL):
        heading, *keys = re.findall(r"^\| `?([^`|]+?)`? \|", table, re.MULTILINE)
        found |= {f"{prefix}{key}" for prefix in _prefixes(heading) for key in keys}
    return found


def _prefixes(heading: str) -> list[str]:
    return [f"{prefix}." for prefix in PREFIXES.get(heading, ())] or [""]


def matches(pattern: str, leaf: str) -> bool:
    return bool(re.fullmatch(re.sub(r"<\w+>", ".+", re.escape(pattern).replace(r"\<", "<").replace(r"\>", ">")), leaf))


@pytest.fixture
def printed(seen, shards, capsys):
    def run(*words: str):
        cli.main(["inspect", seen.url, *words, "--json"])
        return json.loads(capsys.readouterr().out)

    return run


def test_the_page_explains_exactly_the_printed_keys(printed, seen, shards):
    outputs = [
        printed("--deep"),
        printed("--window", "6"),
        printed("--find", " w4"),
        printed("--document", shards[0][2].parts[0].id),
        printed(seen.url),
    ]
    assert len({output["schema"] for output in outputs}) == 5
    for output in outputs:
        patterns, found = documented(output["schema"]), leaves(output)
        unexplained = {leaf for leaf in found if not any(matches(pattern, leaf) for pattern in patterns)}
        # An empty object or list is printed without the keys that the page explains below it.
        unexplained = {leaf for leaf in unexplained if not any(pattern.startswith(leaf) for pattern in patterns)}
        assert not unexplained, output["schema"]
        silent = {pattern for pattern in patterns if not any(matches(pattern, leaf) for leaf in found)}
        assert silent <= {f"documents.{counts}.<reason>" for counts in ("removed_by_reason", "skipped_files")} | {
            "agreement"
        } | {f"rows[].drawn[][].{key}" for key in ("id", "piece", "times")}
