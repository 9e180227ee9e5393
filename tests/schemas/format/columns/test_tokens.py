"""Token columns: windows survive them, and a wrong order of rows is refused."""

import numpy as np
import pytest

from logitcask.schemas.errors import VocabularyError
from logitcask.schemas.format.columns.tokens import decode_windows, encode_windows


def test_windows_survive_their_columns(windows):
    table = encode_windows(windows, 300)
    found = decode_windows(table, 0, windows.window_offsets, windows.parts)
    for name in ("token", "kind", "part"):
        np.testing.assert_array_equal(getattr(found, name), getattr(windows, name))


def test_rows_of_other_windows_are_refused(windows):
    table = encode_windows(windows, 300)
    with pytest.raises(ValueError, match=r"the rows of windows 2..7 are not in order"):
        decode_windows(table, 2, windows.window_offsets, windows.parts)


@pytest.mark.parametrize("token", [-1, 300])
def test_a_token_outside_the_vocabulary_is_refused(windows, token):
    windows.token[11] = token
    with pytest.raises(VocabularyError, match=f"token id {token} at entry 11 is outside the vocabulary of 300 ids"):
        encode_windows(windows, 300)
