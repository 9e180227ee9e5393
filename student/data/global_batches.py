"""Which windows make up global batch g, and how it is divided over ranks and accumulation steps.

Batches are consecutive ranges of the run's order (`student.data.order`), so batch g is a pure function of the datasets,
their weights, the seed, g and the global batch size. It depends neither on the number of ranks nor on earlier reads.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from logitcask.schemas.errors import UsageError
from logitcask.student.data.order import WindowOrder


@dataclass(frozen=True, kw_only=True, slots=True)
class GlobalBatches:
    """The batches of a run.

    Attributes:
        order: The order of the windows.
        batch_size_windows: Windows per global batch.
        micro_batch_windows: Windows per forward pass of one rank.
        num_batches: Global batches in the run.
        num_ranks: Data-parallel processes.

    Raises:
        UsageError: A global batch cannot be divided into whole micro-batches for each rank.
    """

    order: WindowOrder
    batch_size_windows: int
    micro_batch_windows: int
    num_batches: int
    num_ranks: int = 1

    def __post_init__(self) -> None:
        if self.batch_size_windows % (self.num_ranks * self.micro_batch_windows):
            raise UsageError(
                f"a batch of {self.batch_size_windows} windows cannot be divided into micro-batches of "
                f"{self.micro_batch_windows} on {self.num_ranks} processes; make it a multiple of "
                f"{self.num_ranks * self.micro_batch_windows}"
            )

    @property
    def micro_batches_per_rank(self) -> int:
        """Accumulation steps."""
        return self.batch_size_windows // (self.num_ranks * self.micro_batch_windows)

    def windows(self, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """Windows of global batch `batch` (from 0) and the epoch of each, int64 [batch_size_windows]."""
        return self.order.take(batch * self.batch_size_windows, (batch + 1) * self.batch_size_windows)

    def micro_batches(self, rank: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """A rank's part of `windows`, both int64 [micro_batches_per_rank, micro_batch_windows]."""
        windows, epochs = (
            column.reshape(self.num_ranks, -1, self.micro_batch_windows)[rank] for column in self.windows(batch)
        )
        return windows, epochs


class RankBatches:
    """The micro-batches of one rank in order, as a batch sampler for `torch.utils.data.DataLoader`.

    Yields lists of (window, epoch).
    """

    def __init__(self, batches: GlobalBatches, rank: int) -> None:
        self._batches, self._rank = batches, rank
        self.batch_size = batches.micro_batch_windows
        self.drop_last = False

    def __len__(self) -> int:
        return self._batches.num_batches * self._batches.micro_batches_per_rank

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in range(self._batches.num_batches):
            windows, epochs = self._batches.micro_batches(self._rank, batch)
            for pair in zip(windows.tolist(), epochs.tolist(), strict=True):
                yield list(zip(*pair, strict=True))
