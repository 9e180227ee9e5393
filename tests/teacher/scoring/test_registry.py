"""Scorers are found by name."""

import pytest

from logitcask.schemas.errors import UsageError
from logitcask.schemas.format.scheme import ThresholdScheme
from logitcask.teacher.scoring.protocol import ScorerSpec
from logitcask.teacher.scoring.registry import SCORERS, load_scorer

SPEC = ScorerSpec(kind="none", reference="nowhere", device="cpu", dtype="float32", scheme=ThresholdScheme())


def test_an_unknown_scorer_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'none' is unknown; choose huggingface"):
        load_scorer(SPEC)


def test_one_row_makes_a_scorer_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCORERS, "none", lambda spec: spec.reference)
    assert load_scorer(SPEC) == "nowhere"
