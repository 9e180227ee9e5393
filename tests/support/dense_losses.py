"""The dense definition of every loss in float64, and random problems for it.

The definitions see whole distributions, one row at a time, and do not use the code that they test."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from logitcask.student.losses.loss_settings import LossSettings
from logitcask.student.losses.targets import NO_LABEL, RaggedTargets

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


PLAIN = [
    LossSettings(tail=tail, divergence=divergence, jsd_beta=BETA)  # type: ignore[arg-type]
    for tail, divergences in _DIVERGENCES.items()
    for divergence in divergences
]


TEMPERED = [replace(settings, temperature=2.0) for settings in PLAIN]


HEAD_TEMPERED = [
    LossSettings(tail=tail, temperature=2.0, tempering="head")  # type: ignore[arg-type]
    for tail in ("other", "label", "renormalize", "residual")
]


SAMPLED = [LossSettings(tail=tail, sample_share=SHARE) for tail in ("sample", "blend")]


COOLED = [LossSettings(temperature=0.5), LossSettings(temperature=0.5, tempering="head")]


ALL = [*PLAIN, *SAMPLED, *TEMPERED, *HEAD_TEMPERED, *COOLED]


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


def leaves(rows: int, dtype: torch.dtype = torch.float64, vocab_size: int = VOCAB) -> list[Tensor]:
    """Hidden states, weight and bias, with gradients: the same numbers in every dtype."""
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


def check_against_dense(problem, settings, loss, inputs, ce_weight, softcap, tolerance):
    exact = [leaf.detach().double().requires_grad_() for leaf in inputs]
    logits = linear(*exact)
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    truth = 0.4 * problem.dense(logits, settings).sum()
    truth = truth + ce_weight * cross_entropy(logits, problem.labels, reduction="sum")
    assert loss.item() == pytest.approx(truth.item(), rel=tolerance)
    for got, want in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(truth, exact), strict=True):
        assert relative_error(got.flatten(), want.flatten()) < tolerance


TAILS = [1e-12, 1e-7, 1e-3, 1 - 1e-7]


DRAWS = [7, 7, 90]


def extreme_logits() -> Tensor:
    logits = random_logits(2 * len(TAILS))
    logits[len(TAILS) :, 3] += 12
    return logits.float()
