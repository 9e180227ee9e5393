"""Gathered ids as distinct pairs."""

import pytest
import torch

from logitcask.student.losses.kernels.distinct_pairs import DistinctPairs
from logitcask.student.losses.row_gradients import GatherIndex, LogitGradients


@pytest.fixture
def pairs() -> DistinctPairs:
    """Two rows over ten ids; one draw is repeated, one label is in the head."""
    index = GatherIndex(
        head_rows=torch.tensor([0, 0, 1]),
        head_ids=torch.tensor([2, 5, 3]),
        sample_rows=torch.tensor([0, 0, 1]),
        sample_ids=torch.tensor([7, 7, 0]),
        label_rows=torch.tensor([0, 1]),
        label_ids=torch.tensor([5, 9]),
        num_rows=2,
    )
    return DistinctPairs.of(index, vocab_size=10)


def test_head_pairs_come_first_and_other_pairs_once(pairs):
    found = list(zip(pairs.rows.tolist(), pairs.ids.tolist(), strict=True))
    assert found[:3] == [(0, 2), (0, 5), (1, 3)]
    assert sorted(pair for pair in found[3:] if pair[1] >= 0) == [(0, 7), (1, 0), (1, 9)]


def test_samples_and_labels_find_their_logits(pairs):
    logits = pairs.logits(torch.arange(len(pairs.ids)).double(), num_samples=3, other_T=torch.zeros(2).double())
    assert logits.head.tolist() == [0, 1, 2]
    assert logits.sample[0] == logits.sample[1]
    assert logits.label[0] == 1  # in the head
    assert pairs.ids[logits.label[1].int()] == 9


def test_gradients_of_one_id_are_summed(pairs):
    zeros = torch.zeros(2).double()
    by = LogitGradients(
        complement=zeros, head=torch.zeros(3).double(), sample=torch.tensor([1.0, 2.0, 4.0]).double(),
        label=torch.tensor([8.0, 16.0]).double(),
    )  # fmt: skip
    found = pairs.gradients(by, torch.zeros(len(pairs.ids) - 3).double())
    by_pair = dict(zip(zip(pairs.rows.tolist(), pairs.ids.tolist(), strict=True), found.tolist(), strict=True))
    assert [by_pair[pair] for pair in ((0, 7), (1, 0), (0, 5), (1, 9))] == [3, 4, 8, 16]
