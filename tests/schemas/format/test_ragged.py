"""Offsets of ragged rows."""

import numpy as np

from logitcask.schemas.format.ragged import offsets_from_lengths


def test_each_row_owns_as_many_values_as_it_is_long():
    offsets = offsets_from_lengths([3, 0, 2])
    assert offsets.tolist() == [0, 3, 3, 5]
    assert offsets.dtype == np.int64


def test_no_rows_have_one_offset():
    assert offsets_from_lengths(np.zeros(0, np.int64)).tolist() == [0]


def test_lengths_in_few_bits_do_not_overflow():
    assert offsets_from_lengths(np.full(1000, 255, np.uint8))[-1] == 255_000
