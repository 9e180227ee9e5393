"""The plain truncated KL against the dense float64 definition, its properties, and its edge cases."""

import math
from dataclasses import replace

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from logitcask.student.losses.tail_treatments import at_temperature, renormalized
from logitcask.student.losses.targets import RaggedTargets
from logitcask.student.losses.truncated_kl import truncated_kl

quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def random_logits(rows: int, columns: int, seed: int = 1, scale: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(rows, columns, generator=generator, dtype=torch.float64)


def gradient_of(loss_T: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(loss_T.sum(), inputs)[0]


def one_row(head: dict[int, float], log_tail: float, vocab_size: int) -> RaggedTargets:
    ids = sorted(head)
    return RaggedTargets(
        head_ids=torch.tensor(ids, dtype=torch.long),
        head_log_probs=torch.tensor([head[i] for i in ids], dtype=torch.float32),
        head_offsets=torch.tensor([0, len(ids)]),
        log_tail=torch.tensor([log_tail], dtype=torch.float32),
        vocab_size=vocab_size,
    )


@pytest.mark.parametrize("widths", [[3, 1, 7], [506, 507, 1], [64] * 5, [0, 2, 0]])
def test_loss_and_gradient_equal_the_dense_definition(random_case, widths):
    case = random_case(widths, vocab_size=507)
    logits_TV = random_logits(len(widths), 507).requires_grad_()
    ours_T, dense_T = truncated_kl(logits_TV, case.targets), case.dense_truncated_kl(logits_TV)
    torch.testing.assert_close(ours_T, dense_T, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient_of(ours_T, logits_TV), gradient_of(dense_T, logits_TV), rtol=1e-10, atol=1e-12)


def test_the_gradient_is_p_minus_t_in_the_head_and_rescaled_outside(random_case):
    case = random_case([4], vocab_size=50)
    logits_TV = random_logits(1, 50).requires_grad_()
    student_TV = logits_TV.detach().softmax(-1)
    teacher_other = case.teacher.where(~case.is_head, 0).sum()
    student_other = student_TV.where(~case.is_head, 0).sum()
    expected_TV = torch.where(case.is_head, student_TV - case.teacher, student_TV * (1 - teacher_other / student_other))
    torch.testing.assert_close(gradient_of(truncated_kl(logits_TV, case.targets), logits_TV), expected_TV)


def test_gradient_agrees_with_finite_differences_of_the_dense_definition(random_case):
    case = random_case([3, 5], vocab_size=11)
    logits_TV = random_logits(2, 11).requires_grad_()
    gradient_TV = gradient_of(truncated_kl(logits_TV, case.targets), logits_TV)
    step = 1e-5
    for row, column in [(0, 0), (0, 7), (1, 3), (1, 10)]:
        shift = torch.zeros_like(logits_TV)
        shift[row, column] = step
        with torch.no_grad():
            above, below = (case.dense_truncated_kl(logits_TV + sign * shift).sum() for sign in (1, -1))
        assert gradient_TV[row, column].item() == pytest.approx(((above - below) / (2 * step)).item(), abs=1e-8)


@quick
@given(data=st.data(), vocab_size=st.integers(2, 40), seed=st.integers(0, 2**31))
def test_truncated_kl_is_between_zero_and_the_dense_kl(random_case, data, vocab_size, seed):
    widths = data.draw(st.lists(st.integers(0, vocab_size), min_size=1, max_size=4))
    case, logits_TV = random_case(widths, vocab_size, seed), random_logits(len(widths), vocab_size, seed + 1)
    loss_T = truncated_kl(logits_TV, case.targets)
    assert (loss_T >= -1e-14).all()
    assert (loss_T <= case.dense_kl(logits_TV) + 1e-12).all()


@quick
@given(data=st.data(), vocab_size=st.integers(2, 40), seed=st.integers(0, 2**31))
def test_a_wider_nested_head_never_lowers_the_loss(random_case, data, vocab_size, seed):
    narrow = data.draw(st.integers(0, vocab_size))
    wide = data.draw(st.integers(narrow, vocab_size))
    logits_TV = random_logits(1, vocab_size, seed + 1)
    narrow_loss, wide_loss = (
        truncated_kl(logits_TV, random_case([width], vocab_size, seed).targets).item() for width in (narrow, wide)
    )
    assert narrow_loss <= wide_loss + 1e-12


@quick
@given(vocab_size=st.integers(1, 40), seed=st.integers(0, 2**31))
def test_a_head_of_the_whole_vocabulary_gives_the_dense_kl(random_case, vocab_size, seed):
    case, logits_TV = random_case([vocab_size], vocab_size, seed), random_logits(1, vocab_size, seed + 1)
    torch.testing.assert_close(truncated_kl(logits_TV, case.targets), case.dense_kl(logits_TV), atol=1e-12, rtol=1e-10)


@quick
@given(width=st.integers(0, 12), seed=st.integers(0, 2**31))
def test_gradients_sum_to_zero_over_the_vocabulary(random_case, width, seed):
    logits_TV = random_logits(1, 12, seed).requires_grad_()
    gradient_TV = gradient_of(truncated_kl(logits_TV, random_case([width], 12, seed).targets), logits_TV)
    assert gradient_TV.sum().abs() < 1e-13


@pytest.mark.parametrize("tail", [1e-12, 1e-7, 0.5, 1 - 1e-7])
def test_extreme_tails_give_finite_losses_and_accurate_gradients(tail):
    targets = one_row({3: math.log1p(-tail)}, math.log(tail), vocab_size=100)
    logits_TV = random_logits(1, 100).float().requires_grad_()
    loss_T = truncated_kl(logits_TV, targets)
    gradient_TV = gradient_of(loss_T, logits_TV)
    student_TV = logits_TV.detach().double().softmax(-1)
    other = 1 - student_TV[0, 3]
    exact_TV = student_TV * (1 - tail / other)
    exact_TV[0, 3] = student_TV[0, 3] - (1 - tail)
    assert loss_T.isfinite().all()
    assert ((gradient_TV - exact_TV).norm() / exact_TV.norm()).item() < 1e-4


def test_a_confident_row_has_no_nan_where_one_minus_the_sum_is_zero():
    logits_TV = torch.zeros(1, 1000)
    logits_TV[0, 7] = 60.0
    logits_TV.requires_grad_()
    targets = one_row({7: math.log1p(-1e-3)}, math.log(1e-3), vocab_size=1000)
    loss_T = truncated_kl(logits_TV, targets)
    # log p_o = log 999 − 60 − log(1 + 999 e^−60)
    expected = (1 - 1e-3) * math.log1p(-1e-3) + 1e-3 * (math.log(1e-3) - (math.log(999) - 60))
    assert loss_T.item() == pytest.approx(expected, rel=1e-5)
    assert gradient_of(loss_T, logits_TV).isfinite().all()


def test_impossible_ids_outside_the_head_give_no_nan():
    logits_TV = random_logits(1, 6).float()
    logits_TV[0, 4:] = -math.inf
    logits_TV.requires_grad_()
    loss_T = truncated_kl(logits_TV, one_row({0: math.log(0.5), 1: math.log(0.25)}, math.log(0.25), vocab_size=6))
    gradient_TV = gradient_of(loss_T, logits_TV)
    assert loss_T.isfinite().all()
    assert gradient_TV.isfinite().all()
    assert (gradient_TV[0, 4:] == 0).all()


def test_a_zero_tail_is_omitted_even_where_the_student_has_no_complement():
    logits_TV = torch.tensor([[0.0, 1.0, -math.inf]], requires_grad=True)
    targets = one_row({0: math.log(0.5), 1: math.log(0.5)}, -math.inf, vocab_size=3)
    loss_T = truncated_kl(logits_TV, targets)
    student = torch.tensor([0.0, 1.0]).softmax(-1)
    assert loss_T.item() == pytest.approx((0.5 * (0.5 / student).log()).sum().item(), rel=1e-6)
    torch.testing.assert_close(gradient_of(loss_T, logits_TV), torch.cat([student - 0.5, torch.zeros(1)]).unsqueeze(0))


def test_rows_without_a_target_give_zero_and_no_gradient(random_case):
    case = random_case([3, 3, 3], 20, masked=[True, False, True])
    logits_TV = random_logits(3, 20).requires_grad_()
    loss_T = truncated_kl(logits_TV, case.targets)
    gradient_TV = gradient_of(loss_T, logits_TV)
    assert loss_T[[0, 2]].tolist() == [0, 0]
    assert (gradient_TV[[0, 2]] == 0).all()
    assert loss_T[1] > 0


def test_ids_beyond_the_teachers_vocabulary_are_excluded_not_zeroed(random_case):
    case = random_case([3], 20)
    logits_TV = random_logits(1, 20)
    padded_TV = torch.cat([logits_TV, torch.full((1, 12), 9.0)], dim=-1).requires_grad_()
    loss_T = truncated_kl(padded_TV, case.targets)
    torch.testing.assert_close(loss_T, truncated_kl(logits_TV, case.targets))
    assert (gradient_of(loss_T, padded_TV)[:, 20:] == 0).all()


def test_a_student_narrower_than_its_teacher_is_refused(random_case):
    with pytest.raises(ValueError, match="19 ids, the teacher 20"):
        truncated_kl(random_logits(1, 19), random_case([3], 20).targets)


def test_temperature_equals_the_tempered_definition_times_its_square(truncate, random_case):
    case, temperature = random_case([4, 9], 30), 2.0
    tempered_TV = (case.teacher.log() / temperature).softmax(-1)
    tempered = truncate(tempered_TV, [4, 9])
    stored = replace(case.targets, tempered_log_tails={temperature: tempered.targets.log_tail})
    targets = at_temperature(stored, temperature)
    logits_TV = random_logits(2, 30).requires_grad_()
    ours_T = truncated_kl(logits_TV, targets, temperature=temperature)
    dense_T = temperature**2 * tempered.dense_truncated_kl(logits_TV / temperature)
    torch.testing.assert_close(ours_T, dense_T)
    torch.testing.assert_close(gradient_of(ours_T, logits_TV), gradient_of(dense_T, logits_TV))


def test_renormalized_targets_have_only_the_head(random_case):
    case = random_case([4], 30)
    logits_TV = random_logits(1, 30).requires_grad_()
    head_TV = case.teacher.where(case.is_head, 0)
    head_TV = head_TV / head_TV.sum()
    loss_T = truncated_kl(logits_TV, renormalized(case.targets))
    student_TV = logits_TV.detach().softmax(-1)
    expected = (head_TV * (head_TV / student_TV).log()).where(case.is_head, 0).sum()
    assert loss_T.item() == pytest.approx(expected.item())
    torch.testing.assert_close(gradient_of(loss_T, logits_TV), student_TV - head_TV)


@pytest.mark.slow
def test_the_plain_loss_traces_as_one_graph(random_case):
    case = random_case([3, 4], 20)
    logits_TV = random_logits(2, 20)
    compiled = torch.compile(truncated_kl, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(logits_TV, case.targets), truncated_kl(logits_TV, case.targets))


def test_ids_outside_the_teachers_vocabulary_are_refused():
    with pytest.raises(ValueError, match="the head has id 6, but the teacher's ids are 0 to 5"):
        truncated_kl(random_logits(1, 9), one_row({6: math.log(0.5)}, math.log(0.5), vocab_size=6))


@pytest.mark.slow
def test_the_plain_loss_and_its_gradient_trace_as_one_graph(random_case):
    case = random_case([3, 4], 20)
    logits_TV = random_logits(2, 20).requires_grad_()
    compiled_T = torch.compile(truncated_kl, fullgraph=True, backend="aot_eager")(logits_TV, case.targets)
    plain_T = truncated_kl(logits_TV, case.targets)
    torch.testing.assert_close(compiled_T, plain_T)
    torch.testing.assert_close(gradient_of(compiled_T, logits_TV), gradient_of(plain_T, logits_TV))
