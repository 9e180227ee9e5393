"""The Triton kernels against plain torch and the dense definition, in Triton's interpreter without a device."""

import math
import sys

import pytest
import torch
from torch.nn.functional import cross_entropy, linear

from logitcask.student.losses.divergences import SampledCrossEntropy
from logitcask.student.losses.linear_truncated_kl import linear_truncated_kl
from logitcask.student.losses.targets import NO_LABEL, RaggedTargets

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


# The interpreter truncates float32 to bfloat16, while devices round to nearest; it rounds float16 correctly.
HALF = torch.bfloat16 if DEVICE == "cuda" else torch.float16


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr("logitcask.student.losses.kernels.linear_loss.BLOCK_COLUMNS", 6)
    monkeypatch.setattr("logitcask.student.losses.kernels.linear_loss.BLOCK_ROWS", 3)


def leaves(rows: int, vocab_size: int, width: int = 4, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = [(rows, width), (vocab_size, width), (vocab_size,)]
    return [torch.randn(shape, generator=generator).to(DEVICE, dtype).requires_grad_() for shape in shapes]


def both(inputs: list[torch.Tensor], targets: RaggedTargets, **options):
    """(loss, gradients) by kernels and by plain torch."""
    results = []
    for impl in ("triton", "torch"):
        result = linear_truncated_kl(*inputs, targets.to(DEVICE), impl=impl, **options)
        results.append((result, torch.autograd.grad(result.loss * 1.5, inputs)))
    return results


def check_equal(results, tolerance: float = 1e-5) -> None:
    (ours, our_gradients), (plain, plain_gradients) = results
    torch.testing.assert_close(ours.loss, plain.loss, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(ours.kl, plain.kl, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(ours.cross_entropy, plain.cross_entropy, rtol=tolerance, atol=tolerance)
    for ours_, plain_ in zip(our_gradients, plain_gradients, strict=True):
        torch.testing.assert_close(ours_, plain_, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("widths", [[13], [12, 13, 0, 1]], ids=["one row, the whole vocabulary", "all widths"])
def test_awkward_sizes_equal_plain_torch(random_case, widths):
    labels = torch.arange(len(widths), device=DEVICE)
    check_equal(
        both(leaves(len(widths), 13), random_case(widths, 13).targets, labels_T=labels, cross_entropy_weight=0.5)
    )


def test_labels_and_draws_of_one_id_add_up(random_case):
    case = random_case([2], 13)
    first, second = (int(id_) for id_ in (~case.is_head[0]).nonzero()[:2])
    targets = RaggedTargets(
        **{name: getattr(case.targets, name) for name in ("head_ids", "head_log_probs", "head_offsets", "log_tail")},
        vocab_size=13,
        sample_ids=torch.tensor([first, first, second]),
        sample_offsets=torch.tensor([0, 3]),
    )
    labels, inputs = torch.tensor([first], device=DEVICE), leaves(1, 13)
    divergence = SampledCrossEntropy()
    check_equal(both(inputs, targets, labels_T=labels, cross_entropy_weight=0.5, divergence=divergence))


def test_a_batch_without_targets_gives_zero_and_zero_gradients(random_case):
    inputs = leaves(2, 13)
    targets = random_case([3, 3], 13, masked=[True, True]).targets.to(DEVICE)
    labels = torch.full((2,), NO_LABEL, device=DEVICE)
    loss = linear_truncated_kl(*inputs, targets, labels_T=labels, cross_entropy_weight=0.5, impl="triton").loss
    assert loss.item() == 0
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(loss, inputs))


def test_padding_ids_of_a_student_change_nothing(random_case):
    inputs, targets = leaves(2, 17), random_case([3, 2], 13).targets
    results = both(inputs, targets)
    check_equal(results)
    assert (results[0][1][1][13:] == 0).all()


def test_impossible_logits_and_zero_tails_give_no_nan(random_case):
    hidden, weight, bias = leaves(2, 13)
    case = random_case([2, 13], 13)
    with torch.no_grad():
        bias[(~case.is_head[0]).to(DEVICE)] = -math.inf
    loss = linear_truncated_kl(hidden, weight, bias, case.targets.to(DEVICE), impl="triton").loss
    assert not loss.isnan()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, [hidden, weight, bias]))


@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")  # from the interpreter's maximum
def test_a_logit_that_is_not_a_number_is_not_hidden(random_case):
    inputs = leaves(2, 13)
    with torch.no_grad():
        inputs[0][1] = math.nan
    result = linear_truncated_kl(*inputs, random_case([3, 2], 13).targets.to(DEVICE), impl="triton")
    assert result.kl[0].isfinite()
    assert result.loss.isnan()


def test_half_precision_is_more_accurate_than_the_naive_loss(random_case):
    case = random_case([5] * 3, 40)
    rounded = leaves(3, 40, width=32, dtype=HALF)
    exact = [leaf.detach().cpu().double().requires_grad_() for leaf in rounded]
    labels = torch.tensor([1, 2, 3])

    def naive(hidden, weight, bias):
        logits = 3 * torch.tanh(linear(hidden, weight, bias) / 3)
        return case.dense_truncated_kl(logits.cpu()).sum() + cross_entropy(
            logits.cpu().double(), labels, reduction="sum"
        )

    ours = linear_truncated_kl(
        *rounded,
        case.targets.to(DEVICE),
        labels_T=labels.to(DEVICE),
        cross_entropy_weight=1.0,
        softcap=3.0,
        impl="triton",
    ).loss
    truth, plain = naive(*exact), naive(*rounded)
    assert abs(ours.item() - truth.item()) < abs(plain.item() - truth.item())
    gradients = (torch.autograd.grad(*pair) for pair in ((ours, rounded), (plain, rounded), (truth, exact)))
    for got, other, want in zip(*gradients, strict=True):
        assert (got.cpu() - want).norm() <= (other.cpu() - want).norm()


def test_inputs_that_need_no_gradient_get_none(random_case):
    (hidden, weight, _), targets = leaves(2, 13), random_case([3, 2], 13).targets.to(DEVICE)
    loss = linear_truncated_kl(hidden, weight.detach(), None, targets, impl="triton").loss
    loss.backward()
    assert hidden.grad is not None
    with torch.no_grad():
        again = linear_truncated_kl(hidden, weight, None, targets, impl="triton").loss
    torch.testing.assert_close(again, loss.detach())


def test_a_second_backward_pass_is_refused(random_case):
    inputs = leaves(2, 13)
    loss = linear_truncated_kl(*inputs, random_case([3, 2], 13).targets.to(DEVICE), impl="triton").loss
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass"):
        loss.backward()


def test_triton_is_refused_where_it_cannot_run(random_case, monkeypatch):
    targets = random_case([3, 2], 13).targets.to(DEVICE)
    with pytest.raises(ValueError, match="float64"):
        linear_truncated_kl(*leaves(2, 13, dtype=torch.float64), targets, impl="triton")
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(ValueError, match="not installed"):
        linear_truncated_kl(*leaves(2, 13), targets, impl="triton")
    assert linear_truncated_kl(*leaves(2, 13), targets, impl="auto").loss.isfinite()
