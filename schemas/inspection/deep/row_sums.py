"""Sums over every row of a dataset.

The entries of heads are summed and dropped block by block. The remaining columns are summed in batches of many rows,
since each batch costs some thousand steps of the interpreter.

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
_BATCH_ROWS = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class DeepSums:
    """Sums over rows whose labels have L different ids.

    Attributes:
        statistics: The snapshot's statistics, here of stored values.
        mass_of_top_k: For each k of `WIDTHS`, the mass of the k most probable entries, float64 [10].
        moments: Over rows with entropy e and loss l: n, Σe, Σl, Σe², Σl², Σel.
        buckets: For each tenth of the largest probability: rows, Σ largest probability, hits; float64 [10, 3].
        label_ids: The ids of labels, ascending, int64 [L].
        by_label: For each of them: rows, rows whose most probable id is another one, Σ loss; float64 [L, 3].
    """

    statistics: Statistics
    mass_of_top_k: np.ndarray
    moments: np.ndarray
    buckets: np.ndarray
    label_ids: np.ndarray
    by_label: np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rows:
    """The columns of T rows that are kept until they are summed.

    Attributes:
        kind: uint8 [T].
        labels: The next token, int32 [T]; -1 where the part ends.
        targets: Decoded tails and the other columns, without the entries of heads.
        log_largest: The largest log-probability of the head, float32 [T]; -inf without a head.
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
        """The rows of all pieces; there is at least one."""
        columns = ("kind", "labels", "log_largest", "hits")
        return cls(
            **{name: np.concatenate([getattr(piece, name) for piece in pieces]) for name in columns},
            targets=TargetRows.concatenate([piece.targets for piece in pieces]),
            mass_of_top_k=np.sum([piece.mass_of_top_k for piece in pieces], axis=0),
        )


def add_up(shards: Iterable[DeepSums]) -> DeepSums:
    """The sums over all shards, added in their order."""
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
    return add_up(_sum_rows(_Rows.concatenate(batch)) for batch in _batches(map(_without_entries, blocks)))


def _batches(pieces: Iterable[_Rows]) -> Iterator[list[_Rows]]:
    """Groups pieces into batches of at least `_BATCH_ROWS` rows; the last may be smaller."""
    batch: list[_Rows] = []
    for piece in pieces:
        batch.append(piece)
        if sum(len(one.kind) for one in batch) >= _BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _without_entries(block: StoredBlock) -> _Rows:
    targets, labels = block.targets, block.windows.next_token()
    assert targets is not None
    heads = sum_heads(targets)
    shared = {one.name: getattr(targets, one.name) for one in fields(TargetRows)}
    decoded = {"head_ids": np.zeros(0, np.int32), "log_tail": targets.log_tail - heads.log_mass}
    return _Rows(
        kind=block.windows.kind,
        labels=labels,
        targets=TargetRows(**{**shared, **decoded}),
        log_largest=heads.log_largest,
        hits=_hits(targets.log_next, heads.least_q),
        mass_of_top_k=heads.mass_of_top_k,
    )


def _hits(log_next: np.ndarray, least_q: np.ndarray) -> np.ndarray:
    """Whether the next token's stored probability can have the byte of the head's most probable entry, bool [T].

    This does not read the ids of the entries, which are four fifths of a shard. The most probable id always counts as a
    hit; so does an id that is less probable by under one step, since the bytes do not tell the two apart.
    """
    highest = np.minimum(np.nan_to_num(log_next, nan=-np.inf) + 0.5 / quantizer.STEPS_PER_NAT, 0)
    return (quantizer.quantize_head(highest) <= least_q) & (least_q < 255)


def _sum_rows(rows: _Rows) -> DeepSums:
    labeled = rows.targets.has_label()
    loss = -rows.targets.log_next[labeled].astype(np.float64)
    labels, hits = rows.labels[labeled], rows.hits[labeled]
    label_ids = np.flatnonzero(np.bincount(labels))
    by_label = [np.bincount(labels, one)[label_ids] for one in (np.ones(len(labels)), ~hits, loss)]
    entropy = rows.targets.entropy
    return DeepSums(
        statistics=Statistics.of_rows(rows.kind, rows.targets),
        mass_of_top_k=rows.mass_of_top_k,
        moments=np.zeros(6) if entropy is None else _moments(entropy[labeled].astype(np.float64), loss),
        buckets=_buckets(rows.log_largest[labeled], hits),
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
