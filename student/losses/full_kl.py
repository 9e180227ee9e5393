"""Full distillation from a live teacher, without [T, V]: projection, soft-cap, KL over all ids and cross-entropy.

For each chunk of rows, the logits of student and teacher are computed, and the student's logits are overwritten by
their own gradient. Working memory is three chunks of [C, V] in float32, four at a temperature other than one. The
logits of a whole batch never exist.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from logitcask.student.losses.fused_loss import CHUNK_ROWS, LinearLoss, by_chunks, fused_loss, in_autocast_dtype
from logitcask.student.losses.targets import NO_LABEL

TeacherLogits = Callable[[int, int], Tensor]
"""(start, stop) → the teacher's final logits of these rows, float32 [C, V]; the caller may overwrite them."""


# Stands for log 0 of a teacher: its exponential is 0 and its product with 0 is 0.
_LOG_ZERO = -1e4


def linear_full_kl(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    teacher_logits: TeacherLogits,
    vocab_size: int,
    *,
    labels_T: Tensor,
    kl_weight: float | Tensor = 1.0,
    cross_entropy_weight: float | Tensor = 0.0,
    softcap: float | None = None,
    temperature: float = 1.0,
    chunk_rows: int = CHUNK_ROWS,
) -> LinearLoss:
    """KL(teacher ‖ student) over the whole vocabulary, and cross-entropy, of an output projection's logits.

    Equals `kl_weight · T² Σ_rows Σ_v t (log t − log p) + cross_entropy_weight · cross_entropy(logits, labels,
    reduction="sum")` with t = softmax(teacher / T) and p = softmax(student / T), over the teacher's ids.

    Args:
        hidden_TD: The student trunk's output for T rows.
        weight_VD: The student's output embeddings; rows beyond the teacher's vocabulary get no gradient.
        bias_V: Or None.
        teacher_logits: The teacher's logits for the same rows, by ranges.
        vocab_size: V of the teacher; the student's ids beyond it are excluded.
        labels_T: int64, the actual next token, −100 where there is none.
        kl_weight, cross_entropy_weight: Factors of the two sums.
        softcap: The student's final logit soft-cap, or None.
        temperature: Of the KL, whose value is multiplied by its square; the cross-entropy stays at 1.
        chunk_rows: Rows whose logits exist at a time.
    """

    def chunk_losses(logits: Tensor, rows: slice, needs_gradient: bool) -> tuple[Tensor, Tensor]:
        teacher = teacher_logits(rows.start, rows.stop).to(logits.dtype)
        weights = (kl_weight, cross_entropy_weight) if needs_gradient else None
        return _chunk_losses(logits, teacher, labels_T[rows], temperature, weights)

    starts = range(0, len(hidden_TD), chunk_rows)
    ranges = [(start, min(start + chunk_rows, len(hidden_TD))) for start in starts]
    by_rows = partial(by_chunks, ranges=ranges, chunk_losses=chunk_losses, vocab_size=vocab_size, softcap=softcap)
    return fused_loss((in_autocast_dtype(hidden_TD), weight_VD, bias_V), by_rows, kl_weight, cross_entropy_weight)


def _chunk_losses(
    logits: Tensor,
    teacher: Tensor,
    labels: Tensor,
    temperature: float,
    weights: tuple[float | Tensor, float | Tensor] | None,
) -> tuple[Tensor, Tensor]:
    """KL and cross-entropy of a chunk's rows, float64; `logits` becomes the gradient of their sum with the weights."""
    tempered = logits / temperature if temperature != 1 else None
    log_p = logits.sub_(logits.logsumexp(dim=-1, keepdim=True))
    labeled = (labels != NO_LABEL).nonzero().squeeze(-1)
    cross_entropy = log_p.new_zeros(len(labels), dtype=torch.float64)
    cross_entropy[labeled] = -log_p[labeled, labels[labeled]].double()
    if tempered is not None:
        tempered.sub_(tempered.logsumexp(dim=-1, keepdim=True))
    log_p_tempered = log_p if tempered is None else tempered
    kl, teacher_p = full_kl(log_p_tempered, teacher if temperature == 1 else teacher / temperature)
    if weights is not None:
        kl_weight, cross_entropy_weight = weights
        label_weights = torch.zeros_like(cross_entropy)
        label_weights[labeled] = cross_entropy_weight
        by_row = label_weights.to(logits.dtype).unsqueeze(-1)
        # T² from the loss, 1 / T from the chain rule.
        factor = torch.as_tensor(kl_weight, device=logits.device).to(logits.dtype) * temperature
        p = log_p.exp_()
        if tempered is None:
            p.mul_(by_row + factor)
        else:
            p.mul_(by_row).add_(tempered.exp_().mul_(factor))
        p.sub_(teacher_p.mul_(factor))
        p[labeled, labels[labeled]] -= by_row[labeled, 0]
    return temperature**2 * kl, cross_entropy


def full_kl(log_p_TV: Tensor, teacher_TV: Tensor) -> tuple[Tensor, Tensor]:
    """KL(teacher ‖ student) over the whole vocabulary, float64 [T], and the teacher's probabilities [T, V].

    Args:
        log_p_TV: The student's log-probabilities.
        teacher_TV: The teacher's logits; they are overwritten.
    """
    log_t_TV = teacher_TV.sub_(teacher_TV.logsumexp(dim=-1, keepdim=True)).clamp_(min=_LOG_ZERO)
    t_TV = log_t_TV.exp()
    return log_t_TV.sub_(log_p_TV).mul_(t_TV).sum(dim=-1, dtype=torch.float64), t_TV
