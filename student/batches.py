"""Which windows make up global batch g: a pure function, so that resuming and resizing need no replay.

Batches are consecutive stretches of an endless sequence of epochs; each epoch is a permutation of its own. It is
made by sorting a hash of the window's number, not by a library's generator, whose streams may change with its
version: a run continues with equal batches after an upgrade.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from schemas.errors import UsageError


def batch_windows(num_windows: int, batch_size_windows: int, seed: int, batch: int) -> np.ndarray:
    """Windows of global batch `batch` (from 0), int64 [batch_size_windows].

    Args:
        num_windows: Windows in the dataset.
        batch_size_windows: Windows in a global batch, over all ranks and accumulation steps.
        seed: Any integer; another seed gives other permutations.
        batch: Global batches count on over epochs; one may end an epoch and begin the next.
    """
    sequence = np.arange(batch * batch_size_windows, (batch + 1) * batch_size_windows)
    epochs, places = np.divmod(sequence, num_windows)
    windows = np.empty_like(sequence)
    for epoch in np.unique(epochs):
        inside = epochs == epoch
        windows[inside] = epoch_permutation(num_windows, seed, int(epoch))[places[inside]]
    return windows


@lru_cache(maxsize=2)
def epoch_permutation(num_windows: int, seed: int, epoch: int) -> np.ndarray:
    """All windows in the order of one epoch, int64 [num_windows]."""
    mask = (1 << 64) - 1
    key = _splitmix64(_splitmix64(np.array([seed & mask], np.uint64)) ^ np.uint64(epoch))
    hashes = _splitmix64(np.arange(num_windows, dtype=np.uint64) ^ key)
    return np.argsort(hashes, kind="stable")


def _splitmix64(values: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014), element by element; a bijection of uint64."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchPlan:
    """The order of a run, and how a global batch is cut over ranks and accumulation steps.

    Attributes:
        num_windows: Windows in the dataset.
        batch_size_windows: Windows in a global batch.
        micro_batch_windows: Windows in one forward pass of one rank.
        seed: Of the permutations.
        num_batches: Global batches in the run.
        num_ranks: Data-parallel processes.

    Raises:
        UsageError: A global batch cannot be cut into whole micro-batches for each rank.
    """

    num_windows: int
    batch_size_windows: int
    micro_batch_windows: int
    seed: int
    num_batches: int
    num_ranks: int = 1

    def __post_init__(self) -> None:
        if self.batch_size_windows % (self.num_ranks * self.micro_batch_windows):
            raise UsageError(
                f"a batch of {self.batch_size_windows} windows cannot be cut into micro-batches of "
                f"{self.micro_batch_windows} on {self.num_ranks} processes; make it a multiple of "
                f"{self.num_ranks * self.micro_batch_windows}"
            )

    @property
    def micro_batches_per_rank(self) -> int:
        """Accumulation steps."""
        return self.batch_size_windows // (self.num_ranks * self.micro_batch_windows)

    def micro_batches(self, rank: int, batch: int) -> np.ndarray:
        """Windows of a rank's micro-batches of a global batch, int64 [micro_batches_per_rank, micro_batch_windows].

        Which windows share a global batch does not depend on the number of ranks.
        """
        windows = batch_windows(self.num_windows, self.batch_size_windows, self.seed, batch)
        return windows.reshape(self.num_ranks, -1, self.micro_batch_windows)[rank]

    def micro_epochs(self, rank: int, batch: int) -> np.ndarray:
        """The epoch, from 0, that each window of `micro_batches` is taken in, same shape."""
        first = batch * self.batch_size_windows
        epochs = np.arange(first, first + self.batch_size_windows) // self.num_windows
        return epochs.reshape(self.num_ranks, -1, self.micro_batch_windows)[rank]


class RankBatches:
    """All micro-batches of one rank in order, as a batch sampler for `torch.utils.data.DataLoader`.

    Yields lists of (window, epoch).
    """

    def __init__(self, plan: BatchPlan, rank: int) -> None:
        self._plan, self._rank = plan, rank
        self.batch_size = plan.micro_batch_windows
        self.drop_last = False

    def __len__(self) -> int:
        return self._plan.num_batches * self._plan.micro_batches_per_rank

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in range(self._plan.num_batches):
            windows, epochs = (of(self._rank, batch) for of in (self._plan.micro_batches, self._plan.micro_epochs))
            for pair in zip(windows.tolist(), epochs.tolist(), strict=True):
                yield list(zip(*pair, strict=True))
