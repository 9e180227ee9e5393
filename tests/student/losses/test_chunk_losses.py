"""Every fused loss against its dense definition."""

from dataclasses import replace

import pytest
import torch
from dense_losses import VOCAB, WIDTHS, check_against_dense, every_setting, extreme_logits, leaves, relative_error
from torch.nn.functional import linear

from logitcask.student.losses.chunk_losses import row_ranges
from logitcask.student.losses.linear_truncated_kl import linear_truncated_kl
from logitcask.student.losses.targets import NO_LABEL
from logitcask.student.losses.truncated_kl import truncated_kl


@pytest.mark.parametrize(("ce_weight", "softcap"), [(0.0, None), (0.7, 3.0)])
@every_setting
def test_fused_loss_and_all_gradients_equal_the_dense_definition(problem, settings, ce_weight, softcap):
    inputs = leaves(len(WIDTHS))
    result = linear_truncated_kl(
        *inputs, **problem.options(settings), labels_T=problem.labels, kl_weight=0.4, cross_entropy_weight=ce_weight,
        softcap=softcap, chunk_rows=3,
    )  # fmt: skip
    check_against_dense(problem, settings, result.loss, inputs, ce_weight, softcap, tolerance=1e-9)


@every_setting
def test_float32_stays_within_1e_5_of_the_float64_truth(problem, settings):
    inputs = leaves(len(WIDTHS), torch.float32)
    loss = linear_truncated_kl(*inputs, **problem.options(settings), kl_weight=0.4, chunk_rows=3).loss
    check_against_dense(problem, settings, loss, inputs, 0.0, None, tolerance=1e-5)


@every_setting
def test_bfloat16_is_no_worse_than_the_naive_loss_in_bfloat16(problem, settings):
    fused, naive, exact = bfloat16_gradients(problem, settings, chunk_rows=3)
    for got, other, want in zip(fused, naive, exact, strict=True):
        assert (got - want).norm() <= 1.05 * (other - want).norm()


def bfloat16_gradients(problem, settings, **how):
    """Of hidden states and weight: fused and naive in bfloat16, and in float64, of the same numbers."""
    options, rounded = problem.options(settings), leaves(len(WIDTHS), torch.bfloat16)
    exact = [leaf.detach().double().requires_grad_() for leaf in rounded]
    losses = [
        (linear_truncated_kl(*rounded, **options, **how).loss, rounded),
        (truncated_kl(linear(*rounded), **options).sum(), rounded),
        (problem.dense(linear(*exact), settings).sum(), exact),
    ]
    return [torch.autograd.grad(loss, inputs[:2]) for loss, inputs in losses]


@every_setting
def test_an_all_masked_batch_gives_zero_and_zero_gradients(problem, settings):
    masked = replace(problem, targets=problem.targets.select(1, 2), labels=torch.tensor([NO_LABEL]))
    inputs = leaves(1)
    result = linear_truncated_kl(*inputs, **masked.options(settings), labels_T=masked.labels, cross_entropy_weight=0.5)
    assert result.loss.item() == 0
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(result.loss, inputs))


@every_setting
def test_padding_ids_of_a_student_change_nothing_and_get_no_gradient(problem, settings):
    hidden, weight, _ = leaves(len(WIDTHS))
    wide = torch.cat([weight, 9 * torch.ones(5, 8, dtype=torch.float64)]).detach().requires_grad_()
    options = problem.options(settings)
    padded = linear_truncated_kl(hidden, wide, None, **options).loss
    torch.testing.assert_close(padded, linear_truncated_kl(hidden, weight, None, **options).loss)
    assert (torch.autograd.grad(padded, wide)[0][VOCAB:] == 0).all()


@every_setting
def test_impossible_ids_give_no_nan(problem, settings):
    hidden, weight, bias = leaves(len(WIDTHS), torch.float32)
    with torch.no_grad():
        bias[::3] = float("-inf")
    result = linear_truncated_kl(hidden, weight, bias, **problem.options(settings))
    assert not result.loss.isnan()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(result.loss, [hidden, weight, bias]))


@every_setting
def test_extreme_tails_keep_the_gradient_of_every_row_accurate(extreme, settings):
    logits_TV = extreme_logits()
    exact = logits_TV.double().requires_grad_()
    truth = torch.autograd.grad(extreme.dense(exact, settings).sum(), exact)[0]
    plain = logits_TV.requires_grad_()
    of_plain = torch.autograd.grad(truncated_kl(plain, **extreme.options(settings)).sum(), plain)[0]
    assert (relative_error(of_plain, truth) < 1e-4).all()
    # With unit vectors as hidden states, the weight is the logits.
    hidden, weight = torch.eye(len(logits_TV)), logits_TV.detach().T.contiguous().requires_grad_()
    loss = linear_truncated_kl(hidden, weight, None, **extreme.options(settings)).loss
    assert (relative_error(torch.autograd.grad(loss, weight)[0].T, truth) < 1e-4).all()


@pytest.mark.parametrize(("num_rows", "max_rows"), [(10, 4), (8, 4), (1, 4), (0, 4)])
def test_row_ranges_cover_all_rows_with_nearly_equal_sizes(num_rows, max_rows):
    ranges = list(row_ranges(num_rows, max_rows))
    assert [row for start, stop in ranges for row in range(start, stop)] == list(range(num_rows))
    sizes = [stop - start for start, stop in ranges]
    assert not sizes or (max(sizes) <= max_rows and max(sizes) - min(sizes) <= 1)
