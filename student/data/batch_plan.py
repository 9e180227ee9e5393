"""Which windows make up global batch g, and how it is cut over ranks and accumulation steps.

Batches are consecutive stretches of the run's order (`student.data.order`), so batch g is a pure function of the
datasets, their weights, the seed, g and the global batch size: neither the number of ranks nor what was read before
has a say.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from logitcask.schemas.errors import UsageError
from logitcask.student.data.order import WindowOrder


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchPlan:
    """The batches of a run.

    Attributes:
        order: Of the windows.
        batch_size_windows: Windows in a global batch.
        micro_batch_windows: Windows in one forward pass of one rank.
        num_batches: Global batches in the run.
        num_ranks: Data-parallel processes.

    Raises:
        UsageError: A global batch cannot be cut into whole micro-batches for each rank.
    """

    order: WindowOrder
    batch_size_windows: int
    micro_batch_windows: int
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

    def windows(self, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """Windows of global batch `batch` (from 0) and the epoch each is taken in, int64 [batch_size_windows]."""
        return self.order.take(batch * self.batch_size_windows, (batch + 1) * self.batch_size_windows)

    def micro_batches(self, rank: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """A rank's part of `windows`, both int64 [micro_batches_per_rank, micro_batch_windows]."""
        windows, epochs = (
            column.reshape(self.num_ranks, -1, self.micro_batch_windows)[rank] for column in self.windows(batch)
        )
        return windows, epochs


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
            windows, epochs = self._plan.micro_batches(self._rank, batch)
            for pair in zip(windows.tolist(), epochs.tolist(), strict=True):
                yield list(zip(*pair, strict=True))
