"""The order in which windows are taken: a pure function, so that resuming and resizing need no replay.

The order of one dataset is an endless sequence of epochs, each with its own permutation. A permutation sorts hashes of
the window numbers; a library's generator is not used, because its streams may change with its version. Several datasets
are interleaved by weight in a repeating pattern. Place n of the order depends only on the datasets, the weights and the
seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from math import gcd

import numpy as np

from logitcask.schemas.errors import UsageError

# Windows that are read together: a row group holds eight windows of 1,024 positions.
BLOCK_WINDOWS = 8
# Weights are rounded to one part in this number, which is also the maximum length of the repeating pattern.
_PATTERN_PLACES = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowSource:
    """The windows of one dataset.

    Attributes:
        shard_windows: Number of windows of each shard, in the order of the snapshot.
        weight: How often its windows are taken, relative to the other sources.
        without_target: Numbers of windows that have no target. They are never taken, and not counted below.
    """

    shard_windows: tuple[int, ...]
    weight: float = 1.0
    without_target: tuple[int, ...] = ()

    @property
    def num_windows(self) -> int:
        """Windows with a target in all shards."""
        return sum(self.shard_windows) - len(self.without_target)


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowOrder:
    """The endless order of a run's windows.

    Attributes:
        sources: At least one. Windows are numbered over all of them, in order.
        seed: Any integer; each seed gives other permutations.
        buffer_windows: None: shuffle an epoch as a whole. Else shuffle blocks of eight consecutive windows, then the
            windows within buffers of this size: a reader that keeps a buffer in memory reads each block once.

    Caches the order of the latest epoch of each source, 8 bytes per window: batches pass through epochs once, and each
    source of a mixture is in its own epoch.

    Raises:
        UsageError: A weight of 0 or below, or a buffer smaller than a block.
    """

    sources: tuple[WindowSource, ...]
    seed: int
    buffer_windows: int | None = None
    _latest: dict[int, tuple[int, np.ndarray]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not all(source.weight > 0 for source in self.sources):
            raise UsageError(f"weights must be above 0; found {[source.weight for source in self.sources]}")
        if self.buffer_windows is not None and self.buffer_windows < BLOCK_WINDOWS:
            raise UsageError(
                f"a shuffle buffer must hold at least {BLOCK_WINDOWS} windows; found {self.buffer_windows}"
            )

    @property
    def num_windows(self) -> int:
        """Windows with a target, of all sources."""
        return sum(source.num_windows for source in self.sources)

    def take(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """The windows at places start..stop of the order, and the epoch of each within its source; int64."""
        places = np.arange(start, stop)
        which, own_places = _interleaved(tuple(source.weight for source in self.sources), places)
        windows, epochs = np.empty_like(places), np.empty_like(places)
        first = 0
        for number, source in enumerate(self.sources):
            mine = which == number
            epochs[mine], inside = np.divmod(own_places[mine], source.num_windows)
            windows[mine] = first + self._permuted(number, epochs[mine], inside)
            first += sum(source.shard_windows)
        return windows, epochs

    def _permuted(self, number: int, epochs: np.ndarray, places: np.ndarray) -> np.ndarray:
        windows = np.empty_like(places)
        for epoch in np.unique(epochs):
            now = epochs == epoch
            windows[now] = self._epoch(number, int(epoch))[places[now]]
        return windows

    def _epoch(self, number: int, epoch: int) -> np.ndarray:
        """A source's windows in the order of one epoch, cached until another epoch is needed."""
        if self._latest.get(number, (None,))[0] != epoch:
            # Sources of equal lengths must not have equal permutations.
            seed, source = self.seed + (number << 40), self.sources[number]
            order = epoch_order(source.shard_windows, seed, epoch, self.buffer_windows)
            self._latest[number] = (epoch, order[~np.isin(order, source.without_target)])
        return self._latest[number][1]


def _interleaved(weights: tuple[float, ...], places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The source of each place, and the number of windows of that source before it; int64."""
    pattern, before = _pattern(integer_shares(weights))
    rounds, inside = np.divmod(places, len(pattern))
    shares = np.bincount(pattern)
    return pattern[inside], rounds * shares[pattern[inside]] + before[inside]


@lru_cache(maxsize=8)
def _pattern(shares: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The sources in the order of one round, spread evenly, and the number of each place within its source.

    Item j of a source with share w is at (j + ½) / w of the round. So at any place, each source has been taken as often
    as its weight says, to within one or two windows.
    """
    source = np.repeat(np.arange(len(shares)), shares)
    number = np.concatenate([np.arange(share) for share in shares])
    # Equal fractions are equal in float64, because division rounds correctly; others differ by at least 1e-9.
    time = (2 * number + 1) / (2 * np.array(shares)[source])
    by_time = np.lexsort((source, time))
    return source[by_time], number[by_time]


def integer_shares(weights: Sequence[float]) -> tuple[int, ...]:
    """Integers in proportion to the weights, to one part in 10,000; none is 0.

    Raises:
        UsageError: A weight is less than about a ten-thousandth of the total.
    """
    total = sum(Fraction(weight) for weight in weights)
    shares = [round(Fraction(weight) / total * _PATTERN_PLACES) for weight in weights]
    if not all(shares):
        raise UsageError(f"a weight below 1/{_PATTERN_PLACES:,} of the total is too small; found {weights}")
    common = gcd(*shares)
    return tuple(share // common for share in shares)


def epoch_order(shard_windows: tuple[int, ...], seed: int, epoch: int, buffer_windows: int | None = None) -> np.ndarray:
    """All windows of a dataset in the order of one epoch, int64 [num_windows]."""
    if buffer_windows is None:
        return epoch_permutation(sum(shard_windows), seed, epoch)
    return _buffered_order(shard_windows, seed, epoch, buffer_windows)


def epoch_permutation(num_items: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of 0..num_items − 1, int64, different for each seed and epoch."""
    mask = (1 << 64) - 1
    key = _splitmix64(_splitmix64(np.array([seed & mask], np.uint64)) ^ np.uint64(epoch))
    hashes = _splitmix64(np.arange(num_items, dtype=np.uint64) ^ key)
    return np.argsort(hashes, kind="stable")


def _buffered_order(shard_windows: tuple[int, ...], seed: int, epoch: int, buffer_windows: int) -> np.ndarray:
    """Blocks in the order of a permutation, and windows shuffled within buffers of `buffer_windows`."""
    starts, lengths = _blocks(shard_windows)
    blocks = epoch_permutation(len(starts), seed, epoch)
    lengths = lengths[blocks]
    offsets = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    windows = np.repeat(starts[blocks], lengths) + offsets
    # The rank of each window in a permutation of all windows serves as its hash.
    rank = np.argsort(epoch_permutation(len(windows), ~seed, epoch))
    buffer = np.arange(len(windows)) // buffer_windows
    return windows[np.lexsort((rank[windows], buffer))]


def _blocks(shard_windows: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """First window and length of each block; no block crosses a shard boundary."""
    sizes = np.array(shard_windows, dtype=np.int64)
    counts = -(-sizes // BLOCK_WINDOWS)
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    first = number * BLOCK_WINDOWS
    starts = np.repeat(np.cumsum(sizes) - sizes, counts) + first
    return starts, np.minimum(np.repeat(sizes, counts) - first, BLOCK_WINDOWS)


def _splitmix64(values: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64 (Steele, Lea and Flood 2014), elementwise; a bijection of uint64."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
