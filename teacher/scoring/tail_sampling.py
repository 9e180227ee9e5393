"""Draws ids from the tails of rows, given uniform numbers (`schemas.format.draws`).

A point x in (0, 1) becomes the id at which the tail's cumulative mass, in id order, first exceeds x times the whole.
Masses are summed in two steps: over blocks of ids, then inside the block that contains the point. Both sums are in
float64, over the block sums in float32 that exist already (`teacher.scoring.block_sums`): the weights in float32 are no
more exact. Rounding is harmless: only an id at which the sum rises is chosen, so an id of mass zero (impossible, or in
the head) is never drawn, and a point beyond the last rise takes the id of the last rise.

Suffixes: R replicas, N points of a row, M points of all rows.
"""

import torch

from logitcask.schemas.errors import UnknownSchemeError
from logitcask.schemas.format.scheme import RandomSamplingScheme, Scheme, ThresholdSamplingScheme
from logitcask.teacher.scoring.block_sums import LOWEST, BlockSums

# Points looked up together: each takes the few kilobytes of its block.
_PIECE_POINTS = 1 << 16


def num_draws(log_tail_T: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    """Number of draws from each row's tail, int64 [T]; 0 where the tail is zero or the scheme does not sample.

    Raises:
        UnknownSchemeError: The scheme samples, but no rule gives its number of draws.
    """
    if not scheme.num_tail_samples:
        return torch.zeros_like(log_tail_T, dtype=torch.long)
    tail_T = log_tail_T.double().exp().clamp(max=1)
    match scheme:
        case RandomSamplingScheme():
            draws_T = torch.full_like(tail_T, scheme.draws)
        case ThresholdSamplingScheme():
            draws_T = (tail_T / scheme.theta).ceil().clamp(min=1)
        case _:
            raise UnknownSchemeError(f"no rule gives the number of draws of scheme {scheme!r}")
    return torch.where(tail_T.isnan() | log_tail_T.isneginf(), 0, draws_T).long()


def draw_tail(
    logits_TBI: torch.Tensor, others: BlockSums, draws_T: torch.Tensor, uniforms_TRN: torch.Tensor
) -> torch.Tensor:
    """Draws ids from each row by probability.

    Args:
        logits_TBI: In blocks; -inf for ids that must not be drawn.
        others: Their block sums, [T, B].
        draws_T: Number of draws of each row, int64 [T]; 0 where nothing can be drawn.
        uniforms_TRN: One number for each independent draw, or a single one for systematic draws, float64 [T, R, N].

    Returns:
        The ids by row, ascending within a row, int32 [M, R].
    """
    num_replicas, block_ids = uniforms_TRN.shape[1], logits_TBI.shape[-1]
    if not num_replicas:
        return torch.empty(0, 0, dtype=torch.int32, device=logits_TBI.device)
    points_TRN = _points(draws_T, uniforms_TRN)
    highest_TB = others.highest.clamp(min=LOWEST)
    scale_TB = (highest_TB - highest_TB.amax(dim=-1, keepdim=True)).double().exp()
    sums_TB = (scale_TB * others.sums).cumsum(dim=-1)
    points_TM = points_TRN.flatten(1) * sums_TB[:, -1:]
    block_TM = _first_above(sums_TB, points_TM)
    before_TM = torch.where(block_TM > 0, sums_TB.gather(1, (block_TM - 1).clamp(min=0)), 0.0)
    rest_TM = (points_TM - before_TM) / scale_TB.gather(1, block_TM)
    row_M, n_M = (torch.arange(points_TRN.shape[2], device=draws_T.device) < draws_T[:, None]).nonzero(as_tuple=True)
    block_MR, rest_MR = (x.view(points_TRN.shape)[row_M, :, n_M] for x in (block_TM, rest_TM))
    row_MR = row_M[:, None].expand(-1, num_replicas)
    pieces = zip(*(x.split(max(1, _PIECE_POINTS // num_replicas)) for x in (row_MR, block_MR, rest_MR)), strict=True)
    inside_MR = torch.cat([_place_inside(logits_TBI, highest_TB, *piece) for piece in pieces])
    return (block_MR * block_ids + inside_MR).int()


def _place_inside(
    logits_TBI: torch.Tensor,
    highest_TB: torch.Tensor,
    row_MR: torch.Tensor,
    block_MR: torch.Tensor,
    rest_MR: torch.Tensor,
) -> torch.Tensor:
    """Offsets in their blocks of the ids that the points select, int64 [M, R]."""
    below_MRI = logits_TBI[row_MR, block_MR] - highest_TB[row_MR, block_MR][..., None]
    inside_MRI = below_MRI.exp().double().cumsum(dim=-1)
    return _first_above(inside_MRI, rest_MR[..., None])[..., 0]


def _points(draws_T: torch.Tensor, uniforms_TRN: torch.Tensor) -> torch.Tensor:
    """Points in (0, 1), rising within a row and replica, float64 [T, R, N]; the first `draws_T` of a row are used."""
    num_uniforms, max_draws = uniforms_TRN.shape[2], int(draws_T.max())
    if num_uniforms > 1 or max_draws <= 1:
        return uniforms_TRN.sort(dim=-1).values
    systematic_TRN = uniforms_TRN + torch.arange(max_draws, dtype=torch.float64, device=draws_T.device)
    return systematic_TRN / draws_T.clamp(min=1)[:, None, None]


def _first_above(sums: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Index of the first sum above each point, or else of the first that equals the last; sums rise along [..., N]."""
    above = torch.searchsorted(sums, points.contiguous(), right=True)
    last = torch.searchsorted(sums, sums[..., -1:].contiguous())
    # NaN is found beyond the end; nothing is drawn from its row.
    return above.minimum(last).clamp(max=sums.shape[-1] - 1)
