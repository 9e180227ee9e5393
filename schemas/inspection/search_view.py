"""Prints found windows and the parts of a document."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from logitcask.schemas.redaction import printable_line
from logitcask.schemas.terminal.console import summary_console


def print_hits(found: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints a value of `search.find_text`, one line per window."""
    console = console or summary_console()
    for hit in found["hits"]:
        console.print(
            Text.assemble(
                (f"window {hit['window']:,}", "bold"),
                (f"  row {hit['row']}  {printable_line(hit['document'])}  ", "dim"),
                printable_line(hit["before"]),
                (printable_line(found["text"]), "bold black on yellow"),
                printable_line(hit["after"]),
            ),
            no_wrap=True,
            overflow="ellipsis",
            crop=True,
        )
    more = ", stopped at --limit" if found["stopped_at_limit"] else ""
    console.print(f"{len(found['hits']):,} windows of {found['windows_searched']:,} searched{more}", style="dim")


def print_document(found: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints a value of `search.locate_document`, one line per part."""
    console = console or summary_console()
    for part in found["parts"]:
        console.print(
            Text.assemble(
                (f"window {part['window']:,}", "bold"),
                f"  rows {part['first_row']}–{part['stop_row'] - 1}  {part['split']}  ",
                f"document token {part['offset']:,}  ",
                (f"{part['shard']}:{part['window_in_shard']}  {printable_line(part['source'])}", "dim"),
            )
        )
