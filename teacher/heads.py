"""From logits to a head, its tail, and what else is measured of a distribution, for a block of rows at a time.

With z the logits of a row, in float32:

    d = z - max z,   Z = Σ exp d,   log p = d - log Z,   entropy = log Z - Σ exp(d)·d / Z
    log tail = log Σ_{others} exp d - log Z           (the *other* logits; 1 - Σ head would cancel to nothing)

A head is "the n largest", n per row, ties to the lowest id as in a stable sort. Nothing is sorted or selected at full
width: the maximum of each block of ids tells which few blocks can hold an entry of the head. Ids of probability zero
(logit -inf) never enter a head.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch.nn.functional import pad

from schemas.scheme import Scheme

# On a CPU rows are worked on in groups that stay in its cache: 16 rows of 262,144 took a third of the time of 256.
_CACHED_LOGITS = 1 << 22
# Ids a block, halved until there are at least two blocks for each entry of the largest head.
_BLOCK_IDS = 128
# Below this a tail's sum of exponentials loses digits to float32's smallest numbers: it is summed anew, rescaled.
_TINY_TAIL = 1e-30
_LOWEST = torch.finfo(torch.float32).min


@dataclass(frozen=True, kw_only=True, slots=True)
class Heads:
    """Targets of T rows on the device that computed them; the fields of `schemas.targets.Targets`, as tensors.

    Attributes:
        ids: int32 [N], ascending inside a row.
        log_probs: float32 [N].
        widths: Entries of each row's head, int64 [T].
        log_tail: float32 [T], -inf where the head holds all mass.
        log_next: float32 [T], NaN where the next id is -1.
        entropy: Nats, float32 [T].
        top1_ids: int32 [T], lowest id on ties.
        is_finite: False where a row has a NaN, +inf, or nothing but -inf; its other fields mean nothing. bool [T].
    """

    ids: torch.Tensor
    log_probs: torch.Tensor
    widths: torch.Tensor
    log_tail: torch.Tensor
    log_next: torch.Tensor
    entropy: torch.Tensor
    top1_ids: torch.Tensor
    is_finite: torch.Tensor

    @classmethod
    def concatenate(cls, blocks: Sequence["Heads"]) -> "Heads":
        """All rows of `blocks` (at least one) in order."""
        return cls(**{f.name: torch.cat([getattr(block, f.name) for block in blocks]) for f in fields(cls)})


def select_heads(logits_TV: torch.Tensor, scheme: Scheme, next_ids_T: torch.Tensor) -> Heads:
    """Heads of a block of rows (T ≥ 1). Uses `logits_TV` as working memory: its contents are lost.

    Args:
        logits_TV: Final logits, after any soft-cap, float32 [T, V].
        scheme: How heads are chosen.
        next_ids_T: The actual next token of each row, -1 where there is none, integer [T].
    """
    num_rows, vocab_size = logits_TV.shape
    group = max(1, _CACHED_LOGITS // vocab_size) if logits_TV.device.type == "cpu" else num_rows
    width = vocab_size + -vocab_size % _block_ids(vocab_size, scheme.k)
    # One buffer for all groups: fresh memory for each cost as much as the exponentials written into it.
    exp_GV = logits_TV.new_empty(min(group, num_rows), width)
    starts = range(0, num_rows, group)
    return Heads.concatenate(
        [_select(logits_TV[i : i + group], scheme, next_ids_T[i : i + group], exp_GV) for i in starts]
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entries:
    """Some entries of some rows, by row and then id: row index, id and d, each [N]."""

    row: torch.Tensor
    id: torch.Tensor
    below: torch.Tensor

    def where(self, keep_N: torch.Tensor) -> "_Entries":
        return _Entries(row=self.row[keep_N], id=self.id[keep_N], below=self.below[keep_N])


def _select(logits_TV: torch.Tensor, scheme: Scheme, next_ids_T: torch.Tensor, exp_GV: torch.Tensor) -> Heads:
    (num_rows, vocab_size), width = logits_TV.shape, exp_GV.shape[1]
    if width > vocab_size:
        logits_TV = pad(logits_TV, (0, width - vocab_size), value=-math.inf)
    highest_TB = logits_TV.view(num_rows, -1, _block_ids(vocab_size, scheme.k)).amax(dim=-1)
    peak_T1 = highest_TB.amax(dim=-1, keepdim=True)
    below_TV = logits_TV.sub_(peak_T1)
    exp_TV = torch.exp(below_TV, out=exp_GV[:num_rows])
    log_sum_T = exp_TV.sum(dim=-1).log()
    head = _head(below_TV, highest_TB.sub_(peak_T1), log_sum_T, scheme, vocab_size)
    log_rest_T = _log_rest(below_TV, exp_TV, head)
    log_next_T = below_TV.gather(1, next_ids_T.clamp(min=0).long()[:, None])[:, 0] - log_sum_T
    weighted_TV = below_TV.mul_(exp_TV)[:, :vocab_size]
    return Heads(
        ids=head.id.int(),
        log_probs=head.below - log_sum_T[head.row],
        widths=torch.bincount(head.row, minlength=num_rows),
        log_tail=log_rest_T - log_sum_T,
        log_next=log_next_T.masked_fill(next_ids_T < 0, math.nan),
        entropy=log_sum_T - _row_sums(weighted_TV) / log_sum_T.exp(),
        top1_ids=_first_peak(head, num_rows),
        is_finite=peak_T1[:, 0].isfinite(),
    )


def _block_ids(vocab_size: int, k: int) -> int:
    block_ids = _BLOCK_IDS
    while block_ids > 1 and vocab_size < 2 * k * block_ids:
        block_ids //= 2
    return block_ids


def _first_peak(head: _Entries, num_rows: int) -> torch.Tensor:
    """The lowest id of the largest logit, which every head holds, int32 [T]; -1 where logits are not finite."""
    peaks = head.where(head.below == 0)
    lowest_T = torch.full((num_rows,), torch.iinfo(torch.int64).max, device=peaks.id.device)
    lowest_T.scatter_reduce_(0, peaks.row, peaks.id, "amin")
    return torch.where(lowest_T == torch.iinfo(torch.int64).max, -1, lowest_T).int()


def _row_sums(weighted_TV: torch.Tensor) -> torch.Tensor:
    """Σ exp(d)·d from its terms, where 0·(-inf) is 0, [T]."""
    total_T = weighted_TV.sum(dim=-1)
    undefined = total_T.isnan().nonzero()[:, 0]
    if len(undefined):
        total_T[undefined] = weighted_TV[undefined].nansum(dim=-1)
    return total_T


def _log_rest(below_TV: torch.Tensor, exp_TV: torch.Tensor, head: _Entries) -> torch.Tensor:
    """Log of Σ exp(d) over ids outside the head, [T]."""
    entries = (head.row, head.id)
    held_N = exp_TV[entries]
    rest_T = exp_TV.index_put_(entries, exp_TV.new_zeros(())).sum(dim=-1)
    exp_TV.index_put_(entries, held_N)
    log_rest_T = rest_T.log()
    tiny = (rest_T < _TINY_TAIL).nonzero()[:, 0]
    if len(tiny):
        others_TV = below_TV.index_put(entries, below_TV.new_tensor(-math.inf))
        log_rest_T[tiny] = others_TV[tiny].logsumexp(dim=-1)
    return log_rest_T


def _head(
    below_TV: torch.Tensor,
    highest_TB: torch.Tensor,
    log_sum_T: torch.Tensor,
    scheme: Scheme,
    vocab_size: int,
) -> _Entries:
    """The entries of the heads."""
    k = min(scheme.k, vocab_size)
    if scheme.kind == "threshold":
        least_T = log_sum_T + math.log(scheme.tau)
        floor_T = least_T.minimum(_kth_largest(highest_TB, min(scheme.k_min, k)))
        candidates = _at_least(below_TV, highest_TB, floor_T)
        passing = candidates.row[candidates.below >= least_T[candidates.row]]
        num_T = torch.bincount(passing, minlength=len(below_TV)).clamp(min=scheme.k_min, max=k)
        return _first(candidates, num_T)
    candidates = _at_least(below_TV, highest_TB, _kth_largest(highest_TB, k))
    num_T = torch.full_like(log_sum_T, k, dtype=torch.long)
    return _first(candidates, num_T, log_sum_T, scheme.p if scheme.kind == "topp" else math.inf)


def _kth_largest(highest_TB: torch.Tensor, k: int) -> torch.Tensor:
    """A bound that a row's k-th largest value is not below: the k-th largest block maximum, [T]."""
    k = min(k, highest_TB.shape[1])
    return highest_TB.topk(k, dim=-1, sorted=True).values[:, -1]


def _at_least(below_TV: torch.Tensor, highest_TB: torch.Tensor, floor_T: torch.Tensor) -> _Entries:
    """All entries with floor ≤ d and -inf < d."""
    floor_T1 = floor_T.clamp(min=_LOWEST)[:, None]
    row_M, block_M = (highest_TB >= floor_T1).nonzero(as_tuple=True)
    blocks_MI = below_TV.view(*highest_TB.shape, -1)[row_M, block_M]
    m_N, offset_N = (blocks_MI >= floor_T1[row_M]).nonzero(as_tuple=True)
    return _Entries(
        row=row_M[m_N],
        id=block_M[m_N] * blocks_MI.shape[1] + offset_N,
        below=blocks_MI[m_N, offset_N],
    )


def _first(
    entries: _Entries, num_T: torch.Tensor, log_sum_T: torch.Tensor | None = None, mass: float = math.inf
) -> _Entries:
    """Of each row the first entries of a stable sort by falling d: `num_T` of them, or fewer if `mass` is reached."""
    count_T = torch.bincount(entries.row, minlength=len(num_T))
    if mass == math.inf and bool((count_T <= num_T).all()):
        return entries
    by_value = entries.below.sort(descending=True, stable=True).indices
    order = by_value[entries.row[by_value].sort(stable=True).indices]
    row = entries.row[order]
    start_T = count_T.cumsum(0) - count_T
    keep = torch.arange(len(order), device=order.device) - start_T[row] < num_T[row]
    if log_sum_T is not None and mass < math.inf:
        keep &= _mass_before(entries.below[order].double() - log_sum_T[row], start_T, row) < mass
    chosen = torch.zeros_like(keep)
    chosen[order] = keep
    return entries.where(chosen)


def _mass_before(log_probs_N: torch.Tensor, start_T: torch.Tensor, row_N: torch.Tensor) -> torch.Tensor:
    """Probability that a row's earlier entries hold together, float64 [N], for entries grouped by row."""
    probs_N = log_probs_N.exp()
    before_N = probs_N.cumsum(0) - probs_N
    return before_N - before_N[start_T.clamp(max=max(0, len(before_N) - 1))][row_N]
