"""The order of windows: a pure function of the datasets, their weights and the seed."""

from collections import Counter

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from logitcask.schemas.errors import UsageError
from logitcask.student.data import order as order_module
from logitcask.student.data.order import (
    BLOCK_WINDOWS,
    WindowOrder,
    WindowSource,
    epoch_order,
    epoch_permutation,
    integer_shares,
)


def order(*lengths: int, weights=None, seed: int = 3, buffer_windows=None) -> WindowOrder:
    weights = weights or [1.0] * len(lengths)
    sources = tuple(WindowSource(shard_windows=(n,), weight=w) for n, w in zip(lengths, weights, strict=True))
    return WindowOrder(sources=sources, seed=seed, buffer_windows=buffer_windows)


@given(num_windows=st.integers(1, 200), seed=st.integers(0, 2**63), epoch=st.integers(0, 1000))
def test_an_epoch_has_every_window_once(num_windows, seed, epoch):
    np.testing.assert_array_equal(np.sort(epoch_permutation(num_windows, seed, epoch)), np.arange(num_windows))


def test_each_epoch_and_seed_has_its_own_order():
    orders = [epoch_permutation(100, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_the_order_never_changes_between_releases():
    assert epoch_permutation(8, 0, 0).tolist() == [0, 1, 6, 3, 5, 4, 2, 7]
    assert order(8, seed=7).take(12, 16)[0].tolist() == [4, 1, 3, 5]
    assert order(5, 3, weights=[2, 1], seed=7).take(0, 6)[0].tolist() == [3, 5, 2, 0, 6, 1]


@given(num_windows=st.integers(1, 30), start=st.integers(0, 99), length=st.integers(0, 40))
def test_any_range_is_the_same_whatever_was_taken_before(num_windows, start, length):
    whole = order(num_windows).take(0, 140)
    part = order(num_windows).take(start, start + length)
    for one, two in zip(part, whole, strict=True):
        np.testing.assert_array_equal(one, two[start : start + length])


@given(num_windows=st.integers(1, 30))
def test_epoch_follows_epoch(num_windows):
    windows, epochs = order(num_windows).take(0, 3 * num_windows)
    for epoch in range(3):
        np.testing.assert_array_equal(windows[epochs == epoch], epoch_permutation(num_windows, 3, epoch))


@settings(deadline=None, max_examples=30)  # the first call with new weights computes a pattern
@given(
    lengths=st.lists(st.integers(1, 20), min_size=2, max_size=4),
    weights=st.lists(st.floats(0.05, 20), min_size=4, max_size=4),
)
def test_a_mixture_takes_each_source_as_often_as_its_weight_says(lengths, weights):
    mixture = order(*lengths, weights=weights[: len(lengths)])
    windows, _ = mixture.take(0, 1000)
    source = np.searchsorted(np.cumsum(lengths), windows, side="right")
    share = np.array(weights[: len(lengths)]) / sum(weights[: len(lengths)])
    for stop in (10, 100, 1000):
        taken = np.bincount(source[:stop], minlength=len(lengths))
        assert np.abs(taken - stop * share).max() < len(lengths)


@pytest.mark.parametrize(("buffer_windows", "permutations"), [(None, 1), (8, 2)])
def test_a_mixture_of_six_sources_makes_each_epochs_order_once(monkeypatch, buffer_windows, permutations):
    lengths, hashed = (16, 17, 18, 19, 20, 21), Counter()
    splitmix64 = order_module._splitmix64

    def counting(values: np.ndarray) -> np.ndarray:
        hashed[len(values)] += 1
        return splitmix64(values)

    monkeypatch.setattr(order_module, "_splitmix64", counting)
    mixture = order(*lengths, weights=lengths, buffer_windows=buffer_windows)
    for start in range(0, 2 * sum(lengths), 7):  # two epochs of each, in batches that cross their boundaries
        mixture.take(start, min(start + 7, 2 * sum(lengths)))
    assert {length: hashed[length] for length in lengths} == dict.fromkeys(lengths, 2)
    # The key of a permutation takes two hashes of a single number.
    assert hashed[1] == 2 * permutations * 2 * len(lengths)


def test_each_source_of_a_mixture_has_its_own_epochs():
    windows, epochs = order(6, 4, weights=[3, 1]).take(0, 16)
    for first, last in ((0, 6), (6, 10)):
        mine = (windows >= first) & (windows < last)
        assert sorted(windows[mine & (epochs == 0)]) == list(range(first, last))


def test_sources_of_equal_length_have_different_orders():
    windows, _ = order(50, 50).take(0, 100)
    first, second = windows[windows < 50], windows[windows >= 50] - 50
    assert (first != second).any()


def test_a_mixture_continues_beyond_the_end_of_its_pattern():
    mixture = order(7, 5, weights=[0.9999, 0.0001])
    windows, _ = mixture.take(9_000, 31_000)
    assert (windows >= 7).sum() == 2


@pytest.mark.parametrize("weights", [[1, 0], [1, -1]])
def test_weights_must_be_above_zero(weights):
    with pytest.raises(UsageError, match="above 0"):
        order(3, 3, weights=weights)


def test_a_weight_too_small_to_be_taken_is_refused():
    with pytest.raises(UsageError, match="too small"):
        order(3, 3, weights=[1, 1e-6]).take(0, 1)


def test_equal_weights_alternate():
    assert integer_shares([0.1, 0.1, 0.1]) == (1, 1, 1)
    windows, _ = order(3, 3).take(0, 6)
    assert (windows < 3).tolist() == [True, False] * 3


@given(shards=st.lists(st.integers(1, 40), min_size=1, max_size=6), buffer=st.integers(8, 60), epoch=st.integers(0, 3))
def test_a_shuffle_by_blocks_has_every_window_once(shards, buffer, epoch):
    found = epoch_order(tuple(shards), 3, epoch, buffer)
    np.testing.assert_array_equal(np.sort(found), np.arange(sum(shards)))


def test_a_shuffle_by_blocks_reads_few_blocks_at_a_time():
    shards, buffer = (80, 83, 77), 48
    found = epoch_order(shards, 3, 0, buffer)
    starts = np.concatenate([[0], np.cumsum(shards)])
    shard = np.searchsorted(starts, found, side="right") - 1
    block = shard * 100 + (found - starts[shard]) // BLOCK_WINDOWS
    buffers = [set(block[start : start + buffer].tolist()) for start in range(0, len(found), buffer)]
    # Smaller blocks at the ends of shards, and one block that two buffers share.
    assert max(map(len, buffers)) <= buffer // BLOCK_WINDOWS + len(shards) + 1
    assert (np.diff(found) == 1).mean() < 0.2
    assert found.tolist() != epoch_order(shards, 3, 1, buffer).tolist()


def test_a_buffer_smaller_than_a_block_is_refused():
    with pytest.raises(UsageError, match="at least 8"):
        order(3, buffer_windows=4)


@pytest.mark.parametrize("buffer_windows", [None, 8])
def test_windows_without_target_are_left_out_and_others_keep_their_order(buffer_windows):
    whole = order(20, 7, buffer_windows=buffer_windows)
    sources = (WindowSource(shard_windows=(20,), without_target=(3, 4, 19)), WindowSource(shard_windows=(7,)))
    fewer = WindowOrder(sources=sources, seed=3, buffer_windows=buffer_windows)
    assert fewer.num_windows == 24
    taken, epochs = fewer.take(0, 96)
    for first, last, left_out, num in ((0, 20, [3, 4, 19], 17), (20, 27, [], 7)):
        mine = (taken >= first) & (taken < last)
        for epoch in range(2):
            found = taken[mine & (epochs == epoch)]
            expected = epoch_order((last - first,), 3 + ((1 << 40) if first else 0), epoch, buffer_windows) + first
            assert len(found) == num
            np.testing.assert_array_equal(found, expected[~np.isin(expected, left_out)])
    assert whole.num_windows == 27
