"""The loss of a batch of windows: trunk, scored rows, then projection and loss without storing the logits."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from logitcask.student.data.collator import Batch, targets_of
from logitcask.student.losses.fused_loss import LinearLoss
from logitcask.student.losses.linear_truncated_kl import linear_truncated_kl
from logitcask.student.losses.loss_settings import LossSettings
from logitcask.student.model.projection import output_projection, scored_hidden_states

T = TypeVar("T")


def soft_target_loss(
    student: PreTrainedModel,
    batch: Batch,
    *,
    vocab_size: int,
    kl_weight: float | Tensor,
    cross_entropy_weight: float | Tensor = 0.0,
    settings: LossSettings | None = None,
) -> LinearLoss:
    """kl_weight · Σ KL + cross_entropy_weight · Σ cross-entropy over the scored rows of a collated batch.

    `settings` chooses another loss between targets and student instead of the KL.
    """
    settings = settings or LossSettings()
    projection = output_projection(student)
    return linear_truncated_kl(
        scored_hidden_states(student, batch),
        projection.weight,
        projection.bias,
        settings.prepare_targets(targets_of(batch, vocab_size), batch["labels"]),
        labels_T=batch["labels"],
        kl_weight=kl_weight,
        cross_entropy_weight=cross_entropy_weight,
        softcap=projection.softcap,
        temperature=settings.logits_temperature,
        divergence=settings.divergence_function(),
    )


def run_as_forward(wrapped: torch.nn.Module, student: PreTrainedModel, forward: Callable[[], T]) -> T:
    """Runs `forward` as the forward pass of the wrapper, which triggers its hooks (gradient sync, sharding).

    The hooks search the result for tensors, so it must be a tensor or a tuple of tensors.
    """
    original = student.forward
    student.forward = forward
    try:
        return wrapped()
    finally:
        student.forward = original
