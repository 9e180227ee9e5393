"""The gathered ids of a block of rows as distinct (row, id) pairs, which kernels can read and write in any order."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from logitcask.student.losses.row_gradients import GatheredLogits, GatherIndex, LogitGradients


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DistinctPairs:
    """The pairs of the head, then the pairs of samples and labels outside the head.

    Attributes:
        rows, ids: int32[E]; id −1, which is in no block of the vocabulary, replaces a sample or label in the head.
        num_head: N, the number of head pairs.
        places: int64[M + L], the index in E of each sample and each label.
    """

    rows: Tensor
    ids: Tensor
    num_head: int
    places: Tensor

    @classmethod
    def of(cls, index: GatherIndex, vocab_size: int) -> DistinctPairs:
        """The distinct pairs of an index; head pairs must be ascending and unique."""
        head_keys = index.head_rows * vocab_size + index.head_ids  # ascending
        extra_rows = torch.cat([index.sample_rows, index.label_rows])
        extra_keys = extra_rows * vocab_size + torch.cat([index.sample_ids, index.label_ids])
        extra_keys, order = torch.unique(extra_keys, return_inverse=True)
        num_head = head_keys.shape[0]
        found = torch.searchsorted(head_keys, extra_keys)
        in_head = _equal_at(head_keys, found, extra_keys)
        places = torch.where(in_head, found, num_head + torch.arange(extra_keys.shape[0], device=found.device))
        extra_ids = torch.where(in_head, -1, extra_keys % vocab_size)
        return cls(
            rows=torch.cat([index.head_rows, extra_keys // vocab_size]).int(),
            ids=torch.cat([index.head_ids, extra_ids]).int(),
            num_head=num_head,
            places=places[order],
        )

    def num_programs(self, block: int) -> int:
        """The number of programs, at `block` pairs each."""
        return -(-self.rows.shape[0] // block)

    def logits(self, values_E: Tensor, num_samples: int, other_T: Tensor) -> GatheredLogits:
        """The logits of head, samples and labels from those of the pairs, with the log-sum-exp outside the head."""
        extras = values_E[self.places]
        return GatheredLogits(
            head=values_E[: self.num_head], sample=extras[:num_samples], label=extras[num_samples:], other=other_T
        )

    def gradients(self, by: LogitGradients, outside: Tensor) -> Tensor:
        """float64[E]: the gradient of each pair, given the softmax's part of it for pairs outside the head."""
        values_E = torch.cat([by.head, outside])
        return values_E.index_add(0, self.places, torch.cat([by.sample, by.label]))


def _equal_at(sorted_keys: Tensor, places: Tensor, keys: Tensor) -> Tensor:
    if not len(sorted_keys):
        return torch.zeros_like(keys, dtype=torch.bool)
    return sorted_keys[places.clamp(max=len(sorted_keys) - 1)] == keys
