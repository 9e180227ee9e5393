"""Vocabulary statistics of a few rows: the mass of the k largest ids, and the number of distinct ids in N draws.

Neither can be computed from a shard (`schemas.stats.vocabulary_statistics`). The expected number of distinct ids,
Σ_v 1 − (1 − p_v)^N, is summed term by term where p is large; below _SMALL the binomial series

    1 − (1 − p)^N = N·p − C(N,2)·p² + C(N,3)·p³ − …

is cut after the third term, and needs only the sums of p, p² and p³: for N = 200 the remainder is below 4e-8 of N·p.
For p below _TINY the first term suffices.
"""

import math

import torch
from torch.nn.functional import pad, threshold

from logitcask.schemas.stats.vocabulary_statistics import DRAWS, STEPS_PER_UNIT, WIDTHS, VocabularyStatistics

_SMALL = 2e-5
_TINY = 1e-12
_BLOCK_IDS = 32
# Logits processed together: 4 MB stay in a processor's cache; a GPU gets 64 MB, and needs four times that.
_PIECE_LOGITS = {"cpu": 1 << 20, "cuda": 1 << 24}


def measure_vocabulary(logits_TV: torch.Tensor, rows_M: torch.Tensor) -> VocabularyStatistics:
    """Sums over some rows of logits; rows that are not finite are left out.

    Probabilities are computed in float32, and summed in float64.

    Args:
        logits_TV: float32 [T, V]; not changed.
        rows_M: Indices of the rows, in the host's memory, int64 [M].
    """
    piece = max(1, _PIECE_LOGITS.get(logits_TV.device.type, _PIECE_LOGITS["cpu"]) // logits_TV.shape[1])
    parts = (logits_TV[rows.to(logits_TV.device)] for rows in rows_M.split(piece))
    return sum((_measure(part_TV) for part_TV in parts), VocabularyStatistics())


def _measure(logits_TV: torch.Tensor) -> VocabularyStatistics:
    is_finite_T = logits_TV.amax(dim=-1).isfinite()
    if not is_finite_T.all():
        logits_TV = logits_TV[is_finite_T]
    if not len(logits_TV):
        return VocabularyStatistics()
    probs_TV = logits_TV.softmax(dim=-1)
    if probs_TV.shape[1] % _BLOCK_IDS:
        probs_TV = pad(probs_TV, (0, -probs_TV.shape[1] % _BLOCK_IDS))
    probs_TBI = probs_TV.unflatten(1, (-1, _BLOCK_IDS))
    largest_TK = _largest(probs_TBI, min(max(WIDTHS), logits_TV.shape[1])).double().cumsum(dim=-1)
    is_large_TBI = probs_TBI > _SMALL
    large = probs_TBI[is_large_TBI].double()
    small_TBI = probs_TBI.masked_fill_(is_large_TBI, 0)
    # The first term is summed in float64, except within a block; the others are a five-hundredth of it.
    powers = [small_TBI.sum(dim=-1).sum(dtype=torch.float64)]
    # Subnormal numbers would take a hundred times as long.
    small_TBI = threshold(small_TBI, _TINY, 0, inplace=True)
    squares_TBI = small_TBI * small_TBI
    powers.append(squares_TBI.sum(dim=-1).sum(dtype=torch.float64))
    powers.append(squares_TBI.mul_(small_TBI).sum(dim=-1).sum(dtype=torch.float64))
    masses = [largest_TK[:, min(k, largest_TK.shape[1]) - 1].sum() for k in WIDTHS]
    unique = [_expected_distinct(large, n) + _series(powers, n) for n in DRAWS]
    # One copy to the host for all.
    steps = [round(total * STEPS_PER_UNIT) for total in torch.stack([*masses, *unique]).tolist()]
    return VocabularyStatistics(
        rows=len(logits_TV),
        mass_steps=dict(zip(WIDTHS, steps, strict=False)),
        unique_steps=dict(zip(DRAWS, steps[len(WIDTHS) :], strict=True)),
    )


def _largest(values_TBI: torch.Tensor, k: int) -> torch.Tensor:
    """The k largest values of each row in falling order, [T, k]; the k blocks with the largest maxima contain them."""
    highest_TB = values_TBI.amax(dim=-1)
    chosen_TK = highest_TB.topk(min(k, highest_TB.shape[1]), dim=-1, sorted=False).indices
    return values_TBI.take_along_dim(chosen_TK[:, :, None], 1).flatten(1).topk(k, dim=-1).values


def _expected_distinct(probs_N: torch.Tensor, num_draws: int) -> torch.Tensor:
    return -torch.expm1(num_draws * torch.log1p(-probs_N.clamp(max=1))).sum()


def _series(powers: list[torch.Tensor], num_draws: int) -> torch.Tensor:
    first, second, third = powers
    return num_draws * first - math.comb(num_draws, 2) * second + math.comb(num_draws, 3) * third
