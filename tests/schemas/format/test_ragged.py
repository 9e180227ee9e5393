"""Ragged rows: flat values and offsets."""

import numpy as np
import pytest

from logitcask.schemas.format.ragged import Lists, filter_lists, offsets_from_lengths

LISTS = Lists(values=np.arange(6), offsets=np.array([0, 3, 3, 5, 6]))


def test_each_row_owns_as_many_values_as_its_length():
    offsets = offsets_from_lengths([3, 0, 2])
    assert offsets.tolist() == [0, 3, 3, 5]
    assert offsets.dtype == np.int64


def test_no_rows_have_one_offset():
    assert offsets_from_lengths(np.zeros(0, np.int64)).tolist() == [0]


def test_lengths_in_few_bits_do_not_overflow():
    assert offsets_from_lengths(np.full(1000, 255, np.uint8))[-1] == 255_000


@pytest.mark.parametrize("middle", [0, 1, 3, 4])
def test_selected_pieces_concatenate_to_the_whole(middle):
    joined = Lists.concatenate([LISTS.select(0, middle), LISTS.select(middle, 4)])
    np.testing.assert_array_equal(joined.values, LISTS.values)
    np.testing.assert_array_equal(joined.offsets, LISTS.offsets)


def test_a_filtered_row_keeps_its_values_unless_it_is_emptied():
    kept, emptied = np.array([True, True, True, False]), np.array([False, False, True, False])
    values, offsets = filter_lists(LISTS.offsets, kept, emptied)
    assert LISTS.values[values].tolist() == [0, 1, 2]
    assert offsets.tolist() == [0, 3, 3, 3]
