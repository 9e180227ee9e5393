"""Compares two datasets: their summaries, and the targets of the windows that both contain.

Windows are equal if their content hashes are. Two heads seldom hold the same ids, so each pair of targets is compared
on the finest partition of the vocabulary that both determine: one bucket for each id in both heads, and one for all
others. Merging buckets never increases a divergence (data-processing inequality), so the KL is a lower bound of the KL
of the full distributions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from logitcask.schemas.dataset.shard_view import SnapshotShard, open_shard
from logitcask.schemas.dataset.snapshot import Snapshot
from logitcask.schemas.format.reader import Block
from logitcask.schemas.format.targets import Targets
from logitcask.schemas.inspection.summary import describe
from logitcask.schemas.inspection.top_ids import most_probable_ids, row_of_entry

SCHEMA = "logitcask.compare/1"
KL_BOUNDS = (0.001, 0.01, 0.1, 1.0)
# The windows of one text are in few shards of each dataset.
_MAX_OPEN_SHARDS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """Sums over R rows that have a target on both sides.

    Attributes:
        rows: R.
        kl, reverse_kl: Σ of the finite KL(A‖B) and KL(B‖A) on the shared partition, in nats.
        infinite: Rows where one of the two is infinite: one side has no mass where the other has some.
        above: Rows whose KL(A‖B) exceeds each of `KL_BOUNDS`.
        with_heads, same_top: Rows with a head on both sides, and those among them with the same most probable id.
        shared, either: Number of ids in both heads, and in at least one, summed over rows.
        tail_difference: Σ |tail_A − tail_B| of tail masses.
        entropy_rows, entropy_difference: Rows with an entropy on both sides, and Σ |H_A − H_B|.
    """

    rows: int = 0
    kl: float = 0.0
    reverse_kl: float = 0.0
    infinite: int = 0
    above: tuple[int, ...] = (0,) * len(KL_BOUNDS)
    with_heads: int = 0
    same_top: int = 0
    shared: int = 0
    either: int = 0
    tail_difference: float = 0.0
    entropy_rows: int = 0
    entropy_difference: float = 0.0

    def __add__(self, other: "Agreement") -> "Agreement":
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in self.__dataclass_fields__}
        above = tuple(a + b for a, b in zip(*pairs.pop("above"), strict=True))
        return Agreement(above=above, **{name: a + b for name, (a, b) in pairs.items()})


def compare(a: Snapshot, b: Snapshot) -> dict[str, Any]:
    """The value that `inspect A B --json` prints.

    Raises:
        CorruptShardError, MissingShardError: A shard is damaged or missing.
    """
    same_ids = _vocabulary(a) == _vocabulary(b)
    matched, agreement = 0, Agreement()
    for ours, theirs in _matching_targets(a, b) if same_ids else ():
        matched += 1
        agreement += compare_targets(ours, theirs)
    return {
        "schema": SCHEMA,
        "a": describe(a),
        "b": describe(b),
        "same_vocabulary": same_ids,
        "windows": {"a": a.total().num_windows, "b": b.total().num_windows, "matched": matched},
        "agreement": _describe(agreement) if agreement.rows else None,
    }


def compare_targets(a: Targets, b: Targets) -> Agreement:
    """Compares the targets of the same T rows."""
    both = a.has_target() & b.has_target()
    kl, reverse_kl, shared = _divergences(a, b)
    finite = both & np.isfinite(kl) & np.isfinite(reverse_kl)
    tops = [most_probable_ids(one) for one in (a, b)]
    with_heads = both & (tops[0] >= 0) & (tops[1] >= 0)
    entries = int((a.head_widths() + b.head_widths())[both].sum())
    tails = [np.exp(one.log_tail[both].astype(np.float64)) for one in (a, b)]
    entropy = _difference(a.entropy, b.entropy, both)
    return Agreement(
        rows=int(both.sum()),
        kl=float(kl[finite].sum()),
        reverse_kl=float(reverse_kl[finite].sum()),
        infinite=int((both & ~finite).sum()),
        above=tuple(int((kl[both] > bound).sum()) for bound in KL_BOUNDS),
        with_heads=int(with_heads.sum()),
        same_top=int((tops[0] == tops[1])[with_heads].sum()),
        shared=int(shared[both].sum()),
        either=entries - int(shared[both].sum()),
        tail_difference=float(np.abs(tails[0] - tails[1]).sum()),
        entropy_rows=len(entropy),
        entropy_difference=float(entropy.sum()),
    )


def _divergences(a: Targets, b: Targets) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """KL(A‖B), KL(B‖A) and the number of ids in both heads, each [T]."""
    num_rows = a.num_positions
    rows_a, rows_b = row_of_entry(a), row_of_entry(b)
    _, at_a, at_b = np.intersect1d(
        _keys(rows_a, a.head_ids), _keys(rows_b, b.head_ids), assume_unique=True, return_indices=True
    )
    rows = rows_a[at_a]
    log_a, log_b = a.head_log_probs[at_a].astype(np.float64), b.head_log_probs[at_b].astype(np.float64)
    rest_a, rest_b = _rest(a, rows_a, at_a), _rest(b, rows_b, at_b)
    gap = log_a - log_b
    kl = np.bincount(rows, np.exp(log_a) * gap, num_rows) + _term(rest_a, rest_b)
    reverse = np.bincount(rows, -np.exp(log_b) * gap, num_rows) + _term(rest_b, rest_a)
    return kl, reverse, np.bincount(rows, minlength=num_rows)


def _keys(rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """A number for each entry, unique to its row and id."""
    return (rows << 32) + ids


def _rest(targets: Targets, rows: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """The mass outside the shared buckets, [T]: summed, never 1 − Σ."""
    alone = np.ones(len(rows), dtype=bool)
    alone[shared] = False
    masses = np.exp(targets.head_log_probs[alone].astype(np.float64))
    tail = np.exp(np.where(targets.has_target(), targets.log_tail, -np.inf).astype(np.float64))
    return np.bincount(rows[alone], masses, targets.num_positions) + tail


def _term(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """p·log(p/q); 0 where p is 0, infinite where only q is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(p > 0, p * (np.log(p) - np.log(q)), 0.0)


def _difference(a: np.ndarray | None, b: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
    if a is None or b is None:
        return np.zeros(0)
    return np.abs(a[rows].astype(np.float64) - b[rows])


def _vocabulary(snapshot: Snapshot) -> str | None:
    return snapshot.identity.vocabulary_fingerprint


class _OpenShards:
    """Reads the targets of single windows; keeps the last few shards open, each with its last row group."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._entries = snapshot.shards()
        self._opened: dict[int, SnapshotShard] = {}
        self._blocks: dict[int, tuple[int, int, Block]] = {}

    def targets(self, shard: int, window: int) -> Targets:
        """The targets of a window of shard number `shard`."""
        if shard not in self._opened:
            if len(self._opened) == _MAX_OPEN_SHARDS:
                self._close(next(iter(self._opened)))
            self._opened[shard] = open_shard(self._snapshot, self._entries[shard])
        start, stop, block = self._blocks.get(shard, (0, 0, None))
        if block is None or not start <= window < stop:
            start, stop = self._opened[shard].block_of(window)
            block = self._opened[shard].read(start, stop)
            self._blocks[shard] = (start, stop, block)
        assert block.targets is not None
        rows = block.windows.window_offsets[window - start : window - start + 2]
        return block.targets.select_rows(int(rows[0]), int(rows[1]))

    def _close(self, shard: int) -> None:
        self._opened.pop(shard).close()
        self._blocks.pop(shard, None)

    def __enter__(self) -> "_OpenShards":
        return self

    def __exit__(self, *_: object) -> None:
        for shard in list(self._opened):
            self._close(shard)


def _matching_targets(a: Snapshot, b: Snapshot) -> Iterator[tuple[Targets, Targets]]:
    """The targets of each window that is in both snapshots, in the order of `a`."""
    ours, theirs = _places(a), _places(b)
    with _OpenShards(a) as shards_a, _OpenShards(b) as shards_b:
        for found, place in ours.items():
            if found in theirs:
                yield shards_a.targets(*place), shards_b.targets(*theirs[found])


def _places(snapshot: Snapshot) -> dict[str, tuple[int, int]]:
    """Content hash of each window → index of its shard, and index in the shard."""
    places: dict[str, tuple[int, int]] = {}
    for index, entry in enumerate(snapshot.shards()):
        with open_shard(snapshot, entry) as shard:
            for window, found in enumerate(shard.window_hashes()):
                places.setdefault(found, (index, window))
    return places


def _describe(agreement: Agreement) -> dict[str, Any]:
    finite = max(agreement.rows - agreement.infinite, 1)
    return {
        "rows": agreement.rows,
        "kl_a_to_b_nats": agreement.kl / finite,
        "kl_b_to_a_nats": agreement.reverse_kl / finite,
        "kl_is": "lower bound: over the buckets of the ids in both heads, and one for all others",
        "infinite_rows": agreement.infinite,
        "share_of_rows_with_kl_above": {
            f"{bound:g}": count / agreement.rows for bound, count in zip(KL_BOUNDS, agreement.above, strict=True)
        },
        "top1_agreement": agreement.same_top / agreement.with_heads if agreement.with_heads else None,
        "head_overlap": agreement.shared / agreement.either if agreement.either else None,
        "mean_tail_mass_difference": agreement.tail_difference / agreement.rows,
        "mean_entropy_difference_nats": (
            agreement.entropy_difference / agreement.entropy_rows if agreement.entropy_rows else None
        ),
    }
