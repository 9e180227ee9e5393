"""Losses and gradients of rows from gathered logits, against autograd."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from logitcask.student.losses.divergences import forward_kl, reverse_kl
from logitcask.student.losses.row_gradients import (
    GatheredLogits,
    GatherIndex,
    LogitGradients,
    cross_entropy_of_rows,
    divergence_of_rows,
)
from logitcask.student.losses.targets import NO_LABEL
from logitcask.student.losses.truncated_kl import truncated_kl

ROWS, VOCAB = 3, 9


@pytest.fixture
def logits() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(ROWS, VOCAB, generator=generator, dtype=torch.float64).requires_grad_()


def gathered(logits_TV: torch.Tensor, index: GatherIndex) -> GatheredLogits:
    rest = logits_TV.detach().index_put((index.head_rows, index.head_ids), torch.tensor(float("-inf")).double())
    pairs = (
        (index.head_rows, index.head_ids),
        (index.sample_rows, index.sample_ids),
        (index.label_rows, index.label_ids),
    )
    head, sample, label = (logits_TV.detach()[pair] for pair in pairs)
    return GatheredLogits(head=head, sample=sample, label=label, other=rest.logsumexp(-1))


def whole(gradients: LogitGradients, logits_TV: torch.Tensor, index: GatherIndex) -> torch.Tensor:
    rest = logits_TV.detach().index_put((index.head_rows, index.head_ids), torch.tensor(float("-inf")).double())
    found = gradients.complement.unsqueeze(-1) * rest.softmax(-1)
    found[index.head_rows, index.head_ids] = gradients.head
    found.index_put_((index.label_rows, index.label_ids), gradients.label, accumulate=True)
    return found


def test_the_gradient_of_a_divergence_is_that_of_autograd(random_case, logits):
    targets = random_case([2, 1, 4], VOCAB).targets
    index = GatherIndex.of(targets, torch.full((ROWS,), NO_LABEL))
    for divergence in (forward_kl, reverse_kl):
        plain = truncated_kl(logits, targets, divergence=divergence)
        loss, gradients = divergence_of_rows(targets, index, gathered(logits, index), divergence, True)
        torch.testing.assert_close(loss, plain.detach())
        torch.testing.assert_close(whole(gradients, logits, index), torch.autograd.grad(plain.sum(), logits)[0])


def test_the_gradient_of_the_cross_entropy_is_that_of_autograd(random_case, logits):
    labels = torch.tensor([0, NO_LABEL, 5])
    index = GatherIndex.of(random_case([2, 1, 4], VOCAB).targets, labels)
    plain = cross_entropy(logits, labels, reduction="none")
    loss, gradients = cross_entropy_of_rows(index, gathered(logits, index), 0.5)
    torch.testing.assert_close(loss, plain.detach())
    torch.testing.assert_close(whole(gradients, logits, index), 0.5 * torch.autograd.grad(plain.sum(), logits)[0])
