import numpy as np
import pytest

from logitcask.schemas.format.draws import philox4x32, uniforms, window_key, window_uniforms
from logitcask.schemas.format.scheme import RandomSamplingScheme, ThresholdSamplingScheme, ThresholdScheme

HASH = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_the_generator_gives_the_published_known_answers(counter, key, expected):
    words = philox4x32(tuple(np.array([word], np.uint32) for word in counter), key)
    assert tuple(int(word[0]) for word in words) == expected


def test_a_draw_does_not_depend_on_other_draws_or_positions():
    key = window_key(HASH, ThresholdScheme(), 0)
    every_draw = uniforms(key, np.arange(100), 11)
    np.testing.assert_array_equal(uniforms(key, np.array([7, 93]), 5), every_draw[[7, 93], :5])


def test_windows_schemes_and_replicas_have_their_own_draws():
    keys = {
        window_key(HASH, ThresholdScheme(), 0),
        window_key(HASH[::-1], ThresholdScheme(), 0),
        window_key(HASH, ThresholdScheme(tau=1e-2), 0),
        window_key(HASH, ThresholdScheme(), 1),
    }
    assert len(keys) == 4


def test_draws_are_uniform():
    drawn = uniforms(window_key(HASH, ThresholdScheme(), 0), np.arange(20_000), 4)
    assert drawn.min() > 0
    assert drawn.max() < 1
    counts = np.histogram(drawn, bins=100, range=(0, 1))[0]
    # χ² with 99 degrees of freedom: mean 99, standard deviation 14; five of these.
    assert ((counts - 800) ** 2 / 800).sum() < 99 + 5 * 14
    assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 5 / np.sqrt(20_000)


def test_a_row_has_the_numbers_of_its_position_in_its_window(windows):
    scheme = RandomSamplingScheme(draws=5, replicas=2)
    drawn = window_uniforms(windows, scheme)
    assert drawn.shape == (windows.num_positions, 2, 5)
    start = windows.window_offsets[2]
    key = window_key(windows.content_hashes()[2], scheme, 1)
    np.testing.assert_array_equal(drawn[start + 7, 1], uniforms(key, np.array([7]), 5)[0])


def test_the_numbers_of_a_window_do_not_depend_on_other_windows(windows):
    scheme = ThresholdSamplingScheme(replicas=2)
    rows = slice(windows.window_offsets[1], windows.window_offsets[3])
    np.testing.assert_array_equal(window_uniforms(windows.select(1, 3), scheme), window_uniforms(windows, scheme)[rows])


def test_schemes_that_do_not_sample_need_no_numbers(windows):
    assert window_uniforms(windows, ThresholdScheme()).size == 0
