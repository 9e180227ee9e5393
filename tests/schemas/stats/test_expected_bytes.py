"""Expected sizes against what was measured: Gemma 3 270M, 40,960 positions."""

import pytest
from made_up_scheme import MadeUpScheme

from logitcask.schemas.errors import UnknownSchemeError
from logitcask.schemas.format.scheme import (
    RandomSamplingScheme,
    ThresholdSamplingScheme,
    ThresholdScheme,
    TopKScheme,
    TopPScheme,
)
from logitcask.schemas.stats.expected_bytes import bytes_per_token, entries_per_token, training_bytes_per_token


@pytest.mark.parametrize(
    ("scheme", "entries"),
    [
        (ThresholdScheme(tau=1e-2), 8.5),
        (ThresholdScheme(tau=3e-3), 20.5),
        (ThresholdScheme(tau=1e-3), 44.2),
        (ThresholdScheme(tau=1e-3, k=30), 30),
        (TopKScheme(k=64), 64),
        (TopPScheme(p=0.95, k=128), 55.2),
        (TopPScheme(p=0.99, k=512), 260.9),
        (TopPScheme(p=1.0, k=100), 100),
        (TopPScheme(p=0.95, k=1), 1),
        (ThresholdSamplingScheme(theta=1 / 36), 13.1),
        (ThresholdSamplingScheme(theta=1 / 100), 26.4),
        (RandomSamplingScheme(draws=100), 23.7),
    ],
)
def test_measured_numbers_of_entries_are_reproduced(scheme, entries):
    assert entries_per_token(scheme) == pytest.approx(entries)


@pytest.mark.parametrize(("k", "measured"), [(16, 37), (32, 70), (64, 133), (128, 260)])
def test_bytes_of_top_k_are_within_2_percent_of_measured_ones(k, measured):
    assert training_bytes_per_token(TopKScheme(k=k)) == pytest.approx(measured, rel=0.02)


def test_every_replica_costs_its_entries_again():
    once, twice = (bytes_per_token(ThresholdSamplingScheme(replicas=n)) for n in (1, 2))
    assert twice - once == pytest.approx(1.99 * 13.1)


def test_finer_thresholds_never_cost_less():
    sizes = [bytes_per_token(ThresholdScheme(tau=tau, k=4096)) for tau in (0.5, 0.1, 1e-2, 2e-3, 1e-3, 1e-4)]
    assert sizes == sorted(sizes)


def test_more_mass_or_a_larger_maximum_never_costs_less():
    by_mass = [entries_per_token(TopPScheme(p=p)) for p in (0.01, 0.5, 0.8, 0.93, 0.95, 0.999, 1.0)]
    by_room = [entries_per_token(TopPScheme(k=k)) for k in (1, 2, 16, 32, 100, 128, 500, 5000)]
    assert by_mass == sorted(by_mass)
    assert by_room == sorted(by_room)


def test_interpolated_entries_of_top_p_are_within_7_percent():
    """p = 0.98 was also measured and is not one of the interpolated points."""
    for k, measured in ((32, 21.3), (128, 70.5), (512, 214.4)):
        assert entries_per_token(TopPScheme(p=0.98, k=k)) == pytest.approx(measured, rel=0.07)


def test_a_scheme_without_a_measured_size_is_refused():
    with pytest.raises(UnknownSchemeError, match="how many entries scheme MadeUpScheme"):
        bytes_per_token(MadeUpScheme())
