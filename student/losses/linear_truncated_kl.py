"""Projection, soft-cap, truncated KL and cross-entropy in one pass that never holds [T, V].

`linear_truncated_kl` processes rows in chunks. For each chunk it computes the logits, gathers those of the head,
overwrites the logits with their own gradient, and multiplies it at once into the gradients of hidden states, weight and
bias: three matrix products, as many as plain `linear + cross_entropy` needs, and no recomputation. This works because
the loss is a weighted sum whose weights are known in advance.

On CUDA with Triton, `student.losses.kernels` computes the same over blocks of the vocabulary.
"""

import importlib.util
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from logitcask.student.losses.chunk_losses import LossSpec, Objective, chunk_losses, row_ranges
from logitcask.student.losses.divergences import Divergence, check_divergence, forward_kl
from logitcask.student.losses.gradient_sums import GradientSums
from logitcask.student.losses.linear_projection import (
    CHUNK_ROWS,
    LinearLoss,
    project,
    scaled,
    to_autocast_dtype,
    weighted_losses,
)
from logitcask.student.losses.targets import NO_LABEL, RaggedTargets
from logitcask.student.losses.truncated_kl import check_ids, check_sizes

Implementation = Literal["auto", "torch", "triton"]


def linear_truncated_kl(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    targets: RaggedTargets,
    *,
    labels_T: Tensor | None = None,
    kl_weight: float | Tensor = 1.0,
    cross_entropy_weight: float | Tensor = 0.0,
    softcap: float | None = None,
    temperature: float = 1.0,
    divergence: Divergence = forward_kl,
    impl: Implementation = "auto",
    chunk_rows: int = CHUNK_ROWS,
) -> LinearLoss:
    """Truncated KL and cross-entropy of an output projection's logits, without storing the logits.

    Equals, with `logits = softcap * tanh((hidden @ weight.T + bias) / softcap)` restricted to the teacher's ids,
    `kl_weight * truncated_kl(logits, targets, temperature=temperature, divergence=divergence).sum()
    + cross_entropy_weight * cross_entropy(logits, labels, reduction="sum")`. To get means, set the weights to
    1 / (targets in the global batch) and 1 / (labels in the global batch): the two counts differ.

    Args:
        hidden_TD: the trunk's output after its final norm; float16/bfloat16/float32/float64.
        weight_VD: output embeddings; rows beyond `targets.vocab_size` get no gradient.
        bias_V: or None.
        targets: the teacher's buckets for the T positions, at the given temperature.
        labels_T: int64[T], the actual next token, −100 where there is none; None: no cross-entropy.
        kl_weight: factor of the summed KL.
        cross_entropy_weight: factor of the summed cross-entropy; needs `labels_T` unless 0.
        softcap: final logit soft-cap, or None.
        temperature: of the divergence, whose value and gradient are multiplied by its square. The cross-entropy stays
            at 1, so a temperature other than 1 costs a second pass over the chunk's logits.
        divergence: between the teacher's and the student's buckets; see `student.losses.divergences`.
        impl: "torch": any device. "triton": CUDA (elsewhere only Triton's interpreter), float32 or half precision.
            "auto": Triton if it is installed and can run, else torch. The two agree to rounding, for every divergence.
            Triton's gradients are scaled in place, so only one backward pass is allowed.
        chunk_rows: rows that "torch" projects at a time. Working memory is 4 · chunk_rows · V bytes, as much again with
            a soft-cap and with a temperature, and 4 · V · D more to sum the gradient of a half-precision weight.

    Raises:
        ValueError: shapes that do not match, a student narrower than the teacher, ids that the teacher does not have,
            a cross-entropy weight without labels, sampled targets at a temperature other than one or without a sample,
            impl="triton" where it cannot run.
    """
    check_sizes(targets, hidden_TD.shape[0], weight_VD.shape[0])
    if labels_T is None and not (isinstance(cross_entropy_weight, int | float) and cross_entropy_weight == 0):
        raise ValueError("cross_entropy_weight is set, but there are no labels_T")
    check_ids(targets, labels_T)
    check_divergence(targets, divergence, temperature)
    hidden_TD = to_autocast_dtype(hidden_TD)  # weight and bias follow
    if labels_T is None:
        labels_T = torch.full(hidden_TD.shape[:1], NO_LABEL, device=hidden_TD.device)
    tensors = [tensor for tensor in (hidden_TD, weight_VD, bias_V) if tensor is not None]
    spec = LossSpec(
        targets=targets,
        labels=labels_T,
        objective=Objective(
            divergence=divergence,
            temperature=temperature,
            kl_weight=kl_weight,
            cross_entropy_weight=cross_entropy_weight,
            needs_gradient=torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors),
        ),
        softcap=softcap,
        chunk_rows=chunk_rows,
    )
    impl = _resolve(impl, hidden_TD)
    loss, kl_T, cross_entropy_T = _LinearTruncatedKL.apply(hidden_TD, weight_VD, bias_V, spec, impl)  # type: ignore[misc]
    return LinearLoss(loss=loss, kl=kl_T, cross_entropy=cross_entropy_T)


def _resolve(impl: Implementation, hidden_TD: Tensor) -> Literal["torch", "triton"]:
    if impl == "torch":
        return "torch"
    if hidden_TD.dtype == torch.float64:
        reason = "the kernels do not support float64"
    elif importlib.util.find_spec("triton") is None:
        reason = "Triton is not installed"
    else:
        reason = ""
    if impl == "triton" and reason:
        raise ValueError(f'impl="triton": {reason}; use impl="torch"')
    # On a CPU only Triton's interpreter can run kernels. It is for tests, so "auto" never chooses it.
    return "triton" if impl == "triton" or (hidden_TD.is_cuda and not reason) else "torch"


class _LinearTruncatedKL(torch.autograd.Function):
    """Computes gradients in the forward pass; the backward pass only scales them."""

    @staticmethod
    def forward(
        ctx,
        hidden_TD: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        spec: LossSpec,
        impl: Literal["torch", "triton"],
    ):
        with torch.autocast(hidden_TD.device.type, enabled=False):
            needed = [spec.objective.needs_gradient and needs for needs in ctx.needs_input_grad[:3]]
            if impl == "triton":
                from logitcask.student.losses.kernels.linear_loss import losses_and_gradients
            else:
                losses_and_gradients = _losses_and_gradients
            kl_T, cross_entropy_T, gradients = losses_and_gradients(hidden_TD, weight_VD, bias_V, spec, needed)
            weights = (spec.objective.kl_weight, spec.objective.cross_entropy_weight)
            loss, kl_T, cross_entropy_T = weighted_losses(kl_T, cross_entropy_T, *weights, like=hidden_TD)
        ctx.save_for_backward(*gradients)
        ctx.impl, ctx.is_spent = impl, False
        ctx.mark_non_differentiable(kl_T, cross_entropy_T)
        return loss, kl_T, cross_entropy_T

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss: Tensor, *_):
        if ctx.impl == "torch":
            gradients = [scaled(gradient, grad_loss) for gradient in ctx.saved_tensors]
        else:
            gradients = _scaled_in_place(ctx, grad_loss)
        return *gradients, None, None


def _scaled_in_place(ctx, factor: Tensor) -> Sequence[Tensor | None]:
    if ctx.is_spent:
        raise RuntimeError('the gradients of impl="triton" allow one backward pass; use impl="torch" for more')
    from logitcask.student.losses.kernels.linear_loss import scale_in_place

    ctx.is_spent = True
    for gradient in ctx.saved_tensors:
        if gradient is not None:
            scale_in_place(gradient, factor)
    return ctx.saved_tensors


def _losses_and_gradients(hidden_TD, weight_VD, bias_V, spec: LossSpec, needed: Sequence[bool]):
    num_rows, vocab_size = hidden_TD.shape[0], spec.targets.vocab_size
    weight = weight_VD[:vocab_size].to(hidden_TD.dtype)
    bias = None if bias_V is None else bias_V[:vocab_size].to(hidden_TD.dtype)
    ranges = list(row_ranges(num_rows, spec.chunk_rows))
    inputs = (hidden_TD, weight_VD, bias_V)
    sums = GradientSums.zeros(inputs, needed, vocab_size, len(ranges))
    kl_T = hidden_TD.new_zeros(num_rows, dtype=torch.float64)
    cross_entropy_T = torch.zeros_like(kl_T)
    for start, stop in ranges:
        hidden, rows = hidden_TD[start:stop], slice(start, stop)
        logits, slope = project(hidden, weight, bias, spec.softcap, keep_slope=spec.objective.needs_gradient)
        chunk = spec.select(start, stop)
        kl_T[rows], cross_entropy_T[rows] = chunk_losses(logits, chunk.targets, chunk.labels, spec.objective)
        if spec.objective.needs_gradient:
            if slope is not None:
                logits *= slope
            sums.add(start, logits.to(hidden.dtype), hidden, weight)
    return kl_T, cross_entropy_T, sums.like(inputs)
