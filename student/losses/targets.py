"""The teacher's targets as ragged torch tensors, the input of every loss of the student.

Row r of T has the head entries `head_offsets[r] : head_offsets[r + 1]` of the flat columns (N entries in total, never
padded to the widest row) and one tail, the "other" bucket. Log-probabilities are natural logs; head and tail of a row
sum to one. A treatment of the tail is a function from targets to targets (`student.losses.tail_treatments`), so one
loss and one backward pass serve all treatments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch
from torch import Tensor

from logitcask.schemas.format.quantizer import HEAD_LOG_PROBS

NO_LABEL = -100  # as in torch.nn.functional.cross_entropy


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Buckets:
    """The log-probabilities that a loss compares: the k + 1 buckets of each of T rows, and its sampled ids.

    Attributes:
        rows: int64[N], the row of each head entry.
        head: float[N].
        other: float[T], of all ids outside the head.
        sample_rows: int64[M], the row of each draw.
        sample: float[M]: the student's log-probability of the id; the teacher's log share of the tail's mass.
    """

    rows: Tensor
    head: Tensor
    other: Tensor
    sample_rows: Tensor
    sample: Tensor

    def with_logs(self, head: Tensor, other: Tensor, sample: Tensor) -> Buckets:
        """The same rows with other log-probabilities."""
        return Buckets(rows=self.rows, head=head, other=other, sample_rows=self.sample_rows, sample=sample)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RaggedTargets:
    """Exact head, tail mass and next-token log-probability of T positions.

    Attributes:
        head_ids: int64[N], vocabulary ids, ascending and unique inside a row.
        head_log_probs: float[N], nats.
        head_offsets: int64[T + 1].
        log_tail: float[T], nats; −inf where there is no mass outside the head, nan where the row has no target.
        vocab_size: V of the teacher's distribution; a student's ids beyond it are excluded from the loss.
        log_next: float[T] or None, the teacher's log-probability of the actual next token; nan without one.
        sample_ids: int64[M] or None, ids drawn from the tail, with repeats; each draw stands for an equal share.
        sample_offsets: int64[T + 1], or None without `sample_ids`.
        tempered_log_tails: temperature to float[T], the log tail at that temperature.
    """

    head_ids: Tensor
    head_log_probs: Tensor
    head_offsets: Tensor
    log_tail: Tensor
    vocab_size: int
    log_next: Tensor | None = None
    sample_ids: Tensor | None = None
    sample_offsets: Tensor | None = None
    tempered_log_tails: Mapping[float, Tensor] = field(default_factory=dict)

    @property
    def num_positions(self) -> int:
        """T."""
        return self.log_tail.shape[0]

    @property
    def has_target(self) -> Tensor:
        """bool[T]: the rows that the KL counts."""
        return ~self.log_tail.isnan()

    def head_rows(self) -> Tensor:
        """int64[N]: the row of each head entry."""
        return _rows_of(self.head_offsets, self.head_ids)

    def sample_rows(self) -> Tensor:
        """int64[M]: the row of each draw; empty without a sample."""
        if self.sample_ids is None or self.sample_offsets is None:
            return self.head_offsets.new_zeros(0)
        return _rows_of(self.sample_offsets, self.sample_ids)

    def select(self, start: int, stop: int) -> RaggedTargets:
        """Rows `start` to `stop`, without copying the columns."""
        head_ids, head_offsets = _slice(self.head_ids, self.head_offsets, start, stop)
        sample_ids, sample_offsets = _slice(self.sample_ids, self.sample_offsets, start, stop)
        first = int(self.head_offsets[start])
        assert head_ids is not None
        assert head_offsets is not None
        return replace(
            self,
            head_ids=head_ids,
            head_log_probs=self.head_log_probs[first : first + head_ids.shape[0]],
            head_offsets=head_offsets,
            log_tail=self.log_tail[start:stop],
            log_next=None if self.log_next is None else self.log_next[start:stop],
            sample_ids=sample_ids,
            sample_offsets=sample_offsets,
            tempered_log_tails={t: tail[start:stop] for t, tail in self.tempered_log_tails.items()},
        )

    def to(self, device: torch.device | str) -> RaggedTargets:
        """The same targets on another device."""
        columns = {name: getattr(self, name) for name in self.__slots__}
        moved = {name: column.to(device) for name, column in columns.items() if isinstance(column, Tensor)}
        tails = {t: tail.to(device) for t, tail in self.tempered_log_tails.items()}
        return replace(self, **moved, tempered_log_tails=tails)

    def buckets(self, dtype: torch.dtype = torch.float64) -> Buckets:
        """The teacher's log-probabilities, normalized in float64 (`log_buckets`), then converted to `dtype`."""
        head_N, other_T = self.log_buckets()
        sample_rows = self.sample_rows()
        if self.sample_offsets is None:
            share_M = other_T.new_zeros(0)
        else:
            share_M = (other_T - self.sample_offsets.diff().double().log())[sample_rows]
        return Buckets(
            rows=self.head_rows(),
            head=head_N.to(dtype),
            other=other_T.to(dtype),
            sample_rows=sample_rows,
            sample=share_M.to(dtype),
        )

    def log_buckets(self) -> tuple[Tensor, Tensor]:
        """The k + 1 buckets of each row as float64 logs that sum to one to the last bit: (head[N], other[T]).

        Float32 log-probabilities sum to 1 ± 1e-7, and this error could make a small KL negative. Rows without a target
        get other = −inf.
        """
        rows = self.head_rows()
        head_N = self.head_log_probs.double()
        other_T = self.log_tail.double().nan_to_num(nan=float("-inf"), neginf=float("-inf"))
        log_total_T = torch.logaddexp(segment_logsumexp(head_N, rows, self.num_positions), other_T)
        log_total_T = log_total_T.where(log_total_T.isfinite(), 0.0)
        return head_N - log_total_T[rows], other_T - log_total_T


def decode(q_N: Tensor, offsets: Tensor, stored_log_tail_T: Tensor) -> tuple[Tensor, Tensor]:
    """Stored targets as log-probabilities that sum to one in each row (FORMAT.md, section 3), on their device.

    Args:
        q_N: The quantized head, uint8.
        offsets: int64[T + 1].
        stored_log_tail_T: float32, −inf for zero, nan for no target.

    Returns:
        Log-probabilities of the head's entries [N] and of the tail [T], float32.
    """
    table = _head_table(q_N.device)
    head_N = table.index_select(0, q_N.int())
    rows = _rows_of(offsets, q_N)
    mass_T = stored_log_tail_T.double().exp().nan_to_num(nan=0.0)
    mass_T.index_add_(0, rows, table.double().exp().index_select(0, q_N.int()))
    log_mass_T = mass_T.log().float()
    return head_N - log_mass_T[rows], stored_log_tail_T - log_mass_T


@lru_cache(maxsize=8)
def _head_table(device: torch.device) -> Tensor:
    return torch.tensor(HEAD_LOG_PROBS, device=device)


def segment_logsumexp(values_N: Tensor, rows_N: Tensor, num_rows: int) -> Tensor:
    """Log-sum-exp of the values of each row, [num_rows]; −inf for a row without values."""
    maximum = values_N.new_full((num_rows,), float("-inf"))
    maximum = maximum.scatter_reduce(0, rows_N, values_N.detach(), "amax")
    shift = maximum.where(maximum.isfinite(), 0.0)
    sums = values_N.new_zeros(num_rows).index_add(0, rows_N, (values_N - shift[rows_N]).exp())
    # The inner `where` keeps the infinite derivative of log at 0 out of the backward pass.
    return torch.where(sums > 0, shift + torch.where(sums > 0, sums, 1.0).log(), float("-inf"))


def _rows_of(offsets: Tensor, entries: Tensor) -> Tensor:
    """The row of each entry, int64."""
    rows = torch.arange(offsets.shape[0] - 1, device=offsets.device)
    return torch.repeat_interleave(rows, offsets.diff(), output_size=entries.shape[0])


def _slice(ids: Tensor | None, offsets: Tensor | None, start: int, stop: int) -> tuple[Tensor | None, Tensor | None]:
    if ids is None or offsets is None:
        return None, None
    first, last = int(offsets[start]), int(offsets[stop])
    return ids[first:last], offsets[start : stop + 1] - first
