"""What a few rows are measured for over the whole vocabulary: mass of the k largest, different ids of N draws.

Both are means over rows that no shard can give back (`schemas.wide_statistics`). The expected number of different ids,
Σ_v 1 − (1 − p_v)^N, is summed term by term where p is large; below _SMALL the binomial series

    1 − (1 − p)^N = N·p − C(N,2)·p² + C(N,3)·p³ − …

is cut after the third term, and needs only the sums of p, p² and p³: for N = 200 the rest is below 4e-8 of N·p.
"""

import math

import torch

from schemas.wide_statistics import DRAWS, STEPS_PER_UNIT, WIDTHS, WideStatistics

_SMALL = 2e-5


def measure_widths(logits_TV: torch.Tensor) -> WideStatistics:
    """Sums over T rows of float32 logits, which are left as they are; rows that are not finite are left out.

    Float64 is used from the probabilities of single ids on; each probability is as exact as float32 makes it.
    """
    logits_TV = logits_TV[logits_TV.amax(dim=-1).isfinite()]
    if not len(logits_TV):
        return WideStatistics()
    probs_TV = logits_TV.softmax(dim=-1)
    largest_TK = probs_TV.topk(min(max(WIDTHS), probs_TV.shape[1]), dim=-1).values.double().cumsum(dim=-1)
    large = probs_TV[probs_TV > _SMALL].double()
    small_TV = torch.where(probs_TV > _SMALL, 0, probs_TV)
    squares_TV = small_TV * small_TV
    powers = [x.sum(dim=-1, dtype=torch.float64).sum() for x in (small_TV, squares_TV, squares_TV * small_TV)]
    unique = {n: _expected_different(large, n) + _series(powers, n) for n in DRAWS}
    return WideStatistics(
        rows=len(logits_TV),
        mass_steps={k: _steps(largest_TK[:, min(k, largest_TK.shape[1]) - 1].sum()) for k in WIDTHS},
        unique_steps={n: _steps(total) for n, total in unique.items()},
    )


def _expected_different(probs_N: torch.Tensor, num_draws: int) -> torch.Tensor:
    return -torch.expm1(num_draws * torch.log1p(-probs_N.clamp(max=1))).sum()


def _series(powers: list[torch.Tensor], num_draws: int) -> torch.Tensor:
    first, second, third = powers
    return num_draws * first - math.comb(num_draws, 2) * second + math.comb(num_draws, 3) * third


def _steps(total: torch.Tensor) -> int:
    return round(total.item() * STEPS_PER_UNIT)
