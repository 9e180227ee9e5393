"""Prints the comparison of two datasets."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from logitcask.schemas.terminal.bars import nat_bars, width_bars
from logitcask.schemas.terminal.console import summary_console
from logitcask.schemas.terminal.formatting import byte_size, number, percent, scheme_words


def print_comparison(comparison: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints a value of `comparison.compare`."""
    console = console or summary_console()
    console.print(_sides(comparison["a"], comparison["b"]))
    console.print(_matches(comparison))
    if comparison["agreement"]:
        console.print(_agreement(comparison["agreement"]))


def _sides(a: Mapping[str, Any], b: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", style="cyan", no_wrap=True)
    for one in (a, b):
        table.add_column(f"{one['dataset']} ({one['snapshot']})", overflow="fold", ratio=1)
    for name, value in [
        ("teacher", lambda one: (one["teacher"] or {}).get("name") or "–"),
        ("head", lambda one: scheme_words(one["scheme"])),
        ("tokens", lambda one: f"{one['total']['tokens']:,} in {one['total']['windows']:,} windows"),
        ("size", lambda one: f"{byte_size(one['total']['bytes'])}, {number(one['total']['bytes_per_token'])} a token"),
        ("teacher loss", lambda one: f"{number(one['total']['teacher_loss_nats'], 3)} nats"),
        ("top-1", lambda one: percent(one["total"]["top1_agreement"])),
        ("entropy", lambda one: _shape(one, "entropy_nats", "entropy")),
        ("head width", _widths),
        ("tail mass", lambda one: _shape(one, "tail_mass", "tail_neg_log_mass")),
    ]:
        table.add_row(name, value(a), value(b))
    return table


def _shape(one: Mapping[str, Any], summary: str, histogram: str) -> Text:
    mean = number(one["total"][summary]["mean"], 3)
    return Text(f"{mean}  ").append(nat_bars(one["total"]["histograms"][histogram], width=16), style="green")


def _widths(one: Mapping[str, Any]) -> Text:
    drawn, _ = width_bars(one["total"]["histograms"]["head_width"]["counts"], width=16)
    return Text(f"{number(one['total']['head_width']['mean'])}  ").append(drawn, style="green")


def _matches(comparison: Mapping[str, Any]) -> Text:
    windows = comparison["windows"]
    if not comparison["same_vocabulary"]:
        return Text("The vocabularies differ: only the distributions can be compared.", style="yellow")
    if not windows["matched"]:
        return Text("No window is in both datasets: only the distributions can be compared.", style="yellow")
    return Text(
        f"{windows['matched']:,} windows are in both (of {windows['a']:,} and {windows['b']:,}), by content hash:",
        style="bold",
    )


def _agreement(agreement: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    above = agreement["share_of_rows_with_kl_above"]
    table.add_row(
        "KL, nats per row",
        f"left to right ≥ {agreement['kl_a_to_b_nats']:.3g}, right to left ≥ {agreement['kl_b_to_a_nats']:.3g}, over "
        f"{agreement['rows']:,} rows ({agreement['infinite_rows']:,} infinite)",
    )
    table.add_row("", "rows with KL " + ", ".join(f"> {bound}: {percent(share)}" for bound, share in above.items()))
    table.add_row("top-1 agreement", f"{percent(agreement['top1_agreement'], 2)} of rows with a head on both sides")
    table.add_row("ids in both heads", f"{percent(agreement['head_overlap'])} of the ids in either")
    table.add_row("tail mass differs by", number(agreement["mean_tail_mass_difference"], 5))
    table.add_row("entropy differs by", f"{number(agreement['mean_entropy_difference_nats'], 5)} nats")
    table.add_row(
        "", Text("KL is a lower bound: over the buckets of the ids in both heads, and one for all others.", style="dim")
    )
    return table
