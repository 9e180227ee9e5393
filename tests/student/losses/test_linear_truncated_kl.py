"""The chunked projection and loss against float64 autograd of the dense definition."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy, linear

from logitcask.student.losses.linear_truncated_kl import linear_truncated_kl
from logitcask.student.losses.targets import NO_LABEL
from logitcask.student.losses.truncated_kl import truncated_kl

WIDTHS = [3, 0, 7, 506, 507, 1, 2]


MASKED = [False, True, False, False, False, False, False]


VOCAB = 507


def inputs(rows: int, vocab_size: int, width: int = 8, dtype=torch.float64, seed: int = 5):
    """Hidden states [T, D], weight [V, D], bias [V] that need gradients, and labels [T], one of them missing."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    weight = torch.randn(vocab_size, width, generator=generator, dtype=torch.float64)
    bias = torch.randn(vocab_size, generator=generator, dtype=torch.float64)
    labels = torch.randint(vocab_size, (rows,), generator=generator)
    labels[-1:] = NO_LABEL
    return *(tensor.to(dtype).requires_grad_() for tensor in (hidden, weight, bias)), labels


def dense_loss(case, hidden, weight, bias, labels, *, kl_weight, ce_weight, softcap):
    """The definition: all logits at once, float64, plain autograd."""
    logits = linear(hidden.double(), weight.double(), None if bias is None else bias.double())
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    logits = logits[:, : case.targets.vocab_size]
    ce = cross_entropy(logits, labels, reduction="sum") if ce_weight else 0.0
    return kl_weight * case.dense_truncated_kl(logits).sum() + ce_weight * ce


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(("kl_weight", "ce_weight"), [(1.0, 0.0), (0.3, 0.7), (0.0, 1.0)])
def test_loss_and_all_gradients_equal_float64_autograd(random_case, softcap, with_bias, kl_weight, ce_weight):
    case = random_case(WIDTHS, VOCAB, masked=MASKED)
    hidden, weight, bias, labels = inputs(len(WIDTHS), VOCAB)
    leaves = [hidden, weight, bias] if with_bias else [hidden, weight]
    bias = bias if with_bias else None
    result = linear_truncated_kl(
        hidden, weight, bias, case.targets,
        labels_T=labels, kl_weight=kl_weight, cross_entropy_weight=ce_weight, softcap=softcap, chunk_rows=3,
    )  # fmt: skip
    dense = dense_loss(case, hidden, weight, bias, labels, kl_weight=kl_weight, ce_weight=ce_weight, softcap=softcap)
    torch.testing.assert_close(result.loss, dense, rtol=1e-12, atol=1e-12)
    for ours, exact in zip(torch.autograd.grad(result.loss, leaves), torch.autograd.grad(dense, leaves), strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-9, atol=1e-11)


def test_gradcheck_holds_for_hidden_weight_and_bias(random_case):
    case = random_case([2, 6, 0], 9, masked=[False, False, True])
    hidden, weight, bias, labels = inputs(3, 9, width=4)

    def loss(hidden, weight, bias):
        return linear_truncated_kl(
            hidden, weight, bias, case.targets,
            labels_T=labels, kl_weight=0.8, cross_entropy_weight=0.2, softcap=2.0, chunk_rows=2,
        ).loss * 1.7  # fmt: skip

    assert torch.autograd.gradcheck(loss, (hidden, weight, bias), atol=1e-7)


def test_per_position_losses_equal_the_plain_reference(random_case):
    case = random_case(WIDTHS, VOCAB, masked=MASKED)
    hidden, weight, bias, labels = inputs(len(WIDTHS), VOCAB)
    result = linear_truncated_kl(
        hidden, weight, bias, case.targets, labels_T=labels, cross_entropy_weight=1.0, chunk_rows=2
    )
    logits = linear(hidden, weight, bias)
    torch.testing.assert_close(result.kl, truncated_kl(logits, case.targets).detach())
    torch.testing.assert_close(result.cross_entropy, cross_entropy(logits, labels, reduction="none").detach())
    assert not result.kl.requires_grad


def test_float32_stays_within_1e_5_of_the_float64_truth(random_case):
    widths = [64] * 40
    case = random_case(widths, 2000)
    exact = inputs(40, 2000, width=32)
    rounded = inputs(40, 2000, width=32, dtype=torch.float32)
    truth = dense_loss(case, *exact, kl_weight=0.025, ce_weight=0.025, softcap=None)
    ours = linear_truncated_kl(
        *rounded[:3], case.targets, labels_T=rounded[3], kl_weight=0.025, cross_entropy_weight=0.025
    ).loss
    assert ours.item() == pytest.approx(truth.item(), rel=1e-5)
    for got, want in zip(torch.autograd.grad(ours, rounded[:3]), torch.autograd.grad(truth, exact[:3]), strict=True):
        assert ((got - want).norm() / want.norm()).item() < 1e-5


def test_bfloat16_is_no_worse_than_the_naive_loss_in_bfloat16(random_case):
    case = random_case([16] * 64, 600)
    exact = inputs(64, 600, width=32)
    truth = torch.autograd.grad(case.dense_truncated_kl(linear(*exact[:3])).sum(), exact[:2])

    rounded = inputs(64, 600, width=32, dtype=torch.bfloat16)
    naive = torch.autograd.grad(truncated_kl(linear(*rounded[:3]), case.targets).sum(), rounded[:2])
    rounded = inputs(64, 600, width=32, dtype=torch.bfloat16)
    ours = torch.autograd.grad(linear_truncated_kl(*rounded[:3], case.targets, chunk_rows=64).loss, rounded[:2])
    for got, plain, want in zip(ours, naive, truth, strict=True):
        assert (got - want).norm() <= 1.05 * (plain - want).norm()


@pytest.mark.parametrize("tail", [1e-12, 1e-7, 1e-3, 1 - 1e-7])
@pytest.mark.parametrize("confidence", [0.0, 30.0, 200.0])
def test_extreme_tails_and_confident_rows_keep_gradients_accurate(truncate, tail, confidence):
    vocab_size = 50
    teacher = torch.full((1, vocab_size), tail / (vocab_size - 1), dtype=torch.float64)
    teacher[0, 3] = 1 - tail
    case = truncate(teacher, [1])
    if tail > 0.5:  # the head must hold one small entry
        case = truncate(teacher.roll(1), [1])
    hidden, weight, bias, _ = inputs(1, vocab_size, dtype=torch.float32)
    with torch.no_grad():
        bias[3] += confidence
    exact = [tensor.detach().double().requires_grad_() for tensor in (hidden, weight, bias)]
    truth = torch.autograd.grad(case.dense_truncated_kl(linear(*exact)).sum(), exact[2])[0]
    result = linear_truncated_kl(hidden, weight, bias, case.targets)
    ours = torch.autograd.grad(result.loss, bias)[0]
    assert result.loss.isfinite()
    assert result.loss >= 0
    assert ((ours - truth).norm() / truth.norm()).item() < 1e-4


def test_a_student_that_matches_its_teacher_has_zero_loss_and_gradient(random_case):
    case = random_case([5, 9, 20], 20)
    hidden = torch.eye(3, requires_grad=True)
    weight = case.teacher.log().float().T.contiguous().requires_grad_()
    result = linear_truncated_kl(hidden, weight, None, case.targets)
    assert 0 <= result.loss.item() < 1e-10
    assert torch.autograd.grad(result.loss, weight)[0].abs().max() < 1e-6


def test_impossible_logits_give_no_nan(random_case):
    case = random_case([2, 2], 6)
    hidden, weight, bias, labels = inputs(2, 6, dtype=torch.float32)
    with torch.no_grad():
        bias[~case.is_head.any(0)] = -math.inf
    # The probability of some label is 0.
    result = linear_truncated_kl(hidden, weight, bias, case.targets, labels_T=labels)
    gradients = torch.autograd.grad(result.loss, [hidden, weight, bias])
    assert not result.loss.isnan()
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_an_all_masked_batch_gives_zero_loss_and_zero_gradients(random_case):
    case = random_case([3, 3], 10, masked=[True, True])
    hidden, weight, bias, _ = inputs(2, 10)
    labels = torch.full((2,), NO_LABEL)
    result = linear_truncated_kl(hidden, weight, bias, case.targets, labels_T=labels, cross_entropy_weight=0.5)
    gradients = torch.autograd.grad(result.loss, [hidden, weight, bias])
    assert result.loss.item() == 0
    assert all((gradient == 0).all() for gradient in gradients)


def test_a_batch_without_rows_gives_zero(random_case):
    case = random_case([3], 10)
    hidden, weight, bias, _ = inputs(0, 10)
    result = linear_truncated_kl(hidden, weight, bias, case.targets.select(0, 0))
    result.loss.backward()
    assert result.loss.item() == 0
    assert (weight.grad == 0).all()


def test_ids_beyond_the_teachers_vocabulary_have_no_effect(random_case):
    case = random_case([3, 4], 20)
    hidden, weight, bias, labels = inputs(2, 32)
    result = linear_truncated_kl(
        hidden, weight, bias, case.targets, labels_T=labels % 20, kl_weight=1.0, cross_entropy_weight=1.0
    )
    narrow = linear_truncated_kl(
        hidden, weight[:20], bias[:20], case.targets, labels_T=labels % 20, cross_entropy_weight=1.0
    )
    torch.testing.assert_close(result.loss, narrow.loss)
    assert (torch.autograd.grad(result.loss, weight)[0][20:] == 0).all()


def test_the_size_of_chunks_does_not_change_the_loss(random_case):
    case = random_case(WIDTHS, VOCAB)
    hidden, weight, bias, _ = inputs(len(WIDTHS), VOCAB)
    one, many = (linear_truncated_kl(hidden, weight, bias, case.targets, chunk_rows=rows).loss for rows in (100, 1))
    torch.testing.assert_close(one, many)


def test_frozen_embeddings_cost_no_gradient(random_case):
    case = random_case([3], 20)
    hidden, weight, _, _ = inputs(1, 20)
    result = linear_truncated_kl(hidden, weight.detach(), None, case.targets)
    result.loss.backward()
    assert weight.grad is None
    assert hidden.grad is not None


@pytest.mark.parametrize(
    ("rows", "columns", "weight", "message"),
    [
        (3, 20, 0.0, "output has 3 rows, the targets 2"),
        (2, 19, 0.0, "19 ids, the teacher 20"),
        (2, 20, 0.5, "no labels_T"),
    ],
)
def test_inputs_that_do_not_match_are_refused(random_case, rows, columns, weight, message):
    case = random_case([3, 4], 20)
    hidden, embeddings, _, _ = inputs(rows, columns)
    with pytest.raises(ValueError, match=message):
        linear_truncated_kl(hidden, embeddings, None, case.targets, cross_entropy_weight=weight)


@pytest.mark.parametrize(("place", "id_", "found"), [("head", 20, 20), ("head", -1, -1), ("labels", 20, 20)])
def test_ids_outside_the_teachers_vocabulary_are_refused(random_case, place, id_, found):
    targets = random_case([3, 4], 20).targets
    labels = torch.tensor([id_ if place == "labels" else 3, NO_LABEL])
    if place == "head":
        targets = replace(targets, head_ids=targets.head_ids.index_fill(0, torch.tensor([2]), id_))
    hidden, weight, _, _ = inputs(2, 32)
    with pytest.raises(ValueError, match=rf"the {place} has id {found}, but the teacher's ids are 0 to 19"):
        linear_truncated_kl(hidden, weight, None, targets, labels_T=labels)


def test_many_chunks_do_not_degrade_a_bfloat16_gradient(random_case):
    case = random_case([16] * 64, 100)
    rounded = inputs(64, 100, width=32, dtype=torch.bfloat16)[:3]
    exact = [leaf.detach().double().requires_grad_() for leaf in rounded]
    truth = torch.autograd.grad(case.dense_truncated_kl(linear(*exact)).sum(), exact)
    one, many = (
        torch.autograd.grad(linear_truncated_kl(*rounded, case.targets, chunk_rows=rows).loss, rounded)
        for rows in (64, 2)
    )
    for whole, cut, want in zip(one, many, truth, strict=True):
        assert (cut - want).norm() <= 1.02 * (whole - want).norm()
