"""Logged means: sums over positions, divided once."""

import torch

from logitcask.student.data.collator import Batch
from logitcask.student.losses.fused_loss import LinearLoss
from logitcask.student.losses.targets import NO_LABEL
from logitcask.student.training.log_means import LogSums


def result(kl: list[float], cross_entropy: list[float]) -> LinearLoss:
    return LinearLoss(loss=torch.tensor(0.0), kl=torch.tensor(kl), cross_entropy=torch.tensor(cross_entropy))


def batch(labels: list[int], num_positions: int) -> Batch:
    return {"labels": torch.tensor(labels), "num_positions": torch.tensor(num_positions)}


def test_means_divide_by_targets_and_labels_of_all_batches():
    sums = LogSums(torch.device("cpu"))
    sums.add(result([1.0, 2.0], [4.0, 0.0]), batch([5, NO_LABEL], 3))
    sums.add(result([6.0], [8.0]), batch([7], 4))
    means = sums.take(num_ranks=1)
    assert (means.kl_nats, means.cross_entropy_nats, means.num_tokens) == (3.0, 6.0, 7)
    assert means.tokens_per_second > 0


def test_taking_the_means_restarts_the_sums():
    sums = LogSums(torch.device("cpu"))
    sums.add(result([1.0], [4.0]), batch([5], 3))
    sums.take(num_ranks=1)
    means = sums.take(num_ranks=1)
    assert (means.kl_nats, means.cross_entropy_nats, means.num_tokens) == (0.0, 0.0, 0)
