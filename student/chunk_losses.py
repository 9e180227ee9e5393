"""The losses of a chunk of rows, and their gradient written over the chunk's logits [C, V].

Everything about the head and the sample (N + M entries, ~1/500 of the logits) is done in float64, so that p − t of a
confident row is exact where float32 has no digits left; the complement is summed about its own maximum, never as 1 − Σ.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from student.divergences import Divergence, bucket_losses, bucket_slopes
from student.targets import NO_LABEL, Buckets, RaggedTargets, segment_logsumexp


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Objective:
    """What a chunk's logits are driven to, but for the targets.

    Attributes:
        divergence: of the buckets.
        temperature: of the divergence, not of the cross-entropy.
        kl_weight, cross_entropy_weight: factors of the two sums.
        wants_gradient: whether to turn the logits into their gradient.
    """

    divergence: Divergence
    temperature: float
    kl_weight: float | Tensor
    cross_entropy_weight: float | Tensor
    wants_gradient: bool


def chunk_losses(logits: Tensor, targets: RaggedTargets, labels: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
    """Divergence and cross-entropy of each row, float64[C]; `logits` becomes the gradient of their weighted sum.

    Without `wants_gradient` the logits are used up.
    """
    temperature = objective.temperature
    if temperature == 1:
        return _one_pass(logits, targets, labels, objective)
    # Two softmaxes, so two passes over [C, V] (and twice the working memory).
    tempered = logits / temperature
    kl, _ = _one_pass(tempered, targets, torch.full_like(labels, NO_LABEL), objective)
    _, cross_entropy = _one_pass(logits, _without_targets(targets), labels, objective)
    if objective.wants_gradient:
        # T² of the loss, and 1 / T of the chain rule.
        logits.add_(tempered, alpha=temperature)
    return temperature**2 * kl, cross_entropy


def _without_targets(targets: RaggedTargets) -> RaggedTargets:
    return replace(
        targets,
        head_ids=targets.head_ids[:0],
        head_log_probs=targets.head_log_probs[:0],
        head_offsets=torch.zeros_like(targets.head_offsets),
        log_tail=torch.full_like(targets.log_tail, float("nan")),
        sample_ids=None,
        sample_offsets=None,
    )


def _one_pass(logits: Tensor, targets: RaggedTargets, labels: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
    head = (targets.head_rows(), targets.head_ids)
    sample_rows = targets.sample_rows()
    sample = (sample_rows, sample_rows if targets.sample_ids is None else targets.sample_ids)
    label_rows = (labels != NO_LABEL).nonzero().squeeze(-1)
    label = (label_rows, labels[label_rows])
    head_z, sample_z, label_z = logits[head].double(), logits[sample].double(), logits[label].double()
    other_lse, other_sum = _exponentiate_complement(logits, head)
    normaliser = torch.logaddexp(other_lse, segment_logsumexp(head_z, head[0], logits.shape[0]))
    student = Buckets(
        rows=head[0],
        head=head_z - normaliser[head[0]],
        other=other_lse - normaliser,
        sample_rows=sample_rows,
        sample=sample_z - normaliser[sample_rows],
    )
    cross_entropy = torch.zeros_like(normaliser)
    cross_entropy[label_rows] = normaliser[label_rows] - label_z
    if not objective.wants_gradient:
        return bucket_losses(targets, student, objective.divergence), cross_entropy

    kl, slopes = bucket_slopes(targets, student, objective.divergence)
    label_weights = torch.zeros_like(normaliser)
    label_weights[label_rows] = objective.cross_entropy_weight
    by_complement, by_head = _gradients(student, slopes, objective.kl_weight, label_weights)
    logits.mul_(torch.where(other_sum > 0, by_complement / other_sum, 0.0).to(logits.dtype).unsqueeze(-1))
    logits[head] = by_head.to(logits.dtype)
    if targets.sample_ids is not None:
        logits.index_put_(sample, (objective.kl_weight * slopes.sample).to(logits.dtype), accumulate=True)
    logits[label] -= label_weights[label_rows].to(logits.dtype)
    return kl, cross_entropy


def _gradients(
    student: Buckets, slopes: Buckets, kl_weight: float | Tensor, label_weights: Tensor
) -> tuple[Tensor, Tensor]:
    """What the softmax inside the complement is multiplied by, [C], and the gradient of each head entry, [N].

    With slopes g and G = Σ g, p_o · (g_o / p_o − G) is written g_o − p_o G, which has no 0/0 for p_o → 0. For the
    forward KL, where g = −t and G = −1, they are p_o − t_o and p_i − t_i.
    """
    head_p, other_p = student.head.exp(), student.other.exp()
    total = slopes.other.index_add(0, student.rows, slopes.head).index_add(0, student.sample_rows, slopes.sample)
    by_complement = kl_weight * (slopes.other - other_p * total) + label_weights * other_p
    by_head = kl_weight * (slopes.head - head_p * total[student.rows]) + label_weights[student.rows] * head_p
    return by_complement, by_head


def _exponentiate_complement(logits: Tensor, head: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """`logits` ← exp(logits − maximum outside the head), 0 in the head; its log-sum-exp and sum, float64.

    Where everything outside the head is −inf (or nothing is outside) all is 0 and the log-sum-exp −inf.
    """
    logits[head] = float("-inf")
    maximum = logits.amax(dim=-1)
    shift = maximum.where(~maximum.isneginf(), 0.0)
    total = logits.sub_(shift.unsqueeze(-1)).exp_().sum(dim=-1).double()
    return shift.double() + total.log(), total
