import pytest

from logitcask.schemas.terminal.formatting import (
    byte_size,
    duration,
    number,
    percent,
    scheme_label,
    scheme_words,
    visible_piece,
)


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [(None, "–"), (0, "0 bytes"), (999, "999 bytes"), (999.6, "1 kB"), (1_234_567, "1.23 MB"), (10**21, "1e+03 EB")],
)
def test_sizes_have_three_digits_and_a_decimal_unit(size_bytes, shown):
    assert byte_size(size_bytes) == shown


@pytest.mark.parametrize(("seconds", "shown"), [(119.94, "119.9 s"), (150, "2.5 min"), (9000, "2.5 h")])
def test_durations_are_in_seconds_minutes_or_hours(seconds, shown):
    assert duration(seconds) == shown


def test_an_unknown_number_is_a_dash():
    assert (number(None), percent(None)) == ("–", "–")
    assert (number(1234.56, 2), percent(0.1234)) == ("1,234.56", "12.3 %")


@pytest.mark.parametrize(("piece", "shown"), [(" a b ", "·a b·"), ("  ", "··"), ("\n", "⏎"), ("", "")])
def test_spaces_at_the_ends_of_a_piece_are_visible(piece, shown):
    assert visible_piece(piece) == shown


@pytest.mark.parametrize(
    ("scheme", "words", "label"),
    [
        (
            {"kind": "threshold", "tau": 0.001, "k": 128, "k_min": 1},
            "adaptive: p ≥ 0.001, 1 to 128 entries, and the exact tail",
            "adaptive, p ≥ 0.001",
        ),
        ({"kind": "topk", "k": 50}, "the 50 largest, and the exact tail", "50 largest + other"),
        ({"kind": "topp", "p": 0.95, "k": 64}, "mass ≥ 0.95, at most 64 entries, and the exact tail", "mass ≥ 0.95"),
        (
            {"kind": "random-sampling", "draws": 50, "replicas": 2},
            "none: 50 random draws a position, 2 replicas",
            "50 random draws",
        ),
        (
            {"kind": "threshold-sampling", "theta": 0.02, "replicas": 1},
            "p ≥ 0.02, the exact tail, and one systematic draw for each 0.02 of the tail, at least one",
            "p ≥ 0.02 + draws",
        ),
        ({}, "unknown", "unknown"),
    ],
)
def test_a_scheme_has_words_and_a_short_label(scheme, words, label):
    assert (scheme_words(scheme), scheme_label(scheme)) == (words, label)
