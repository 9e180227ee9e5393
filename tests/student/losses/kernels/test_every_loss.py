"""Every loss in Triton kernels against its dense definition."""

from dataclasses import replace

import pytest
import torch
from dense_losses import (
    PLAIN,
    SAMPLED,
    WIDTHS,
    check_against_dense,
    every_setting,
    extreme_logits,
    leaves,
    name_of,
    relative_error,
)

from logitcask.student.losses.linear_truncated_kl import linear_truncated_kl
from logitcask.student.losses.loss_settings import LossSettings


def kernel_blocks(monkeypatch: pytest.MonkeyPatch, columns: int = 200, rows: int = 5) -> None:
    """Blocks that divide neither the vocabulary nor the rows."""
    monkeypatch.setattr("logitcask.student.losses.kernels.linear_loss.BLOCK_COLUMNS", columns)
    monkeypatch.setattr("logitcask.student.losses.kernels.linear_loss.BLOCK_ROWS", rows)


def check_kernels(monkeypatch, problem, settings, ce_weight, softcap):
    kernel_blocks(monkeypatch)
    inputs = leaves(len(WIDTHS), torch.float32)
    result = linear_truncated_kl(
        *inputs, **problem.options(settings), labels_T=problem.labels, kl_weight=0.4, cross_entropy_weight=ce_weight,
        softcap=softcap, impl="triton",
    )  # fmt: skip
    check_against_dense(problem, settings, result.loss, inputs, ce_weight, softcap, tolerance=1e-5)


@pytest.mark.parametrize("settings", [PLAIN[0], SAMPLED[1], replace(PLAIN[2], temperature=2.0)], ids=name_of)
def test_kernels_equal_the_dense_definition(monkeypatch, problem, settings):
    check_kernels(monkeypatch, problem, settings, ce_weight=0.7, softcap=3.0)


@pytest.mark.slow
@every_setting
def test_kernels_equal_every_dense_definition(monkeypatch, problem, settings):
    check_kernels(monkeypatch, problem, settings, ce_weight=0.0, softcap=None)


def test_extreme_tails_keep_the_gradient_of_the_kernels_accurate(extreme):
    settings, logits_TV = LossSettings(), extreme_logits()
    exact = logits_TV.double().requires_grad_()
    truth = torch.autograd.grad(extreme.dense(exact, settings).sum(), exact)[0]
    hidden, weight = torch.eye(len(logits_TV)), logits_TV.T.contiguous().requires_grad_()
    loss = linear_truncated_kl(hidden, weight, None, **extreme.options(settings), impl="triton").loss
    assert (relative_error(torch.autograd.grad(loss, weight)[0].T, truth) < 1e-4).all()
