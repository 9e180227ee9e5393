"""From logits to a head, its tail, and what else is measured of a distribution, for a block of rows at a time.

Blocks are a few hundred rows ([256, V] float32), so that no full [T, V] log-softmax ever exists. One pass turns the
block into exponentials; everything after that touches only the rows or entries that need it:

    d = z - max z,   Z = Σ exp d,   log p = d - log Z,   entropy = log Z - Σ exp(d)·d / Z
    log tail = log Σ_{others} exp d - log Z           (the *other* logits; 1 - Σ head would cancel to nothing)

A head is written as "the n largest", n per row, ties to the lowest id as in a stable sort. Ids of probability zero
(logit -inf) never enter a head.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from schemas.scheme import Scheme

# Below this a tail's sum of exponentials loses digits to float32's smallest numbers: it is summed anew, rescaled.
_TINY_TAIL = 1e-30


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
        return cls(**{name: torch.cat([getattr(b, name) for b in blocks]) for name in cls.__slots__})


def select_heads(logits_TV: torch.Tensor, scheme: Scheme, next_ids_T: torch.Tensor) -> Heads:
    """Heads of a block of rows. Uses `logits_TV` as working memory: its contents are lost.

    Args:
        logits_TV: Final logits, after any soft-cap, float32 [T, V].
        scheme: How heads are chosen.
        next_ids_T: The actual next token of each row, -1 where there is none, integer [T].
    """
    peak_T1, top1_T1 = logits_TV.max(dim=-1, keepdim=True)
    below_TV = logits_TV.sub_(peak_T1)
    exp_TV = below_TV.exp()
    log_sum_T = exp_TV.sum(dim=-1).log()
    entropy_T = log_sum_T - _mean_below(below_TV, exp_TV) / log_sum_T.exp()
    log_next_T = below_TV.gather(1, next_ids_T.clamp(min=0).long()[:, None])[:, 0] - log_sum_T
    in_head_TV = _head_mask(below_TV, log_sum_T, scheme)
    row_N, id_N = in_head_TV.nonzero(as_tuple=True)
    return Heads(
        ids=id_N.int(),
        log_probs=below_TV[row_N, id_N] - log_sum_T[row_N],
        widths=torch.bincount(row_N, minlength=len(logits_TV)),
        log_tail=_log_rest(below_TV, exp_TV, in_head_TV) - log_sum_T,
        log_next=log_next_T.masked_fill(next_ids_T < 0, math.nan),
        entropy=entropy_T,
        top1_ids=top1_T1[:, 0].int(),
        is_finite=peak_T1[:, 0].isfinite(),
    )


def _mean_below(below_TV: torch.Tensor, exp_TV: torch.Tensor) -> torch.Tensor:
    """Σ exp(d)·d, where 0·(-inf) is 0, [T]."""
    total_T = torch.bmm(exp_TV[:, None], below_TV[:, :, None])[:, 0, 0]
    impossible_ids = total_T.isnan().nonzero()[:, 0]
    if len(impossible_ids):
        finite = below_TV[impossible_ids].clamp_(min=torch.finfo(torch.float32).min)
        total_T[impossible_ids] = (exp_TV[impossible_ids] * finite).sum(dim=-1)
    return total_T


def _log_rest(below_TV: torch.Tensor, exp_TV: torch.Tensor, in_head_TV: torch.Tensor) -> torch.Tensor:
    """Log of Σ exp(d) over ids outside the head, [T]. Overwrites `exp_TV`."""
    rest_T = exp_TV.masked_fill_(in_head_TV, 0.0).sum(dim=-1)
    log_rest_T = rest_T.log()
    tiny = (rest_T < _TINY_TAIL).nonzero()[:, 0]
    if len(tiny):
        log_rest_T[tiny] = below_TV[tiny].masked_fill_(in_head_TV[tiny], -math.inf).logsumexp(dim=-1)
    return log_rest_T


def _head_mask(below_TV: torch.Tensor, log_sum_T: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    """Which ids are in the head, bool [T, V]."""
    vocab_size = below_TV.shape[1]
    k = min(scheme.k, vocab_size)
    if scheme.kind == "threshold":
        return _over_threshold(below_TV, log_sum_T + math.log(scheme.tau), min(scheme.k_min, k), k)
    largest_TK = below_TV.topk(k, dim=-1).values
    num_T = torch.full_like(log_sum_T, k, dtype=torch.long)
    if scheme.kind == "topp":
        mass_TK = (largest_TK - log_sum_T[:, None]).exp().cumsum(dim=-1)
        num_T = ((mass_TK < scheme.p).sum(dim=-1) + 1).clamp(max=k)
    return _first_largest(below_TV, largest_TK, num_T)


def _over_threshold(below_TV: torch.Tensor, least_T: torch.Tensor, k_min: int, k: int) -> torch.Tensor:
    """Ids with d ≥ least, at least the k_min and at most the k largest of each row."""
    mask_TV = below_TV >= least_T[:, None]
    num_T = mask_TV.sum(dim=-1)
    # Few rows are that flat or that sharp, so only they pay for a top-k.
    outside = ((num_T < k_min) | (num_T > k)).nonzero()[:, 0]
    if len(outside):
        below_RV, num_R = below_TV[outside], num_T[outside].clamp(min=k_min, max=k)
        largest_RK = below_RV.topk(k, dim=-1).values
        mask_TV[outside] = _first_largest(below_RV, largest_RK, num_R)
    return mask_TV


def _first_largest(below_TV: torch.Tensor, largest_TK: torch.Tensor, num_T: torch.Tensor) -> torch.Tensor:
    """The first `num_T` ids of a stable sort by falling value, those of value -inf left out, bool [T, V].

    Args:
        below_TV: The values.
        largest_TK: Each row's K largest values, falling; K ≥ num_T ≥ 1.
        num_T: How many, [T].
    """
    cut_T1 = largest_TK.gather(1, num_T[:, None] - 1).clamp_(min=torch.finfo(torch.float32).min)
    mask_TV = below_TV >= cut_T1
    tied = (mask_TV.sum(dim=-1) > num_T).nonzero()[:, 0]
    if len(tied):
        below_RV, cut_R1 = below_TV[tied], cut_T1[tied]
        above_RV, equal_RV = below_RV > cut_R1, below_RV == cut_R1
        num_equal_R1 = num_T[tied, None] - above_RV.sum(dim=-1, keepdim=True)
        mask_TV[tied] = above_RV | (equal_RV & (equal_RV.cumsum(dim=-1) <= num_equal_R1))
    return mask_TV
