"""Targets to targets: where the mass goes. The losses they give are in test_objectives."""

import math
from dataclasses import replace

import pytest
import torch

from logitcask.student.losses.divergences import (
    HeadTemperedKL,
    JensenShannon,
    SampledCrossEntropy,
    forward_kl,
    reverse_kl,
)
from logitcask.student.losses.linear_truncated_kl import linear_truncated_kl
from logitcask.student.losses.tail_treatments import at_temperature, renormalized, residual_to_label, with_label_bucket
from logitcask.student.losses.targets import NO_LABEL, RaggedTargets
from logitcask.student.losses.truncated_kl import truncated_kl


def one_row(head: dict[int, float], log_next: float = math.nan, draws: list[int] | None = None) -> RaggedTargets:
    """A row with these head probabilities over ten ids, the rest in the tail."""
    ids = sorted(head)
    tail = 1 - math.fsum(head.values())
    return RaggedTargets(
        head_ids=torch.tensor(ids, dtype=torch.long),
        head_log_probs=torch.tensor([head[i] for i in ids]).double().log(),
        head_offsets=torch.tensor([0, len(ids)]),
        log_tail=torch.tensor([tail]).double().log(),
        vocab_size=10,
        log_next=torch.tensor([log_next]).double(),
        sample_ids=None if draws is None else torch.tensor(draws, dtype=torch.long),
        sample_offsets=None if draws is None else torch.tensor([0, len(draws)]),
    )


def masses(targets: RaggedTargets) -> dict[int, float]:
    pairs = zip(targets.head_ids.tolist(), targets.head_log_probs.exp().tolist(), strict=True)
    return {id_: pytest.approx(mass, abs=1e-7) for id_, mass in pairs}


def random_logits(rows: int = 1, columns: int = 10) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_residual_goes_to_a_label_outside_the_head():
    targets = residual_to_label(one_row({2: 0.5, 7: 0.3}), torch.tensor([4]))
    assert masses(targets) == {2: 0.5, 4: 0.2, 7: 0.3}
    assert targets.log_tail.item() == -math.inf


def test_the_residual_is_added_to_a_label_in_the_head():
    assert masses(residual_to_label(one_row({2: 0.5, 7: 0.3}), torch.tensor([7]))) == {2: 0.5, 7: 0.5}


def test_a_row_without_a_label_keeps_its_other_bucket():
    targets = residual_to_label(one_row({2: 0.5, 7: 0.3}), torch.tensor([NO_LABEL]))
    assert masses(targets) == {2: 0.5, 7: 0.3}
    assert targets.log_tail.exp().item() == pytest.approx(0.2)


def test_a_label_outside_the_head_takes_its_mass_out_of_the_other_bucket():
    targets = with_label_bucket(one_row({2: 0.5, 7: 0.3}, math.log(0.05)), torch.tensor([4]))
    assert masses(targets) == {2: 0.5, 4: 0.05, 7: 0.3}
    assert targets.log_tail.exp().item() == pytest.approx(0.15)


def test_a_label_in_the_head_changes_nothing():
    targets = with_label_bucket(one_row({2: 0.5, 7: 0.3}, math.log(0.3)), torch.tensor([7]))
    assert masses(targets) == {2: 0.5, 7: 0.3}
    assert targets.log_tail.exp().item() == pytest.approx(0.2)


def test_a_label_whose_rounded_mass_exceeds_the_tail_takes_all_of_it():
    targets = with_label_bucket(one_row({2: 0.5, 7: 0.3}, math.log(0.2001)), torch.tensor([4]))
    assert masses(targets) == {2: 0.5, 4: 0.2, 7: 0.3}
    assert targets.log_tail.item() == -math.inf
    assert truncated_kl(random_logits(), targets).isfinite().all()


def test_the_labels_bucket_needs_its_probability():
    with pytest.raises(ValueError, match="log_next"):
        with_label_bucket(replace(one_row({2: 0.5}), log_next=None), torch.tensor([4]))


def test_renormalising_keeps_the_tail_of_a_row_without_a_head():
    targets = renormalized(one_row({}))
    assert targets.log_tail.item() == 0
    assert truncated_kl(random_logits(), targets).item() == pytest.approx(0, abs=1e-12)


def test_a_temperature_that_is_not_stored_is_refused():
    with pytest.raises(ValueError, match="no tail at temperature 2"):
        at_temperature(one_row({2: 0.5}), 2.0)


def test_draws_alone_estimate_the_full_cross_entropy():
    logits_TV = random_logits()
    draws = [0, 0, 3, 9]
    loss = truncated_kl(logits_TV, one_row({}, draws=draws), divergence=SampledCrossEntropy())
    assert loss.item() == pytest.approx(-logits_TV.log_softmax(-1)[0, draws].mean().item())


def test_the_sampled_gradient_is_unbiased():
    """Averaged over every possible draw from the tail, it is what full distillation gives."""
    head, tail = {2: 0.5, 7: 0.3}, {0: 0.12, 4: 0.05, 9: 0.03}
    teacher = torch.zeros(1, 10, dtype=torch.float64)
    for id_, mass in {**head, **tail}.items():
        teacher[0, id_] = mass
    logits_TV = random_logits().requires_grad_()
    expected = torch.zeros_like(logits_TV)
    for id_, mass in tail.items():
        loss = truncated_kl(logits_TV, one_row(head, draws=[id_]), divergence=SampledCrossEntropy())
        expected += mass / 0.2 * torch.autograd.grad(loss.sum(), logits_TV)[0]
    torch.testing.assert_close(expected, logits_TV.detach().softmax(-1) - teacher, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("options", [{"temperature": 2.0}, {}])
def test_a_sampled_loss_is_refused_at_a_temperature_and_without_a_sample(options):
    targets = one_row({2: 0.5}, draws=[4] if options else None)
    message = "temperature 2" if options else "no tail sample"
    hidden, weight = random_logits(1, 3), random_logits(10, 3)
    with pytest.raises(ValueError, match=message):
        truncated_kl(random_logits(), targets, divergence=SampledCrossEntropy(), **options)
    with pytest.raises(ValueError, match=message):
        linear_truncated_kl(hidden, weight, None, targets, divergence=SampledCrossEntropy(), **options)


def test_a_reverse_kl_stays_finite_where_the_teacher_has_no_tail():
    targets = one_row({2: 0.75, 7: 0.25})
    logits_TV = random_logits().requires_grad_()
    loss = truncated_kl(logits_TV, targets, divergence=reverse_kl)
    student = logits_TV.detach().softmax(-1)[0]
    other = 1 - student[2] - student[7]
    expected = sum(student[i] * (student[i] / t).log() for i, t in ((2, 0.75), (7, 0.25)))
    assert loss.item() == pytest.approx((expected + other * (other.log() + 32)).item(), rel=1e-6)


def test_a_jensen_shannon_divergence_divided_by_beta_tends_to_the_forward_kl():
    targets, logits_TV = one_row({2: 0.5, 7: 0.3}), random_logits()
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
