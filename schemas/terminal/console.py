"""The console that summaries are printed on."""

from rich.console import Console

_WIDTH = 100


def summary_console() -> Console:
    """Stdout: coloured on a terminal unless NO_COLOR is set, a hundred columns wide where nobody says otherwise."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH)
