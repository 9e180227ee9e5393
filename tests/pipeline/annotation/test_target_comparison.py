"""Stored targets against new ones, in steps of the quantizer."""

import numpy as np

from logitcask.pipeline.annotation.target_comparison import TOLERANCES_NATS, Difference


def test_a_single_difference_of_one_step_is_within_tolerance() -> None:
    mean, single = TOLERANCES_NATS["float32"]
    stored, found = np.zeros(1000, np.float32), np.zeros(1000, np.float32)
    found[7] = -1 / 64
    assert Difference.of(stored, found, step=1 / 64).is_within(mean, single)
    found[7] = -1 / 32
    assert not Difference.of(stored, found, step=1 / 64).is_within(mean, single)
    assert not Difference.of(stored, np.full(1000, -1 / 64, np.float32), step=1 / 64).is_within(mean, single)
    no_tail = np.full(2, -np.inf, np.float32)
    assert Difference.of(no_tail, no_tail, step=0.0).max_nats == 0
    assert Difference.of(no_tail, stored[:2], step=0.0).max_nats == np.inf
