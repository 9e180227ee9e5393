"""Expected sizes against what was measured: Gemma 3 270M, 40,960 positions."""

import pytest

from logitcask.schemas.format.scheme import Scheme
from logitcask.schemas.stats.expected_bytes import bytes_per_token, entries_per_token, training_bytes_per_token


@pytest.mark.parametrize(
    ("scheme", "entries"),
    [
        (Scheme(tau=1e-2), 8.5),
        (Scheme(tau=3e-3), 20.5),
        (Scheme(tau=1e-3), 44.2),
        (Scheme(tau=1e-3, k=30), 30),
        (Scheme(kind="topk", k=64), 64),
        (Scheme(kind="topp", p=0.95, k=128), 55.2),
        (Scheme(kind="topp", p=0.99, k=512), 260.9),
        (Scheme(kind="topp", p=1.0, k=100), 100),
        (Scheme(kind="topp", p=0.95, k=1), 1),
        (Scheme(kind="threshold-sampling", theta=1 / 36), 13.1),
        (Scheme(kind="threshold-sampling", theta=1 / 100), 26.4),
        (Scheme(kind="random-sampling", draws=100), 23.7),
    ],
)
def test_measured_numbers_of_entries_are_reproduced(scheme, entries):
    assert entries_per_token(scheme.to_json()) == pytest.approx(entries)


@pytest.mark.parametrize(("k", "measured"), [(16, 37), (32, 70), (64, 133), (128, 260)])
def test_bytes_of_top_k_are_within_2_percent_of_measured_ones(k, measured):
    assert training_bytes_per_token(Scheme(kind="topk", k=k).to_json()) == pytest.approx(measured, rel=0.02)


def test_every_replica_costs_its_entries_again():
    once, twice = (bytes_per_token(Scheme(kind="threshold-sampling", replicas=n).to_json()) for n in (1, 2))
    assert twice - once == pytest.approx(1.99 * 13.1)


def test_finer_thresholds_never_cost_less():
    sizes = [bytes_per_token(Scheme(tau=tau, k=4096).to_json()) for tau in (0.5, 0.1, 1e-2, 2e-3, 1e-3, 1e-4)]
    assert sizes == sorted(sizes)


def test_more_mass_or_a_larger_maximum_never_costs_less():
    by_mass = [entries_per_token(Scheme(kind="topp", p=p).to_json()) for p in (0.01, 0.5, 0.8, 0.93, 0.95, 0.999, 1.0)]
    by_room = [entries_per_token(Scheme(kind="topp", k=k).to_json()) for k in (1, 2, 16, 32, 100, 128, 500, 5000)]
    assert by_mass == sorted(by_mass)
    assert by_room == sorted(by_room)


def test_interpolated_entries_of_top_p_are_within_7_percent():
    """p = 0.98 was also measured and is not one of the interpolated points."""
    for k, measured in ((32, 21.3), (128, 70.5), (512, 214.4)):
        assert entries_per_token(Scheme(kind="topp", p=0.98, k=k).to_json()) == pytest.approx(measured, rel=0.07)
