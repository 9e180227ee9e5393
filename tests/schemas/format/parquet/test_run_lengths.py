"""Parquet's runs: the streams that our reader decodes itself, and those that it leaves to the library."""

import numpy as np
import pytest

from logitcask.schemas.format.parquet.run_lengths import all_ones, begins_at_every, whole_bytes


def repeated(count: int, value: int) -> bytes:
    """A run of one repeated value, of one byte."""
    return varint(count << 1) + bytes([value])


def packed_bytes(values: bytes) -> bytes:
    """A run of packed values of eight bits, in groups of eight."""
    return varint(len(values) // 8 << 1 | 1) + values


def packed_bits(bits: list[int]) -> bytes:
    return varint(len(bits) // 8 << 1 | 1) + np.packbits(bits, bitorder="little").tobytes()


def varint(number: int) -> bytes:
    digits = []
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes([*digits, number])


def decode(encoded: bytes, num_values: int) -> bytes:
    return whole_bytes(np.frombuffer(encoded, np.uint8), num_values).tobytes()


def test_bytes_of_repeated_and_packed_runs_are_decoded():
    values = bytes(range(16))
    assert decode(repeated(300, 7) + packed_bytes(values) + repeated(2, 9), 318) == b"\7" * 300 + values + b"\x09\x09"


@pytest.mark.parametrize("num_runs", [1, 3, 300])
def test_runs_of_the_writers_maximum_length_are_decoded(num_runs):
    values = np.random.default_rng(0).integers(0, 256, 504 * num_runs, dtype=np.uint8).tobytes()
    encoded = b"".join(packed_bytes(values[start : start + 504]) for start in range(0, len(values), 504))
    assert decode(encoded + repeated(5, 1), len(values) + 5) == values + b"\1" * 5


def test_filling_at_the_end_of_the_last_group_is_not_decoded():
    assert decode(packed_bytes(bytes(range(8))), 5) == bytes(range(5))


@pytest.mark.parametrize("encoded", [packed_bytes(bytes(8))[:-1], varint(6), varint(0) + b"\0"])
def test_a_run_with_too_few_bytes_is_refused(encoded):
    with pytest.raises(ValueError, match="of 9 values are missing"):
        decode(encoded, 9)


@pytest.mark.parametrize("encoded", [b"", b"\x80", repeated(3, 7), packed_bytes(bytes(8))])
def test_a_stream_that_ends_before_the_last_run_is_refused(encoded):
    with pytest.raises(IndexError):
        decode(encoded, 9)


def test_one_run_of_ones_is_recognized():
    assert all_ones(repeated(1000, 1), 1000)
    for other in (repeated(1000, 0), repeated(999, 1), repeated(999, 1) + repeated(1, 1), packed_bits([1] * 8), b""):
        assert not all_ones(other, 1000)


@pytest.mark.parametrize(("length", "num_lists"), [(1, 8), (8, 30), (50, 3), (3, 64)])
def test_levels_of_lists_of_one_length_are_recognized(length, num_lists):
    levels = ([0] + [1] * (length - 1)) * num_lists
    filled = levels + [0] * (-len(levels) % 8)
    assert begins_at_every(packed_bits(filled), length, num_lists)
    assert not begins_at_every(packed_bits(filled), length + 1, num_lists)


def test_levels_of_long_lists_as_runs_are_recognized():
    one = packed_bits([0] + [1] * 7) + repeated(92, 1)
    assert begins_at_every(one * 500, 100, 500)
    assert not begins_at_every(one * 499, 100, 500)
    assert not begins_at_every(one * 499 + packed_bits([0] + [1] * 7) + repeated(92, 0), 100, 500)


@pytest.mark.parametrize("levels", [[0, 1, 1, 1, 0, 1, 1, 1], [1, 1, 0, 1, 1, 0, 1, 1]])
def test_levels_of_other_lists_are_not_recognized(levels):
    assert not begins_at_every(packed_bits(levels), 3, 2)


def test_levels_without_a_short_period_are_not_recognized():
    assert not begins_at_every(repeated(1, 0) * 100, 1000, 2)
