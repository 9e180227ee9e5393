"""Full distillation from a live teacher, without [T, V]: projection, soft-cap, KL over all ids and cross-entropy.

For each chunk of rows, the logits of student and teacher are computed, and the student's logits are overwritten by
their own gradient. Working memory is three chunks of [C, V] in float32, four at a temperature other than one. The
logits of a whole batch never exist.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from logitcask.student.losses.gradient_sums import GradientSums
from logitcask.student.losses.linear_projection import (
    CHUNK_ROWS,
    LinearLoss,
    project,
    scaled,
    to_autocast_dtype,
    weighted_losses,
)
from logitcask.student.losses.targets import NO_LABEL

TeacherLogits = Callable[[int, int], Tensor]
"""(start, stop) → the teacher's final logits of these rows, float32 [C, V]; the caller may overwrite them."""


# Stands for log 0 of a teacher: its exponential is 0 and its product with 0 is 0.
_LOG_ZERO = -1e4


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FullObjective:
    """What is minimized against a live teacher.

    Attributes:
        teacher_logits: The teacher's logits, by ranges of rows.
        vocab_size: V of the teacher; the student's ids beyond it are excluded.
        labels: int64 [T], the actual next token, −100 where there is none.
        kl_weight, cross_entropy_weight: Factors of the two sums.
        temperature: Of the KL, whose value is multiplied by its square; the cross-entropy stays at 1.
        chunk_rows: Rows whose logits exist at a time.
    """

    teacher_logits: TeacherLogits
    vocab_size: int
    labels: Tensor
    kl_weight: float | Tensor = 1.0
    cross_entropy_weight: float | Tensor = 0.0
    temperature: float = 1.0
    chunk_rows: int = CHUNK_ROWS


def linear_full_kl(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    objective: FullObjective,
    *,
    softcap: float | None = None,
) -> LinearLoss:
    """KL(teacher ‖ student) over the whole vocabulary, and cross-entropy, of an output projection's logits.

    Equals `kl_weight · T² Σ_rows Σ_v t (log t − log p) + cross_entropy_weight · cross_entropy(logits, labels,
    reduction="sum")` with t = softmax(teacher / T) and p = softmax(student / T), over the teacher's ids.

    Args:
        hidden_TD: The student trunk's output for T rows.
        weight_VD: The student's output embeddings; rows beyond the teacher's vocabulary get no gradient.
        bias_V: Or None.
        objective: The teacher's logits for the same rows, and the weights.
        softcap: The student's final logit soft-cap, or None.
    """
    hidden_TD = to_autocast_dtype(hidden_TD)
    arguments = (hidden_TD, weight_VD, bias_V, softcap, objective, torch.is_grad_enabled())
    loss, kl_T, cross_entropy_T = _LinearFullKL.apply(*arguments)  # type: ignore[misc]
    return LinearLoss(loss=loss, kl=kl_T, cross_entropy=cross_entropy_T)


class _LinearFullKL(torch.autograd.Function):
    """Computes gradients in the forward pass; the backward pass only scales them."""

    @staticmethod
    def forward(ctx: FunctionCtx, hidden_TD, weight_VD, bias_V, softcap, objective: FullObjective, with_gradient: bool):
        needed = [with_gradient and needs for needs in ctx.needs_input_grad[:3]]  # pyright: ignore
        inputs, num_chunks = (hidden_TD, weight_VD, bias_V), -(-len(hidden_TD) // objective.chunk_rows)
        sums = GradientSums.zeros(inputs, needed, objective.vocab_size, num_chunks)
        kl_T = hidden_TD.new_zeros(len(hidden_TD), dtype=torch.float64)
        cross_entropy_T = torch.zeros_like(kl_T)
        weight = weight_VD[: objective.vocab_size].to(hidden_TD.dtype)
        bias = None if bias_V is None else bias_V[: objective.vocab_size].to(hidden_TD.dtype)
        with torch.autocast(hidden_TD.device.type, enabled=False):
            for start in range(0, len(hidden_TD), objective.chunk_rows):
                rows = slice(start, min(start + objective.chunk_rows, len(hidden_TD)))
                hidden = hidden_TD[rows]
                logits, slope = project(hidden, weight, bias, softcap, keep_slope=any(needed))
                kl_T[rows], cross_entropy_T[rows] = _chunk_losses(logits, rows, objective, needs_gradient=any(needed))
                if any(needed):
                    logits = logits if slope is None else logits.mul_(slope)
                    sums.add(start, logits.to(hidden.dtype), hidden, weight)
        ctx.save_for_backward(*sums.like(inputs))  # pyright: ignore
        weights = (objective.kl_weight, objective.cross_entropy_weight)
        loss, kl_T, cross_entropy_T = weighted_losses(kl_T, cross_entropy_T, *weights, like=hidden_TD)
        ctx.mark_non_differentiable(kl_T, cross_entropy_T)
        return loss, kl_T, cross_entropy_T

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss: Tensor, *_):
        return *(scaled(gradient, grad_loss) for gradient in ctx.saved_tensors), None, None, None


def _chunk_losses(logits: Tensor, rows: slice, objective: FullObjective, *, needs_gradient: bool):
    """KL and cross-entropy of a chunk's rows, float64; `logits` becomes the gradient of their weighted sum."""
    temperature, kl_weight = objective.temperature, objective.kl_weight
    labels = objective.labels[rows]
    tempered = logits / temperature if temperature != 1 else None
    log_p = logits.sub_(logits.logsumexp(dim=-1, keepdim=True))
    labeled = (labels != NO_LABEL).nonzero().squeeze(-1)
    cross_entropy = log_p.new_zeros(len(labels), dtype=torch.float64)
    cross_entropy[labeled] = -log_p[labeled, labels[labeled]].double()
    if tempered is not None:
        tempered.sub_(tempered.logsumexp(dim=-1, keepdim=True))
    log_p_tempered = log_p if tempered is None else tempered
    teacher = objective.teacher_logits(rows.start, rows.stop).to(log_p.dtype)
    kl, teacher_p = full_kl(log_p_tempered, teacher if temperature == 1 else teacher / temperature)
    if needs_gradient:
        label_weights = torch.zeros_like(cross_entropy)
        label_weights[labeled] = objective.cross_entropy_weight
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
