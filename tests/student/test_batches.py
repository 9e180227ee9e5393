"""The order of windows: a pure function of seed, batch number and batch size."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from schemas.errors import UsageError
from student.batches import BatchPlan, RankBatches, batch_windows, epoch_permutation


def plan(**changes) -> BatchPlan:
    fields = {"num_windows": 13, "batch_size_windows": 4, "micro_batch_windows": 1, "seed": 3, "num_batches": 7}
    return BatchPlan(**{**fields, **changes})


@given(num_windows=st.integers(1, 200), seed=st.integers(0, 2**63), epoch=st.integers(0, 1000))
def test_an_epoch_has_every_window_once(num_windows, seed, epoch):
    order = epoch_permutation(num_windows, seed, epoch)
    np.testing.assert_array_equal(np.sort(order), np.arange(num_windows))


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [epoch_permutation(100, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_the_order_never_changes_between_releases():
    assert epoch_permutation(8, 0, 0).tolist() == [0, 1, 6, 3, 5, 4, 2, 7]
    assert batch_windows(8, 4, 7, 3).tolist() == [4, 1, 3, 5]


@given(num_windows=st.integers(1, 30), batch_size=st.integers(1, 40), seed=st.integers(0, 99))
def test_batches_run_through_epoch_after_epoch(num_windows, batch_size, seed):
    num_batches = 3 * num_windows // batch_size + 1
    sequence = np.concatenate([batch_windows(num_windows, batch_size, seed, batch) for batch in range(num_batches)])
    for epoch in range(len(sequence) // num_windows):
        one = sequence[epoch * num_windows : (epoch + 1) * num_windows]
        np.testing.assert_array_equal(one, epoch_permutation(num_windows, seed, epoch))


@pytest.mark.parametrize(("num_ranks", "micro"), [(1, 1), (1, 4), (2, 1), (2, 2), (4, 1)])
def test_ranks_and_micro_batches_share_out_the_same_global_batch(num_ranks, micro):
    whole = batch_windows(13, 4, 3, 5)
    cut = plan(num_ranks=num_ranks, micro_batch_windows=micro)
    pieces = [cut.micro_batches(rank, 5) for rank in range(num_ranks)]
    np.testing.assert_array_equal(np.concatenate([piece.ravel() for piece in pieces]), whole)
    assert all(piece.shape == (cut.micro_batches_per_rank, micro) for piece in pieces)


def test_the_sampler_yields_every_micro_batch_of_the_run():
    batches = list(RankBatches(plan(micro_batch_windows=2), rank=0))
    assert len(batches) == len(RankBatches(plan(micro_batch_windows=2), rank=0)) == 14
    assert [window for window, _ in batches[2] + batches[3]] == batch_windows(13, 4, 3, 1).tolist()


def test_the_sampler_names_the_epoch_of_each_window():
    pairs = [pair for batch in RankBatches(plan(micro_batch_windows=2), rank=0) for pair in batch]
    assert [epoch for _, epoch in pairs] == [place // 13 for place in range(28)]


def test_a_batch_that_cannot_be_cut_is_refused():
    with pytest.raises(UsageError, match="multiple of 6"):
        plan(num_ranks=2, micro_batch_windows=3)
