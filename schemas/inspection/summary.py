"""A dataset's summary as one JSON value; docs/inspect-json.md explains every key.

It comes from the snapshot alone, which holds exact sums and histograms over all rows, and vocabulary statistics over a
sample of the windows.
"""

from typing import Any

from logitcask.schemas import storage
from logitcask.schemas.dataset.identity import Identity
from logitcask.schemas.dataset.snapshot import Snapshot
from logitcask.schemas.dataset.split_summary import SplitSummary
from logitcask.schemas.stats import expected_bytes
from logitcask.schemas.stats.by_source import SourceSummary
from logitcask.schemas.stats.compute_cost import RunningCost
from logitcask.schemas.stats.outlier_windows import OutlierWindows
from logitcask.schemas.stats.target_statistics import BINS_PER_NAT, Histogram, Statistics

SCHEMA = "logitcask.inspect/1"
# How exact each figure is; part of the output.
ACCURACY = {
    "exact": "counts, sums, means, bytes, loss and top-1 agreement: over every row, before quantization",
    "binned": f"quantiles: to a bin of 1/{BINS_PER_NAT} nat; quantiles of head widths are exact",
    "sampled": "mass of the k largest ids and different ids in N draws: every 64th window of each shard, all logits",
    "estimated": "bytes by source: from a source's share of the entries and rows of each column",
}


def describe(snapshot: Snapshot) -> dict[str, Any]:
    """The summary of a snapshot. Units: nats, bytes, seconds and counts; None where unknown."""
    identity, total = snapshot.identity, snapshot.total()
    stored, window_tokens = identity.to_json(), identity.window_tokens
    return {
        "schema": SCHEMA,
        "dataset": storage.redact(snapshot.url),
        "snapshot": snapshot.number or None,
        "complete": snapshot.complete,
        "missing_units": snapshot.num_missing_units,
        "made_by": snapshot.made_by,
        "sealed": snapshot.is_sealed,
        "teacher": stored.get("teacher"),
        "tokenizer": {k: v for k, v in stored.get("tokenizer", {}).items() if k != "chat_template"},
        "scheme": stored.get("scheme"),
        "window_tokens": window_tokens,
        "licences": {
            "teacher": identity.teacher.licence if identity.teacher else None,
            "corpus": identity.corpus_licence,
        },
        "documents": {
            "in": snapshot.num_documents_in,
            "annotated": total.num_documents,
            "rejected": snapshot.num_rejected,
            "rejected_by_reason": snapshot.rejected,
            "skipped_files": snapshot.skipped_files,
            "removed_by_reason": snapshot.removed,
        },
        "total": _describe_split(total, window_tokens),
        "splits": {name: _describe_split(part, window_tokens) for name, part in sorted(snapshot.splits.items())},
        "sources": {
            name: _describe_source(source, total) for name, source in sorted(total.by_source.items(), key=_largest)
        },
        "outliers": _describe_outliers(total.extremes),
        "cost": _describe_costs(total, identity),
        "accuracy": ACCURACY,
    }


def _largest(item: tuple[str, SourceSummary]) -> tuple[int, str]:
    return -item[1].num_positions, item[0]


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


def _describe_source(source: SourceSummary, total: SplitSummary) -> dict[str, Any]:
    summary = source.statistics.summary()
    del summary["wide"]
    return {
        "tokens": source.num_positions,
        "documents": source.num_documents,
        "estimated_bytes": _estimated_bytes(source, total),
        **summary,
    }


def _estimated_bytes(source: SourceSummary, total: SplitSummary) -> int:
    """A source's share of the bytes of every column: by entries or draws in list columns, else by rows."""
    ours, all_ = source.statistics, total.statistics
    shares = {
        "entries": ours.head_entries / max(all_.head_entries, 1),
        "draws": ours.sample_draws / max(all_.sample_draws, 1),
        "rows": source.num_positions / max(total.num_positions, 1),
    }
    return round(sum(size * shares[_unit_of(column)] for column, size in total.column_bytes.items()))


def _unit_of(column: str) -> str:
    if column.startswith("tail_sample"):
        return "draws"
    return "entries" if column in ("ids", "id_gaps", "q") else "rows"


def _describe_outliers(extremes: OutlierWindows) -> dict[str, Any]:
    return {
        measure: [{"shard": one.shard, "window": one.window, "mean_nats": one.mean_nats} for one in found]
        for measure, found in extremes.items()
    }


def _describe_costs(total: SplitSummary, identity: Identity) -> dict[str, Any]:
    """The measured cost, and the size that the formulas of `plan` predict."""
    parameters, scheme = identity.teacher.num_parameters if identity.teacher else None, identity.scheme
    return {
        "devices": {device: _describe_cost(cost, parameters) for device, cost in total.costs.items()},
        "bytes_per_token": total.size_bytes / total.num_positions if total.num_positions else None,
        "expected_bytes_per_token": expected_bytes.bytes_per_token(scheme) if scheme else None,
        "bytes_per_token_source": expected_bytes.BYTES_SOURCE,
    }


def _describe_cost(cost: RunningCost, num_parameters: int | None) -> dict[str, Any]:
    forward_seconds = cost.seconds("forward")
    rate = cost.num_positions / forward_seconds if forward_seconds else None
    return {
        "units": cost.num_units,
        "tokens": cost.num_positions,
        "worker_seconds": cost.worker_seconds,
        "seconds_by_phase": {phase: cost.seconds(phase) for phase in cost.milliseconds},
        "tokens_per_second": rate,
        "flop_per_second_lower_bound": 2 * num_parameters * rate if num_parameters and rate else None,
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
