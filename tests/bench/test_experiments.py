"""The experiments' arithmetic: paired gains, intervals, and shares only where there is a way to share."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

from experiment_arms import ARMS
from experiment_quality import FIGURES, FULL, REFERENCE, interval, summarise


def results(full: float, noise: float) -> dict[str, dict[int, dict[str, float]]]:
    """Five seeds of every arm: cross-entropy at 5, full distillation at `full`, all others half-way."""
    generator = np.random.default_rng(0)
    by_seed = generator.normal(0, 1, 5)  # shared by all arms: pairing takes it out
    levels = {REFERENCE: 5.0, FULL: full}
    return {
        arm.name: {
            seed: dict.fromkeys(
                FIGURES, levels.get(arm.name, (5 + full) / 2) + by_seed[seed] + noise * generator.normal()
            )
            for seed in range(5)
        }
        for arm in ARMS
    }


def test_gains_are_paired_so_that_what_seeds_share_does_not_widen_them():
    rows = summarise(results(full=4.0, noise=0.0), {})
    half_way = next(row for row in rows if row["arm"] == "top-50 + other")
    assert half_way["loss_nats_gain_interval"] == pytest.approx((0.5, 0.5))
    assert half_way["loss_nats_share"] == pytest.approx(0.5)


def test_no_share_is_given_of_a_way_that_may_be_none():
    rows = summarise(results(full=5.0, noise=0.3), {})
    assert all(row["loss_nats_share"] is None for row in rows)


def test_an_interval_covers_the_mean_as_often_as_it_says():
    generator = np.random.default_rng(1)
    covered = [low <= 0 <= high for low, high in (interval(generator.normal(size=40)) for _ in range(100))]
    assert 85 <= sum(covered) <= 100
