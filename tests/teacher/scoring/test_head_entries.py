"""Entries of heads, found by the maxima of blocks, against sorting at full width."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import pad

from logitcask.schemas.format.scheme import (
    RandomSamplingScheme,
    Scheme,
    ThresholdSamplingScheme,
    ThresholdScheme,
    TopKScheme,
    TopPScheme,
)
from logitcask.teacher.scoring.head_entries import Entries, at_least, block_size, head_entries, row_counts


@given(st.integers(1, 1 << 20), st.integers(0, 1 << 12))
def test_a_block_size_is_a_power_of_two_with_two_blocks_for_each_entry(vocab_size: int, max_entries: int) -> None:
    block_ids = block_size(vocab_size, max_entries)
    assert block_ids in (1, 2, 4, 8, 16, 32, 64, 128)
    assert block_ids == 1 or vocab_size >= 2 * max_entries * block_ids
    assert block_ids == 128 or vocab_size < 4 * max_entries * block_ids


def test_rows_are_counted_in_all_or_where_a_mask_holds() -> None:
    row_N = torch.tensor([0, 2, 2, 3])
    assert row_counts(row_N, 5).tolist() == [1, 0, 2, 1, 0]
    assert row_counts(row_N, 5, torch.tensor([True, True, False, True])).tolist() == [1, 0, 1, 1, 0]


def block_maxima(logits_TV: torch.Tensor, block_ids: int = 4) -> torch.Tensor:
    return logits_TV.unflatten(1, (-1, block_ids)).amax(dim=-1)


def test_entries_at_or_above_a_floor_are_found_in_order_of_row_and_id() -> None:
    logits_TV = torch.tensor([[1.0, 5, 2, 0, 3, 3, 9, -math.inf], [0.0] * 8])
    entries = at_least(logits_TV, block_maxima(logits_TV), torch.tensor([3.0, 0.5]))
    assert entries.row.tolist() == [0, 0, 0, 0]
    assert entries.id.tolist() == [1, 4, 5, 6]
    assert entries.logit.tolist() == [5, 3, 3, 9]


def test_impossible_ids_are_below_every_floor() -> None:
    logits_TV = torch.full((1, 8), -math.inf)
    logits_TV[0, 6] = 0.0
    assert at_least(logits_TV, block_maxima(logits_TV), torch.tensor([-math.inf])).id.tolist() == [6]


def test_selected_entries_keep_their_order() -> None:
    entries = Entries(row=torch.tensor([0, 0, 1]), id=torch.tensor([3, 7, 2]), logit=torch.tensor([1.0, 2.0, 3.0]))
    kept = entries.where(torch.tensor([True, False, True]))
    assert (kept.row.tolist(), kept.id.tolist(), kept.logit.tolist()) == ([0, 1], [3, 2], [1.0, 3.0])


@pytest.mark.parametrize(
    ("scheme", "ids"),
    [
        (TopKScheme(k=3), [1, 4, 6]),
        (TopPScheme(p=0.9, k=3), [6]),
        (TopPScheme(p=0.99, k=8), [1, 6]),
        (ThresholdScheme(tau=0.002, k=8), [1, 4, 5, 6]),
        (ThresholdScheme(tau=0.5, k=8, k_min=2), [1, 6]),
        (ThresholdScheme(tau=0.002, k=2), [1, 6]),
        (ThresholdSamplingScheme(theta=0.01), [1, 6]),
        (RandomSamplingScheme(), []),
    ],
)
def test_each_scheme_selects_its_entries(scheme: Scheme, ids: list[int]) -> None:
    # Probabilities: 0.976 of id 6, 0.018 of id 1, 0.002 of ids 4 and 5, which are equal.
    logits_TV = torch.tensor([[1.0, 5, 2, 0, 3, 3, 9, -math.inf]])
    block_ids = block_size(logits_TV.shape[1], scheme.max_head_width)
    logits_TV = pad(logits_TV, (0, -logits_TV.shape[1] % block_ids), value=-math.inf)
    entries = head_entries(logits_TV, block_maxima(logits_TV, block_ids), logits_TV.double().logsumexp(-1), scheme)
    assert entries.id.tolist() == ids
