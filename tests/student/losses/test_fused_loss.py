"""The fused loss: projection, soft-cap, weights, backward pass."""

import math

import pytest
import torch

from logitcask.student.losses.fused_loss import fused_loss, project, scaled


def test_the_slope_is_the_derivative_of_the_soft_cap():
    hidden = torch.tensor([[0.5, -2.0]], dtype=torch.float64)
    raw = (hidden @ torch.eye(2, dtype=torch.float64)).requires_grad_()
    capped = 3 * torch.tanh(raw / 3)
    logits, slope = project(hidden, torch.eye(2, dtype=torch.float64), None, 3.0, keep_slope=True)
    torch.testing.assert_close(logits, capped.detach())
    torch.testing.assert_close(slope, torch.autograd.grad(capped.sum(), raw)[0])


def test_half_precision_logits_are_float32():
    hidden, weight = torch.ones(2, 3, dtype=torch.bfloat16), torch.ones(4, 3, dtype=torch.bfloat16)
    assert project(hidden, weight, None, None, keep_slope=False)[0].dtype == torch.float32


def infinite_cross_entropy(hidden, weight, bias, needed):
    losses = torch.tensor([1.0, 2.0]).double(), torch.tensor([math.inf, 0.0]).double()
    return *losses, [torch.ones_like(hidden), torch.ones_like(weight), None]


@pytest.mark.parametrize(("weight", "expected"), [(0.0, 1.5), (0.1, math.inf)])
def test_a_weight_of_zero_switches_an_infinite_loss_off(weight, expected):
    inputs = (torch.ones(2, 3), torch.ones(4, 3), None)
    assert fused_loss(inputs, infinite_cross_entropy, 0.5, weight).loss == expected


def test_the_backward_pass_scales_the_gradients():
    hidden, weight = torch.ones(2, 3, requires_grad=True), torch.ones(4, 3, requires_grad=True)
    (3 * fused_loss((hidden, weight, None), infinite_cross_entropy, 0.5, 0.0).loss).backward()
    assert (hidden.grad == 3).all()
    assert (weight.grad == 3).all()


def test_a_factor_of_one_copies_nothing():
    gradients = [torch.ones(3), None]
    assert scaled(gradients, torch.tensor(1.0)) is gradients
    assert scaled(gradients, torch.tensor(2.0))[0].tolist() == [2, 2, 2]
    assert scaled(gradients, torch.tensor(2.0))[1] is None
