import pytest

from logitcask.schemas.terminal.bars import bar, bars, nat_bars, width_bars


def test_the_tallest_bar_is_full_and_every_height_above_zero_is_visible():
    assert bars([0, 1e-9, 4, 8]) == " ▁▄█"
    assert bars([]) == bars([0, 0]).strip() == ""


@pytest.mark.parametrize(("share", "drawn"), [(0, "    "), (1e-9, "▏   "), (0.5, "██  "), (1, "████"), (2, "████")])
def test_a_horizontal_bar_fills_its_share_of_the_width(share, drawn):
    assert bar(share, 4) == drawn


def test_the_last_bar_of_nats_includes_all_larger_values():
    histogram = {"bins_per_nat": 16, "counts": {"0": 4, "191": 2, "900": 6}}
    assert nat_bars(histogram, nats=12, width=4) == "▄  █"


def test_head_widths_start_at_one_and_end_at_the_widest():
    assert width_bars({"1": 8, "4": 4}) == ("█  ▄", 4)
    assert width_bars({"1": 8, "100": 8}, width=10) == ("█        █", 100)
    assert width_bars({}) == (" ", 1)
