"""Twelve tokens in two parts: a model is tried on them before it is trusted with a corpus or a loss.

Two ways to compute the same numbers are compared: logits by the model's own code and by ours, and the second part
alone and behind the first one.
"""

import numpy as np

# Where the second part lies.
SECOND_PART = slice(5, 12)

# By dtype, the relative error at which two ways count as different. Rounding stays far below; a missing scale is an
# error of order 1, and parts that see each other differ by a tenth and more.
_TOLERANCES = {"float32": 1e-3, "float16": 0.03, "bfloat16": 0.1}


def trial_window(num_ids: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids below `num_ids` and position ids, which restart at the second part; int64 [1, 12] each."""
    ids_1S = (np.arange(SECOND_PART.stop) * 7919 + 11) % num_ids
    positions_S = np.concatenate([np.arange(SECOND_PART.start), np.arange(SECOND_PART.stop - SECOND_PART.start)])
    return ids_1S[None], positions_S[None]


def trial_tolerance(dtype: object) -> float:
    """The tolerated relative error in a torch dtype."""
    return _TOLERANCES.get(str(dtype).removeprefix("torch."), 0.1)
