"""Gaps between ranks: ids survive the round trip, in ascending order."""

import dataclasses

import numpy as np
import pytest

from logitcask.schemas.format.id_gaps import frequent_ids, from_gaps, ids_by_rank, to_gaps
from logitcask.schemas.format.metadata import ShardMetadata
from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.format.writer import encode_shard


def write(path, windows, targets, metadata) -> str:
    path.write_bytes(encode_shard(windows, targets, metadata).data)
    return str(path)


@pytest.fixture
def compact(metadata) -> ShardMetadata:
    return dataclasses.replace(metadata, layout="compact")


def test_frequent_ids_are_ordered_by_count_and_then_id():
    assert frequent_ids(np.array([7, 3, 7, 9, 3, 1], np.int32)).tolist() == [3, 7, 1, 9]


def test_other_ids_rank_after_the_frequent_ones_in_ascending_order():
    assert ids_by_rank(np.array([4, 1], np.int32), 6).tolist() == [4, 1, 0, 2, 3, 5]


@pytest.mark.parametrize("frequent", [[2, 2], [-1], [6]])
def test_an_invalid_list_of_frequent_ids_is_refused(frequent):
    with pytest.raises(ValueError, match="frequent id"):
        ids_by_rank(np.array(frequent, np.int32), 6)


def test_gaps_are_the_lowest_rank_and_the_differences_of_ranks():
    by_rank = np.array([4, 1, 0, 2, 3, 5], np.int32)
    ids, q = np.array([1, 4, 5, 0], np.int32), np.array([10, 40, 50, 0], np.uint8)
    gaps, values = to_gaps(ids, q, np.array([0, 3, 3, 4]), by_rank)
    assert (gaps.tolist(), values.tolist()) == ([0, 1, 4, 2], [40, 10, 50, 0])
    back, values = from_gaps(gaps, values, np.array([0, 3, 3, 4]), by_rank)
    assert (back.tolist(), values.tolist()) == (ids.tolist(), q.tolist())


def test_a_gap_beyond_the_vocabulary_is_refused():
    with pytest.raises(ValueError, match="rank"):
        from_gaps(np.array([3, 3], np.int32), np.zeros(2, np.uint8), np.array([0, 2]), np.arange(6, dtype=np.int32))


@pytest.mark.parametrize("gap", [0, -1])
def test_a_later_gap_must_be_above_zero(gap):
    offsets, by_rank = np.array([0, 2, 3]), np.arange(6, dtype=np.int32)
    with pytest.raises(ValueError, match="a gap is not above 0"):
        from_gaps(np.array([3, gap, 2], np.int32), np.zeros(3, np.uint8), offsets, by_rank)
    assert from_gaps(np.array([0, 1, 0], np.int32), np.zeros(3, np.uint8), offsets, by_rank)[0].tolist() == [0, 1, 0]


def test_a_compact_shard_reads_like_the_plain_one(tmp_path, windows, targets, metadata, compact):
    with (
        ShardReader(write(tmp_path / "plain", windows, targets, metadata)) as plain,
        ShardReader(write(tmp_path / "compact", windows, targets, compact)) as reader,
    ):
        for start, stop in [(0, 5), (1, 3)]:
            ours, theirs = reader.read(start, stop).targets, plain.read(start, stop).targets
            assert ours is not None
            assert theirs is not None
            np.testing.assert_array_equal(ours.head_ids, theirs.head_ids)
            np.testing.assert_array_equal(ours.head_offsets, theirs.head_offsets)
            # The sum of a row's masses is taken in another order.
            np.testing.assert_allclose(ours.head_log_probs, theirs.head_log_probs, rtol=1e-6)
