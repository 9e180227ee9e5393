"""Vocabulary statistics, against their definitions in float64."""

import math

import pytest
import torch

from logitcask.schemas.stats.vocabulary_statistics import DRAWS, STEPS_PER_UNIT, WIDTHS, VocabularyStatistics
from logitcask.teacher.scoring.measure_vocabulary import measure_vocabulary


def random_logits(vocab_size: int, scale: float) -> torch.Tensor:
    return scale * torch.randn(3, vocab_size, generator=torch.Generator().manual_seed(vocab_size))


@pytest.mark.parametrize("vocab_size", [300, 50_000])
@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_masses_and_distinct_ids_equal_their_definitions(vocab_size: int, scale: float) -> None:
    logits = random_logits(vocab_size, scale)
    found = measure_vocabulary(logits, torch.arange(len(logits)))
    probs = logits.double().softmax(-1).sort(dim=-1, descending=True).values
    assert found.rows == 3
    for k in WIDTHS:
        assert found.mass_steps[k] / STEPS_PER_UNIT == pytest.approx(probs[:, :k].sum().item(), rel=2e-6)
    for n in DRAWS:
        expected = (1 - (1 - probs) ** n).sum().item()
        assert found.unique_steps[n] / STEPS_PER_UNIT == pytest.approx(expected, rel=2e-6)


def test_a_certain_row_gives_one_id_however_often_it_is_drawn() -> None:
    logits = torch.full((1, 400), -math.inf)
    logits[0, 7] = 0.0
    found = measure_vocabulary(logits, torch.arange(len(logits)))
    assert set(found.mass_steps.values()) == set(found.unique_steps.values()) == {STEPS_PER_UNIT}


def test_rows_that_are_not_finite_are_left_out() -> None:
    logits = random_logits(300, 1.0)
    logits[0, 5], logits[1, 6] = math.nan, math.inf
    assert measure_vocabulary(logits, torch.arange(len(logits))) == measure_vocabulary(
        logits, torch.arange(2, len(logits))
    )
    assert measure_vocabulary(logits, torch.arange(2)) == VocabularyStatistics()
