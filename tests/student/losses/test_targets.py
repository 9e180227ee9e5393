"""Ragged targets: rows, slices, buckets, decoding."""

import math
from dataclasses import replace

import pytest
import torch

from logitcask.schemas.format.quantizer import HEAD_LOG_PROBS
from logitcask.student.losses.targets import RaggedTargets, decode, segment_logsumexp


@pytest.fixture
def targets(random_case) -> RaggedTargets:
    return random_case([3, 0, 2], 9, masked=[False, True, False]).targets


def test_a_slice_holds_the_entries_of_its_rows(targets):
    part = targets.select(1, 3)
    assert part.head_rows().tolist() == [1, 1]
    assert part.head_ids.tolist() == targets.head_ids[3:].tolist()
    assert part.has_target.tolist() == [False, True]


def test_buckets_of_a_row_sum_to_one_and_a_row_without_a_target_has_none(targets):
    rounded = replace(targets, head_log_probs=targets.head_log_probs.float(), log_tail=targets.log_tail.float())
    head, other = rounded.log_buckets()
    mass = other.exp().index_add(0, targets.head_rows(), head.exp())
    torch.testing.assert_close(mass, torch.tensor([1.0, 0.0, 1.0]).double(), rtol=1e-15, atol=0)


def test_a_draw_carries_an_equal_share_of_the_tail(targets):
    drawn = replace(targets, sample_ids=torch.tensor([8, 8]), sample_offsets=torch.tensor([0, 2, 2, 2]))
    buckets = drawn.buckets()
    torch.testing.assert_close(buckets.sample.exp().sum(), buckets.other[0].exp())


def test_log_sum_exp_of_no_values_is_minus_infinity():
    values = torch.tensor([1.0, 2.0], requires_grad=True)
    found = segment_logsumexp(values, torch.tensor([0, 0]), 2)
    assert found.tolist() == [pytest.approx(math.log(math.e + math.e**2)), -math.inf]
    assert torch.autograd.grad(found[0], values)[0].isfinite().all()


def test_decoding_normalizes_head_and_tail_together():
    q, offsets = torch.tensor([0, 40, 8], dtype=torch.uint8), torch.tensor([0, 2, 3])
    head, tail = decode(q, offsets, torch.tensor([-1.0, -math.inf]))
    raw = torch.tensor(HEAD_LOG_PROBS).double().exp()[q.int()]
    total = raw[0] + raw[1] + math.exp(-1)
    torch.testing.assert_close(head[:2].double().exp(), raw[:2] / total)
    assert tail.exp().tolist() == [pytest.approx(math.exp(-1) / total.item()), 0]
    assert head[2] == pytest.approx(0, abs=1e-6)
