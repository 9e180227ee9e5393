"""A loss of an output projection's logits whose gradients are computed in the forward pass; [T, V] is never stored.

This works because the loss is a weighted sum whose weights are known in advance: the logits of a chunk of rows are
overwritten by their own gradient, which is multiplied at once into the gradients of hidden states, weight and bias. It
takes three matrix products, as many as plain `linear + cross_entropy`, and no recomputation.

Shapes: T rows, C of them in a chunk, D model width, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from logitcask.student.losses.gradient_sums import GradientSums

CHUNK_ROWS = 256  # measured on two AVX2 cores: 128 rows make the products 15 % slower, 64 rows 40 %

Gradients = Sequence[Tensor | None]
"""Of hidden states, weight and bias; None if not needed."""

LossesAndGradients = Callable[[Tensor, Tensor, Tensor | None, Sequence[bool]], tuple[Tensor, Tensor, Gradients]]
"""(hidden states, weight, bias, which gradients are needed) → KL and cross-entropy of each row, float64[T], and the
gradients of their weighted sum."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LinearLoss:
    """The loss of an output projection's logits.

    Attributes:
        loss: scalar, differentiable: kl_weight · Σ kl + cross_entropy_weight · Σ cross_entropy.
        kl: [T], nats per position, 0 without a target; no gradient. The value of another divergence if one was chosen.
        cross_entropy: [T], nats per position, 0 without a label; no gradient.
    """

    loss: Tensor
    kl: Tensor
    cross_entropy: Tensor


def scaled(gradients: Gradients, factor: Tensor) -> Gradients:
    """The gradients times a factor, in their own dtypes."""
    # The factor is usually one. On the CPU this check costs nothing and saves a pass over [V, D] and a copy of it.
    if factor.device.type == "cpu" and factor.item() == 1.0:
        return gradients
    return [None if gradient is None else gradient * factor.to(gradient.dtype) for gradient in gradients]


def fused_loss(
    inputs: tuple[Tensor, Tensor, Tensor | None],
    losses_and_gradients: LossesAndGradients,
    kl_weight: float | Tensor,
    cross_entropy_weight: float | Tensor,
    scale: Callable[[Gradients, Tensor], Gradients] = scaled,
) -> LinearLoss:
    """The weighted sum of the losses of all rows, float64 for float64 hidden states, else float32.

    Args:
        inputs: Hidden states [T, D], weight [V, D] and bias [V] or None. Products use the dtype of the hidden states.
        losses_and_gradients: Computes the losses and the needed gradients.
        kl_weight, cross_entropy_weight: A weight of zero switches a loss off, even if the loss is infinite.
        scale: Multiplies the gradients in the backward pass.
    """
    options = (losses_and_gradients, (kl_weight, cross_entropy_weight), scale, torch.is_grad_enabled())
    loss, kl_T, cross_entropy_T = _FusedLoss.apply(*inputs, *options)  # type: ignore[misc]
    return LinearLoss(loss=loss, kl=kl_T, cross_entropy=cross_entropy_T)


def in_autocast_dtype(hidden_TD: Tensor) -> Tensor:
    """The hidden states in the dtype that `torch.nn.functional.linear` would use under the current autocast."""
    device = hidden_TD.device.type
    return hidden_TD.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else hidden_TD


def by_chunks(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    needed: Sequence[bool],
    *,
    ranges: Sequence[tuple[int, int]],
    chunk_losses: Callable[[Tensor, slice, bool], tuple[Tensor, Tensor]],
    vocab_size: int,
    softcap: float | None,
) -> tuple[Tensor, Tensor, Gradients]:
    """`LossesAndGradients`, given the losses of the logits of a chunk of rows.

    Args:
        hidden_TD, weight_VD, bias_V, needed: As in `LossesAndGradients`.
        ranges: The rows of each chunk.
        chunk_losses: (logits [C, V], rows, whether a gradient is needed) → KL and cross-entropy, float64[C]; overwrites
            the logits with the gradient of the weighted sum if it is needed.
        vocab_size: V of the teacher; the student's ids beyond it get no gradient.
        softcap: Final logit soft-cap, or None.
    """
    weight = weight_VD[:vocab_size].to(hidden_TD.dtype)
    bias = None if bias_V is None else bias_V[:vocab_size].to(hidden_TD.dtype)
    inputs = (hidden_TD, weight_VD, bias_V)
    sums = GradientSums.zeros(inputs, needed, vocab_size, len(ranges))
    kl_T = hidden_TD.new_zeros(len(hidden_TD), dtype=torch.float64)
    cross_entropy_T = torch.zeros_like(kl_T)
    for start, stop in ranges:
        hidden, rows = hidden_TD[start:stop], slice(start, stop)
        logits, slope = project(hidden, weight, bias, softcap, keep_slope=any(needed))
        kl_T[rows], cross_entropy_T[rows] = chunk_losses(logits, rows, any(needed))
        if any(needed):
            logits = logits if slope is None else logits.mul_(slope)
            sums.add(start, logits.to(hidden.dtype), hidden, weight)
    return kl_T, cross_entropy_T, sums.like(inputs)


def project(
    hidden_CD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, softcap: float | None, *, keep_slope: bool
) -> tuple[Tensor, Tensor | None]:
    """Logits [C, V] in at least float32, and the derivative of the soft-cap, 1 − tanh², if it exists and is needed."""
    logits_CV = torch.nn.functional.linear(hidden_CD, weight_VD, bias_V)
    logits_CV = logits_CV if logits_CV.dtype == torch.float64 else logits_CV.float()
    if softcap is None:
        return logits_CV, None
    logits_CV.div_(softcap).tanh_()
    slope_CV = logits_CV.square().neg_().add_(1.0) if keep_slope else None
    return logits_CV.mul_(softcap), slope_CV


class _FusedLoss(torch.autograd.Function):
    """Computes gradients in the forward pass; the backward pass only scales them."""

    @staticmethod
    def forward(ctx, hidden_TD, weight_VD, bias_V, losses_and_gradients, weights, scale, is_grad_enabled):
        needed = [is_grad_enabled and needs for needs in ctx.needs_input_grad[:3]]
        with torch.autocast(hidden_TD.device.type, enabled=False):
            *losses, gradients = losses_and_gradients(hidden_TD, weight_VD, bias_V, needed)
            loss = _weighted_sum(weights[0], losses[0]) + _weighted_sum(weights[1], losses[1])
        dtype = torch.float64 if hidden_TD.dtype == torch.float64 else torch.float32
        kl_T, cross_entropy_T = (losses_T.to(dtype) for losses_T in losses)
        ctx.save_for_backward(*gradients)
        ctx.scale = scale
        ctx.mark_non_differentiable(kl_T, cross_entropy_T)
        return loss.to(dtype), kl_T, cross_entropy_T

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss: Tensor, *_):
        return *ctx.scale(ctx.saved_tensors, grad_loss), None, None, None, None


def _weighted_sum(weight: float | Tensor, losses_T: Tensor) -> Tensor:
    weight = torch.as_tensor(weight, dtype=losses_T.dtype, device=losses_T.device)
    return torch.where(weight == 0, 0.0, weight * losses_T.sum())
