"""Wide statistics merge exactly and survive their JSON."""

import json

from logitcask.schemas.stats.target_statistics import Statistics
from logitcask.schemas.stats.vocabulary_statistics import STEPS_PER_UNIT, WideStatistics

HALF, ONE = STEPS_PER_UNIT // 2, STEPS_PER_UNIT
FIRST = WideStatistics(rows=1, mass_steps={1: HALF, 2: ONE}, unique_steps={1: ONE})
SECOND = WideStatistics(rows=3, mass_steps={1: 3 * ONE, 2: 3 * ONE}, unique_steps={1: 3 * ONE})


def test_means_are_over_the_rows_of_both() -> None:
    summary = (FIRST + SECOND).summary()
    assert summary == {"rows": 4, "mass_of_top_k": {1: 0.875, 2: 1.0}, "unique_ids_of_n_draws": {1: 1.0}}


def test_order_and_empty_statistics_change_nothing() -> None:
    assert FIRST + SECOND == SECOND + FIRST
    assert FIRST + WideStatistics() == FIRST
    assert WideStatistics().summary() == {"rows": 0, "mass_of_top_k": {}, "unique_ids_of_n_draws": {}}


def test_json_gives_the_same_back_also_inside_statistics() -> None:
    assert WideStatistics.from_json(json.loads(json.dumps(FIRST.to_json()))) == FIRST
    statistics = Statistics(wide=FIRST)
    assert Statistics.from_json(json.loads(json.dumps(statistics.to_json()))) == statistics


def test_records_from_before_they_existed_have_none() -> None:
    old = Statistics().to_json()
    del old["wide"]
    assert Statistics.from_json(json.loads(json.dumps(old))).wide == WideStatistics()
