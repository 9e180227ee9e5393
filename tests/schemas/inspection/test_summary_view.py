"""The summary fits a screen, and has colors only on a terminal."""

import dataclasses
import io
import re

import pytest
from repository import ROOT
from rich.console import Console

from logitcask.schemas import cli
from logitcask.schemas.inspection.summary import describe
from logitcask.schemas.inspection.summary_view import print_summary


def show(snapshot, width: int = 100, **console) -> str:
    file = io.StringIO()
    print_summary(describe(snapshot), Console(file=file, width=width, highlight=False, **console))
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 100])
def test_the_summary_fits_a_screen(seen, width):
    lines = show(seen, width).splitlines()
    assert len(lines) <= 45
    assert max(map(len, lines)) <= width
    assert width < 100 or not [line for line in lines if "…" in line]


def test_the_summary_shows_every_figure(seen):
    shown = show(seen)
    for expected in (
        "test/teacher",
        "complete",
        "2 rejected (empty 2)",
        "424 in 10 windows",
        "entropy, nats",
        "mass, k largest",
        " .900",
        "corpus",
        "news",
        "highest loss",
        "tokens/s in the forward pass",
        "from 400 rows",
    ):
        assert expected in shown


def test_a_snapshot_without_a_seal_is_said_to_be_unsealed(seen):
    assert "unsealed" not in show(seen)
    assert "unsealed: an earlier release wrote it" in show(dataclasses.replace(seen, is_sealed=False), width=200)


def test_only_a_terminal_gets_colors(seen, capsys, monkeypatch):
    assert "\x1b[" in show(seen, force_terminal=True, color_system="standard")
    assert "\x1b[3" not in show(seen, force_terminal=True, color_system="standard", no_color=True)
    assert cli.main(["inspect", seen.url]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_many_sources_and_reasons_still_fit(seen):
    description = describe(seen)
    source = description["sources"]["news"]
    description["sources"] = {f"source {i}": source for i in range(64)}
    description["documents"]["rejected_by_reason"] = {f"reason_{i}": i for i in range(20)}
    file = io.StringIO()
    print_summary(description, Console(file=file, width=100, highlight=False))
    assert len(file.getvalue().splitlines()) <= 45
    assert "58 more sources" in file.getvalue()
    assert "16 more reasons" in file.getvalue()


def test_the_readme_shows_what_is_printed(seen):
    """Another dataset, but the same lines: each begins with the same words."""
    readme = (ROOT / "README.md").read_text()
    transcript = readme.split("$ logitcask inspect cask\n")[1].split("```")[0]
    begins = [re.split(r"  | [.\d]", line)[0] for line in transcript.splitlines() if not line.startswith(" ")]
    shown = show(seen)
    known = [word for word in begins[1:] if word not in ("prose", "code", "license.txt")]
    assert len(known) > 15
    for word in known:
        assert f"\n{word.split(';')[0]}" in shown
