"""The means that a trainer logs: sums over the positions since the last log line, divided once."""

import time
from dataclasses import dataclass

import torch

from logitcask.student.data.collator import Batch, count_positions
from logitcask.student.losses.fused_loss import LinearLoss

# Indices into the sums.
_KL, _CROSS_ENTROPY, _TARGETS, _LABELS, _TOKENS = range(5)


@dataclass(frozen=True, kw_only=True, slots=True)
class LogMeans:
    """Means over the positions with a target (KL) and with a label (cross-entropy), and the speed."""

    kl_nats: float
    cross_entropy_nats: float
    num_tokens: int
    tokens_per_second: float


class LogSums:
    """Sums since the last log line, float64 on the device, so that adding never waits for it."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(5, dtype=torch.float64, device=device)
        self.restart_clock()

    def restart_clock(self) -> None:
        """Measures the speed from now on."""
        self._start_seconds = time.monotonic()

    def add(self, result: LinearLoss, batch: Batch) -> None:
        """Adds a micro-batch."""
        self._sums[_KL] += result.kl.double().sum()
        self._sums[_CROSS_ENTROPY] += result.cross_entropy.double().sum()
        self._sums[[_TARGETS, _LABELS]] += count_positions([batch]).to(self._sums)
        self._sums[_TOKENS] += batch["num_positions"]

    def take(self, num_ranks: int) -> LogMeans:
        """The means over all processes; the sums restart at zero."""
        if num_ranks > 1:
            torch.distributed.all_reduce(self._sums)
        sums, seconds = self._sums.tolist(), time.monotonic() - self._start_seconds
        self._sums.zero_()
        self.restart_clock()
        return LogMeans(
            kl_nats=sums[_KL] / max(sums[_TARGETS], 1),
            cross_entropy_nats=sums[_CROSS_ENTROPY] / max(sums[_LABELS], 1),
            num_tokens=int(sums[_TOKENS]),
            tokens_per_second=sums[_TOKENS] / seconds,
        )
