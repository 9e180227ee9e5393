"""Ids drawn from the tails of rows, given the uniform numbers (`schemas.draws`).

A point x in (0, 1) becomes the id at which the tail's cumulative mass, in id order, first exceeds x times the whole.
Sums run in two steps: over blocks of ids, then inside the one block that the point falls into; both in float64, but for
the sum of a block (in float64 it took two thirds of all time, and float32's weights are no better than its sums).
Rounding cannot lead astray: only a step upwards is ever chosen, so an id of mass zero (impossible, or held by the head)
is never drawn, and a point beyond the last step takes the last step.

Suffixes: R replicas, N points of a row, M points of all rows.
"""

import torch

from schemas.scheme import Scheme


def num_draws(log_tail_T: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    """Draws from each row's tail, int64 [T]: none where it is zero, or the scheme does not sample."""
    if not scheme.num_tail_samples:
        return torch.zeros_like(log_tail_T, dtype=torch.long)
    tail_T = log_tail_T.double().exp().clamp(max=1)
    if scheme.kind == "random-sampling":
        draws_T = torch.full_like(tail_T, scheme.draws)
    else:
        draws_T = (tail_T / scheme.theta).ceil().clamp(min=1)
    return torch.where(tail_T.isnan() | log_tail_T.isneginf(), 0, draws_T).long()


def draw_tail(
    weights_TV: torch.Tensor, block_ids: int, draws_T: torch.Tensor, uniforms_TRN: torch.Tensor
) -> torch.Tensor:
    """Draws from each row, by weights that need not sum to one.

    Args:
        weights_TV: Zero for ids that must not be drawn, float [T, V]; V is a multiple of `block_ids`.
        block_ids: Ids in a block.
        draws_T: Draws of each row, int64 [T]; 0 where all weights are zero.
        uniforms_TRN: One number for each independent draw, or a single one for systematic draws, float64 [T, R, N].

    Returns:
        The ids by row, ascending inside a row, int32 [M, R].
    """
    num_rows, num_replicas, _ = uniforms_TRN.shape
    if not num_replicas:
        return torch.empty(0, 0, dtype=torch.int32, device=weights_TV.device)
    points_TRN = _points(draws_T, uniforms_TRN)
    blocks_TBI = weights_TV.view(num_rows, -1, block_ids)
    sums_TB = blocks_TBI.sum(dim=-1).double().cumsum(dim=-1)
    points_TM = points_TRN.flatten(1) * sums_TB[:, -1:]
    block_TM = _first_above(sums_TB, points_TM)
    before_TM = torch.where(block_TM > 0, sums_TB.gather(1, (block_TM - 1).clamp(min=0)), 0.0)
    row_M, n_M = (torch.arange(points_TRN.shape[2], device=draws_T.device) < draws_T[:, None]).nonzero(as_tuple=True)
    block_MR, rest_MR = (x.view(points_TRN.shape)[row_M, :, n_M] for x in (block_TM, points_TM - before_TM))
    inside_MRI = blocks_TBI[row_M[:, None].expand(-1, num_replicas), block_MR].double().cumsum(dim=-1)
    return (block_MR * block_ids + _first_above(inside_MRI, rest_MR[..., None])[..., 0]).int()


def _points(draws_T: torch.Tensor, uniforms_TRN: torch.Tensor) -> torch.Tensor:
    """Points in (0, 1), rising inside a row and replica: the first `draws_T` of each are meant, float64 [T, R, N]."""
    num_uniforms, most = uniforms_TRN.shape[2], int(draws_T.max())
    if num_uniforms > 1 or most <= 1:
        return uniforms_TRN.sort(dim=-1).values
    systematic_TRN = uniforms_TRN + torch.arange(most, dtype=torch.float64, device=draws_T.device)
    return systematic_TRN / draws_T.clamp(min=1)[:, None, None]


def _first_above(sums: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Index of the first sum above each point, else of the first that equals the last; sums rise along [..., N]."""
    above = torch.searchsorted(sums, points.contiguous(), right=True)
    return above.minimum(torch.searchsorted(sums, sums[..., -1:].contiguous()))
