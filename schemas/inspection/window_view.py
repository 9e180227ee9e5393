"""Prints a window: its text, shaded by the teacher's loss at each token, and a table with a row for each token."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from logitcask.schemas.redaction import printable_line
from logitcask.schemas.terminal.console import summary_console
from logitcask.schemas.terminal.formatting import number, visible_piece

# Minimum loss (nats) and the style from there on. Both colors are set, for dark and light terminals alike.
_SHADES = (
    (8.0, "bold white on #b3261e"),
    (5.0, "white on #9a4a12"),
    (3.0, "white on #7a5a10"),
    (1.5, "white on #4a4a3a"),
)
_PIECE_WIDTH = 14


def print_window(window: Mapping[str, Any], rows: slice = slice(None), console: Console | None = None) -> None:
    """Prints a value of `window.describe_window`.

    Args:
        window: The window.
        rows: The rows that the table lists.
        console: Where to print; default: stdout.
    """
    console = console or summary_console()
    console.print(_headline(window))
    console.print(_parts(window["parts"]))
    console.print(_legend())
    console.print(_shaded(window["rows"]), end="\n\n", soft_wrap=False)
    console.print(_table(window["rows"][rows]))


def shade(loss_nats: float | None) -> str:
    """The style of a token by its loss; empty for a low or unknown loss."""
    if loss_nats is None:
        return ""
    return next((style for minimum, style in _SHADES if loss_nats >= minimum), "")


def _headline(window: Mapping[str, Any]) -> Text:
    return Text.assemble(
        (f"window {window['window']:,}", "bold"),
        f"  {window['split']}, {len(window['rows']):,} tokens, {window['shard']}:{window['window_in_shard']}",
    )


def _parts(parts: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for part in parts:
        begins = "" if part["offset"] == 0 else f", from document token {part['offset']:,}"
        table.add_row(
            f"rows {part['first_row']}–{part['stop_row'] - 1}",
            printable_line(f"{part['document']}{begins} ({part['source']})"),
        )
    return table


def _legend() -> Text:
    text = Text("loss in nats: ", style="dim")
    for minimum, style in reversed(_SHADES):
        text.append(f" ≥ {minimum:g} ", style=style)
        text.append(" ")
    return text


def _shaded(rows: Sequence[Mapping[str, Any]]) -> Text:
    """The text, each token shaded by its own loss, which the row before it holds."""
    text = Text()
    losses = [None, *(row["loss_nats"] if row["next"] else None for row in rows)]
    for row, loss in zip(rows, losses, strict=False):
        style = "dim" if row["kind"] in ("context", "prompt") else shade(loss)
        for index, line in enumerate(_piece(row).split("\n")):
            text.append("\n" if index else "")
            text.append(printable_line(line), style=style)
    return text


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="cyan", padding=(0, 1, 0, 0), expand=True)
    # Fixed widths; the last column gets the rest, and is cut.
    table.add_column("row", justify="right", no_wrap=True, style="dim", width=4)
    table.add_column("token", no_wrap=True, width=_PIECE_WIDTH, overflow="ellipsis")
    table.add_column("next", no_wrap=True, width=_PIECE_WIDTH, overflow="ellipsis")
    for name, width in (("loss", 5), ("entropy", 7), ("tail", 5)):
        table.add_column(name, justify="right", no_wrap=True, width=width)
    table.add_column("the teacher's distribution", no_wrap=True, overflow="ellipsis", ratio=1)
    for row in rows:
        table.add_row(
            str(row["row"]),
            visible_piece(_piece(row)),
            Text(visible_piece(_piece(row["next"])) if row["next"] else "", style=shade(row["loss_nats"])),
            number(row["loss_nats"], 2),
            number(row["entropy_nats"], 2),
            number(row["tail_mass"], 3),
            _expected(row),
        )
    return table


def _expected(row: Mapping[str, Any]) -> Text:
    text = Text()
    for one in row["alternatives"]:
        is_next = row["next"] is not None and one["id"] == row["next"]["id"]
        text.append(visible_piece(_piece(one)), style="bold green" if is_next else "bold")
        text.append(f" {100 * one['p']:.0f}%  ", style="dim")
    for one in row["drawn"][0] if row["drawn"] else ():
        text.append(visible_piece(_piece(one)), style="magenta")
        text.append(f" ×{one['times']}  ", style="dim")
    return text


def _piece(one: Mapping[str, Any]) -> str:
    return f"#{one['id']}" if one["piece"] is None else one["piece"]
