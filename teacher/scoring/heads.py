"""From logits to heads, tails and the other targets, for a block of rows at a time.

With z the logits of a row, in float32:

    log Z = log Σ exp z,   log p = z - log Z,   entropy = log Z - Σ p·z
    log tail = log Σ_{others} exp z - log Z           (the *other* logits; 1 - Σ head would cancel to nothing)

A head is the n largest logits of a row, with n per row, ties to the lowest id as in a stable sort. One pass reads all
logits, block by block (`teacher.scoring.block_sums`); nothing is sorted or selected at full width. The maximum of each
block of ids shows which few blocks can contain an entry of the head, and the tail sums only these again, without the
head. Ids of probability zero (logit -inf) never enter a head, and are never drawn from a tail
(`teacher.scoring.tail_sampling`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch.nn.functional import pad

from logitcask.schemas.format.scheme import Scheme
from logitcask.teacher.scoring.block_sums import LOWEST, BlockSums, Kernel
from logitcask.teacher.scoring.head_entries import Entries, at_least, block_size, head_entries, row_counts
from logitcask.teacher.scoring.tail_sampling import draw_tail, num_draws
from logitcask.teacher.scoring.transfers import to_host


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceTargets:
    """Targets of T rows on the device that computed them; the fields of `schemas.format.targets.Targets`, as tensors.

    Attributes:
        ids: int32 [N], ascending within a row.
        log_probs: float32 [N].
        widths: Entries of each row's head, int64 [T].
        log_tail: float32 [T], -inf where the head has all mass.
        log_next: float32 [T], NaN where the next id is -1.
        entropy: Nats, float32 [T].
        top1_ids: int32 [T], lowest id on ties.
        sample_ids: One column per replica of the tail sample, ascending within a row, int32 [M, R].
        sample_widths: Draws from each row's tail, int64 [T].
        tempered_log_tails: One column per further temperature, float32 [T, number of temperatures].
        is_finite: bool [T]. False where a row has a NaN, +inf, or only -inf; its other fields are undefined.
    """

    ids: torch.Tensor
    log_probs: torch.Tensor
    widths: torch.Tensor
    log_tail: torch.Tensor
    log_next: torch.Tensor
    entropy: torch.Tensor
    top1_ids: torch.Tensor
    sample_ids: torch.Tensor
    sample_widths: torch.Tensor
    tempered_log_tails: torch.Tensor
    is_finite: torch.Tensor

    @classmethod
    def concatenate(cls, blocks: Sequence["DeviceTargets"]) -> "DeviceTargets":
        """All rows of `blocks` (at least one) in order."""
        return cls(**{f.name: torch.cat([getattr(block, f.name) for block in blocks]) for f in fields(cls)})

    def to_host(self) -> "DeviceTargets":
        """A copy in the host's memory."""
        return DeviceTargets(**to_host({f.name: getattr(self, f.name) for f in fields(self)}))


def select_heads(
    logits_TV: torch.Tensor,
    scheme: Scheme,
    next_ids_T: torch.Tensor,
    *,
    uniforms_TRN: torch.Tensor | None = None,
    temperatures: Sequence[float] = (),
    kernel: Kernel | None = None,
) -> DeviceTargets:
    """Targets of a block of rows (T ≥ 1). Uses `logits_TV` as working memory: its contents are lost.

    Args:
        logits_TV: Final logits, after any soft-cap, float32 [T, V], contiguous; -inf for ids that do not exist. Copied
            unless V is a multiple of the block size (`teacher.scoring.head_entries.block_size`).
        scheme: How heads are chosen.
        next_ids_T: The actual next token of each row, -1 where there is none, integer [T].
        uniforms_TRN: For a scheme that samples: from `schemas.format.draws.window_uniforms`, float64 [T, replicas, N].
        temperatures: Further temperatures of the tail.
        kernel: What passes over the logits; plain torch by default.
    """
    if uniforms_TRN is None:
        assert not scheme.num_tail_samples, "a scheme that samples needs random numbers"
        uniforms_TRN = logits_TV.new_empty(len(logits_TV), 0, 1)
    rows = _Rows(logits_TV, scheme, kernel or Kernel())
    log_next_T = logits_TV.gather(1, next_ids_T.clamp(min=0).long()[:, None])[:, 0].double() - rows.log_norm_T
    # What needs no entries comes first: finding entries waits for a GPU.
    entropy_T = rows.entropy()
    tempered = [rows.measure(temperature) for temperature in temperatures]
    log_all = [_log_total(blocks, t) for blocks, t in zip(tempered, temperatures, strict=True)]
    head = head_entries(rows.logits_TV, rows.blocks.highest, rows.log_norm_T, scheme)
    # The head of a sampling scheme may lack the most probable id.
    peaks = at_least(rows.logits_TV, rows.blocks.highest, rows.peak_T) if scheme.num_tail_samples else head
    top1_ids_T = _first_peak(peaks, rows.peak_T)
    rows.remove(head)
    others = rows.without_removed(rows.blocks)
    log_tail_T = (_log_total(others) - rows.log_norm_T).float()
    draws_T = num_draws(log_tail_T, scheme)
    log_tempered = [
        _log_total(rows.without_removed(blocks, temperature), temperature) - log_all_T
        for blocks, temperature, log_all_T in zip(tempered, temperatures, log_all, strict=True)
    ]
    return DeviceTargets(
        ids=head.id.int(),
        log_probs=(head.logit.double() - rows.log_norm_T[head.row]).float(),
        widths=row_counts(head.row, len(logits_TV)),
        log_tail=log_tail_T,
        log_next=log_next_T.float().masked_fill(next_ids_T < 0, math.nan),
        entropy=entropy_T,
        top1_ids=top1_ids_T,
        sample_ids=draw_tail(rows.logits_TBI, others, draws_T, uniforms_TRN),
        sample_widths=draws_T,
        tempered_log_tails=torch.stack([log_tail_T, *log_tempered], dim=1)[:, 1:].float(),
        is_finite=rows.peak_T.isfinite(),
    )


class _Rows:
    """Rows of logits in blocks, and their block sums.

    Attributes:
        logits_TV: The logits, padded to whole blocks.
        logits_TBI: The same memory in blocks.
        blocks: Their block sums, [T, B], before any entry is removed.
        peak_T: The largest logit of each row.
        log_norm_T: log Σ exp z, float64.
    """

    def __init__(self, logits_TV: torch.Tensor, scheme: Scheme, kernel: Kernel) -> None:
        num_rows, vocab_size = logits_TV.shape
        block_ids = block_size(vocab_size, scheme.max_head_width)
        if vocab_size % block_ids:
            logits_TV = pad(logits_TV, (0, -vocab_size % block_ids), value=-math.inf)
        self.logits_TV = logits_TV
        self.logits_TBI = logits_TV.view(num_rows, -1, block_ids)
        self._kernel = kernel
        self.blocks = self.measure()
        self.peak_T = self.blocks.highest.amax(dim=-1)
        self.log_norm_T = _log_total(self.blocks)
        self._touched_M = torch.empty(0, dtype=torch.long)

    def measure(self, temperature: float = 1.0) -> BlockSums:
        """Block sums of all rows in their present state, [T, B]."""
        return self._kernel(self.logits_TBI.flatten(0, 1), temperature).view(*self.logits_TBI.shape[:2])

    def entropy(self) -> torch.Tensor:
        """log Z - Σ exp(z - max)·(z - max) / Z of each row, float32 [T], before any entry is removed."""
        below_TB = self.blocks.highest.clamp(min=LOWEST) - self.peak_T[:, None]
        terms_TB = below_TB.exp() * torch.addcmul(self.blocks.weighted, below_TB, self.blocks.sums)
        log_sum_T = self.log_norm_T - self.peak_T
        return (log_sum_T - terms_TB.sum(dim=-1, dtype=torch.float64) / log_sum_T.exp()).float()

    def remove(self, head: Entries) -> None:
        """Sets the head's logits to -inf, which leaves the others."""
        self.logits_TV[head.row, head.id] = -math.inf
        num_blocks, block_ids = self.logits_TBI.shape[1:]
        touched_N = head.row * num_blocks + head.id // block_ids
        # On a GPU, summing a block several times, to equal sums, is cheaper than waiting for the number of blocks.
        self._touched_M = touched_N.unique_consecutive() if touched_N.device.type == "cpu" else touched_N

    def without_removed(self, before: BlockSums, temperature: float = 1.0) -> BlockSums:
        """Block sums of the remaining entries: only blocks that lost an entry are summed again."""
        touched_MI = self.logits_TBI.flatten(0, 1)[self._touched_M]
        return before.replace(self._touched_M, self._kernel(touched_MI, temperature))


def _log_total(blocks: BlockSums, temperature: float = 1.0) -> torch.Tensor:
    """Log of the sum of exp(z/t) over all blocks of each row, float64 [T]; -inf where all logits are -inf."""
    highest_TB = blocks.highest.clamp(min=LOWEST)
    peak_T = highest_TB.amax(dim=-1)
    scale_TB = ((highest_TB - peak_T[:, None]) / temperature).exp_()
    return (scale_TB * blocks.sums).sum(dim=-1, dtype=torch.float64).log() + peak_T.double() / temperature


def _first_peak(entries: Entries, peak_T: torch.Tensor) -> torch.Tensor:
    """The lowest id of the largest logit among the entries, int32 [T]; -1 where logits are not finite."""
    none = torch.iinfo(torch.int64).max
    ids_N = torch.where(entries.logit == peak_T[entries.row], entries.id, none)
    lowest_T = torch.full_like(peak_T, none, dtype=torch.int64).scatter_reduce_(0, entries.row, ids_N, "amin")
    return torch.where(lowest_T == none, -1, lowest_T).int()
