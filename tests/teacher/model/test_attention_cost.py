"""The warning about a long window, and the cost in it."""

import pytest

from logitcask.teacher.model.attention_cost import AttentionShape, attention_shape, describe_long_window, token_cost


def test_short_windows_give_no_warning(tiny_teacher) -> None:
    assert describe_long_window(tiny_teacher, 1000, 4096) is None


def test_the_warning_states_the_cost_and_the_mask(tiny_teacher) -> None:
    # Four layers of 64: weights 100,000; attention 4·64·S, so (100,000 + 256·32,768) / (100,000 + 256·1,024).
    line = describe_long_window(tiny_teacher, 100_000, 32_768)
    assert line is not None
    assert "costs 23.4 times what it costs at --window 1024" in line
    assert "a mask of 1.1 GB" in line


def test_without_sliding_layers_there_is_no_mask(write_gguf) -> None:
    assert attention_shape(write_gguf()) == AttentionShape(num_layers=1, width=32, slides=False)
    line = describe_long_window(write_gguf(), 1000, 8192)
    assert line is not None
    assert "mask" not in line


def test_the_cost_grows_with_half_of_the_part() -> None:
    shape = AttentionShape(num_layers=2, width=8, slides=False)
    assert token_cost(shape, 1000, 0) == 1000
    assert token_cost(shape, 1000, 100) == pytest.approx(1000 + 2 * 2 * 8 * 50)
