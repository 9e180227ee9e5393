"""The experiments' arithmetic: paired gains, intervals, and shares only if the whole gain is positive."""

import math
import sys

import numpy as np
import pytest
from repository import ROOT

sys.path.insert(0, str(ROOT / "bench"))

from experiment_arms import ARMS
from experiment_quality import FULL, METRICS, REFERENCE, interval, summarize
from experiment_teacher import unigram_loss

from logitcask.schemas.format.targets import Part, Windows


def results(full: float, noise: float) -> dict[str, dict[int, dict[str, list[float]]]]:
    """Five seeds of every arm on one window: cross-entropy at 5, full distillation at `full`, the others between."""
    generator = np.random.default_rng(0)
    by_seed = generator.normal(0, 1, 5)  # shared by all arms: pairing cancels it
    levels = {REFERENCE: 5.0, FULL: full}
    return {
        arm.name: {
            seed: {
                name: [levels.get(arm.name, (5 + full) / 2) + by_seed[seed] + noise * generator.normal()]
                for name in METRICS
            }
            for seed in range(5)
        }
        for arm in ARMS
    }


def test_gains_are_paired_so_shared_seed_effects_cancel():
    rows = summarize(results(full=4.0, noise=0.0), {})
    half = next(row for row in rows if row["arm"] == "top-50 + other")
    assert half["loss_nats_gain_interval"] == pytest.approx((0.5, 0.5))
    assert half["loss_nats_share"] == pytest.approx(0.5)


def test_no_share_is_given_if_the_whole_gain_may_be_zero():
    rows = summarize(results(full=5.0, noise=0.3), {})
    assert all(row["loss_nats_share"] is None for row in rows)


def test_an_interval_covers_the_mean_at_its_confidence_level():
    generator = np.random.default_rng(1)
    covered = [low <= 0 <= high for low, high in (interval(generator.normal(size=(5, 1))) for _ in range(100))]
    assert 90 <= sum(covered) <= 100


def test_differences_between_windows_widen_an_interval():
    by_window = np.random.default_rng(1).normal(size=24)
    alike, (low, high) = interval(np.full((5, 24), by_window.mean())), interval(np.tile(by_window, (5, 1)))
    assert alike[1] - alike[0] < 1e-9
    assert 2 * 1.96 * by_window.std() / 24**0.5 < high - low < 2 * 3.6 * by_window.std() / 24**0.5


def test_no_share_is_given_if_full_distillation_is_worse():
    rows = summarize(results(full=6.0, noise=0.0), {})
    assert all(row["loss_nats_share"] is None for row in rows)


def test_cross_entropy_reads_no_targets():
    rows = summarize(results(full=4.0, noise=0.0), {"top-12": 31.0})
    assert [row["bytes_a_token"] for row in rows[:2]] == [None, 31.0]


def test_the_loss_of_token_frequencies_equals_its_definition():
    def windows(tokens: list[int]) -> Windows:
        token = np.array(tokens, np.int32)
        part = Part(id="d", source="s", offset=0)
        return Windows(
            token=token, kind=np.zeros(len(token), np.uint8), part=np.zeros(len(token), np.int32),
            window_offsets=np.array([0, len(token)]), parts=(part,),
        )  # fmt: skip

    found = unigram_loss({"train": windows([0, 0, 0, 1]), "held-out": windows([2, 0, 1])}, vocab_size=3)
    assert found == pytest.approx(-(math.log(3.1 / 4.3) + math.log(1.1 / 4.3)) / 2)
