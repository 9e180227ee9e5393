"""The consoles on which everything styled is printed: summaries on stdout, progress bars on stderr."""

import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.segment import Segment
from rich.text import Text

from logitcask.schemas.redaction import printable
from logitcask.schemas.terminal.guard import unguarded

_WIDTH = 100


class GuardedConsole(Console):
    """A console whose own codes reach the terminal, and none from the text.

    Rich passes escape codes in a text on, and interprets `[markup]` in strings. Here both are shown as they are. Links
    are dropped: their addresses would be hidden codes.
    """

    def __init__(self, stream: Any, **options: Any) -> None:
        super().__init__(file=unguarded(stream), highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """A string as styled text; escaped before the layout measures it."""
        return super().render_str(printable(text), **options)

    def render(self, *arguments: Any, **keywords: Any) -> Iterable[Segment]:
        """The segments of anything that is printed."""
        for segment in super().render(*arguments, **keywords):
            yield segment if segment.control else _escaped(segment)


def summary_console() -> Console:
    """Stdout: colored on a terminal unless NO_COLOR is set; a hundred columns wide where it is no terminal."""
    console = GuardedConsole(sys.stdout)
    return console if console.is_terminal else GuardedConsole(sys.stdout, width=_WIDTH)


def message_console(*, quiet: bool = False) -> Console:
    """Stderr: for progress bars."""
    return GuardedConsole(sys.stderr, stderr=True, quiet=quiet)


def _escaped(segment: Segment) -> Segment:
    style = segment.style
    return Segment(printable(segment.text), style.update_link(None) if style and style.link else style)
