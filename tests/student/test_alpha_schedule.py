"""The weight of the KL over a run."""

import pytest

from logitcask.schemas.errors import UsageError
from logitcask.student.alpha_schedule import AlphaSchedule


def course(num_steps: int, **settings) -> list[float]:
    schedule = AlphaSchedule(**settings)
    return [schedule.at(step, num_steps) for step in range(num_steps)]


def test_a_constant_alpha_does_not_change():
    assert course(3, alpha=0.9) == [0.9, 0.9, 0.9]


def test_a_linear_alpha_goes_from_the_first_step_to_the_last():
    assert course(5, shape="linear", alpha=1.0, end=0.2) == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    assert course(1, shape="linear", alpha=0.9, end=0.1) == [0.9]


def test_a_wsd_alpha_rises_stays_and_falls():
    found = course(10, shape="wsd", alpha=0.9, end=0.1, warmup_steps=3, decay_steps=1)
    assert found == pytest.approx([0.3, 0.5, 0.7, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.5])


def test_a_run_too_short_for_both_slopes_peaks_where_they_meet():
    found = course(3, shape="wsd", alpha=1.0, end=0.0, warmup_steps=4, decay_steps=4)
    assert found == pytest.approx([0.2, 0.4, 0.2])


@pytest.mark.parametrize(
    "settings",
    [
        {"alpha": 1.1}, {"alpha": -0.1}, {"end": 2.0}, {"warmup_steps": 3}, {"shape": "linear", "decay_steps": 1},
        {"shape": "wsd"}, {"shape": "wsd", "warmup_steps": -1, "decay_steps": 3},
    ],
)  # fmt: skip
def test_invalid_settings_are_refused(settings):
    with pytest.raises(UsageError, match="alpha"):
        AlphaSchedule(**settings)


def test_a_schedule_knows_if_it_uses_cross_entropy_and_the_length():
    assert not AlphaSchedule().uses_cross_entropy
    assert AlphaSchedule(shape="linear", end=0.5).uses_cross_entropy
    assert not AlphaSchedule(shape="wsd", warmup_steps=2).depends_on_length
    assert AlphaSchedule(shape="wsd", decay_steps=2).depends_on_length
