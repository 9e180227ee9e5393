"""Sums over every row of a dataset, shard by shard.

Threads read shards at the same time: decompression and array arithmetic run outside the interpreter's lock.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from schemas.dataset import ShardEntry, Snapshot
from schemas.inspection.heads import largest_log_probs, mass_by_rank
from schemas.reader import Block
from schemas.snapshot_shard import open_shard
from schemas.statistics import Statistics
from schemas.targets import Targets, Windows

NUM_BUCKETS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class DeepSums:
    """Sums over rows; V ids.

    Attributes:
        statistics: As the snapshot has them, but of stored values.
        mass_by_rank: Sum of the masses of the r-th largest entries, float64 [width].
        moments: Over rows with entropy and loss: n, Σe, Σl, Σe², Σl², Σel.
        buckets: By the largest probability, in tenths: rows, Σ largest probability, hits; float64 [10, 3].
        labels, misses, losses: By label id: rows, rows whose most probable id is another, Σ loss; float64 [V].
    """

    statistics: Statistics
    mass_by_rank: np.ndarray
    moments: np.ndarray
    buckets: np.ndarray
    labels: np.ndarray
    misses: np.ndarray
    losses: np.ndarray

    def __add__(self, other: "DeepSums") -> "DeepSums":
        return DeepSums(
            statistics=self.statistics + other.statistics,
            mass_by_rank=_add_padded(self.mass_by_rank, other.mass_by_rank),
            moments=self.moments + other.moments,
            buckets=self.buckets + other.buckets,
            labels=_add_padded(self.labels, other.labels),
            misses=_add_padded(self.misses, other.misses),
            losses=_add_padded(self.losses, other.losses),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _RowColumns:
    """What is kept of a block's labelled rows until its shard is done."""

    labels: np.ndarray
    hits: np.ndarray
    losses: np.ndarray


def sum_shards(snapshot: Snapshot, progress: Callable[[int], None]) -> DeepSums:
    """The sums over all shards, in the order of their names whatever thread is first."""
    total: DeepSums | None = None
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for sums in pool.map(lambda entry: _sum_shard(snapshot, entry, progress), snapshot.shards()):
            total = sums if total is None else total + sums
    return total or _nothing()


def _sum_shard(snapshot: Snapshot, entry: ShardEntry, progress: Callable[[int], None]) -> DeepSums:
    total, columns = _nothing(), []
    with open_shard(snapshot, entry) as shard:
        for start, stop in shard.blocks():
            block = shard.read(start, stop)
            sums, kept = _sum_block(block)
            total += sums
            columns.append(kept)
            progress(block.windows.num_positions)
    return total + _sum_labels(columns)


def _sum_block(block: Block) -> tuple[DeepSums, _RowColumns]:
    windows, targets = block.windows, block.targets
    assert targets is not None
    largest = largest_log_probs(targets)
    hit = _hits(windows, targets, largest)
    labelled = targets.has_label()
    with_head = labelled & np.isfinite(largest)
    bucket = np.minimum(np.exp(largest[with_head]) * NUM_BUCKETS, NUM_BUCKETS - 1).astype(np.int64)
    columns = (np.ones(len(bucket)), np.exp(largest[with_head]), hit[with_head])
    loss = -targets.log_next[labelled].astype(np.float64)
    nothing = _nothing()
    sums = DeepSums(
        statistics=Statistics.of(windows, targets),
        mass_by_rank=mass_by_rank(targets),
        moments=_moments(None if targets.entropy is None else targets.entropy[labelled].astype(np.float64), loss),
        buckets=np.stack([np.bincount(bucket, one, NUM_BUCKETS) for one in columns], axis=1),
        labels=nothing.labels,
        misses=nothing.misses,
        losses=nothing.losses,
    )
    return sums, _RowColumns(labels=windows.next_token()[labelled], hits=hit[labelled], losses=loss)


def _hits(windows: Windows, targets: Targets, largest: np.ndarray) -> np.ndarray:
    """Whether the next token is (one of) the most probable of the row's head, bool [T]."""
    labels = np.repeat(windows.next_token(), targets.head_widths())
    at = np.flatnonzero(targets.head_ids == labels)
    rows = np.searchsorted(targets.head_offsets, at, side="right") - 1
    hit = np.zeros(targets.num_positions, dtype=bool)
    hit[rows] = targets.head_log_probs[at] == largest[rows]
    return hit


def _moments(entropy: np.ndarray | None, loss: np.ndarray) -> np.ndarray:
    if entropy is None:
        return np.zeros(6)
    columns = (np.ones(len(loss)), entropy, loss, entropy**2, loss**2, entropy * loss)
    return np.array([column.sum() for column in columns])


def _sum_labels(columns: list[_RowColumns]) -> DeepSums:
    nothing = _nothing()
    labels = np.concatenate([one.labels for one in columns]) if columns else np.zeros(0, np.int32)
    hits = np.concatenate([one.hits for one in columns]) if columns else np.zeros(0, bool)
    losses = np.concatenate([one.losses for one in columns]) if columns else np.zeros(0)
    return DeepSums(
        statistics=nothing.statistics,
        mass_by_rank=nothing.mass_by_rank,
        moments=nothing.moments,
        buckets=nothing.buckets,
        labels=np.bincount(labels).astype(np.float64),
        misses=np.bincount(labels, ~hits),
        losses=np.bincount(labels, losses),
    )


def _nothing() -> DeepSums:
    empty = np.zeros(0)
    return DeepSums(
        statistics=Statistics(),
        mass_by_rank=empty,
        moments=np.zeros(6),
        buckets=np.zeros((NUM_BUCKETS, 3)),
        labels=empty,
        misses=empty,
        losses=empty,
    )


def _add_padded(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
    total = longer.astype(np.float64)
    total[: len(shorter)] += shorter
    return total
