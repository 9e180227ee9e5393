import io
import re
import sys

import pytest
from repository import ROOT
from rich.console import Console
from rich.progress import Progress
from rich.style import Style
from rich.table import Table
from rich.text import Text

from logitcask.schemas.terminal.console import message_console, summary_console
from logitcask.schemas.terminal.guard import guarded_output

HOSTILE = "\x1b[31m\x07\x9b2J\u202e\x1b]8;;https://host\x1b\\[link=x][/x]"


def test_without_a_terminal_the_console_is_100_columns_wide_and_plain(monkeypatch):
    monkeypatch.setenv("COLUMNS", "33")
    console = summary_console()
    assert console.width == 100
    assert not console.is_terminal


@pytest.mark.parametrize("columns", [60, 150])
def test_a_terminal_keeps_its_own_width(monkeypatch, columns):
    monkeypatch.setattr(Console, "is_terminal", True)
    monkeypatch.setenv("COLUMNS", str(columns))
    assert summary_console().width == columns


def terminal(monkeypatch) -> io.StringIO:
    """A stream that Rich takes for a color terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    stream = io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    return stream


def without_styles(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.mark.parametrize("wrap", [str, Text, lambda text: Text.assemble((text, "bold"))], ids=["str", "Text", "styled"])
def test_text_cannot_control_a_terminal_and_styles_still_work(monkeypatch, wrap):
    stream = terminal(monkeypatch)
    table = Table(title=wrap(HOSTILE))
    table.add_column(wrap(HOSTILE))
    table.add_row(wrap(HOSTILE), style="red")
    with guarded_output():
        console = summary_console()
        console.print(wrap(HOSTILE), style="green")
        console.print(table)
    shown = stream.getvalue()
    assert re.search(r"\x1b\[(1;)?32m", shown)
    assert "\\x1b[31m" in shown
    assert "[link=x]" in shown
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", without_styles(shown))


def test_links_in_text_are_dropped(monkeypatch):
    stream = terminal(monkeypatch)
    summary_console().print(Text("name", style=Style(link="https://host", bold=True)))
    assert stream.getvalue() == "\x1b[1mname\x1b[0m\n"


def test_what_is_printed_during_a_progress_bar_is_escaped(monkeypatch):
    terminal(monkeypatch)
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    with guarded_output(), Progress(console=message_console()):
        print(HOSTILE, file=sys.stderr)
    assert "\x9b" not in stream.getvalue()
    assert "\x07" not in stream.getvalue()
    assert "]8;;" not in stream.getvalue()


def test_a_closed_stderr_shows_no_bar_on_stdout(monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    assert message_console().file is not sys.stdout


def test_no_other_console_is_made():
    made = [
        file.name
        for folder in ("schemas", "pipeline", "teacher", "student")
        for file in (ROOT / folder).rglob("*.py")
        if re.search(r"\bConsole\(|\brich\.print|get_console", file.read_text())
    ]
    assert not made
