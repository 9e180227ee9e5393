"""The gate of all output: stdout and stderr escape control characters. Cheap to import.

Names, messages and corpora come from untrusted files, and libraries quote them. Only two kinds of text pass unescaped:
what a console of `schemas.terminal.console` has rendered from escaped text, and, inside `styled`, color codes.
"""

import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from logitcask.schemas.redaction import printable, scrub

_COLOR_CODE = re.compile(r"(\x1b\[[0-9;]{0,32}m)")


class GuardedStream:
    """A text stream that escapes control characters and direction marks in all that is written.

    Attributes:
        unguarded: The stream below, for text that is safe already.
        passes_colors: Whether color codes pass.
    """

    def __init__(self, stream: TextIO, clean: Callable[[str], str]) -> None:
        self.unguarded = stream
        self.passes_colors = False
        self._clean = clean

    def write(self, text: str) -> int:
        """Writes the escaped text; returns the length of `text`."""
        parts = _COLOR_CODE.split(text) if self.passes_colors else [text]
        # Odd parts are color codes.
        self.unguarded.write("".join(part if index % 2 else self._clean(part) for index, part in enumerate(parts)))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Writes each line."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unguarded, name)


def guard_output() -> None:
    """Guards stdout, and stderr, which also hides credentials: messages quote URLs, stdout holds results.

    What the encoding of a stream lacks is escaped. Without effect on streams that are guarded already.
    """
    sys.stdout, sys.stderr = _guarded(sys.stdout, printable), _guarded(sys.stderr, _message)


@contextmanager
def guarded_output() -> Iterator[None]:
    """`guard_output` while the context lasts."""
    before = sys.stdout, sys.stderr
    guard_output()
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


@contextmanager
def styled(*, trusted: bool) -> Iterator[None]:
    """Lets color codes pass, if all text that will be shown is trusted: for the help of a library."""
    streams = [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, GuardedStream)]
    for stream in streams:
        stream.passes_colors = trusted
    try:
        yield
    finally:
        for stream in streams:
            stream.passes_colors = False


def unguarded(stream: Any) -> Any:
    """The stream below a guarded one; other streams are returned as they are."""
    return getattr(stream, "unguarded", stream)


def print_json(value: Any) -> None:
    """Prints a value to stdout as JSON in which control characters and direction marks are JSON escapes."""
    is_unicode = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")
    lines = json.dumps(value, indent=1, ensure_ascii=not is_unicode).split("\n")
    print("\n".join(line if line.isprintable() else "".join(map(_json_character, line)) for line in lines))


def _json_character(character: str) -> str:
    if character.isprintable():
        return character
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


def _guarded(stream: Any, clean: Callable[[str], str]) -> Any:
    if stream is None or isinstance(stream, GuardedStream):
        return stream
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return GuardedStream(stream, clean)


def _message(text: str) -> str:
    return printable(scrub(text))
