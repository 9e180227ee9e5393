import pytest
from rich.console import Console

from logitcask.schemas.terminal.console import summary_console


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
