"""Full distillation against the dense float64 definition."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from logitcask.student.losses.full_kl import linear_full_kl


@pytest.fixture(scope="module")
def case() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 30, (11,), generator=generator)
    labels[[2, 7]] = -100
    return {
        "hidden": torch.randn(11, 6, generator=generator, dtype=torch.float64),
        "weight": torch.randn(33, 6, generator=generator, dtype=torch.float64),  # wider than the teacher's 30
        "bias": torch.randn(33, generator=generator, dtype=torch.float64),
        "teacher": 3 * torch.randn(11, 30, generator=generator, dtype=torch.float64),
        "labels": labels,
    }


def leaves(case, dtype=torch.float64) -> list[torch.Tensor]:
    return [case[name].detach().clone().to(dtype).requires_grad_() for name in ("hidden", "weight", "bias")]


def fused(case, inputs, softcap=None, **options):
    hidden, weight, bias = inputs
    return linear_full_kl(
        hidden, weight, bias, lambda start, stop: case["teacher"][start:stop].clone(), 30, labels_T=case["labels"],
        chunk_rows=4, softcap=softcap, **options,
    )  # fmt: skip


def dense(case, inputs, softcap, temperature, kl_weight, cross_entropy_weight):
    hidden, weight, bias = inputs
    logits = (hidden @ weight.T + bias)[:, :30]
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    teacher = (case["teacher"] / temperature).softmax(-1)
    kl = (teacher * (teacher.log() - (logits / temperature).log_softmax(-1))).sum(-1) * temperature**2
    ce = cross_entropy(logits, case["labels"], reduction="none")
    return kl, ce, kl_weight * kl.sum() + cross_entropy_weight * ce.sum()


@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.3, 0.7), (0.0, 1.0)])
def test_loss_and_gradients_equal_the_dense_definition(case, softcap, temperature, weights):
    inputs, plain = leaves(case), leaves(case)
    found = fused(case, inputs, softcap, temperature=temperature, kl_weight=weights[0], cross_entropy_weight=weights[1])
    kl, ce, loss = dense(case, plain, softcap, temperature, *weights)
    torch.testing.assert_close(found.kl, kl)
    torch.testing.assert_close(found.cross_entropy, ce)
    torch.testing.assert_close(found.loss, loss)
    (2 * found.loss).backward()
    (2 * loss).backward()
    for got, want in zip(inputs, plain, strict=True):
        torch.testing.assert_close(got.grad, want.grad)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_ids_that_the_teacher_excludes_have_gradient_p(case, temperature):
    case = {**case, "teacher": case["teacher"].clone()}
    case["teacher"][:, 20:] = -torch.inf
    inputs, plain = leaves(case), leaves(case)
    found = fused(case, inputs, temperature=temperature)
    hidden, weight, bias = plain
    logits = (hidden @ weight.T + bias)[:, :30]
    logits.retain_grad()
    teacher = (case["teacher"][:, :20] / temperature).softmax(-1)
    log_p = (logits / temperature).log_softmax(-1)
    kl = temperature**2 * (teacher * (teacher.log() - log_p[:, :20])).sum(-1)
    torch.testing.assert_close(found.kl, kl)
    found.loss.backward()
    kl.sum().backward()
    torch.testing.assert_close(logits.grad[:, 20:], temperature * log_p.exp()[:, 20:])
    for got, want in zip(inputs, plain, strict=True):
        torch.testing.assert_close(got.grad, want.grad)


def test_ids_that_the_teacher_excludes_give_no_nan_in_float32(case):
    case = {**case, "teacher": case["teacher"].clone()}
    case["teacher"][:, ::3] = -torch.inf
    inputs = leaves(case, torch.float32)
    found = fused(case, inputs)
    found.loss.backward()
    assert found.kl.isfinite().all()
    assert (found.kl > 0).all()
    assert all(leaf.grad.isfinite().all() for leaf in inputs)


def test_a_student_equal_to_its_teacher_has_no_loss_and_no_gradient(case):
    hidden, weight, bias = inputs = leaves(case, torch.float32)
    case = {**case, "teacher": (hidden @ weight.T + bias)[:, :30].detach()}
    found = fused(case, inputs)
    found.loss.backward()
    assert found.kl.abs().max() < 1e-6
    assert hidden.grad.abs().max() < 1e-5


def test_a_batch_without_targets_has_no_loss(case):
    empty = {**case, "hidden": case["hidden"][:0], "labels": case["labels"][:0], "teacher": case["teacher"][:0]}
    inputs = leaves(empty)
    found = fused(empty, inputs)
    found.loss.backward()
    assert found.loss == 0
    assert inputs[1].grad.abs().max() == 0
