"""What is minimised: functions of the log-probabilities of a row's buckets, the teacher's and the student's.

A loss that sees the student only through log p of each head entry, of the other bucket and of the sampled ids needs
nothing else in its backward pass: with slopes g_b = ∂L/∂log p_b and G = Σ_b g_b,

    ∂L/∂z_j = g_j − p_j G                   for j in the head
    ∂L/∂z_j = (p_j / p_o) (g_o − p_o G)     for j outside, plus g_s for each time s that j was sampled

So a divergence is written once, here, and serves the plain and the fused path; autograd finds its slopes on N + T + M
numbers instead of T · V.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from logitcask.student.losses.targets import Buckets, RaggedTargets, segment_logsumexp

Divergence = Callable[[Buckets, Buckets], Tensor]
"""(teacher, student) → nats of each row, [T]."""

# The smallest tail that a shard tells from zero is e^−32 (FORMAT.md): where a reverse KL would divide by zero, it
# divides by that.
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

    Divided by β it tends to the forward KL for β → 0; at ½ it is symmetric and at most log 2.
    """

    beta: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.beta < 1:
            raise ValueError(f"the teacher's share in the mixture lies between 0 and 1; found {self.beta}")

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
    """Tempering without knowing the tempered tail (LFM2 technical report 2025, "decoupled, tempered top-k").

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
        normaliser_T = segment_logsumexp(tempered_N, buckets.rows, num_rows)
        # A head that the student excludes stays −inf throughout; −inf − (−inf) would be nan.
        normaliser_T = torch.where(normaliser_T.isneginf(), 0.0, normaliser_T)
        mass_T = segment_logsumexp(buckets.head, buckets.rows, num_rows)
        return mass_T, tempered_N - normaliser_T[buckets.rows]


def raw_head(teacher: Buckets, student: Buckets) -> Tensor:
    """Σ over the head alone of t_i (log t_i − log p_i): not a divergence: it may be negative.

    A biased baseline, for comparison: what a KL of stored top-k probabilities gives when the rest is forgotten.
    """
    return _summed(_forward_terms, teacher, student, with_other=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class SampledCrossEntropy:
    """Aims a share of the tail's mass at ids drawn from it, and the rest at the other bucket.

    `share` · C + (1 − `share`) · KL, where C = −Σ_{i∈H} t_i log p_i − Σ_s (t_o / m) log p_s over the m draws. C is an
    unbiased estimate of the teacher's full cross-entropy, and its gradient of full distillation's; it is no divergence,
    since the entropy of the tail is unknown. In rows without draws (hardly any mass is outside the head) the other
    bucket stands in for them.
    """

    share: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"the share of the tail that goes to the sample lies in (0, 1]; found {self.share}")

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
    """The losses, and their derivatives by log p of each bucket, in the same places."""
    with torch.enable_grad():
        leaves = [log.detach().requires_grad_() for log in (student.head, student.other, student.sample)]
        student = student.with_logs(*leaves)
        loss_T = bucket_losses(targets, student, divergence)
        slopes = torch.autograd.grad(loss_T.sum(), leaves, materialize_grads=True)
    return loss_T.detach(), student.with_logs(*slopes)


def check_divergence(targets: RaggedTargets, divergence: Divergence, temperature: float) -> None:
    """Refuses what has no meaning.

    Raises:
        ValueError: sampled targets at a temperature other than 1; a sampled loss without a sample.
    """
    if not temperature > 0:
        raise ValueError(f"the temperature must be above 0; found {temperature}")
    if not isinstance(divergence, SampledCrossEntropy):
        return
    if temperature != 1:
        raise ValueError(f"ids drawn at temperature 1 say nothing of temperature {temperature:g}; use the other bucket")
    if targets.sample_ids is None:
        raise ValueError("the targets carry no tail sample")


def _summed(
    terms: Callable[[Tensor, Tensor], Tensor], teacher: Buckets, student: Buckets, with_other: bool = True
) -> Tensor:
    """Σ over a row's head of terms(log t, log p), and the other bucket's; [T]."""
    loss_T = student.other.new_zeros(student.other.shape)
    loss_T = loss_T.index_add(0, teacher.rows, terms(teacher.head, student.head))
    return loss_T + terms(teacher.other, student.other) if with_other else loss_T


def _forward_terms(target_log: Tensor, student_log: Tensor) -> Tensor:
    """t (log t − log p); a bucket the teacher gives nothing contributes nothing, whatever the student says."""
    is_empty = target_log.isneginf()
    # Both sides are made finite before the subtraction: 0 · (−inf + inf) is nan, also in the backward pass.
    student_log = torch.where(is_empty, 0.0, student_log)
    target_log = torch.where(is_empty, 0.0, target_log)
    return torch.where(is_empty, 0.0, target_log.exp() * (target_log - student_log))


def _cross_terms(target_log: Tensor, student_log: Tensor) -> Tensor:
    """−t log p; nothing where t is 0."""
    is_empty = target_log.isneginf()
    return torch.where(is_empty, 0.0, -target_log.exp() * torch.where(is_empty, 0.0, student_log))


def _reverse_terms(target_log: Tensor, student_log: Tensor) -> Tensor:
    """p (log p − log t); a bucket the student gives nothing contributes nothing."""
    is_empty = student_log.isneginf()
    student_log = torch.where(is_empty, 0.0, student_log)
    floored = target_log.clamp(min=LOG_FLOOR_NATS)
    return torch.where(is_empty, 0.0, student_log.exp() * (student_log - floored))
