"""What `logitcask inspect` says of a snapshot: one JSON value, and the same as tables for people.

Everything comes from the snapshot alone: sums and histograms that the annotation made over all rows, exactly.
"""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from schemas import storage
from schemas.dataset import Snapshot, SplitSummary
from schemas.statistics import BINS_PER_NAT, Histogram, Statistics

REPORT_VERSION = 1
_BARS = " ▁▂▃▄▅▆▇█"


def describe(snapshot: Snapshot) -> dict[str, Any]:
    """All that is known of a snapshot, as JSON (`report_version` 1). Nats, bytes and counts; None where unknown."""
    identity = snapshot.identity
    return {
        "report_version": REPORT_VERSION,
        "dataset": storage.redact(snapshot.url),
        "snapshot": snapshot.number,
        "complete": snapshot.complete,
        "teacher": identity.get("teacher"),
        "tokenizer": {k: v for k, v in identity.get("tokenizer", {}).items() if k != "chat_template"},
        "scheme": identity.get("scheme"),
        "window_tokens": identity.get("window_tokens"),
        "licences": {
            "teacher": (identity.get("teacher") or {}).get("licence"),
            "corpus": identity.get("corpus_licence"),
        },
        "documents": {
            "in": snapshot.num_documents_in,
            "annotated": snapshot.total().num_documents,
            "rejected": snapshot.num_rejected,
            "rejected_by_reason": snapshot.rejected,
        },
        "total": _describe_split(snapshot.total(), identity.get("window_tokens")),
        "splits": {
            name: _describe_split(part, identity.get("window_tokens")) for name, part in sorted(snapshot.splits.items())
        },
    }


def _describe_split(part: SplitSummary, window_tokens: int | None) -> dict[str, Any]:
    room = part.num_windows * (window_tokens or 0)
    return {
        "shards": part.num_shards,
        "windows": part.num_windows,
        "tokens": part.num_positions,
        "documents": part.num_documents,
        "bytes": part.size_bytes,
        "window_fill": part.num_positions / room if room else None,
        "bytes_per_token": part.size_bytes / part.num_positions if part.num_positions else None,
        "bytes_per_token_by_column": {
            name: size / part.num_positions for name, size in part.column_bytes.items() if part.num_positions
        },
        **part.statistics.summary(),
        "histograms": _histograms(part.statistics),
    }


def _histograms(statistics: Statistics) -> dict[str, Any]:
    nats = {"entropy": statistics.entropy, "tail_neg_log_mass": statistics.tail, "teacher_loss": statistics.loss}
    return {
        **{name: {"bins_per_nat": BINS_PER_NAT, **_histogram(histogram)} for name, histogram in nats.items()},
        "head_width": {"counts": {str(width): n for width, n in sorted(statistics.head_widths.items())}},
    }


def _histogram(histogram: Histogram) -> dict[str, Any]:
    return {
        "count": histogram.count,
        "infinite": histogram.infinite,
        "counts": {str(index): histogram.bins[index] for index in sorted(histogram.bins)},
    }


def print_report(report: dict[str, Any]) -> None:
    """The report as tables that fit one screen, on stdout."""
    console = Console(highlight=False)
    console.print(_headline(report))
    console.print(_facts(report))
    console.print(_distributions(report["total"]))
    console.print(_columns(report["total"]))


def _headline(report: dict[str, Any]) -> Text:
    state = Text("complete", style="green") if report["complete"] else Text("INCOMPLETE", style="bold red")
    return Text.assemble((report["dataset"], "bold"), f"  snapshot {report['snapshot']}  ", state)


def _facts(report: dict[str, Any]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="cyan")
    table.add_column()
    teacher, tokenizer, total = report["teacher"] or {}, report["tokenizer"], report["total"]
    table.add_row("teacher", _teacher(teacher))
    table.add_row("tokenizer", f"{tokenizer.get('name')}, {tokenizer.get('vocab_size', 0):,} ids")
    table.add_row("head", _scheme(report["scheme"] or {}))
    table.add_row(
        "licences", f"teacher {_known(report['licences']['teacher'])}, corpus {_known(report['licences']['corpus'])}"
    )
    table.add_row("documents", _documents(report["documents"]))
    table.add_row("tokens", _tokens(report))
    table.add_row(
        "size",
        f"{total['bytes']:,} bytes in {total['shards']:,} shards, {_number(total['bytes_per_token'])} bytes a token",
    )
    table.add_row(
        "teacher on text",
        f"loss {_number(total['teacher_loss_nats'], 3)} nats, top-1 agreement {_percent(total['top1_agreement'])}"
        f" over {total['labels']:,} labels",
    )
    return table


def _teacher(teacher: dict[str, Any]) -> str:
    return (
        f"{teacher.get('name')}, {teacher.get('architecture')}, {teacher.get('num_parameters', 0) / 1e6:,.0f}M "
        f"parameters, {teacher.get('vocab_size', 0):,} ids, {teacher.get('dtype')}"
    )


def _scheme(scheme: dict[str, Any]) -> str:
    match scheme.get("kind"):
        case "threshold":
            return f"adaptive: p ≥ {scheme['tau']:g}, {scheme['k_min']} to {scheme['k']} entries, and the exact tail"
        case "topk":
            return f"the {scheme['k']} largest, and the exact tail"
        case "topp":
            return f"mass ≥ {scheme['p']:g}, at most {scheme['k']} entries, and the exact tail"
        case "random-sampling":
            return f"none: {scheme['draws']} random draws a position{_replicas(scheme)}"
        case "threshold-sampling":
            draws = f"one systematic draw for each {scheme['theta']:.3g} of the tail, at least one"
            return f"p ≥ {scheme['theta']:.3g}, the exact tail, and {draws}{_replicas(scheme)}"
        case _:
            return "unknown"


def _replicas(scheme: dict[str, Any]) -> str:
    return f", {scheme['replicas']} times over" if scheme["replicas"] > 1 else ""


def _documents(documents: dict[str, Any]) -> Text:
    text = Text(f"{documents['in']:,} in, {documents['annotated']:,} annotated, ")
    reasons = ", ".join(f"{reason} {n:,}" for reason, n in documents["rejected_by_reason"].items())
    text.append(f"{documents['rejected']:,} rejected", style="yellow" if documents["rejected"] else "")
    return text.append(f" ({reasons})" if reasons else "")


def _tokens(report: dict[str, Any]) -> str:
    total = report["total"]
    splits = ", ".join(f"{name} {part['tokens']:,}" for name, part in report["splits"].items())
    kinds = {kind: n for kind, n in total["positions_by_kind"].items() if kind != "train"}
    others = "".join(f", {n:,} {kind}" for kind, n in kinds.items())
    return (
        f"{total['tokens']:,} in {total['windows']:,} windows of up to {report['window_tokens'] or 0:,} "
        f"({_percent(total['window_fill'])} full): {splits}{others}"
    )


def _distributions(total: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="cyan")
    for name in ("", "mean", "p10", "p50", "p90", "p99"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True, style="" if name else "cyan")
    table.add_column("distribution", no_wrap=True, style="green")
    histograms = total["histograms"]
    rows = [
        ("entropy, nats", total["entropy_nats"], 2, f"0 {_nat_bars(histograms['entropy'])} 12"),
        ("head width", total["head_width"], 1, _width_bars(histograms["head_width"]["counts"])),
        ("tail mass", total["tail_mass"], 4, f"1 {_nat_bars(histograms['tail_neg_log_mass'])} e⁻¹²"),
    ]
    for name, values, digits, drawn in rows:
        table.add_row(name, *(_number(values[key], digits) for key in ("mean", "p10", "p50", "p90", "p99")), drawn)
    return table


def _columns(total: dict[str, Any]) -> Text:
    sizes = total["bytes_per_token_by_column"]
    shown = sorted(sizes.items(), key=lambda item: -item[1])
    return Text("bytes a token by column  ", style="cyan").append(
        ", ".join(f"{name} {size:.1f}" for name, size in shown), style="default"
    )


def _nat_bars(histogram: dict[str, Any], nats: int = 12, width: int = 16) -> str:
    per_bar = nats * histogram["bins_per_nat"] // width
    heights = [0] * width
    for index, count in histogram["counts"].items():
        heights[min(int(index) // per_bar, width - 1)] += count
    return bars(heights)


def _width_bars(counts: dict[str, int], width: int = 16) -> str:
    widest = max(1, *map(int, counts)) if counts else 1
    heights = [0] * width
    for head_width, count in counts.items():
        heights[(max(int(head_width), 1) - 1) * width // widest] += count
    return f"1 {bars(heights)} {widest}"


def bars(heights: list[int]) -> str:
    """One character a height, the tallest full; anything above zero is visible."""
    tallest = max(heights, default=0)
    return "".join(_BARS[0] if not h else _BARS[max(1, round(8 * h / tallest))] for h in heights)


def _known(value: str | None) -> str:
    return value or "not stated"


def _number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"
