"""The window that models are tried on."""

import numpy as np
import pytest

from logitcask.schemas.trial_window import SECOND_PART, trial_tolerance, trial_window


@pytest.mark.parametrize("num_ids", [20, 262_144])
def test_the_window_has_two_parts_of_known_ids(num_ids: int) -> None:
    ids_1S, positions_1S = trial_window(num_ids)
    assert ids_1S.shape == positions_1S.shape == (1, 12)
    assert ids_1S.dtype == positions_1S.dtype == np.int64
    assert ids_1S.max() < num_ids
    assert len(set(ids_1S[0].tolist())) == 12
    assert positions_1S[0].tolist() == [*range(5), *range(7)]
    assert positions_1S[0, SECOND_PART].tolist() == [*range(7)]


def test_tolerances_follow_the_dtype() -> None:
    assert trial_tolerance("torch.float32") == 1e-3
    assert trial_tolerance("float16") == 0.03
    assert trial_tolerance("torch.bfloat16") == trial_tolerance("torch.float8_e4m3fn") == 0.1
