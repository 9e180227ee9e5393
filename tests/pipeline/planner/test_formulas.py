"""The formulas reproduce published and measured figures of Gemma 2 and of a 2-trillion-token job."""

import pytest

from logitcask.pipeline.planner import formulas
from logitcask.pipeline.planner.model_shapes import KNOWN
from logitcask.schemas.format.scheme import ThresholdSamplingScheme, ThresholdScheme
from logitcask.schemas.stats.expected_bytes import bytes_per_token, training_bytes_per_token

TOKENS = 2e12
SMALL, MEDIUM, LARGE = (KNOWN[f"google/gemma-2-{size}"] for size in ("2b", "9b", "27b"))


@pytest.mark.parametrize(
    ("shape", "gflop", "rate"), [(SMALL, 5.66, 87_000), (MEDIUM, 19.9, 25_000), (LARGE, 56, 8_800)]
)
def test_teachers_need_the_flop_and_reach_the_rates_at_4k_context(shape, gflop, rate):
    flop = formulas.forward_flop_per_token(shape, 4096)
    assert flop / 1e9 == pytest.approx(gflop, rel=2e-3)
    found = formulas.tokens_per_second(flop, num_gpus=1, peak_flop_per_second=989e12, utilization=0.5)
    assert found == pytest.approx(rate, rel=6e-3)


def test_a_2b_student_on_8_h100_reads_186k_tokens_and_20_mb_a_second():
    rate = formulas.tokens_per_second(
        formulas.training_flop_per_token(SMALL, 4096), num_gpus=8, peak_flop_per_second=989e12, utilization=0.4
    )
    assert rate == pytest.approx(186_000, rel=2e-3)
    assert rate * bytes_per_token(ThresholdScheme()) == pytest.approx(20e6, rel=0.1)


@pytest.mark.parametrize(
    ("size", "expected", "within"),
    [
        (formulas.dense_bytes_per_token(256_000), 1.0e18, 0.03),
        (formulas.raw_top_k_bytes_per_token(128), 1e15, 0.03),
        (bytes_per_token(ThresholdScheme()), 200e12, 0.03),
        (training_bytes_per_token(ThresholdSamplingScheme()), 62e12, 0.01),
    ],
    ids=["dense", "raw top-128", "adaptive", "threshold sampling"],
)
def test_two_trillion_tokens_need(size, expected, within):
    assert size * TOKENS == pytest.approx(expected, rel=within)


def test_two_trillion_tokens_are_38_to_49_times_compute_optimal_for_the_2b():
    assert formulas.optimal_multiple(TOKENS, SMALL.parameters) == pytest.approx(38, abs=0.5)
    assert formulas.optimal_multiple(TOKENS, SMALL.non_embedding_parameters) == pytest.approx(49, abs=0.5)


@pytest.mark.parametrize("local_window", [None, 1, 3, 7, 9])
def test_mean_keys_are_counted_position_by_position(local_window):
    counted = [min(position + 1, local_window or 7) for position in range(7)]
    assert formulas.mean_keys(7, local_window) == pytest.approx(sum(counted) / 7)


def test_local_layers_cost_less_beyond_their_window():
    wide = formulas.forward_flop_per_token(SMALL, 8192) - 2 * SMALL.parameters
    locally = 13 * formulas.mean_keys(8192, 4096)
    assert wide == pytest.approx(4 * 2048 * (13 * 4096.5 + locally))


def test_caching_breaks_even_exactly_where_both_cost_the_same():
    passes = formulas.passes_to_break_even(100.0, 30.0, 20.0)
    assert 100 + 30 + passes * 20 == pytest.approx(passes * 100)
    assert formulas.passes_to_break_even(10.0, 1.0, 10.0) == float("inf")
