"""Projection, soft-cap and weights of the fused losses."""

import math

import torch

from logitcask.student.losses.linear_projection import project, scaled, weighted_losses


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


def test_a_weight_of_zero_switches_an_infinite_loss_off():
    kl, cross_entropy = torch.tensor([1.0, 2.0]), torch.tensor([math.inf, 0.0])
    loss, *_ = weighted_losses(kl, cross_entropy, 0.5, 0.0, like=kl)
    assert loss == 1.5
    assert weighted_losses(kl, cross_entropy, 0.5, 0.1, like=kl)[0] == math.inf


def test_a_factor_of_one_copies_nothing():
    gradient = torch.ones(3)
    assert scaled(gradient, torch.tensor(1.0)) is gradient
    assert scaled(gradient, torch.tensor(2.0)).tolist() == [2, 2, 2]
    assert scaled(None, torch.tensor(2.0)) is None
