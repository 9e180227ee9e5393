"""Sums over every row of a dataset.

The entries of heads are summed block by block and dropped; what is left of a row is summed in lots of many rows, since
each lot costs some thousand steps of the interpreter.

Shapes: T rows.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

import numpy as np

from logitcask.schemas.format import quantizer
from logitcask.schemas.format.reader import StoredBlock
from logitcask.schemas.format.targets import TargetRows
from logitcask.schemas.inspection.deep.head_sums import sum_heads
from logitcask.schemas.stats.target_statistics import Statistics
from logitcask.schemas.stats.vocabulary_statistics import WIDTHS

NUM_BUCKETS = 10
_LOT_ROWS = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class DeepSums:
    """Sums over rows, L different ids among their labels.

    Attributes:
        statistics: As the snapshot has them, but of stored values.
        mass_of_top_k: For each of `WIDTHS`, the mass of so many most probable entries, float64 [10].
        moments: Over rows with entropy and loss: n, Σe, Σl, Σe², Σl², Σel.
        buckets: By the largest probability, in tenths: rows, Σ largest probability, hits; float64 [10, 3].
        label_ids: The ids, ascending, int64 [L].
        by_label: Of rows with each: rows, rows whose most probable id is another, Σ loss; float64 [L, 3].
    """

    statistics: Statistics
    mass_of_top_k: np.ndarray
    moments: np.ndarray
    buckets: np.ndarray
    label_ids: np.ndarray
    by_label: np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rows:
    """What is kept of T rows until their shard is done.

    Attributes:
        kind: uint8 [T].
        labels: The next token, int32 [T]; -1 where the part ends.
        targets: Without the entries of the heads, with tails as decoding divides them.
        log_largest: Of the heads, float32 [T]; -inf where there is none.
        hits: Whether the next token is as probable as the most probable id of the row's head, bool [T].
        mass_of_top_k: As in `DeepSums`.
    """

    kind: np.ndarray
    labels: np.ndarray
    targets: TargetRows
    log_largest: np.ndarray
    hits: np.ndarray
    mass_of_top_k: np.ndarray

    @classmethod
    def concatenate(cls, pieces: list["_Rows"]) -> "_Rows":
        """All rows of one piece or more."""
        columns = ("kind", "labels", "log_largest", "hits")
        return cls(
            **{name: np.concatenate([getattr(piece, name) for piece in pieces]) for name in columns},
            targets=TargetRows.concatenate([piece.targets for piece in pieces]),
            mass_of_top_k=np.sum([piece.mass_of_top_k for piece in pieces], axis=0),
        )


def add_up(shards: Iterable[DeepSums]) -> DeepSums:
    """The sums over all of them, added in their order."""
    statistics, by_id = Statistics(), np.zeros((0, 3))
    mass_of_top_k, moments, buckets = np.zeros(len(WIDTHS)), np.zeros(6), np.zeros((NUM_BUCKETS, 3))
    for shard in shards:
        statistics += shard.statistics
        mass_of_top_k += shard.mass_of_top_k
        moments += shard.moments
        buckets += shard.buckets
        num_missing = int(shard.label_ids.max(initial=-1)) + 1 - len(by_id)
        by_id = np.concatenate([by_id, np.zeros((max(num_missing, 0), 3))]) if num_missing > 0 else by_id
        by_id[shard.label_ids] += shard.by_label
    label_ids = np.flatnonzero(by_id[:, 0])
    return DeepSums(
        statistics=statistics,
        mass_of_top_k=mass_of_top_k,
        moments=moments,
        buckets=buckets,
        label_ids=label_ids,
        by_label=by_id[label_ids],
    )


def sum_blocks(blocks: Iterable[StoredBlock]) -> DeepSums:
    """The sums over target blocks, in bounded memory."""
    return add_up(_sum_rows(_Rows.concatenate(lot)) for lot in _lots(map(_without_entries, blocks)))


def _lots(pieces: Iterable["_Rows"]) -> Iterator[list["_Rows"]]:
    """Pieces together until they are enough rows."""
    lot: list[_Rows] = []
    for piece in pieces:
        lot.append(piece)
        if sum(len(one.kind) for one in lot) >= _LOT_ROWS:
            yield lot
            lot = []
    if lot:
        yield lot


def _without_entries(block: StoredBlock) -> _Rows:
    targets, labels = block.targets, block.windows.next_token()
    assert targets is not None
    heads = sum_heads(targets)
    shared = {one.name: getattr(targets, one.name) for one in fields(TargetRows)}
    divided = {"head_ids": np.zeros(0, np.int32), "log_tail": targets.log_tail - heads.log_mass}
    return _Rows(
        kind=block.windows.kind,
        labels=labels,
        targets=TargetRows(**{**shared, **divided}),
        log_largest=heads.log_largest,
        hits=_hits(targets.log_next, heads.least_q),
        mass_of_top_k=heads.mass_of_top_k,
    )


def _hits(log_next: np.ndarray, least_q: np.ndarray) -> np.ndarray:
    """Whether the next token's stored probability can be the byte of the head's most probable entry, bool [T].

    Without looking for its id among the entries, which are four fifths of a shard. The most probable id always counts;
    so does one whose probability is less by less than a step, of which bytes say no more.
    """
    highest = np.minimum(np.nan_to_num(log_next, nan=-np.inf) + 0.5 / quantizer.STEPS_PER_NAT, 0)
    return (quantizer.quantize_head(highest) <= least_q) & (least_q < 255)


def _sum_rows(rows: _Rows) -> DeepSums:
    labelled = rows.targets.has_label()
    loss = -rows.targets.log_next[labelled].astype(np.float64)
    labels, hits = rows.labels[labelled], rows.hits[labelled]
    label_ids = np.flatnonzero(np.bincount(labels))
    by_label = [np.bincount(labels, one)[label_ids] for one in (np.ones(len(labels)), ~hits, loss)]
    entropy = rows.targets.entropy
    return DeepSums(
        statistics=Statistics.of_rows(rows.kind, rows.targets),
        mass_of_top_k=rows.mass_of_top_k,
        moments=np.zeros(6) if entropy is None else _moments(entropy[labelled].astype(np.float64), loss),
        buckets=_buckets(rows.log_largest[labelled], hits),
        label_ids=label_ids,
        by_label=np.stack(by_label, axis=1),
    )


def _moments(entropy: np.ndarray, loss: np.ndarray) -> np.ndarray:
    columns = (np.ones(len(loss)), entropy, loss, entropy**2, loss**2, entropy * loss)
    return np.array([column.sum() for column in columns])


def _buckets(log_largest: np.ndarray, hits: np.ndarray) -> np.ndarray:
    has_head = np.isfinite(log_largest)
    largest = np.exp(log_largest[has_head])
    bucket = np.minimum(largest * NUM_BUCKETS, NUM_BUCKETS - 1).astype(np.int64)
    columns = (np.ones(len(bucket)), largest, hits[has_head])
    return np.stack([np.bincount(bucket, one, NUM_BUCKETS) for one in columns], axis=1)
