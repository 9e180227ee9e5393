import pytest

from logitcask.schemas.terminal.formatting import (
    byte_size,
    duration,
    number,
    percent,
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


@pytest.mark.parametrize("scheme", [None, {}, {"kind": "oracle", "luck": 7}])
def test_no_scheme_and_a_scheme_of_a_later_release_are_unknown(scheme):
    assert scheme_words(scheme) == "unknown"


def test_a_stored_scheme_is_described():
    assert scheme_words({"kind": "topk", "k": 50}) == "the 50 largest, and the exact tail"
