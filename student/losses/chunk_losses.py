"""The losses of a chunk of rows, and their gradient written over the chunk's logits [C, V].

Everything about the gathered ids is done in float64 (`row_gradients`). The complement is summed relative to its own
maximum, never as 1 − Σ.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from logitcask.student.losses.divergences import Divergence
from logitcask.student.losses.row_gradients import (
    GatheredLogits,
    GatherIndex,
    cross_entropy_of_rows,
    divergence_of_rows,
)
from logitcask.student.losses.targets import NO_LABEL, RaggedTargets


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LossSpec:
    """What is minimized over T rows, without the tensors that are differentiated.

    Attributes:
        targets: at the temperature.
        labels: int64[T], −100 where there is none.
        divergence: of the buckets.
        temperature: of the divergence, not of the cross-entropy.
        kl_weight, cross_entropy_weight: factors of the two sums.
        softcap: final logit soft-cap, or None.
    """

    targets: RaggedTargets
    labels: Tensor
    divergence: Divergence
    temperature: float
    kl_weight: float | Tensor
    cross_entropy_weight: float | Tensor
    softcap: float | None

    def select(self, start: int, stop: int) -> "LossSpec":
        """Rows `start` to `stop`."""
        return replace(self, targets=self.targets.select(start, stop), labels=self.labels[start:stop])


def row_ranges(num_rows: int, max_rows: int) -> Iterator[tuple[int, int]]:
    """Row ranges of nearly equal size, at most `max_rows` each: a short last range would multiply slowly."""
    num_ranges = -(-num_rows // max_rows)
    edges = [num_rows * index // num_ranges for index in range(num_ranges)] + [num_rows]
    return pairwise(edges)


def chunk_losses(logits: Tensor, spec: LossSpec, needs_gradient: bool) -> tuple[Tensor, Tensor]:
    """Divergence and cross-entropy of each row, float64[C].

    `logits`, after the soft-cap, becomes the gradient of their weighted sum if it is needed; otherwise its values are
    meaningless afterwards.
    """
    temperature = spec.temperature
    if temperature == 1:
        return _one_pass(logits, spec, needs_gradient)
    # Two softmaxes, so two passes over [C, V] (and twice the working memory).
    tempered = logits / temperature
    kl, _ = _one_pass(tempered, replace(spec, labels=torch.full_like(spec.labels, NO_LABEL)), needs_gradient)
    _, cross_entropy = _one_pass(logits, replace(spec, targets=_without_targets(spec.targets)), needs_gradient)
    if needs_gradient:
        # T² from the loss, 1 / T from the chain rule.
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


def _one_pass(logits: Tensor, spec: LossSpec, needs_gradient: bool) -> tuple[Tensor, Tensor]:
    targets, index = spec.targets, GatherIndex.of(spec.targets, spec.labels)
    head, sample = (index.head_rows, index.head_ids), (index.sample_rows, index.sample_ids)
    label = (index.label_rows, index.label_ids)
    head_z, sample_z, label_z = (logits[place].double() for place in (head, sample, label))
    other_lse, other_sum = _exponentiate_complement(logits, head)
    gathered = GatheredLogits(head=head_z, sample=sample_z, label=label_z, other=other_lse)
    kl, by_kl = divergence_of_rows(targets, index, gathered, spec.divergence, needs_gradient)
    cross_entropy, by_label = cross_entropy_of_rows(index, gathered, spec.cross_entropy_weight)
    if by_kl is not None:
        by = by_kl.times(spec.kl_weight).plus(by_label)
        logits.mul_(torch.where(other_sum > 0, by.complement / other_sum, 0.0).to(logits.dtype).unsqueeze(-1))
        logits[head] = by.head.to(logits.dtype)
        if targets.sample_ids is not None:
            logits.index_put_(sample, by.sample.to(logits.dtype), accumulate=True)
        logits[label] += by.label.to(logits.dtype)
    return kl, cross_entropy


def _exponentiate_complement(logits: Tensor, head: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """`logits` ← exp(logits − maximum outside the head), 0 in the head; returns its log-sum-exp and sum, float64.

    Where everything outside the head is −inf, or nothing is outside, the sum is 0 and the log-sum-exp −inf.
    """
    logits[head] = float("-inf")
    maximum = logits.amax(dim=-1)
    shift = maximum.where(~maximum.isneginf(), 0.0)
    total = logits.sub_(shift.unsqueeze(-1)).exp_().sum(dim=-1).double()
    return shift.double() + total.log(), total
