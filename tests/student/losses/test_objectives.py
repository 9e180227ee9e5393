"""Every setting of the loss, plain, fused and in Triton, against float64 autograd of its dense definition.

The definitions see whole distributions, one row at a time, and know nothing of the code they judge.
"""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from logitcask.student.losses.linear_truncated_kl import linear_truncated_kl
from logitcask.student.losses.loss_settings import LossSettings
from logitcask.student.losses.targets import NO_LABEL, RaggedTargets
from logitcask.student.losses.truncated_kl import truncated_kl

VOCAB = 507
WIDTHS = [3, 1, 7, 506, 507, 1, 64, 5]
MASKED = [False, True, False, False, False, False, False, False]
BETA, SHARE = 0.3, 0.3

_DIVERGENCES = {
    "other": ["forward", "reverse", "jsd"],
    "label": ["forward", "reverse", "jsd"],
    "renormalize": ["forward", "jsd"],
    "residual": ["forward", "jsd"],
    "raw": ["forward"],
}
_ONE = [
    LossSettings(tail=tail, divergence=divergence, jsd_beta=BETA)  # type: ignore[arg-type]
    for tail, divergences in _DIVERGENCES.items()
    for divergence in divergences
]
_TEMPERED = [replace(settings, temperature=2.0) for settings in _ONE]
_HEAD_TEMPERED = [
    LossSettings(tail=tail, temperature=2.0, tempering="head")  # type: ignore[arg-type]
    for tail in ("other", "label", "renormalize", "residual")
]
_SAMPLED = [LossSettings(tail=tail, sample_share=SHARE) for tail in ("sample", "blend")]
_COOLED = [LossSettings(temperature=0.5), LossSettings(temperature=0.5, tempering="head")]
ALL = [*_ONE, *_SAMPLED, *_TEMPERED, *_HEAD_TEMPERED, *_COOLED]


def name_of(settings: LossSettings) -> str:
    tempering = "" if settings.temperature == 1 else f"-{settings.tempering}-at-{settings.temperature:g}"
    return f"{settings.tail}-{settings.divergence}{tempering}"


every_setting = pytest.mark.parametrize("settings", ALL, ids=name_of)


@dataclass(frozen=True)
class Row:
    """What a dense definition sees of a position: both distributions whole, the logits behind them, the rest."""

    t: Tensor
    p: Tensor
    z: Tensor
    teacher_z: Tensor
    head: list[int]
    label: int | None
    draws: list[int]

    def tempered(self, temperature: float) -> "Row":
        return replace(self, t=(self.teacher_z / temperature).softmax(-1), p=(self.z / temperature).softmax(-1))

    @property
    def rest(self) -> list[int]:
        return [i for i in range(len(self.t)) if i not in set(self.head)]


def kl(t: Tensor, p: Tensor) -> Tensor:
    t, p = t[t > 0], p[t > 0]
    return (t * (t.log() - p.log())).sum()


def buckets(row: Row, tail: str) -> tuple[Tensor, Tensor]:
    """Teacher's and student's mass in each bucket of the head, then in one for the rest."""
    has_label = row.label is not None and bool(row.rest)
    if tail in ("label", "residual") and has_label and row.label not in row.head:
        row = replace(row, head=[*row.head, row.label])
    t, p = (torch.cat([mass[row.head], mass[row.rest].sum(0, keepdim=True)]) for mass in (row.t, row.p))
    if tail == "raw":
        return t[:-1], p[:-1]
    if tail == "renormalize":
        t = torch.cat([t[:-1] / t[:-1].sum(), torch.zeros(1)])
    if tail == "residual" and has_label:
        is_label = torch.tensor([*row.head, -1]) == row.label
        t = torch.cat([(t + is_label * t[-1])[:-1], torch.zeros(1)])
    return t, p


def divergence_of(t: Tensor, p: Tensor, name: str) -> Tensor:
    if name == "forward":
        return kl(t, p)
    if name == "reverse":
        return kl(p, t.clamp(min=math.exp(-32)))
    mixture = BETA * t + (1 - BETA) * p
    return BETA * kl(t, mixture) + (1 - BETA) * kl(p, mixture)


def sampled(row: Row) -> Tensor:
    if not row.draws:
        t, p = buckets(row, "other")
        return -(t[t > 0] * p[t > 0].log()).sum()
    tail = row.t[row.rest].sum()
    return -(row.t[row.head] * row.p[row.head].log()).sum() - tail * row.p[row.draws].log().mean()


def tempered_inside(t: Tensor, p: Tensor, temperature: float) -> Tensor:
    """KL of (head mass, tail mass), plus the head's mass times T² KL inside the tempered head."""
    pairs = [torch.stack([mass[:-1].sum(), mass[-1]]) for mass in (t, p)]
    inside = [(mass[:-1] / mass[:-1].sum()) ** (1 / temperature) for mass in (t, p)]
    inside = [mass / mass.sum() for mass in inside]
    return kl(pairs[0], pairs[1]) + t[:-1].sum() * temperature**2 * kl(*inside)


def dense(row: Row, settings: LossSettings) -> Tensor:
    """The definition of each loss."""
    temperature = settings.temperature
    if settings.tail == "sample":
        return sampled(row)
    if settings.tail == "blend":
        return SHARE * sampled(row) + (1 - SHARE) * kl(*buckets(row, "other"))
    if settings.tempers_head_only:
        return tempered_inside(*buckets(row, settings.tail), temperature)
    return temperature**2 * divergence_of(*buckets(row.tempered(temperature), settings.tail), settings.divergence)


@dataclass(frozen=True)
class Problem:
    teacher_z: Tensor
    targets: RaggedTargets
    labels: Tensor
    draws: list[list[int]]

    def dense(self, logits_TV: Tensor, settings: LossSettings) -> Tensor:
        """The loss of the rows with a target."""
        losses = []
        for index in torch.arange(len(self.draws))[self.targets.has_target].tolist():
            z, teacher_z = logits_TV[index, :VOCAB], self.teacher_z[index]
            start, stop = self.targets.head_offsets[index : index + 2].tolist()
            label = int(self.labels[index])
            row = Row(
                t=teacher_z.softmax(-1), p=z.softmax(-1), z=z, teacher_z=teacher_z,
                head=self.targets.head_ids[start:stop].tolist(),
                label=None if label == NO_LABEL else label, draws=self.draws[index],
            )  # fmt: skip
            losses.append(dense(row, settings))
        return torch.stack(losses)

    def options(self, settings: LossSettings) -> dict:
        """The arguments of both losses under test."""
        return {
            "targets": settings.prepare_targets(self.targets, self.labels),
            "temperature": settings.logits_temperature,
            "divergence": settings.divergence_function(),
        }


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


def random_logits(rows: int = len(WIDTHS), seed: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(rows, VOCAB, generator=generator, dtype=torch.float64)


def relative_error(got: Tensor, want: Tensor) -> Tensor:
    """Of each row."""
    return (got.double() - want).norm(dim=-1) / want.norm(dim=-1)


@every_setting
def test_plain_loss_and_gradient_equal_the_dense_definition(problem, settings):
    logits_TV, options = random_logits().requires_grad_(), problem.options(settings)
    ours_T, dense_T = truncated_kl(logits_TV, **options), problem.dense(logits_TV, settings)
    has_target = options["targets"].has_target
    torch.testing.assert_close(ours_T[has_target], dense_T, rtol=1e-9, atol=1e-11)
    assert (ours_T[~has_target] == 0).all()
    ours, exact = (torch.autograd.grad(loss.sum(), logits_TV)[0] for loss in (ours_T, dense_T))
    torch.testing.assert_close(ours, exact, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("settings", [_ONE[1], _ONE[2], _SAMPLED[0], _HEAD_TEMPERED[0]], ids=name_of)
def test_the_plain_loss_traces_as_one_graph(problem, settings):
    torch.compiler.reset()  # each recompiles the same function
    logits_TV, options = random_logits(), problem.options(settings)
    compiled = torch.compile(truncated_kl, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(logits_TV, **options), truncated_kl(logits_TV, **options))


@pytest.mark.parametrize(("ce_weight", "softcap"), [(0.0, None), (0.7, 3.0)])
@every_setting
def test_fused_loss_and_all_gradients_equal_the_dense_definition(problem, settings, ce_weight, softcap):
    inputs = leaves(len(WIDTHS))
    result = linear_truncated_kl(
        *inputs, **problem.options(settings), labels_T=problem.labels, kl_weight=0.4, cross_entropy_weight=ce_weight,
        softcap=softcap, chunk_rows=3,
    )  # fmt: skip
    check_against_dense(problem, settings, result.loss, inputs, ce_weight, softcap, tolerance=1e-9)


def check_against_dense(problem, settings, loss, inputs, ce_weight, softcap, tolerance):
    exact = [leaf.detach().double().requires_grad_() for leaf in inputs]
    logits = linear(*exact)
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    truth = 0.4 * problem.dense(logits, settings).sum()
    truth = truth + ce_weight * cross_entropy(logits, problem.labels, reduction="sum")
    assert loss.item() == pytest.approx(truth.item(), rel=tolerance)
    for got, want in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(truth, exact), strict=True):
        assert relative_error(got.flatten(), want.flatten()) < tolerance


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


@pytest.mark.parametrize("settings", [_ONE[0], _SAMPLED[1], replace(_ONE[2], temperature=2.0)], ids=name_of)
def test_kernels_equal_the_dense_definition(monkeypatch, problem, settings):
    check_kernels(monkeypatch, problem, settings, ce_weight=0.7, softcap=3.0)


@pytest.mark.slow
@every_setting
def test_kernels_equal_every_dense_definition(monkeypatch, problem, settings):
    check_kernels(monkeypatch, problem, settings, ce_weight=0.0, softcap=None)


@every_setting
def test_float32_stays_within_1e_5_of_the_float64_truth(problem, settings):
    inputs = leaves(len(WIDTHS), torch.float32)
    loss = linear_truncated_kl(*inputs, **problem.options(settings), kl_weight=0.4, chunk_rows=3).loss
    check_against_dense(problem, settings, loss, inputs, 0.0, None, tolerance=1e-5)


@every_setting
def test_bfloat16_is_no_worse_than_the_naive_way_in_bfloat16(problem, settings):
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
def test_a_padded_students_extra_ids_change_nothing_and_get_no_gradient(problem, settings):
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


TAILS = [1e-12, 1e-7, 1e-3, 1 - 1e-7]
DRAWS = [7, 7, 90]


@pytest.fixture(scope="module")
def extreme() -> Problem:
    """A head of two ids and each of the tails, once for a student of no and once for one of much confidence."""
    tails = torch.tensor(TAILS + TAILS, dtype=torch.float64)
    rows = len(tails)
    teacher = (tails / (VOCAB - 2)).unsqueeze(-1).repeat(1, VOCAB)
    teacher[:, 3], teacher[:, 5] = 0.75 * (1 - tails), 0.25 * (1 - tails)
    tempered = (teacher.log() / 2).softmax(-1)
    cooled = (teacher.log() * 2).softmax(-1)
    return Problem(
        teacher_z=teacher.log(),
        targets=RaggedTargets(
            head_ids=torch.tensor([3, 5]).repeat(rows),
            head_log_probs=teacher[:, [3, 5]].log().flatten(),
            head_offsets=2 * torch.arange(rows + 1),
            log_tail=tails.log(),
            vocab_size=VOCAB,
            log_next=teacher[:, 200].log(),
            sample_ids=torch.tensor(DRAWS).repeat(rows),
            sample_offsets=3 * torch.arange(rows + 1),
            tempered_log_tails={
                t: torch.cat([mass[:, :3], mass[:, 4:5], mass[:, 6:]], -1).sum(-1).log()
                for t, mass in ((2.0, tempered), (0.5, cooled))
            },
        ),
        labels=torch.tensor([200, 200, 5, NO_LABEL]).repeat(2),
        draws=[DRAWS] * rows,
    )


def extreme_logits() -> Tensor:
    logits = random_logits(2 * len(TAILS))
    logits[len(TAILS) :, 3] += 12
    return logits.float()


@every_setting
def test_extreme_tails_keep_the_gradient_of_every_row_accurate(extreme, settings):
    logits_TV = extreme_logits()
    exact = logits_TV.double().requires_grad_()
    truth = torch.autograd.grad(extreme.dense(exact, settings).sum(), exact)[0]
    plain = logits_TV.requires_grad_()
    of_plain = torch.autograd.grad(truncated_kl(plain, **extreme.options(settings)).sum(), plain)[0]
    assert (relative_error(of_plain, truth) < 1e-4).all()
    # Hidden states that are unit vectors make the weight the logits.
    hidden, weight = torch.eye(len(logits_TV)), logits_TV.detach().T.contiguous().requires_grad_()
    loss = linear_truncated_kl(hidden, weight, None, **extreme.options(settings)).loss
    assert (relative_error(torch.autograd.grad(loss, weight)[0].T, truth) < 1e-4).all()


def test_extreme_tails_keep_the_gradient_of_the_kernels_accurate(extreme):
    settings, logits_TV = LossSettings(), extreme_logits()
    exact = logits_TV.double().requires_grad_()
    truth = torch.autograd.grad(extreme.dense(exact, settings).sum(), exact)[0]
    hidden, weight = torch.eye(len(logits_TV)), logits_TV.T.contiguous().requires_grad_()
    loss = linear_truncated_kl(hidden, weight, None, **extreme.options(settings), impl="triton").loss
    assert (relative_error(torch.autograd.grad(loss, weight)[0].T, truth) < 1e-4).all()


@pytest.mark.parametrize("settings", _TEMPERED, ids=name_of)
def test_a_tempered_tail_of_all_the_mass_leaves_the_heads_terms_out(problem, settings):
    """A `tail@T` of 0 steps, as rounding makes it."""
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
