"""Projection, soft-cap, truncated KL and cross-entropy in one pass that never holds [T, V].

`linear_truncated_kl` walks over row chunks. For each it forms the chunk's logits, reads the head's out, turns
them into their own gradient in place, and multiplies that into the gradients of hidden states, weight and bias at
once: three matrix products, as plain `linear + cross_entropy` needs, and no recomputation.
That is possible because the loss is a weighted sum whose weights are known beforehand.

On CUDA, where Triton is installed, `student.losses.kernels` does the same over blocks of the vocabulary.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from logitcask.student.losses.chunk_losses import LossSpec, Objective, chunk_losses, row_ranges
from logitcask.student.losses.divergences import Divergence, check_divergence, forward_kl
from logitcask.student.losses.gradient_sums import GradientSums
from logitcask.student.losses.targets import NO_LABEL, RaggedTargets
from logitcask.student.losses.truncated_kl import check_ids

Implementation = Literal["auto", "torch", "triton"]

CHUNK_ROWS = 256  # measured on two AVX2 cores: 128 rows make the products 15 % slower, 64 rows 40 %


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LinearLoss:
    """What `linear_truncated_kl` returns.

    Attributes:
        loss: scalar, differentiable: kl_weight · Σ kl + cross_entropy_weight · Σ cross_entropy.
        kl: [T], nats per position, 0 where there is no target; no gradient. Of another divergence, its value.
        cross_entropy: [T], nats per position, 0 where there is no label; no gradient.
    """

    loss: Tensor
    kl: Tensor
    cross_entropy: Tensor


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
    """Truncated KL (and cross-entropy) of a linear head's logits, without the logits.

    Equals, with `logits = softcap * tanh((hidden @ weight.T + bias) / softcap)` restricted to the teacher's ids,
    `kl_weight * truncated_kl(logits, targets, temperature=temperature, divergence=divergence).sum()
    + cross_entropy_weight * cross_entropy(logits, labels, reduction="sum")`. Divide by the number of positions through
    the weights: 1 / (targets in the global batch) and 1 / (labels in it), two counts.

    Args:
        hidden_TD: the trunk's output after its final norm; float16/bfloat16/float32/float64.
        weight_VD: output embeddings; rows beyond `targets.vocab_size` get no gradient.
        bias_V: or None.
        targets: the teacher's buckets for the T positions, at the temperature.
        labels_T: int64[T], the actual next token, −100 where there is none; None: no cross-entropy.
        kl_weight: factor of the summed KL.
        cross_entropy_weight: factor of the summed cross-entropy; needs `labels_T` unless 0.
        softcap: final logit soft-cap, or None.
        temperature: of the divergence, whose value and gradient are multiplied by its square; the cross-entropy stays
            at 1, so that any other costs a second pass over the chunk's logits.
        divergence: of the teacher's and the student's buckets; see `student.losses.divergences`.
        impl: "torch", on any device; "triton", on CUDA (elsewhere only in Triton's interpreter) and for float32 or half
            precision; "auto": Triton where it is installed and can do it, which is for all losses alike, else torch.
            The two agree to rounding. Triton's gradients are scaled in place, so that it allows one backward pass.
        chunk_rows: rows that "torch" projects at a time; working memory is 4 · chunk_rows · V bytes (as much again with
            soft-cap, and with a temperature; and 4 · V · D more to sum a half-precision weight's gradient).

    Raises:
        ValueError: shapes that do not fit, a student narrower than the teacher, ids that the teacher does not have, a
            weight without labels, sampled targets at a temperature other than one or without a sample, Triton asked
            for where it cannot run.
    """
    _check(hidden_TD, weight_VD, targets, labels_T, cross_entropy_weight)
    check_divergence(targets, divergence, temperature)
    if torch.is_autocast_enabled(hidden_TD.device.type):
        # As `linear` would do; weight and bias follow the dtype of the hidden states.
        hidden_TD = hidden_TD.to(torch.get_autocast_dtype(hidden_TD.device.type))
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
    impl = _chosen(impl, hidden_TD)
    loss, kl_T, cross_entropy_T = _LinearTruncatedKL.apply(hidden_TD, weight_VD, bias_V, spec, impl)  # type: ignore[misc]
    return LinearLoss(loss=loss, kl=kl_T, cross_entropy=cross_entropy_T)


def _chosen(impl: Implementation, hidden_TD: Tensor) -> Literal["torch", "triton"]:
    if impl == "torch":
        return "torch"
    if hidden_TD.dtype == torch.float64:
        reason = "float64 is not among the dtypes of the kernels"
    elif importlib.util.find_spec("triton") is None:
        reason = "Triton is not installed"
    else:
        reason = ""
    if impl == "triton" and reason:
        raise ValueError(f'impl="triton": {reason}; use impl="torch"')
    # On a CPU only the interpreter can run kernels, which is for tests: it has to be asked for.
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
            loss, kl_T, cross_entropy_T, gradients = _forward(hidden_TD, weight_VD, bias_V, spec, impl, ctx)
        ctx.save_for_backward(*gradients)
        ctx.impl, ctx.is_spent = impl, False
        ctx.mark_non_differentiable(kl_T, cross_entropy_T)
        return loss, kl_T, cross_entropy_T

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss: Tensor, *_):
        if ctx.impl == "torch":
            gradients = [_scaled(gradient, grad_loss) for gradient in ctx.saved_tensors]
        else:
            gradients = _scaled_in_place(ctx, grad_loss)
        return *gradients, None, None


def _scaled(gradient: Tensor | None, factor: Tensor) -> Tensor | None:
    # The usual factor is one. On the CPU it costs nothing to look, and saves a pass over [V, D] and a copy of it.
    if gradient is None or (factor.device.type == "cpu" and factor.item() == 1.0):
        return gradient
    return gradient * factor.to(gradient.dtype)


def _scaled_in_place(ctx, factor: Tensor) -> Sequence[Tensor | None]:
    if ctx.is_spent:
        raise RuntimeError('the gradients of impl="triton" allow one backward pass; use impl="torch" for more')
    from logitcask.student.losses.kernels.linear_loss import scale_in_place

    ctx.is_spent = True
    for gradient in ctx.saved_tensors:
        if gradient is not None:
            scale_in_place(gradient, factor)
    return ctx.saved_tensors


def _forward(hidden_TD, weight_VD, bias_V, spec: LossSpec, impl: Literal["torch", "triton"], ctx: FunctionCtx):
    objective = spec.objective
    needed = [objective.needs_gradient and needs for needs in ctx.needs_input_grad[:3]]  # type: ignore[attr-defined]
    if impl == "triton":
        from logitcask.student.losses.kernels.linear_loss import losses_and_gradients
    else:
        losses_and_gradients = _by_chunks
    kl_T, cross_entropy_T, gradients = losses_and_gradients(hidden_TD, weight_VD, bias_V, spec, needed)
    loss = _weighted(objective.kl_weight, kl_T.sum())
    loss = loss + _weighted(objective.cross_entropy_weight, cross_entropy_T.sum())
    result = torch.float64 if hidden_TD.dtype == torch.float64 else torch.float32
    return loss.to(result), kl_T.to(result), cross_entropy_T.to(result), gradients


def _by_chunks(hidden_TD, weight_VD, bias_V, spec: LossSpec, needed: Sequence[bool]):
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
        logits, slope = _project(hidden, weight, bias, spec.softcap)
        chunk = spec.select(start, stop)
        kl_T[rows], cross_entropy_T[rows] = chunk_losses(logits, chunk.targets, chunk.labels, spec.objective)
        if spec.objective.needs_gradient:
            if slope is not None:
                logits *= slope
            sums.add(start, logits.to(hidden.dtype), hidden, weight)
    return kl_T, cross_entropy_T, sums.like(inputs)


def _weighted(weight: float | Tensor, total: Tensor) -> Tensor:
    # A weight of zero switches a loss off, also where it is infinite.
    weight = torch.as_tensor(weight, dtype=total.dtype, device=total.device)
    return torch.where(weight == 0, 0.0, weight * total)


def _project(hidden, weight, bias, softcap: float | None) -> tuple[Tensor, Tensor | None]:
    """Logits of a chunk in at least float32, and the soft-cap's derivative 1 − tanh² where there is one."""
    logits = hidden @ weight.T if bias is None else torch.addmm(bias, hidden, weight.T)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if softcap is None:
        return logits, None
    logits.div_(softcap).tanh_()
    slope = logits.square().neg_().add_(1.0)
    return logits.mul_(softcap), slope


def _check(hidden_TD, weight_VD, targets: RaggedTargets, labels_T, cross_entropy_weight) -> None:
    if hidden_TD.shape[0] != targets.num_positions:
        raise ValueError(f"{hidden_TD.shape[0]} hidden states, but targets for {targets.num_positions} positions")
    if weight_VD.shape[0] < targets.vocab_size:
        raise ValueError(
            f"the student has {weight_VD.shape[0]} ids, the teacher {targets.vocab_size}: "
            "a student's vocabulary may be wider than its teacher's, never narrower"
        )
    if labels_T is None and not (isinstance(cross_entropy_weight, int | float) and cross_entropy_weight == 0):
        raise ValueError("cross_entropy_weight is set, but there are no labels_T")
    check_ids(targets, labels_T)
