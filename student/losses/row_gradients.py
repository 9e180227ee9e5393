"""The losses of rows, and their gradients, from a few gathered logits.

Both fused paths read the same from a block of logits [C, V]: the logits of some ids (head, sample, label) and the
log-sum-exp outside the head. The rest happens here in float64, because p − t of a confident row has no correct digits
in float32. It concerns N + M + C numbers, about 1/500 of the logits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from logitcask.student.losses.divergences import Divergence, bucket_losses, bucket_slopes
from logitcask.student.losses.targets import NO_LABEL, Buckets, RaggedTargets, segment_logsumexp


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GatherIndex:
    """The (row, id) pairs of C rows whose logits are gathered, int64.

    Attributes:
        head_rows, head_ids: [N], unique.
        sample_rows, sample_ids: [M], with repeats.
        label_rows, label_ids: [L].
        num_rows: C.
    """

    head_rows: Tensor
    head_ids: Tensor
    sample_rows: Tensor
    sample_ids: Tensor
    label_rows: Tensor
    label_ids: Tensor
    num_rows: int

    @classmethod
    def of(cls, targets: RaggedTargets, labels_C: Tensor) -> GatherIndex:
        """The pairs that the loss of these rows needs; labels of −100 are left out."""
        label_rows = (labels_C != NO_LABEL).nonzero().squeeze(-1)
        sample_rows = targets.sample_rows()
        return cls(
            head_rows=targets.head_rows(),
            head_ids=targets.head_ids,
            sample_rows=sample_rows,
            sample_ids=sample_rows if targets.sample_ids is None else targets.sample_ids,
            label_rows=label_rows,
            label_ids=labels_C[label_rows],
            num_rows=targets.num_positions,
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GatheredLogits:
    """Gathered logits, float64: head [N], sample [M], label [L]; and `other` [C], log-sum-exp outside the head."""

    head: Tensor
    sample: Tensor
    label: Tensor
    other: Tensor

    def at_temperature(self, temperature: float, other: Tensor) -> GatheredLogits:
        """The logits divided by the temperature; `other` must be given, it does not follow from them."""
        return GatheredLogits(
            head=self.head / temperature, sample=self.sample / temperature, label=self.label / temperature, other=other
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LogitGradients:
    """The gradient with respect to the logits [C, V], without storing it; float64.

    Attributes:
        complement: [C], factor of the softmax *inside* the complement: ∂L/∂z_j = complement · p_j / p_o there.
        head: [N], the whole gradient of each head entry.
        sample: [M], to be added for each draw.
        label: [L], to be added for each label.
    """

    complement: Tensor
    head: Tensor
    sample: Tensor
    label: Tensor

    def times(self, factor: float | Tensor) -> LogitGradients:
        return LogitGradients(**{name: factor * getattr(self, name) for name in self.__slots__})

    def plus(self, other: LogitGradients) -> LogitGradients:
        return LogitGradients(**{name: getattr(self, name) + getattr(other, name) for name in self.__slots__})


def divergence_of_rows(
    targets: RaggedTargets, index: GatherIndex, logits: GatheredLogits, divergence: Divergence, needs_gradient: bool
) -> tuple[Tensor, LogitGradients | None]:
    """The divergence of each row, float64[C], and its gradient.

    With slopes g and G = Σ g, p_o · (g_o / p_o − G) is computed as g_o − p_o G, which avoids 0/0 for p_o → 0. For the
    forward KL, where g = −t and G = −1, the gradients are p_o − t_o and p_i − t_i.
    """
    normalizer_C = _normalizer(index, logits)
    student = Buckets(
        rows=index.head_rows,
        head=logits.head - normalizer_C[index.head_rows],
        other=logits.other - normalizer_C,
        sample_rows=index.sample_rows,
        sample=logits.sample - normalizer_C[index.sample_rows],
    )
    if not needs_gradient:
        return bucket_losses(targets, student, divergence), None
    loss_C, slopes = bucket_slopes(targets, student, divergence)
    total_C = slopes.other.index_add(0, student.rows, slopes.head).index_add(0, student.sample_rows, slopes.sample)
    return loss_C, LogitGradients(
        complement=slopes.other - student.other.exp() * total_C,
        head=slopes.head - student.head.exp() * total_C[student.rows],
        sample=slopes.sample,
        label=torch.zeros_like(logits.label),
    )


def cross_entropy_of_rows(
    index: GatherIndex, logits: GatheredLogits, weight: float | Tensor
) -> tuple[Tensor, LogitGradients]:
    """The cross-entropy of each row, float64[C], 0 without a label; and the gradient of `weight` times it."""
    normalizer_C = _normalizer(index, logits)
    rows = index.label_rows
    loss_C = torch.zeros_like(normalizer_C)
    loss_C[rows] = normalizer_C[rows] - logits.label
    weights_C = torch.zeros_like(normalizer_C)
    weights_C[rows] = weight
    head_p = (logits.head - normalizer_C[index.head_rows]).exp()
    return loss_C, LogitGradients(
        complement=weights_C * (logits.other - normalizer_C).exp(),
        head=weights_C[index.head_rows] * head_p,
        sample=torch.zeros_like(logits.sample),
        label=-weights_C[rows],
    )


def _normalizer(index: GatherIndex, logits: GatheredLogits) -> Tensor:
    return torch.logaddexp(logits.other, segment_logsumexp(logits.head, index.head_rows, index.num_rows))
