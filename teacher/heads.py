"""From logits to a head, its tail, and what else is measured of a distribution, for a block of rows at a time.

With z the logits of a row, in float32:

    d = z - max z,   Z = Σ exp d,   log p = d - log Z,   entropy = log Z - Σ exp(d)·d / Z
    log tail = log Σ_{others} exp d - log Z           (the *other* logits; 1 - Σ head would cancel to nothing)

A head is "the n largest", n per row, ties to the lowest id as in a stable sort. Nothing is sorted or selected at full
width: the maximum of each block of ids tells which few blocks can hold an entry of the head. Ids of probability zero
(logit -inf) never enter a head, and are never drawn from a tail (`teacher.sampling`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch.nn.functional import pad

from schemas.scheme import Scheme
from teacher.entries import Entries, at_least, block_size, head_entries
from teacher.sampling import draw_tail, num_draws

# On a CPU rows are worked on in groups that stay in its cache: 16 rows of 262,144 took a third of the time of 256.
_CACHED_LOGITS = 1 << 22
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
        sample_ids: One column a replica of the tail sample, ascending inside a row, int32 [M, R].
        sample_widths: Draws from each row's tail, int64 [T].
        tempered_log_tails: One column a further temperature, float32 [T, number of temperatures].
        is_finite: False where a row has a NaN, +inf, or nothing but -inf; its other fields mean nothing. bool [T].
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
    def empty(cls, num_samples: int, num_temperatures: int) -> "Heads":
        """No rows."""
        ids, numbers = torch.empty(0, dtype=torch.int32), torch.empty(0)
        return cls(
            ids=ids,
            log_probs=numbers,
            widths=ids.long(),
            log_tail=numbers,
            log_next=numbers,
            entropy=numbers,
            top1_ids=ids,
            sample_ids=ids.view(0, 1).expand(0, num_samples),
            sample_widths=ids.long(),
            tempered_log_tails=numbers.view(0, 1).expand(0, num_temperatures),
            is_finite=ids.bool(),
        )

    @classmethod
    def concatenate(cls, blocks: Sequence["Heads"]) -> "Heads":
        """All rows of `blocks` (at least one) in order."""
        return cls(**{f.name: torch.cat([getattr(block, f.name) for block in blocks]) for f in fields(cls)})


def select_heads(
    logits_TV: torch.Tensor,
    scheme: Scheme,
    next_ids_T: torch.Tensor,
    *,
    uniforms_TRN: torch.Tensor | None = None,
    temperatures: Sequence[float] = (),
) -> Heads:
    """Heads of a block of rows (T ≥ 1). Uses `logits_TV` as working memory: its contents are lost.

    Args:
        logits_TV: Final logits, after any soft-cap, float32 [T, V].
        scheme: How heads are chosen.
        next_ids_T: The actual next token of each row, -1 where there is none, integer [T].
        uniforms_TRN: Where the scheme samples: from `schemas.draws.window_uniforms`, float64 [T, replicas, N].
        temperatures: Whose tails are wanted too.
    """
    num_rows, vocab_size = logits_TV.shape
    if uniforms_TRN is None:
        assert not scheme.num_tail_samples, "a scheme that samples needs random numbers"
        uniforms_TRN = logits_TV.new_empty(num_rows, 0, 1)
    group = max(1, _CACHED_LOGITS // vocab_size) if logits_TV.device.type == "cpu" else num_rows
    width = vocab_size + -vocab_size % block_size(vocab_size, scheme.max_entries)
    # One buffer for all groups: fresh memory for each cost as much as the exponentials written into it.
    exp_GV = logits_TV.new_empty(min(group, num_rows), width)
    groups = [slice(start, start + group) for start in range(0, num_rows, group)]
    return Heads.concatenate(
        [_select(logits_TV[g], scheme, next_ids_T[g], exp_GV, uniforms_TRN[g], temperatures) for g in groups]
    )


def _select(
    logits_TV: torch.Tensor,
    scheme: Scheme,
    next_ids_T: torch.Tensor,
    exp_GV: torch.Tensor,
    uniforms_TRN: torch.Tensor,
    temperatures: Sequence[float],
) -> Heads:
    (num_rows, vocab_size), width = logits_TV.shape, exp_GV.shape[1]
    if width > vocab_size:
        logits_TV = pad(logits_TV, (0, width - vocab_size), value=-math.inf)
    block_ids = block_size(vocab_size, scheme.max_entries)
    highest_TB = logits_TV.view(num_rows, -1, block_ids).amax(dim=-1)
    peak_T1 = highest_TB.amax(dim=-1, keepdim=True)
    below_TV = logits_TV.sub_(peak_T1)
    highest_TB.sub_(peak_T1)
    exp_TV = torch.exp(below_TV, out=exp_GV[:num_rows])
    log_sum_T = exp_TV.sum(dim=-1).log()
    head = head_entries(below_TV, highest_TB, log_sum_T, scheme, vocab_size)
    held_N = exp_TV[head.row, head.id]
    exp_TV[head.row, head.id] = 0
    log_tail_T = _log_rest(below_TV, exp_TV, head) - log_sum_T
    draws_T = num_draws(log_tail_T, scheme)
    sample_ids_MR = draw_tail(_sampled(below_TV, exp_TV, head, log_tail_T), block_ids, draws_T, uniforms_TRN)
    exp_TV[head.row, head.id] = held_N
    log_next_T = below_TV.gather(1, next_ids_T.clamp(min=0).long()[:, None])[:, 0] - log_sum_T
    tempered_log_tails = [_tempered_log_tail(below_TV, head, temperature) for temperature in temperatures]
    # Heads of a sampling scheme may lack the most probable id.
    peaks = at_least(below_TV, highest_TB, torch.zeros_like(log_sum_T)) if scheme.num_tail_samples else head
    weighted_TV = below_TV.mul_(exp_TV)[:, :vocab_size]
    return Heads(
        ids=head.id.int(),
        log_probs=head.below - log_sum_T[head.row],
        widths=torch.bincount(head.row, minlength=num_rows),
        log_tail=log_tail_T,
        log_next=log_next_T.masked_fill(next_ids_T < 0, math.nan),
        entropy=log_sum_T - _row_sums(weighted_TV) / log_sum_T.exp(),
        top1_ids=_first_peak(peaks, num_rows),
        sample_ids=sample_ids_MR,
        sample_widths=draws_T,
        tempered_log_tails=torch.cat([log_sum_T.new_empty(num_rows, 0), *tempered_log_tails], dim=1),
        is_finite=peak_T1[:, 0].isfinite(),
    )


def _first_peak(entries: Entries, num_rows: int) -> torch.Tensor:
    """The lowest id of the largest logit among the entries, int32 [T]; -1 where logits are not finite."""
    peaks = entries.where(entries.below == 0)
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


def _log_rest(
    below_TV: torch.Tensor, weights_TV: torch.Tensor, head: Entries, temperature: float = 1.0
) -> torch.Tensor:
    """Log of Σ exp(d / temperature) outside the head, [T]; `weights_TV` is exp(d / temperature), and 0 in the head."""
    rest_T = weights_TV.sum(dim=-1)
    log_rest_T = rest_T.log()
    tiny = (rest_T < _TINY_TAIL).nonzero()[:, 0]
    if len(tiny):
        log_rest_T[tiny] = (_others(below_TV, head)[tiny] / temperature).logsumexp(dim=-1)
    return log_rest_T


def _others(below_TV: torch.Tensor, head: Entries) -> torch.Tensor:
    """d, and -inf in the head, [T, V]."""
    return below_TV.index_put((head.row, head.id), below_TV.new_tensor(-math.inf))


def _sampled(below_TV: torch.Tensor, weights_TV: torch.Tensor, head: Entries, log_tail_T: torch.Tensor) -> torch.Tensor:
    """Weights by which ids outside the head are drawn, [T, V]: exp(d), rescaled in a row where the tail is tiny."""
    tiny = (log_tail_T.isfinite() & (log_tail_T < math.log(_TINY_TAIL))).nonzero()[:, 0]
    if not len(tiny):
        return weights_TV
    others_TV = _others(below_TV, head)[tiny]
    return weights_TV.index_put((tiny,), (others_TV - others_TV.amax(dim=-1, keepdim=True)).exp())


def _tempered_log_tail(below_TV: torch.Tensor, head: Entries, temperature: float) -> torch.Tensor:
    """Log of the mass outside the head of softmax(z / temperature), [T, 1]."""
    weights_TV = (below_TV / temperature).exp_()
    held_N = weights_TV[head.row, head.id]
    weights_TV[head.row, head.id] = 0
    log_rest_T = _log_rest(below_TV, weights_TV, head, temperature)
    log_head_T = torch.zeros_like(log_rest_T).index_add(0, head.row, held_N).log()
    return (log_rest_T - torch.logaddexp(log_rest_T, log_head_T))[:, None]
