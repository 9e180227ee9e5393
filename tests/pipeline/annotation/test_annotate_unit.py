"""Batches of windows that fit into a forward pass."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from logitcask.schemas.format.ragged import offsets_from_lengths
from logitcask.teacher.text.packing import batches


@given(st.lists(st.integers(1, 64), max_size=40), st.integers(1, 200))
def test_every_window_is_in_one_batch_and_padded_batches_fit(lengths: list[int], batch_tokens: int) -> None:
    found = list(batches(offsets_from_lengths(lengths), batch_tokens))
    assert [index for start, stop in found for index in range(start, stop)] == list(range(len(lengths)))
    for start, stop in found:
        assert stop - start == 1 or max(lengths[start:stop]) * (stop - start) <= batch_tokens
    for (start, stop), _ in itertools.pairwise(found):
        assert max(lengths[start : stop + 1]) * (stop + 1 - start) > batch_tokens
