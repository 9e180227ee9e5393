"""Shows a cost plan on a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from logitcask.schemas.format.scheme import Scheme
from logitcask.schemas.terminal.bars import bar
from logitcask.schemas.terminal.console import summary_console
from logitcask.schemas.terminal.formatting import byte_size, number, scheme_words


def print_plan(plan: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints the result of `make_plan`."""
    console = console or summary_console()
    console.print(
        Text.assemble(
            (f"{quantity(plan['tokens'])} tokens", "bold"),
            f" annotated by {plan['teacher']['name']}, windows of {plan['window_tokens']:,}",
        )
    )
    console.print(_facts(plan))
    console.print(_schemes(plan))
    if "against" in plan:
        console.print(_against(plan["against"]))
    console.print(Text("Computed for the layout `plain`; measured only where stated. Formulas: --json.", style="dim"))


def quantity(value: float) -> str:
    """A large number with a decimal prefix."""
    for factor, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor * 0.9995:
            return f"{value / factor:.3g} {prefix}"
    return f"{value:.3g} "


def _facts(plan: Mapping[str, Any]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    teacher, storage, student = plan["teacher"], plan["storage"], plan["student"]
    table.add_row("teacher", _teacher_pace(teacher))
    table.add_row(
        "",
        f"{teacher['gpu_hours']:,.0f} GPU hours, {number(teacher['days'])} days on {teacher['gpus']:,}, "
        f"{money(teacher['cost'])}",
    )
    table.add_row("head", scheme_words(plan["scheme"]))
    table.add_row("storage", _storage(storage))
    table.add_row("student", _student_pace(student))
    table.add_row(
        "",
        f"{number(student['days_per_pass'])} days a pass; {number(student['optimal_multiple'])} × the compute-optimal "
        f"20 tokens a parameter ({number(student['optimal_multiple_non_embedding'])} × without embeddings)",
    )
    table.add_row("break-even", _break_even(plan["break_even"]))
    return table


def _teacher_pace(teacher: Mapping[str, Any]) -> str:
    pace = (
        f"{quantity(teacher['flop_per_token'])}FLOP a token, {quantity(teacher['tokens_per_second_per_gpu'])}tokens/s"
    )
    if teacher["rate_is"] == "measured":
        return f"{pace}, measured on this machine"
    return f"{pace} on one {teacher['gpu']} at {100 * teacher['utilisation']:.0f} % of its peak"


def _storage(storage: Mapping[str, Any]) -> str:
    reading = storage["read_cost_per_pass"]
    return (
        f"{byte_size(storage['bytes'])} ({number(storage['bytes_per_token'])} bytes a token, "
        f"{storage['bytes_per_token_is']}) in {storage['shards']:,.0f} shards, written at "
        f"{byte_size(storage['write_bytes_per_second'])}/s; {money(storage['keep_cost'])} for "
        f"{storage['months']:g} months, {money(storage['write_cost'])} to write, {money(reading)} to read once"
    )


def _student_pace(student: Mapping[str, Any]) -> str:
    return (
        f"{student['name']}: {quantity(student['tokens_per_second'])}tokens/s on {student['gpus']} GPUs at "
        f"{100 * student['utilisation']:.0f} %, reading {byte_size(student['read_bytes_per_second'])}/s of shards"
    )


def _break_even(found: Mapping[str, Any]) -> str:
    live = f"a live teacher costs {money(found['live_teacher_cost_per_pass'])} for every student and epoch"
    once = f"the shards {money(found['cached_cost_once'])} once"
    if found["passes"] is None:
        return f"never: reading the shards costs more than the teacher; {live}"
    return f"caching is cheaper from {int(found['passes']) + 1} passes on: {live}, {once}"


def _schemes(plan: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="cyan")
    table.add_column("what would be stored", no_wrap=True)
    for name in ("entries", "bytes a token", "in all"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", style="green", no_wrap=True)
    widest = max(one["bytes"] for one in plan["schemes"])
    for one in plan["schemes"]:
        is_chosen = one["scheme"] == plan["scheme"]
        table.add_row(
            Text(Scheme.from_json(one["scheme"]).label(), style="bold" if is_chosen else ""),
            number(one["entries_per_token"]),
            number(one["bytes_per_token"]),
            byte_size(one["bytes"]),
            bar(one["bytes"] / widest, 16),
        )
    for name, size, note in (
        ("32 bits for each of the 128 largest", plan["raw_top_128_bytes"], ""),
        ("every logit", plan["dense_bytes"], f"{money(plan['dense_cost_per_month'])} a month"),
    ):
        table.add_row(
            Text(name, style="dim"), "", number(size / plan["tokens"]), byte_size(size), Text(note, style="dim")
        )
    return table


def _against(real: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="cyan")
    table.add_column(f"{real['dataset']}, {real['tokens']:,} tokens", no_wrap=True, overflow="ellipsis")
    table.add_column("planned", justify="right")
    table.add_column("real", justify="right")
    for name, key, digits in (
        ("bytes a token", "bytes_per_token", 1),
        ("tokens/s of one device", "tokens_per_second", 0),
        ("device hours", "device_hours", 3),
    ):
        table.add_row(name, number(real[key]["planned"], digits), number(real[key]["real"], digits))
    return table


def money(value: float) -> str:
    return f"${value:,.0f}" if value >= 10 else f"${value:.2f}"
