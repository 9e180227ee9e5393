"""Projection, soft-cap, truncated KL and cross-entropy in one pass that never holds [T, V].

In plain torch, rows are processed in chunks. On CUDA with Triton, `student.losses.kernels` computes the same over
blocks of the vocabulary. Both overwrite the logits with their own gradient (`student.losses.fused_loss`).
"""

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from logitcask.student.losses.chunk_losses import LossSpec, chunk_losses, row_ranges
from logitcask.student.losses.divergences import Divergence, check_divergence, forward_kl
from logitcask.student.losses.fused_loss import (
    CHUNK_ROWS,
    Gradients,
    LinearLoss,
    by_chunks,
    fused_loss,
    in_autocast_dtype,
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
    hidden_TD = in_autocast_dtype(hidden_TD)
    if labels_T is None:
        labels_T = torch.full(hidden_TD.shape[:1], NO_LABEL, device=hidden_TD.device)
    spec = LossSpec(
        targets=targets,
        labels=labels_T,
        divergence=divergence,
        temperature=temperature,
        kl_weight=kl_weight,
        cross_entropy_weight=cross_entropy_weight,
        softcap=softcap,
    )
    inputs, weights = (hidden_TD, weight_VD, bias_V), (kl_weight, cross_entropy_weight)
    if _resolve(impl, hidden_TD) == "triton":
        from logitcask.student.losses.kernels.linear_loss import losses_and_gradients

        return fused_loss(inputs, partial(losses_and_gradients, spec), *weights, scale=_scale_in_place_once())
    by_rows = partial(
        by_chunks,
        ranges=list(row_ranges(len(hidden_TD), chunk_rows)),
        chunk_losses=lambda logits, rows, needed: chunk_losses(logits, spec.select(rows.start, rows.stop), needed),
        vocab_size=targets.vocab_size,
        softcap=softcap,
    )
    return fused_loss(inputs, by_rows, *weights)


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


def _scale_in_place_once() -> Callable[[Gradients, Tensor], Gradients]:
    """Scales the gradients of the kernels in place, which saves a copy of [V, D] but allows only one backward pass."""
    is_spent = False

    def scale(gradients: Gradients, factor: Tensor) -> Gradients:
        nonlocal is_spent
        if is_spent:
            raise RuntimeError('the gradients of impl="triton" allow one backward pass; use impl="torch" for more')
        is_spent = True
        from logitcask.student.losses.kernels.linear_loss import scale_in_place

        for gradient in gradients:
            if gradient is not None:
                scale_in_place(gradient, factor)
        return gradients

    return scale
