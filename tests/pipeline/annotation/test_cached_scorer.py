"""The scorer of a process is loaded once."""

import threading
from dataclasses import replace

import pytest
from echo_scorer import EchoScorer

from logitcask.pipeline.annotation.cached_scorer import cached_scorer, exclusive_scorer
from logitcask.schemas.format.scheme import ThresholdScheme
from logitcask.teacher.scoring.protocol import ScorerSpec
from logitcask.teacher.scoring.registry import SCORERS

SPEC = ScorerSpec(
    kind="echo", reference="nowhere", device="cpu", dtype="float32", scheme=ThresholdScheme(), batch_tokens=64
)


@pytest.fixture(autouse=True)
def loads(monkeypatch: pytest.MonkeyPatch) -> list[ScorerSpec]:
    """What was loaded."""
    loaded: list[ScorerSpec] = []

    def load(spec: ScorerSpec) -> EchoScorer:
        loaded.append(spec)
        return EchoScorer(spec)

    monkeypatch.setitem(SCORERS, "echo", load)
    return loaded


def test_another_batch_size_keeps_the_teacher_and_is_set(loads: list[ScorerSpec]) -> None:
    first, again = cached_scorer(SPEC), cached_scorer(replace(SPEC, batch_tokens=32))
    assert again is first
    assert again.batch_tokens == 32
    assert loads == [SPEC]


def test_another_spec_replaces_the_teacher(loads: list[ScorerSpec]) -> None:
    for spec in (SPEC, replace(SPEC, dtype="bfloat16"), SPEC):
        cached_scorer(spec)
    assert [spec.dtype for spec in loads] == ["float32", "bfloat16", "float32"]


def test_each_thread_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[int] = []
    monkeypatch.setattr(EchoScorer, "prepare_thread", lambda self: prepared.append(self.batch_tokens))
    for _ in range(2):
        cached_scorer(SPEC)
    assert prepared == [64, 64]


def test_one_thread_at_a_time_has_the_scorer() -> None:
    waiting, entered = threading.Event(), threading.Event()

    def use() -> None:
        waiting.set()
        with exclusive_scorer(SPEC):
            entered.set()

    other = threading.Thread(target=use)
    with exclusive_scorer(SPEC) as scorer:
        assert scorer is cached_scorer(SPEC)
        other.start()
        assert waiting.wait(30)
        assert not entered.wait(0.05)
    assert entered.wait(30)
    other.join()
