"""Scoring and encoding at the same time: the bytes, errors and threads of one after the other; and memory."""

import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from echo_unit import METADATA, NUM_WINDOWS, WINDOW_TOKENS, WINDOWS

from logitcask.pipeline.annotation.encoder import UnitEncoder
from logitcask.pipeline.annotation.score_windows import score_windows
from logitcask.pipeline.units.heartbeats import Heartbeats
from logitcask.schemas.errors import MemoryExhaustedError, NonFiniteError, VocabularyError
from logitcask.schemas.format.targets import Targets, Windows
from logitcask.schemas.format.writer import encode_shard
from logitcask.schemas.stats.target_statistics import Statistics
from logitcask.schemas.stats.vocabulary_statistics import VocabularyStatistics


class CertainScorer:
    """An exact fake: a row's head is its own token, with probability 1. Batches over `memory_tokens` do not fit."""

    vocab_size = 1000
    batch_tokens = 0
    num_halvings = 0
    environment: dict = {}  # noqa: RUF012

    def __init__(self, memory_tokens: int = 1 << 30, fail: Callable[[Windows], None] = lambda windows: None) -> None:
        self.batch_sizes: list[int] = []
        self._memory_tokens, self._fail = memory_tokens, fail

    def score(self, windows: Windows) -> Targets:
        if windows.num_positions >> self.num_halvings > self._memory_tokens:
            raise MemoryExhaustedError("no memory", can_halve=self.num_halvings < 5)
        self._fail(windows)
        self.batch_sizes.append(windows.num_positions)
        zeros = np.zeros(windows.num_positions, np.float32)
        return Targets(
            head_ids=windows.token,
            head_log_probs=zeros,
            head_offsets=np.arange(windows.num_positions + 1),
            log_tail=np.full_like(zeros, -np.inf),
            log_next=zeros,
            entropy=zeros,
            top1_ids=windows.token,
        )

    def prepare_thread(self) -> None:
        pass

    def score_and_measure(self, windows: Windows, measured_T: np.ndarray) -> tuple[Targets, VocabularyStatistics]:
        return self.score(windows), VocabularyStatistics(rows=int(measured_T.sum()))


def test_bytes_and_statistics_equal_those_of_encoding_after_scoring() -> None:
    whole = CertainScorer().score(WINDOWS)
    with UnitEncoder(WINDOWS, METADATA) as encoder:
        score_windows(WINDOWS, CertainScorer(), 20, Heartbeats(), encoder)
        shard, targets, statistics = encoder.finish()
    assert shard == encode_shard(WINDOWS, whole, METADATA)
    assert targets.head_ids.tolist() == whole.head_ids.tolist()
    assert statistics == Statistics.of(WINDOWS, whole, vocabulary=VocabularyStatistics(rows=2 * WINDOW_TOKENS))


@pytest.mark.parametrize(("memory_tokens", "sizes"), [(50, [50] * 14), (12, [10] * 70), (30, [20] * 35)])
def test_out_of_memory_halves_the_batches_of_the_unit_and_is_recorded(memory_tokens: int, sizes: list[int]) -> None:
    scorer = CertainScorer(memory_tokens)
    with UnitEncoder(WINDOWS, METADATA) as encoder:
        scoring = score_windows(WINDOWS, scorer, 100, Heartbeats(), encoder)
        assert encoder.finish()[0].num_positions == NUM_WINDOWS * WINDOW_TOKENS
    assert scorer.batch_sizes == sizes
    assert scoring.environment()["batch_tokens"] <= memory_tokens + WINDOW_TOKENS
    assert scoring.environment()["num_out_of_memory"] > 0


def test_a_window_that_does_not_fit_is_scored_in_pieces_and_recorded() -> None:
    scorer = CertainScorer(3)
    with UnitEncoder(WINDOWS, METADATA) as encoder:
        scoring = score_windows(WINDOWS, scorer, 10, Heartbeats(), encoder)
    assert scorer.batch_sizes == [WINDOW_TOKENS] * NUM_WINDOWS
    assert scoring.environment() == {"batch_tokens": 10, "num_out_of_memory": 2, "num_halvings": 2}


def test_the_next_unit_begins_with_whole_windows() -> None:
    scorer = CertainScorer()
    scorer.num_halvings = 3
    with UnitEncoder(WINDOWS, METADATA) as encoder:
        score_windows(WINDOWS, scorer, 10, Heartbeats(), encoder)
    assert scorer.num_halvings == 0


def test_a_window_that_does_not_fit_in_pieces_is_an_error_with_advice() -> None:
    message = r"window of 10 tokens does not fit into memory.*smaller --window"
    with UnitEncoder(WINDOWS, METADATA) as encoder, pytest.raises(MemoryExhaustedError, match=message):
        score_windows(WINDOWS, CertainScorer(-1), 100, Heartbeats(), encoder)


def test_enough_memory_adds_nothing_to_the_environment() -> None:
    with UnitEncoder(WINDOWS, METADATA) as encoder:
        assert score_windows(WINDOWS, CertainScorer(), 100, Heartbeats(), encoder).environment() == {}


def test_an_error_of_the_teacher_ends_the_encoders_thread() -> None:
    def fail(windows: Windows) -> None:
        if windows.token[-1] > 300:
            raise NonFiniteError("NaN")

    before = threading.active_count()
    with pytest.raises(NonFiniteError), UnitEncoder(WINDOWS, METADATA) as encoder:
        score_windows(WINDOWS, CertainScorer(fail=fail), 20, Heartbeats(), encoder)
    assert threading.active_count() == before


def test_an_error_of_the_encoder_ends_the_unit_and_its_thread() -> None:
    def fail(windows: Windows) -> None:
        windows.token[windows.token == 400] = 1000  # an id that is not in the vocabulary

    windows = replace(WINDOWS, token=WINDOWS.token.copy())

    def encode() -> None:
        with UnitEncoder(windows, METADATA) as encoder:
            score_windows(windows, CertainScorer(fail=fail), 20, Heartbeats(), encoder)
            encoder.finish()

    before = threading.active_count()
    with pytest.raises(VocabularyError):
        encode()
    assert threading.active_count() == before
