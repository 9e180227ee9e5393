"""Prints a dataset's summary on one screen."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from logitcask.schemas.redaction import printable_line
from logitcask.schemas.terminal.bars import bar, bars, nat_bars, width_bars
from logitcask.schemas.terminal.console import summary_console
from logitcask.schemas.terminal.formatting import byte_size, duration, number, percent, scheme_words

# Further sources and reasons are added up, so that the summary fits a screen; `--json` lists all.
_MAX_SOURCES = 6
_MAX_REASONS = 4
_LABEL = "cyan"
_SHAPE = "green"


def print_summary(description: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints a value of `summary.describe` in about forty lines of at most a hundred columns."""
    console = console or summary_console()
    total = description["total"]
    console.print(_headline(description))
    console.print(_facts(description))
    console.print(_distributions(total))
    console.print(_whole_vocabulary(total["wide"]))
    if len(description["sources"]) > 1:
        console.print(_sources(description["sources"], total))
    if description["outliers"]:
        console.print(_outliers(description["outliers"]))
    console.print(_accuracy(total))


def _headline(description: Mapping[str, Any]) -> Text:
    state = Text("complete", style="bold green") if description["complete"] else Text("PARTIAL", style="bold red")
    missing = description["missing_units"]
    note = f"  {missing:,} unit{'s' * (missing != 1)} missing" if missing else ""
    snapshot = f"snapshot {description['snapshot']}" if description["snapshot"] else "no snapshot yet"
    seal = "" if description["sealed"] else "  unsealed: an earlier release wrote it, and damage to it may go unnoticed"
    return Text.assemble((description["dataset"], "bold"), f"  {snapshot}  ", state, note, seal)


def _facts(description: Mapping[str, Any]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style=_LABEL, no_wrap=True)
    table.add_column(overflow="fold")
    tokenizer, total, terms = description["tokenizer"], description["total"], description["licences"]
    table.add_row("teacher", _teacher(description["teacher"] or {}))
    table.add_row("tokenizer", f"{tokenizer.get('name')}, {tokenizer.get('vocab_size', 0):,} ids")
    table.add_row("head", scheme_words(description["scheme"]))
    table.add_row("licenses", f"teacher {terms['teacher'] or 'not stated'}, corpus {terms['corpus'] or 'not stated'}")
    table.add_row("documents", _documents(description["documents"]))
    table.add_row("tokens", _tokens(description))
    table.add_row("size", _size(total))
    table.add_row("on text", _on_text(total))
    table.add_row("cost", _cost(description["cost"]))
    return table


def _teacher(teacher: Mapping[str, Any]) -> str:
    return (
        f"{teacher.get('name')}, {teacher.get('architecture')}, {teacher.get('num_parameters', 0) / 1e6:,.0f}M "
        f"parameters, {teacher.get('vocab_size', 0):,} ids, {teacher.get('dtype')}"
    )


def _documents(documents: Mapping[str, Any]) -> Text:
    text = Text(f"{documents['in']:,} in, {documents['annotated']:,} annotated, ")
    reasons = sorted(documents["rejected_by_reason"].items(), key=lambda item: (-item[1], item[0]))
    words = [f"{reason} {count:,}" for reason, count in reasons[:_MAX_REASONS]]
    words += [f"{len(reasons) - _MAX_REASONS} more reasons"] if len(reasons) > _MAX_REASONS else []
    text.append(f"{documents['rejected']:,} rejected", style="bold yellow" if documents["rejected"] else "")
    text.append(f" ({', '.join(words)})" if words else "")
    removed = ", ".join(f"{count:,} {reason}" for reason, count in documents["removed_by_reason"].items())
    return text.append(f"; {removed}" if removed else "", style="yellow")


def _tokens(description: Mapping[str, Any]) -> str:
    total = description["total"]
    splits = ", ".join(f"{name} {part['tokens']:,}" for name, part in description["splits"].items())
    kinds = {kind: n for kind, n in total["positions_by_kind"].items() if kind != "train"}
    others = "".join(f", {n:,} {kind}" for kind, n in kinds.items())
    return (
        f"{total['tokens']:,} in {total['windows']:,} windows of up to {description['window_tokens'] or 0:,} "
        f"({percent(total['window_fill'])} full): {splits}{others}"
    )


def _size(total: Mapping[str, Any]) -> Text:
    text = Text(
        f"{byte_size(total['bytes'])} in {total['shards']:,} shards, {number(total['bytes_per_token'])} bytes a token:"
    )
    columns = sorted(total["bytes_per_token_by_column"].items(), key=lambda item: -item[1])
    for name, size in (column for column in columns if column[1] >= 0.05):
        text.append(f" {name} {size:.1f}")
        text.append(bar(size / columns[0][1], 2).rstrip(), style=_SHAPE)
    return text


def _on_text(total: Mapping[str, Any]) -> str:
    loss = total["teacher_loss_nats"]
    perplexity = "" if loss is None else f" (perplexity {number(2.718281828459045**loss)})"
    return (
        f"loss {number(loss, 3)} nats{perplexity}, top-1 agreement {percent(total['top1_agreement'])}"
        f" over {total['labels']:,} labels"
    )


def _cost(cost: Mapping[str, Any]) -> str:
    size = f"{number(cost['bytes_per_token'])} bytes a token, expected {number(cost['expected_bytes_per_token'])}"
    devices = [
        f"{duration(one['worker_seconds'])} of {device}{_rate(one['tokens_per_second'])}"
        f"{_flop_rate(one['flop_per_second_lower_bound'])}"
        for device, one in cost["devices"].items()
    ]
    return "; ".join([*devices, size])


def _rate(tokens_per_second: float | None) -> str:
    return "" if tokens_per_second is None else f", {number(tokens_per_second, 0)} tokens/s in the forward pass"


def _flop_rate(flop_per_second: float | None) -> str:
    if flop_per_second is None:
        return ""
    if flop_per_second < 1e12:
        return f" (≥ {flop_per_second / 1e9:,.0f} GFLOP/s)"
    return f" (≥ {flop_per_second / 1e12:,.0f} TFLOP/s)"


def _distributions(total: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style=_LABEL)
    for name in ("", "mean", "p10", "p50", "p90", "p99"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True, style="" if name else _LABEL)
    table.add_column("distribution over rows", no_wrap=True, style=_SHAPE)
    histograms = total["histograms"]
    widths, widest = width_bars(histograms["head_width"]["counts"])
    rows = [
        ("entropy, nats", total["entropy_nats"], 2, f"0 {nat_bars(histograms['entropy'])} 12"),
        ("teacher loss, nats", total["loss_nats"], 2, f"0 {nat_bars(histograms['teacher_loss'])} 12"),
        ("head width", total["head_width"], 1, f"1 {widths} {widest}"),
        ("tail mass", total["tail_mass"], 4, f"1 {nat_bars(histograms['tail_neg_log_mass'])} e⁻¹²"),
    ]
    for name, values, digits, drawn in rows:
        table.add_row(name, *(number(values[key], digits) for key in ("mean", "p10", "p50", "p90", "p99")), drawn)
    if total["tail_sample"]["draws"]:
        sample = total["tail_sample"]
        table.add_row("draws, different", number(sample["draws"]), *[""] * 4, f"{number(sample['different_ids'])} ids")
    return table


def _whole_vocabulary(vocabulary: Mapping[str, Any]) -> Table | Text:
    if not vocabulary["rows"]:
        return Text.assemble(
            ("whole vocabulary  ", _LABEL), ("not measured by the release that annotated this dataset", "dim")
        )
    # Narrow cells: ten of them and a label fit into eighty columns.
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 1, 0, 0))
    table.add_column(style=_LABEL, no_wrap=True)
    for _ in range(10):
        table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True, style=_SHAPE)
    for letter, name, values, digits in [
        ("k", "mass, k largest", vocabulary["mass_of_top_k"], 3),
        ("N", "ids in N draws", vocabulary["unique_ids_of_n_draws"], 1),
    ]:
        blanks = [""] * (10 - len(values))
        table.add_row(*(Text(word, style="dim") for word in [f"{letter} =", *map(str, values), *blanks, ""]))
        cells = [f"{value:.{digits}f}" for value in values.values()]
        table.add_row(name, *(cell.removeprefix("0") for cell in cells), *blanks, bars([*values.values()]))
    return table


def _sources(sources: Mapping[str, Any], total: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style=_LABEL)
    table.add_column("source", style=_LABEL, no_wrap=True, max_width=26, overflow="ellipsis")
    table.add_column("", style=_SHAPE, no_wrap=True)
    for name in ("tokens", "documents", "loss", "top-1", "entropy", "head", "tail", "size ~"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, source in list(sources.items())[:_MAX_SOURCES]:
        table.add_row(
            printable_line(name),
            bar(source["tokens"] / max(total["tokens"], 1), 8),
            f"{source['tokens']:,}",
            f"{source['documents']:,}",
            number(source["teacher_loss_nats"], 2),
            percent(source["top1_agreement"]),
            number(source["entropy_nats"]["mean"], 2),
            number(source["head_width"]["mean"]),
            number(source["tail_mass"]["mean"], 3),
            byte_size(source["estimated_bytes"]),
        )
    if len(sources) > _MAX_SOURCES:
        rest = list(sources.values())[_MAX_SOURCES:]
        table.add_row(f"{len(rest)} more sources", "", f"{sum(source['tokens'] for source in rest):,}")
    # A selection within shards of several sources is not counted by source.
    unknown = total["tokens"] - sum(source["tokens"] for source in sources.values())
    if unknown > 0:
        table.add_row("unknown", "", f"{unknown:,}")
    return table


def _outliers(outliers: Mapping[str, Any]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style=_LABEL, no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis")
    for measure, found in outliers.items():
        words = [f"{one['mean_nats']:.2f} nats in {one['shard']}:{one['window']}" for one in found[:2]]
        table.add_row(measure.replace("_", " "), ", ".join(words))
    return table


def _accuracy(total: Mapping[str, Any]) -> Text:
    sampled = f"; the k largest and N draws from {total['wide']['rows']:,} rows" if total["wide"]["rows"] else ""
    words = f"Exact over all rows, except quantiles (to 1/16 nat){sampled}; expected bytes are a fit, see --json."
    return Text(words, style="dim")
