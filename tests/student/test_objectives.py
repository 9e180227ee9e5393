"""Every treatment, divergence and temperature, plain and fused, against float64 autograd of its dense definition."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from student.divergences import (
    Divergence,
    HeadTemperedKL,
    JensenShannon,
    SampledCrossEntropy,
    forward_kl,
    raw_head,
    reverse_kl,
)
from student.linear_losses import linear_truncated_kl
from student.losses import truncated_kl
from student.targets import NO_LABEL, RaggedTargets
from student.treatments import at_temperature, renormalised, residual_to_label, with_label_bucket

VOCAB = 507
WIDTHS = [3, 1, 7, 506, 507, 1, 64, 5]
MASKED = [False, True, False, False, False, False, False, False]


@dataclass(frozen=True)
class Row:
    """What a dense definition sees of a position: both distributions whole, the student's logits, the rest."""

    t: Tensor
    p: Tensor
    z: Tensor
    teacher_z: Tensor
    head: list[int]
    label: int | None
    draws: list[int]


def buckets(probs: Tensor, head: list[int]) -> Tensor:
    rest = [i for i in range(len(probs)) if i not in set(head)]
    return torch.cat([probs[head], probs[rest].sum(0, keepdim=True)]) if rest else probs[head]


def kl(t: Tensor, p: Tensor) -> Tensor:
    return (t * (t.log() - p.log())).sum()


def forward(row: Row) -> Tensor:
    return kl(buckets(row.t, row.head), buckets(row.p, row.head))


def reverse(row: Row) -> Tensor:
    return kl(buckets(row.p, row.head), buckets(row.t, row.head))


def jensen_shannon(row: Row, beta: float = 0.3) -> Tensor:
    t, p = buckets(row.t, row.head), buckets(row.p, row.head)
    mixture = beta * t + (1 - beta) * p
    return beta * kl(t, mixture) + (1 - beta) * kl(p, mixture)


def renormalise(row: Row) -> Tensor:
    return kl(row.t[row.head] / row.t[row.head].sum(), row.p[row.head])


def raw(row: Row) -> Tensor:
    return kl(row.t[row.head], row.p[row.head])


def residual(row: Row) -> Tensor:
    if row.label is None:
        return forward(row)
    ids = [*row.head, row.label] if row.label not in row.head else row.head
    t = row.t[ids].where(torch.tensor([i in row.head for i in ids]), 0.0)
    t = t + torch.where(torch.tensor(ids) == row.label, 1 - t.sum(), 0.0)
    return kl(t, row.p[ids])


def label_bucket(row: Row) -> Tensor:
    extra = [row.label] if row.label is not None and row.label not in row.head else []
    return forward(replace(row, head=row.head + extra))


def sample(row: Row) -> Tensor:
    if not row.draws:
        return -(buckets(row.t, row.head) * buckets(row.p, row.head).log()).sum()
    tail = 1 - row.t[row.head].sum()
    return -(row.t[row.head] * row.p[row.head].log()).sum() - tail * row.p[row.draws].log().mean()


def blend(row: Row) -> Tensor:
    return 0.3 * sample(row) + 0.7 * forward(row)


def tempered(dense: Callable[[Row], Tensor], temperature: float) -> Callable[[Row], Tensor]:
    def loss(row: Row) -> Tensor:
        t, p = (row.teacher_z / temperature).softmax(-1), (row.z / temperature).softmax(-1)
        return temperature**2 * dense(replace(row, t=t, p=p))

    return loss


def head_tempered(row: Row, temperature: float = 2.0) -> Tensor:
    teacher_head, student_head = row.t[row.head].sum(), row.p[row.head].sum()
    pair = [torch.stack([mass, 1 - mass]) if len(row.head) < VOCAB else mass for mass in (teacher_head, student_head)]
    inside = [(z[row.head] / temperature).softmax(-1) for z in (row.teacher_z, row.z)]
    return kl(*pair) + teacher_head * temperature**2 * kl(*inside)


@dataclass(frozen=True)
class Aim:
    dense: Callable[[Row], Tensor]
    transform: Callable[[RaggedTargets, Tensor], RaggedTargets] = lambda targets, labels: targets
    divergence: Divergence = forward_kl
    temperature: float = 1.0


AIMS = {
    "other": Aim(forward),
    "reverse": Aim(reverse, divergence=reverse_kl),
    "jsd": Aim(jensen_shannon, divergence=JensenShannon(beta=0.3)),
    "renormalise": Aim(renormalise, lambda targets, labels: renormalised(targets)),
    "raw": Aim(raw, divergence=raw_head),
    "residual": Aim(residual, residual_to_label),
    "label": Aim(label_bucket, with_label_bucket),
    "sample": Aim(sample, divergence=SampledCrossEntropy()),
    "blend": Aim(blend, divergence=SampledCrossEntropy(share=0.3)),
    "tempered": Aim(tempered(forward, 2.0), lambda targets, labels: at_temperature(targets, 2.0), temperature=2.0),
    "cooled": Aim(tempered(forward, 0.5), lambda targets, labels: at_temperature(targets, 0.5), temperature=0.5),
    "tempered reverse": Aim(
        tempered(reverse, 2.0), lambda targets, labels: at_temperature(targets, 2.0), reverse_kl, temperature=2.0
    ),
    "tempered label": Aim(
        tempered(label_bucket, 2.0),
        lambda targets, labels: with_label_bucket(at_temperature(targets, 2.0), labels),
        temperature=2.0,
    ),
    "head-tempered": Aim(head_tempered, divergence=HeadTemperedKL(temperature=2.0)),
    "head-tempered at one": Aim(forward, divergence=HeadTemperedKL(temperature=1.0)),
}


@dataclass(frozen=True)
class Problem:
    teacher_z: Tensor
    targets: RaggedTargets
    labels: Tensor
    draws: list[list[int]]

    def dense(self, logits_TV: Tensor, dense_loss: Callable[[Row], Tensor]) -> Tensor:
        losses = []
        for index in torch.arange(len(self.draws))[self.targets.has_target].tolist():
            z, teacher_z = logits_TV[index, :VOCAB], self.teacher_z[index]
            start, stop = self.targets.head_offsets[index : index + 2].tolist()
            label = self.labels[index].item()
            row = Row(
                t=teacher_z.softmax(-1), p=z.softmax(-1), z=z, teacher_z=teacher_z,
                head=self.targets.head_ids[start:stop].tolist(),
                label=None if label == NO_LABEL else int(label), draws=self.draws[index],
            )  # fmt: skip
            losses.append(dense_loss(row))
        return torch.stack(losses)


@pytest.fixture(scope="module")
def problem(truncate) -> Problem:
    """Heads of all widths, labels in and out of the head and missing, draws with repeats; exact tails at ½ and 2."""
    generator = torch.Generator().manual_seed(3)
    teacher_z = (3 * torch.randn(len(WIDTHS), VOCAB, generator=generator, dtype=torch.float64)).log_softmax(-1)
    case = truncate(teacher_z.exp(), WIDTHS, MASKED)
    outside = [(~case.is_head[row]).nonzero().squeeze(-1) for row in range(len(WIDTHS))]
    draws = [
        [] if MASKED[row] or not len(ids) else ids[torch.randint(len(ids), (6,), generator=generator)].tolist()
        for row, ids in enumerate(outside)
    ]
    draws[0][1] = draws[0][0]
    labels = torch.randint(VOCAB, (len(WIDTHS),), generator=generator)
    labels[2] = case.is_head[2].nonzero()[1, 0]
    labels[5] = NO_LABEL
    masked = torch.tensor(MASKED)
    rows = torch.arange(len(WIDTHS))
    tails = {
        temperature: truncate((teacher_z / temperature).softmax(-1), WIDTHS, MASKED).targets.log_tail
        for temperature in (0.5, 2.0)
    }
    targets = replace(
        case.targets,
        log_next=teacher_z[rows, labels.clamp(min=0)].where((labels != NO_LABEL) & ~masked, float("nan")),
        sample_ids=torch.tensor([id_ for row in draws for id_ in sorted(row)]),
        sample_offsets=torch.tensor([0] + [len(row) for row in draws]).cumsum(0),
        tempered_log_tails=tails,
    )
    return Problem(teacher_z=teacher_z, targets=targets, labels=labels, draws=draws)


def leaves(rows: int, dtype: torch.dtype = torch.float64, vocab_size: int = VOCAB) -> list[Tensor]:
    """Hidden states, weight and bias, the same numbers in every dtype that wants gradients."""
    generator = torch.Generator().manual_seed(5)
    shapes = [(rows, 8), (vocab_size, 8), (vocab_size,)]
    numbers = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return [number.to(dtype).requires_grad_() for number in numbers]


@pytest.mark.parametrize("name", AIMS)
def test_plain_loss_and_gradient_equal_the_dense_definition(problem, name):
    aim = AIMS[name]
    generator = torch.Generator().manual_seed(7)
    logits_TV = (2 * torch.randn(len(WIDTHS), VOCAB, generator=generator, dtype=torch.float64)).requires_grad_()
    targets = aim.transform(problem.targets, problem.labels)
    ours_T = truncated_kl(logits_TV, targets, temperature=aim.temperature, divergence=aim.divergence)
    dense_T = problem.dense(logits_TV, aim.dense)
    torch.testing.assert_close(ours_T[targets.has_target], dense_T, rtol=1e-9, atol=1e-11)
    assert (ours_T[~targets.has_target] == 0).all()
    ours, exact = (torch.autograd.grad(loss.sum(), logits_TV)[0] for loss in (ours_T, dense_T))
    torch.testing.assert_close(ours, exact, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("name", ["reverse", "jsd", "sample", "head-tempered"])
def test_the_plain_loss_traces_as_one_graph(problem, name):
    torch.compiler.reset()  # each recompiles the same function
    aim = AIMS[name]
    targets = aim.transform(problem.targets, problem.labels)
    options = {"temperature": aim.temperature, "divergence": aim.divergence}
    logits_TV = linear(*leaves(len(WIDTHS))).detach()
    compiled = torch.compile(truncated_kl, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(logits_TV, targets, **options), truncated_kl(logits_TV, targets, **options))


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("ce_weight", [0.0, 0.7])
@pytest.mark.parametrize("name", AIMS)
def test_fused_loss_and_all_gradients_equal_the_dense_definition(problem, name, ce_weight, softcap):
    aim, inputs = AIMS[name], leaves(len(WIDTHS))
    result = linear_truncated_kl(
        *inputs, aim.transform(problem.targets, problem.labels), labels_T=problem.labels,
        kl_weight=0.4, cross_entropy_weight=ce_weight, softcap=softcap,
        temperature=aim.temperature, divergence=aim.divergence, chunk_rows=3,
    )  # fmt: skip
    logits = linear(*inputs)
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    dense = 0.4 * problem.dense(logits, aim.dense).sum()
    dense = dense + ce_weight * cross_entropy(logits, problem.labels, reduction="sum")
    torch.testing.assert_close(result.loss, dense, rtol=1e-10, atol=1e-10)
    for ours, exact in zip(torch.autograd.grad(result.loss, inputs), torch.autograd.grad(dense, inputs), strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", AIMS)
def test_float32_stays_within_1e_5_of_the_float64_truth(problem, name):
    aim, exact, rounded = AIMS[name], leaves(len(WIDTHS)), leaves(len(WIDTHS), torch.float32)
    truth = problem.dense(linear(*exact), aim.dense).sum()
    ours = linear_truncated_kl(
        *rounded, aim.transform(problem.targets, problem.labels),
        temperature=aim.temperature, divergence=aim.divergence,
    ).loss  # fmt: skip
    assert ours.item() == pytest.approx(truth.item(), rel=1e-5)
    for got, want in zip(torch.autograd.grad(ours, rounded), torch.autograd.grad(truth, exact), strict=True):
        assert ((got - want).norm() / want.norm()).item() < 1e-5


@pytest.mark.parametrize("name", AIMS)
def test_bfloat16_is_no_worse_than_the_naive_way_in_bfloat16(problem, name):
    aim = AIMS[name]
    targets = aim.transform(problem.targets, problem.labels)
    options = {"temperature": aim.temperature, "divergence": aim.divergence}
    exact, plain, fused = leaves(len(WIDTHS)), *(leaves(len(WIDTHS), torch.bfloat16) for _ in range(2))
    truth = torch.autograd.grad(problem.dense(linear(*exact), aim.dense).sum(), exact[:2])
    naive = torch.autograd.grad(truncated_kl(linear(*plain), targets, **options).sum(), plain[:2])
    ours = torch.autograd.grad(linear_truncated_kl(*fused, targets, **options).loss, fused[:2])
    for got, other, want in zip(ours, naive, truth, strict=True):
        assert (got - want).norm() <= 1.05 * (other - want).norm()


@pytest.mark.parametrize("name", AIMS)
def test_an_all_masked_batch_gives_zero_and_zero_gradients(problem, name):
    aim, inputs = AIMS[name], leaves(1)
    result = linear_truncated_kl(
        *inputs, aim.transform(problem.targets.select(1, 2), problem.labels[1:2]),
        temperature=aim.temperature, divergence=aim.divergence,
    )  # fmt: skip
    assert result.loss.item() == 0
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(result.loss, inputs))


@pytest.mark.parametrize("name", AIMS)
def test_a_padded_students_extra_ids_change_nothing_and_get_no_gradient(problem, name):
    aim = AIMS[name]
    targets = aim.transform(problem.targets, problem.labels)
    options = {"temperature": aim.temperature, "divergence": aim.divergence}
    hidden, weight, _ = leaves(len(WIDTHS))
    wide = torch.cat([weight, 9 * torch.ones(5, 8, dtype=torch.float64)]).detach().requires_grad_()
    padded = linear_truncated_kl(hidden, wide, None, targets, **options).loss
    torch.testing.assert_close(padded, linear_truncated_kl(hidden, weight, None, targets, **options).loss)
    assert (torch.autograd.grad(padded, wide)[0][VOCAB:] == 0).all()


@pytest.mark.parametrize("name", AIMS)
def test_impossible_ids_give_no_nan(problem, name):
    aim = AIMS[name]
    targets = aim.transform(problem.targets, problem.labels)
    hidden, weight, bias = leaves(len(WIDTHS), torch.float32)
    with torch.no_grad():
        bias[::3] = float("-inf")
    result = linear_truncated_kl(hidden, weight, bias, targets, temperature=aim.temperature, divergence=aim.divergence)
    assert not result.loss.isnan()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(result.loss, [hidden, weight, bias]))


@pytest.mark.parametrize("name", ["other", "reverse", "jsd", "renormalise", "raw", "sample", "blend", "head-tempered"])
@pytest.mark.parametrize("confidence", [0.0, 10.0])
@pytest.mark.parametrize("tail", [1e-12, 1e-7, 1e-3, 1 - 1e-7])
def test_extreme_tails_keep_gradients_accurate(truncate, name, confidence, tail):
    aim = AIMS[name]
    teacher = torch.full((1, VOCAB), tail / (VOCAB - 2), dtype=torch.float64)
    teacher[0, 3], teacher[0, 5] = 0.75 * (1 - tail), 0.25 * (1 - tail)
    case = truncate(teacher, [2])
    if tail > 0.5:  # the head is then ids 3 and 5, though they are not the largest
        chosen = torch.zeros_like(case.is_head)
        chosen[0, [3, 5]] = True
        log_head = teacher[0, [3, 5]].log()
        ids = torch.tensor([3, 5])
        log_tail = torch.tensor([tail], dtype=torch.float64).log()
        targets = replace(case.targets, head_ids=ids, head_log_probs=log_head, log_tail=log_tail)
    else:
        targets = case.targets
    targets = replace(targets, sample_ids=torch.tensor([7, 7, 90]), sample_offsets=torch.tensor([0, 3]))
    problem = Problem(teacher_z=teacher.log(), targets=targets, labels=torch.tensor([NO_LABEL]), draws=[[7, 7, 90]])
    rounded = leaves(1, torch.float32)
    with torch.no_grad():
        rounded[2][3] += confidence
    exact = [leaf.detach().double().requires_grad_() for leaf in rounded]
    treated = aim.transform(targets, problem.labels)
    ours = linear_truncated_kl(*rounded, treated, divergence=aim.divergence).loss
    truth = problem.dense(linear(*exact), aim.dense).sum()
    assert ours.isfinite()
    got, want = (torch.autograd.grad(loss, inputs[2])[0] for loss, inputs in ((ours, rounded), (truth, exact)))
    assert ((got - want).norm() / want.norm()).item() < 1e-4
