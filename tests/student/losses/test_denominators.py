"""Sums over positions, divided once by the global counts: the same however a batch is cut."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch import Tensor

from logitcask.student.losses.linear_truncated_kl import linear_truncated_kl
from logitcask.student.losses.targets import NO_LABEL, RaggedTargets

ROWS, VOCAB = 12, 40


@pytest.fixture
def targets(random_case) -> RaggedTargets:
    """Rows without a target come first, rows without a label last: the counts differ, and so do those of the pieces."""
    return random_case([index % 7 for index in range(ROWS)], VOCAB, masked=[index < 2 for index in range(ROWS)]).targets


def weights() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(ROWS, 8, generator=generator)
    weight = torch.randn(VOCAB, 8, generator=generator)
    labels = torch.randint(VOCAB, (ROWS,), generator=generator)
    labels[-5:] = NO_LABEL
    return hidden, weight, labels


def loss_and_gradient(targets: RaggedTargets, pieces: Sequence[tuple[int, int]]) -> Tensor:
    """Loss and gradient of the weight, summed over pieces of the batch, flat."""
    hidden, weight, labels = weights()
    num_targets, num_labels = int(targets.has_target.sum()), int((labels != NO_LABEL).sum())
    assert num_targets != num_labels
    weight.requires_grad_()
    total = torch.zeros(())
    for start, stop in pieces:
        loss = linear_truncated_kl(
            hidden[start:stop], weight, None, targets.select(start, stop),
            labels_T=labels[start:stop], kl_weight=0.9 / num_targets, cross_entropy_weight=0.1 / num_labels,
        ).loss  # fmt: skip
        loss.backward()
        total += loss.detach()
    assert weight.grad is not None
    return torch.cat([total.reshape(1), weight.grad.flatten()])


@pytest.mark.parametrize("pieces", [[(0, 6), (6, 12)], [(0, 1), (1, 2), (2, 9), (9, 12)]], ids=["halves", "uneven"])
def test_accumulated_pieces_equal_the_whole_batch(targets, pieces):
    whole = loss_and_gradient(targets, [(0, ROWS)])
    torch.testing.assert_close(loss_and_gradient(targets, pieces), whole, rtol=1e-6, atol=1e-7)


def half_of_the_batch(rank: int, directory: str, targets: RaggedTargets) -> None:
    """One of two processes; what they sum is written by the first."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{directory}/meeting", rank=rank, world_size=2)
    mine = loss_and_gradient(targets, [(5 * rank, 5 + 7 * rank)])
    torch.distributed.all_reduce(mine)
    if rank == 0:
        torch.save(mine, Path(directory) / "sum.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_gloo_processes_equal_one(targets, tmp_path):
    torch.multiprocessing.spawn(half_of_the_batch, (str(tmp_path), targets), nprocs=2)
    both = torch.load(tmp_path / "sum.pt")
    torch.testing.assert_close(both, loss_and_gradient(targets, [(0, ROWS)]), rtol=1e-6, atol=1e-7)
