"""Prints the statistics of every row."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from logitcask.schemas.terminal.bars import bar, bars
from logitcask.schemas.terminal.console import summary_console
from logitcask.schemas.terminal.formatting import number, percent, visible_piece


def print_deep(deep: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints a value of `summary.describe_rows`."""
    console = console or summary_console()
    console.print(
        Text.assemble(
            ("every row  ", "bold"),
            f"{deep['rows']:,} in {deep['seconds']:.1f} s, {deep['tokens_per_second']:,.0f} tokens/s",
        )
    )
    console.print(_heads(deep))
    console.print(_calibration(deep))
    console.print(_hardest(deep["hardest_ids"]))
    console.print(_checks(deep["checks"]))


def _heads(deep: Mapping[str, Any]) -> Table:
    """Mass of stored heads cut to k entries; below the true mass where heads are narrower."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    masses, shares = deep["mass_of_top_k_stored"], deep["share_of_heads_with_k"]
    table.add_column("", style="cyan", no_wrap=True)
    for k in shares:
        table.add_column(f"k={k}", justify="right", no_wrap=True)
    table.add_column("", style="green", no_wrap=True)
    if masses:
        table.add_row("mass stored ≥", *(f"{mass:.3f}" for mass in masses.values()), bars([*masses.values()]))
    table.add_row("heads with ≥ k", *(f"{share:.2f}" for share in shares.values()), bars([*shares.values()]))
    return table


def _calibration(deep: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    correlation = deep["entropy_loss_correlation"]
    table.add_row("entropy and loss", f"correlation {number(correlation, 3)}")
    hits = ", ".join(f"{one['mean_p']:.2f}→{one['hit_rate']:.2f}" for one in deep["calibration"])
    error = percent(deep["expected_calibration_error"], 2)
    if deep["calibration"]:
        table.add_row("calibration", f"most probable id, p→hit rate: {hits}; expected error {error}")
    return table


def _hardest(ids: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="cyan")
    table.add_column("next ids by share of loss", no_wrap=True, style="cyan")
    table.add_column("", no_wrap=True, style="green")
    for name in ("share", "times", "missed", "mean loss"):
        table.add_column(name, justify="right", no_wrap=True)
    largest = max((one["share_of_loss"] for one in ids), default=1.0) or 1.0
    for one in ids:
        table.add_row(
            f"{one['id']:>7} {'' if one['piece'] is None else visible_piece(one['piece'])}",
            bar(one["share_of_loss"] / largest, 10),
            percent(one["share_of_loss"]),
            f"{one['labels']:,}",
            percent(None if one["misses"] is None else one["misses"] / one["labels"], 0),
            number(one["mean_loss_nats"], 2),
        )
    return table


def _checks(checks: Sequence[Mapping[str, Any]]) -> Text:
    text = Text("against the snapshot  ", style="cyan")
    for one in checks:
        text.append(one["what"], style="default" if one["holds"] else "bold red")
        if not one["holds"]:
            text.append(f" {one['shards']:,} in the shards, {one['snapshot']:,} in the snapshot", style="bold red")
        text.append(" ✓  " if one["holds"] else " ✗  ", style="green" if one["holds"] else "bold red")
    return text
