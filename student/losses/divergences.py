"""Divergences: functions of the log-probabilities of a row's buckets, of the teacher and of the student.

A loss that depends on the student only through log p of the head entries, the other bucket and the sampled ids has a
simple gradient. With slopes g_b = ∂L/∂log p_b and G = Σ_b g_b,

    ∂L/∂z_j = g_j − p_j G                   for j in the head
    ∂L/∂z_j = (p_j / p_o) (g_o − p_o G)     for j outside, plus g_s for each draw s of j

So each divergence is written once, here, for the plain and the fused path. Autograd computes its slopes on N + T + M
numbers instead of T · V.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from logitcask.student.losses.targets import Buckets, RaggedTargets, segment_logsumexp

Divergence = Callable[[Buckets, Buckets], Tensor]
"""(teacher, student) → nats of each row, [T]."""

# The smallest tail above zero that a shard can store is e^−32 (FORMAT.md). A reverse KL divides by it instead of zero.
LOG_FLOOR_NATS = -32.0


def forward_kl(teacher: Buckets, student: Buckets) -> Tensor:
    """KL(teacher ‖ student): Σ_b t_b (log t_b − log p_b)."""
    return _summed(_forward_terms, teacher, student)


def reverse_kl(teacher: Buckets, student: Buckets) -> Tensor:
    """KL(student ‖ teacher): Σ_b p_b (log p_b − log t_b), where t_b is at least e^−32."""
    return _summed(_reverse_terms, teacher, student)


@dataclass(frozen=True, kw_only=True, slots=True)
class JensenShannon:
    """β KL(t ‖ m) + (1 − β) KL(p ‖ m) with m = β t + (1 − β) p (Agarwal et al. 2024, "GKD", eq. 1).

    Divided by β, it tends to the forward KL for β → 0. At β = ½ it is symmetric and at most log 2.
    """

    beta: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.beta < 1:
            raise ValueError(f"the teacher's share in the mixture must be between 0 and 1; found {self.beta}")

    def __call__(self, teacher: Buckets, student: Buckets) -> Tensor:
        return _summed(self._terms, teacher, student)

    def _terms(self, target_log: Tensor, student_log: Tensor) -> Tensor:
        share = torch.tensor(self.beta, dtype=student_log.dtype, device=student_log.device)
        student_is_0 = student_log.isneginf()
        student_log = torch.where(student_is_0, 0.0, student_log)  # finite, so that no 0 · ∞ enters the slope
        mixture = torch.logaddexp(target_log + share.log(), student_log + torch.log1p(-share))
        mixture = torch.where(student_is_0, target_log + share.log(), mixture)
        excess = torch.where(student_is_0, 0.0, student_log.exp() * (student_log - mixture))
        return self.beta * _forward_terms(target_log, mixture) + (1 - self.beta) * excess


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadTemperedKL:
    """Tempering without the tempered tail (LFM2 technical report 2025, "decoupled, tempered top-k").

    KL of (head mass, tail mass) at temperature 1, plus the teacher's head mass times T² KL(t̂ ‖ p̂) for the distributions
    t̂ ∝ t^(1/T), p̂ ∝ p^(1/T) inside the head. At T = 1 it is the forward KL over all buckets.
    """

    temperature: float

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"the temperature must be above 0; found {self.temperature}")

    def __call__(self, teacher: Buckets, student: Buckets) -> Tensor:
        teacher_mass_T, teacher_inside_N = self._split(teacher)
        student_mass_T, student_inside_N = self._split(student)
        between_T = _forward_terms(teacher_mass_T, student_mass_T) + _forward_terms(teacher.other, student.other)
        inside_T = between_T.new_zeros(between_T.shape)
        inside_T = inside_T.index_add(0, teacher.rows, _forward_terms(teacher_inside_N, student_inside_N))
        return between_T + self.temperature**2 * teacher_mass_T.exp() * inside_T

    def _split(self, buckets: Buckets) -> tuple[Tensor, Tensor]:
        """Log mass of each row's head, [T], and the tempered distribution inside it, [N]."""
        num_rows = buckets.other.shape[0]
        tempered_N = buckets.head / self.temperature
        normalizer_T = segment_logsumexp(tempered_N, buckets.rows, num_rows)
        # If the student gives the whole head no probability, its logs stay −inf; −inf − (−inf) would be nan.
        normalizer_T = torch.where(normalizer_T.isneginf(), 0.0, normalizer_T)
        mass_T = segment_logsumexp(buckets.head, buckets.rows, num_rows)
        return mass_T, tempered_N - normalizer_T[buckets.rows]


def raw_head(teacher: Buckets, student: Buckets) -> Tensor:
    """Σ over the head alone of t_i (log t_i − log p_i): not a divergence, it may be negative.

    A biased baseline for comparison: the KL of stored top-k probabilities that ignores the tail.
    """
    return _summed(_forward_terms, teacher, student, with_other=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class SampledCrossEntropy:
    """Gives a share of the tail's mass to ids drawn from the tail, and the rest to the other bucket.

    `share` · C + (1 − `share`) · KL, where C = −Σ_{i∈H} t_i log p_i − Σ_s (t_o / m) log p_s over the m draws. C is an
    unbiased estimate of the teacher's full cross-entropy, and its gradient is an unbiased estimate of the gradient of
    full distillation. It is not a divergence, because the entropy of the tail is unknown. Rows without draws (hardly
    any mass is outside the head) use the other bucket instead.
    """

    share: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"the sample's share of the tail must be above 0 and at most 1; found {self.share}")

    def __call__(self, teacher: Buckets, student: Buckets) -> Tensor:
        has_draws_T = torch.zeros_like(teacher.other).index_fill(0, teacher.sample_rows, 1.0)
        to_bucket_T = 1 - self.share * has_draws_T
        loss_T = _cross_terms(teacher.other, student.other) * to_bucket_T
        loss_T = loss_T.index_add(0, teacher.rows, _cross_terms(teacher.head, student.head))
        loss_T = loss_T.index_add(0, teacher.sample_rows, self.share * _cross_terms(teacher.sample, student.sample))
        return loss_T - (1 - self.share) * _summed(_cross_terms, teacher, teacher)


def bucket_losses(targets: RaggedTargets, student: Buckets, divergence: Divergence) -> Tensor:
    """The divergence of each row from its target, [T]; 0 for rows without one."""
    loss_T = divergence(targets.buckets(student.head.dtype), student)
    return torch.where(targets.has_target, loss_T, 0.0)


def bucket_slopes(targets: RaggedTargets, student: Buckets, divergence: Divergence) -> tuple[Tensor, Buckets]:
    """The losses [T], and their derivatives with respect to log p of each bucket."""
    with torch.enable_grad():
        leaves = [log.detach().requires_grad_() for log in (student.head, student.other, student.sample)]
        student = student.with_logs(*leaves)
        loss_T = bucket_losses(targets, student, divergence)
        slopes = torch.autograd.grad(loss_T.sum(), leaves, materialize_grads=True)
    return loss_T.detach(), student.with_logs(*slopes)


def check_divergence(targets: RaggedTargets, divergence: Divergence, temperature: float) -> None:
    """Refuses meaningless combinations.

    Raises:
        ValueError: a temperature of 0 or below; sampled targets at a temperature other than 1; a sampled loss without
            a sample.
    """
    if not temperature > 0:
        raise ValueError(f"the temperature must be above 0; found {temperature}")
    if not isinstance(divergence, SampledCrossEntropy):
        return
    if temperature != 1:
        raise ValueError(f"ids drawn at temperature 1 do not fit temperature {temperature:g}; use the other bucket")
    if targets.sample_ids is None:
        raise ValueError("the targets have no tail sample; use the other bucket")


def _summed(
    terms: Callable[[Tensor, Tensor], Tensor], teacher: Buckets, student: Buckets, with_other: bool = True
) -> Tensor:
    """Σ of terms(log t, log p) over a row's head and, unless excluded, its other bucket; [T]."""
    loss_T = student.other.new_zeros(student.other.shape)
    loss_T = loss_T.index_add(0, teacher.rows, terms(teacher.head, student.head))
    return loss_T + terms(teacher.other, student.other) if with_other else loss_T


def _forward_terms(target_log: Tensor, student_log: Tensor) -> Tensor:
    """t (log t − log p); a bucket with t = 0 contributes 0, whatever p is."""
    is_empty = target_log.isneginf()
    # Both logs are made finite before the subtraction: 0 · (−inf + inf) is nan, in the backward pass too.
    student_log = torch.where(is_empty, 0.0, student_log)
    target_log = torch.where(is_empty, 0.0, target_log)
    return torch.where(is_empty, 0.0, target_log.exp() * (target_log - student_log))


def _cross_terms(target_log: Tensor, student_log: Tensor) -> Tensor:
    """−t log p; 0 where t is 0."""
    is_empty = target_log.isneginf()
    return torch.where(is_empty, 0.0, -target_log.exp() * torch.where(is_empty, 0.0, student_log))


def _reverse_terms(target_log: Tensor, student_log: Tensor) -> Tensor:
    """p (log p − log t); a bucket with p = 0 contributes 0."""
    is_empty = student_log.isneginf()
    student_log = torch.where(is_empty, 0.0, student_log)
    floored = target_log.clamp(min=LOG_FLOOR_NATS)
    return torch.where(is_empty, 0.0, student_log.exp() * (student_log - floored))
