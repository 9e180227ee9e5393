"""Columns of a shard as the arrays of `StoredTargets`."""

import re
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from schemas import quantizer, shard
from schemas.compact_ids import from_gaps
from schemas.list_pages import Lists
from schemas.targets import StoredTargets, TailSample

_SAMPLE_COLUMN = re.compile(r"tail_sample(@[1-9]\d*)?")
_TAIL_COLUMN = re.compile(r"tail@(\d+(?:\.\d+)?)")


def is_known_option(column: str) -> bool:
    """Whether an optional column has a meaning in this version."""
    return column == shard.ENTROPY_FIELD.name or bool(
        _SAMPLE_COLUMN.fullmatch(column) or _TAIL_COLUMN.fullmatch(column)
    )


def stored_targets(table: pa.Table, lists: Mapping[str, Lists]) -> StoredTargets:
    """Targets of T rows.

    Args:
        table: The columns of single values.
        lists: The list columns by name; without ids these are empty.

    Raises:
        ValueError: A row has more ids than values, or less.
    """
    if "ids" in lists:
        _require_alike(lists, "ids", "q")
    replicas = sorted((name for name in lists if _SAMPLE_COLUMN.fullmatch(name)), key=_replica)
    samples = [lists[name] for name in replicas]
    tempered = {name: match[1] for name in table.column_names if (match := _TAIL_COLUMN.fullmatch(name))}
    return StoredTargets(
        head_ids=lists["ids"].values if "ids" in lists else np.zeros(0, np.int32),
        head_q=lists["q"].values,
        head_offsets=lists["q"].offsets,
        log_tail=_log_tail(table["tail"]),
        log_next=-_nats(table["next_q"]),
        entropy=_nats(table["entropy"]) if "entropy" in table.column_names else None,
        tail_samples=tuple(TailSample(ids=drawn.values, offsets=drawn.offsets) for drawn in samples),
        tempered_log_tails={float(number): _log_tail(table[name]) for name, number in tempered.items()},
    )


def decompacted(lists: Mapping[str, Lists], ids_by_rank: np.ndarray) -> dict[str, Lists]:
    """The lists of the layout "compact" as those of the plain one.

    Raises:
        ValueError: Gaps and values are not equally many, or a gap leads beyond the vocabulary.
    """
    _require_alike(lists, "id_gaps", "q")
    gaps, q = lists["id_gaps"], lists["q"]
    ids, values = from_gaps(gaps.values, q.values, q.offsets, ids_by_rank)
    return {**lists, "ids": Lists(values=ids, offsets=q.offsets), "q": Lists(values=values, offsets=q.offsets)}


def _require_alike(lists: Mapping[str, Lists], column: str, other: str) -> None:
    if not np.array_equal(lists[column].offsets, lists[other].offsets):
        raise ValueError(f"a row has more {column!r} than {other!r}, or less")


def _replica(column: str) -> int:
    return int(column.partition("@")[2] or 0)


def _log_tail(column: pa.ChunkedArray) -> np.ndarray:
    return quantizer.dequantize_tail(_steps(column))


def _nats(column: pa.ChunkedArray) -> np.ndarray:
    return quantizer.dequantize_nats(_steps(column))


def _steps(column: pa.ChunkedArray) -> np.ndarray:
    """Steps, exact in float32, NaN where null, [T]."""
    return column.combine_chunks().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
