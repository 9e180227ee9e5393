"""Every plain loss against its dense definition, and the edge cases of each divergence."""

import math
from dataclasses import replace

import pytest
import torch
from dense_losses import HEAD_TEMPERED, PLAIN, SAMPLED, TEMPERED, every_setting, name_of, random_logits
from one_row import one_row, random_row

from logitcask.student.losses.divergences import (
    HeadTemperedKL,
    JensenShannon,
    SampledCrossEntropy,
    forward_kl,
    reverse_kl,
)
from logitcask.student.losses.linear_truncated_kl import linear_truncated_kl
from logitcask.student.losses.targets import NO_LABEL
from logitcask.student.losses.truncated_kl import truncated_kl


@every_setting
def test_plain_loss_and_gradient_equal_the_dense_definition(problem, settings):
    logits_TV, options = random_logits().requires_grad_(), problem.options(settings)
    ours_T, dense_T = truncated_kl(logits_TV, **options), problem.dense(logits_TV, settings)
    has_target = options["targets"].has_target
    torch.testing.assert_close(ours_T[has_target], dense_T, rtol=1e-9, atol=1e-11)
    assert (ours_T[~has_target] == 0).all()
    ours, exact = (torch.autograd.grad(loss.sum(), logits_TV)[0] for loss in (ours_T, dense_T))
    torch.testing.assert_close(ours, exact, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("settings", [PLAIN[1], PLAIN[2], SAMPLED[0], HEAD_TEMPERED[0]], ids=name_of)
def test_the_plain_loss_traces_as_one_graph(problem, settings):
    torch.compiler.reset()  # each case compiles the same function again
    logits_TV, options = random_logits(), problem.options(settings)
    compiled = torch.compile(truncated_kl, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(logits_TV, **options), truncated_kl(logits_TV, **options))


@pytest.mark.parametrize("settings", TEMPERED, ids=name_of)
def test_a_tempered_tail_with_all_the_mass_drops_the_heads_terms(problem, settings):
    """A `tail@T` that is rounded to 0 steps."""
    targets = problem.targets.select(5, 8)
    targets = replace(targets, tempered_log_tails={2.0: torch.zeros(3)})
    problem = replace(problem, targets=targets, labels=torch.tensor([NO_LABEL, 3, int(targets.head_ids[-1])]))
    logits_TV = random_logits(3).requires_grad_()
    loss_T = truncated_kl(logits_TV, **problem.options(settings))
    assert loss_T.isfinite().all()
    assert torch.autograd.grad(loss_T.sum(), logits_TV)[0].isfinite().all()
    if settings.tail != "raw" and settings.divergence == "forward":
        rest = (logits_TV[0] / 2).softmax(-1).index_fill(0, targets.head_ids[:1], 0).sum()
        assert loss_T[0].item() == pytest.approx(-4 * rest.log().item())


def test_draws_alone_estimate_the_full_cross_entropy():
    logits_TV = random_row()
    draws = [0, 0, 3, 9]
    loss = truncated_kl(logits_TV, one_row({}, draws=draws), divergence=SampledCrossEntropy())
    assert loss.item() == pytest.approx(-logits_TV.log_softmax(-1)[0, draws].mean().item())


def test_the_sampled_gradient_is_unbiased():
    """Averaged over every possible draw from the tail, it equals the gradient of full distillation."""
    head, tail = {2: 0.5, 7: 0.3}, {0: 0.12, 4: 0.05, 9: 0.03}
    teacher = torch.zeros(1, 10, dtype=torch.float64)
    for id_, mass in {**head, **tail}.items():
        teacher[0, id_] = mass
    logits_TV = random_row().requires_grad_()
    expected = torch.zeros_like(logits_TV)
    for id_, mass in tail.items():
        loss = truncated_kl(logits_TV, one_row(head, draws=[id_]), divergence=SampledCrossEntropy())
        expected += mass / 0.2 * torch.autograd.grad(loss.sum(), logits_TV)[0]
    torch.testing.assert_close(expected, logits_TV.detach().softmax(-1) - teacher, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("options", [{"temperature": 2.0}, {}])
def test_a_sampled_loss_is_refused_at_a_temperature_and_without_a_sample(options):
    targets = one_row({2: 0.5}, draws=[4] if options else None)
    message = "temperature 2" if options else "no tail sample"
    hidden, weight = random_row(1, 3), random_row(10, 3)
    with pytest.raises(ValueError, match=message):
        truncated_kl(random_row(), targets, divergence=SampledCrossEntropy(), **options)
    with pytest.raises(ValueError, match=message):
        linear_truncated_kl(hidden, weight, None, targets, divergence=SampledCrossEntropy(), **options)


def test_a_reverse_kl_is_finite_where_the_teacher_has_no_tail():
    targets = one_row({2: 0.75, 7: 0.25})
    logits_TV = random_row().requires_grad_()
    loss = truncated_kl(logits_TV, targets, divergence=reverse_kl)
    student = logits_TV.detach().softmax(-1)[0]
    other = 1 - student[2] - student[7]
    expected = sum(student[i] * (student[i] / t).log() for i, t in ((2, 0.75), (7, 0.25)))
    assert loss.item() == pytest.approx((expected + other * (other.log() + 32)).item(), rel=1e-6)


def test_jensen_shannon_divided_by_beta_tends_to_the_forward_kl():
    targets, logits_TV = one_row({2: 0.5, 7: 0.3}), random_row()
    tiny = truncated_kl(logits_TV, targets, divergence=JensenShannon(beta=1e-6)) / 1e-6
    torch.testing.assert_close(tiny, truncated_kl(logits_TV, targets), rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    "divergence",
    [forward_kl, reverse_kl, JensenShannon(), HeadTemperedKL(temperature=3.0)],
    ids=["forward", "reverse", "jsd", "head-tempered"],
)
def test_a_student_that_matches_has_no_loss_and_no_gradient(divergence):
    targets = one_row({2: 0.5, 7: 0.3})
    logits_TV = torch.full((1, 10), math.log(0.2 / 8), dtype=torch.float64)
    logits_TV[0, 2], logits_TV[0, 7] = math.log(0.5), math.log(0.3)
    logits_TV.requires_grad_()
    loss = truncated_kl(logits_TV, targets, divergence=divergence)
    assert abs(loss.item()) < 1e-7
    assert torch.autograd.grad(loss.sum(), logits_TV)[0].abs().max() < 1e-6


@pytest.mark.parametrize("make", [lambda: JensenShannon(beta=0), lambda: HeadTemperedKL(temperature=0)])
def test_divergences_refuse_parameters_out_of_range(make):
    with pytest.raises(ValueError, match="found 0"):
        make()
