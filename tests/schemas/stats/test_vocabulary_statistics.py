"""Vocabulary statistics merge exactly and survive JSON."""

import json

from logitcask.schemas.checked_json import convert
from logitcask.schemas.stats.target_statistics import Statistics
from logitcask.schemas.stats.vocabulary_statistics import STEPS_PER_UNIT, VocabularyStatistics

HALF, ONE = STEPS_PER_UNIT // 2, STEPS_PER_UNIT
FIRST = VocabularyStatistics(rows=1, mass_steps={1: HALF, 2: ONE}, unique_steps={1: ONE})
SECOND = VocabularyStatistics(rows=3, mass_steps={1: 3 * ONE, 2: 3 * ONE}, unique_steps={1: 3 * ONE})


def test_means_are_over_the_rows_of_both_shards() -> None:
    summary = (FIRST + SECOND).summary()
    assert summary == {"rows": 4, "mass_of_top_k": {1: 0.875, 2: 1.0}, "unique_ids_of_n_draws": {1: 1.0}}


def test_order_and_empty_statistics_do_not_change_the_sum() -> None:
    assert FIRST + SECOND == SECOND + FIRST
    assert FIRST + VocabularyStatistics() == FIRST
    assert VocabularyStatistics().summary() == {"rows": 0, "mass_of_top_k": {}, "unique_ids_of_n_draws": {}}


def test_vocabulary_statistics_survive_json_alone_and_in_statistics() -> None:
    assert convert(json.loads(json.dumps(FIRST.to_json())), VocabularyStatistics) == FIRST
    statistics = Statistics(wide=FIRST)
    assert convert(json.loads(json.dumps(statistics.to_json())), Statistics) == statistics


def test_an_old_record_has_empty_vocabulary_statistics() -> None:
    old = Statistics().to_json()
    del old["wide"]
    assert convert(json.loads(json.dumps(old)), Statistics).wide == VocabularyStatistics()
