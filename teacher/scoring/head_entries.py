"""Finds the entries of rows of logits that are the head, without sorting or selecting at full width.

The maximum of each block of ids shows which few blocks can contain an entry of the head.
"""

import math
from dataclasses import dataclass

import torch

from logitcask.schemas.errors import UnknownSchemeError
from logitcask.schemas.format.scheme import (
    RandomSamplingScheme,
    Scheme,
    ThresholdSamplingScheme,
    ThresholdScheme,
    TopKScheme,
    TopPScheme,
)
from logitcask.teacher.scoring.block_sums import LOWEST

# Ids per block, halved until there are at least two blocks for each entry of the largest head.
_BLOCK_IDS = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class Entries:
    """Entries of rows, sorted by row and then id: row index, id and logit z, each [N]."""

    row: torch.Tensor
    id: torch.Tensor
    logit: torch.Tensor

    def where(self, keep_N: torch.Tensor) -> "Entries":
        # This waits for a GPU once; three selections by a mask would wait three times.
        kept = keep_N.nonzero()[:, 0]
        return Entries(row=self.row[kept], id=self.id[kept], logit=self.logit[kept])


def row_counts(row_N: torch.Tensor, num_rows: int, counted_N: torch.Tensor | None = None) -> torch.Tensor:
    """How often each row occurs, int64 [T], among all entries or those in `counted_N`. It does not wait for a GPU."""
    ones_N = torch.ones_like(row_N) if counted_N is None else counted_N.long()
    return row_N.new_zeros(num_rows).scatter_add_(0, row_N, ones_N)


def block_size(vocab_size: int, max_entries: int) -> int:
    """Ids per block, a power of two, for heads of at most `max_entries` entries."""
    block_ids = _BLOCK_IDS
    while block_ids > 1 and vocab_size < 2 * max_entries * block_ids:
        block_ids //= 2
    return block_ids


def head_entries(
    logits_TV: torch.Tensor, highest_TB: torch.Tensor, log_norm_T: torch.Tensor, scheme: Scheme
) -> Entries:
    """The entries of the heads of T rows.

    Args:
        logits_TV: Whole blocks, padded with -inf; float32.
        highest_TB: The maximum of each block.
        log_norm_T: log Σ exp z, float64.
        scheme: How heads are chosen.

    Raises:
        UnknownSchemeError: No rule selects the heads of this kind of scheme.
    """
    k = min(scheme.max_head_width, logits_TV.shape[1])
    match scheme:
        case RandomSamplingScheme():
            return at_least(logits_TV, highest_TB, torch.full_like(highest_TB[:, 0], math.inf))
        case ThresholdSamplingScheme():
            return at_least(logits_TV, highest_TB, (log_norm_T + math.log(scheme.theta)).float())
        case ThresholdScheme():
            least_T = (log_norm_T + math.log(scheme.tau)).float()
            floor_T = least_T.minimum(_kth_largest(highest_TB, min(scheme.k_min, k)))
            candidates = at_least(logits_TV, highest_TB, floor_T)
            passing_T = row_counts(candidates.row, len(least_T), candidates.logit >= least_T[candidates.row])
            return _first(candidates, passing_T.clamp(min=scheme.k_min, max=k))
        case TopKScheme() | TopPScheme():
            candidates = at_least(logits_TV, highest_TB, _kth_largest(highest_TB, k))
            num_T = torch.full_like(log_norm_T, k, dtype=torch.long)
            return _first(candidates, num_T, log_norm_T, scheme.p if isinstance(scheme, TopPScheme) else math.inf)
        case _:
            raise UnknownSchemeError(f"no rule selects the head of scheme {scheme!r}")


def _kth_largest(highest_TB: torch.Tensor, k: int) -> torch.Tensor:
    """A lower bound of a row's k-th largest value: the k-th largest block maximum, [T]."""
    if k == 1:
        return highest_TB.amax(dim=-1)
    k = min(k, highest_TB.shape[1])
    return highest_TB.topk(k, dim=-1, sorted=True).values[:, -1]


def at_least(logits_TV: torch.Tensor, highest_TB: torch.Tensor, floor_T: torch.Tensor) -> Entries:
    """All entries with floor ≤ z and -inf < z."""
    floor_T1 = floor_T.clamp(min=LOWEST)[:, None]
    row_M, block_M = (highest_TB >= floor_T1).nonzero(as_tuple=True)
    blocks_MI = logits_TV.view(*highest_TB.shape, -1)[row_M, block_M]
    m_N, offset_N = (blocks_MI >= floor_T1[row_M]).nonzero(as_tuple=True)
    return Entries(
        row=row_M[m_N],
        id=block_M[m_N] * blocks_MI.shape[1] + offset_N,
        logit=blocks_MI[m_N, offset_N],
    )


def _first(
    entries: Entries, num_T: torch.Tensor, log_norm_T: torch.Tensor | None = None, mass: float = math.inf
) -> Entries:
    """The first entries of each row in a stable sort by falling z: `num_T` of them, or fewer if they reach `mass`."""
    count_T = row_counts(entries.row, len(num_T))
    if mass == math.inf and bool((count_T <= num_T).all()):
        return entries
    by_value = entries.logit.sort(descending=True, stable=True).indices
    order = by_value[entries.row[by_value].sort(stable=True).indices]
    row = entries.row[order]
    start_T = count_T.cumsum(0) - count_T
    keep = torch.arange(len(order), device=order.device) - start_T[row] < num_T[row]
    if log_norm_T is not None and mass < math.inf:
        keep &= _mass_before(entries.logit[order].double() - log_norm_T[row], start_T, row) < mass
    chosen = torch.zeros_like(keep)
    chosen[order] = keep
    return entries.where(chosen)


def _mass_before(log_probs_N: torch.Tensor, start_T: torch.Tensor, row_N: torch.Tensor) -> torch.Tensor:
    """Total probability of the row's earlier entries, float64 [N], for entries grouped by row."""
    probs_N = log_probs_N.exp()
    before_N = probs_N.cumsum(0) - probs_N
    return before_N - before_N[start_T.clamp(max=max(0, len(before_N) - 1))][row_N]
