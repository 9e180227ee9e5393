"""The teacher's targets as ragged torch tensors: what every loss of the student reads.

Row r of T holds the head entries `head_offsets[r] : head_offsets[r + 1]` of the flat columns (N entries in all,
never padded to the widest row) and one tail: the "other" bucket. Log-probabilities are natural logs; head and tail
of a row sum to one. A treatment of the tail that only changes *what is aimed at* (renormalised top-k) is a method
that returns other targets, so one loss, and one backward, serves them all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from schemas.targets import Targets


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RaggedTargets:
    """Exact head, tail mass and next-token log-probability of T positions.

    Attributes:
        head_ids: int64[N], vocabulary ids, ascending and unique inside a row.
        head_log_probs: float[N], nats.
        head_offsets: int64[T + 1].
        log_tail: float[T], nats; −inf where nothing lies outside the head, nan where the row has no target.
        vocab_size: V of the teacher's distribution; the ids of a student beyond it take no part in the loss.
        log_next: float[T] or None, the teacher's log-probability of the actual next token; nan without one.
    """

    head_ids: Tensor
    head_log_probs: Tensor
    head_offsets: Tensor
    log_tail: Tensor
    vocab_size: int
    log_next: Tensor | None = None

    @classmethod
    def from_arrays(cls, decoded: Targets, vocab_size: int) -> RaggedTargets:
        """The targets that a shard reader returns, as tensors on the CPU."""
        return cls(
            head_ids=torch.from_numpy(decoded.head_ids).long(),
            head_log_probs=torch.from_numpy(decoded.head_log_probs),
            head_offsets=torch.from_numpy(decoded.head_offsets).long(),
            log_tail=torch.from_numpy(decoded.log_tail),
            vocab_size=vocab_size,
            log_next=torch.from_numpy(decoded.log_next),
        )

    @property
    def num_positions(self) -> int:
        """T."""
        return self.log_tail.shape[0]

    @property
    def has_target(self) -> Tensor:
        """bool[T]: the rows that take part in the KL."""
        return ~self.log_tail.isnan()

    def head_rows(self) -> Tensor:
        """int64[N]: the row of each head entry."""
        rows = torch.arange(self.num_positions, device=self.head_ids.device)
        widths = self.head_offsets.diff()
        return torch.repeat_interleave(rows, widths, output_size=self.head_ids.shape[0])

    def select(self, start: int, stop: int) -> RaggedTargets:
        """Rows `start` to `stop`, without copying the columns."""
        first, last = int(self.head_offsets[start]), int(self.head_offsets[stop])
        return replace(
            self,
            head_ids=self.head_ids[first:last],
            head_log_probs=self.head_log_probs[first:last],
            head_offsets=self.head_offsets[start : stop + 1] - first,
            log_tail=self.log_tail[start:stop],
            log_next=None if self.log_next is None else self.log_next[start:stop],
        )

    def to(self, device: torch.device | str) -> RaggedTargets:
        """The same targets on another device."""
        return replace(
            self,
            head_ids=self.head_ids.to(device),
            head_log_probs=self.head_log_probs.to(device),
            head_offsets=self.head_offsets.to(device),
            log_tail=self.log_tail.to(device),
            log_next=None if self.log_next is None else self.log_next.to(device),
        )

    def renormalised(self) -> RaggedTargets:
        """The biased baseline: the head scaled up to carry all the mass, and no tail.

        The student keeps its full softmax. This is the "top-k" of most recipes: it teaches that the tail is
        impossible, and at small k is worse than cross-entropy (Anshumann et al., ACL 2025, "vanilla top-k").
        """
        rows = self.head_rows()
        log_mass_T = segment_logsumexp(self.head_log_probs.double(), rows, self.num_positions)
        return replace(
            self,
            head_log_probs=(self.head_log_probs.double() - log_mass_T[rows]).to(self.head_log_probs.dtype),
            log_tail=self.log_tail.where(~self.has_target, float("-inf")),
        )

    def at_temperature(self, temperature: float, log_tail_T: Tensor) -> RaggedTargets:
        """The same teacher at another temperature, exactly, given the tail mass at that temperature.

        Args:
            temperature: T; the head becomes ∝ t^(1/T).
            log_tail_T: float[T], log of the tail's mass under softmax(logits / T). It cannot be had from the tail
                at temperature one: it needs all logits.
        """
        rows = self.head_rows()
        tempered_N = self.head_log_probs.double() / temperature
        log_mass_T = segment_logsumexp(tempered_N, rows, self.num_positions)
        log_head_T = torch.log1p(-log_tail_T.double().exp())
        tempered_N = tempered_N + (log_head_T - log_mass_T)[rows]
        return replace(self, head_log_probs=tempered_N.to(self.head_log_probs.dtype), log_tail=log_tail_T)

    def log_buckets(self) -> tuple[Tensor, Tensor]:
        """The k + 1 buckets of each row as float64 logs that sum to one to the last bit: (head[N], other[T]).

        Float32 log-probabilities sum to 1 ± 1e-7; the difference is what would make a small KL negative. Rows
        without a target get other = −inf.
        """
        rows = self.head_rows()
        head_N = self.head_log_probs.double()
        other_T = self.log_tail.double().nan_to_num(nan=float("-inf"), neginf=float("-inf"))
        log_total_T = torch.logaddexp(segment_logsumexp(head_N, rows, self.num_positions), other_T)
        log_total_T = log_total_T.where(log_total_T.isfinite(), 0.0)
        return head_N - log_total_T[rows], other_T - log_total_T


def segment_logsumexp(values_N: Tensor, rows_N: Tensor, num_rows: int) -> Tensor:
    """Log-sum-exp of the values of each row, [num_rows]; −inf for a row without any."""
    maximum = values_N.new_full((num_rows,), float("-inf"))
    maximum = maximum.scatter_reduce(0, rows_N, values_N.detach(), "amax")
    shift = maximum.where(maximum.isfinite(), 0.0)
    sums = values_N.new_zeros(num_rows).index_add(0, rows_N, (values_N - shift[rows_N]).exp())
    return shift + sums.log()
