"""The console on which summaries are printed."""

from rich.console import Console

_WIDTH = 100


def summary_console() -> Console:
    """Stdout: colored on a terminal unless NO_COLOR is set; a hundred columns wide where it is no terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH)
