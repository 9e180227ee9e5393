"""The encoder's thread: batch by batch it gives the bytes of the whole, and it ends with the block."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from echo_scorer import EchoScorer
from echo_unit import METADATA, NUM_WINDOWS, WINDOWS

from logitcask.pipeline.annotation.encoder import UnitEncoder
from logitcask.schemas.errors import VocabularyError
from logitcask.schemas.format.targets import Targets, Windows
from logitcask.schemas.format.writer import encode_shard
from logitcask.schemas.stats.target_statistics import Statistics
from logitcask.schemas.stats.vocabulary_statistics import VocabularyStatistics
from logitcask.teacher.scoring.protocol import ScorerSpec

SCORER = EchoScorer(ScorerSpec(reference="nowhere", device="cpu", dtype="float32", scheme=METADATA.scheme))
NOTHING = VocabularyStatistics()


def batches(num_windows: int) -> list[tuple[Windows, Targets]]:
    starts = range(0, NUM_WINDOWS, num_windows)
    selected = [WINDOWS.select(start, min(start + num_windows, NUM_WINDOWS)) for start in starts]
    return [(windows, SCORER.score(windows)) for windows in selected]


@pytest.mark.parametrize("num_windows", [7, 70])
def test_batches_give_the_bytes_and_statistics_of_the_whole(num_windows: int) -> None:
    whole = SCORER.score(WINDOWS)
    with UnitEncoder(WINDOWS, METADATA) as encoder:
        for windows, targets in batches(num_windows):
            encoder.add(windows, targets, VocabularyStatistics(rows=1))
        shard, targets, statistics = encoder.finish()
    assert shard == encode_shard(WINDOWS, whole, METADATA)
    np.testing.assert_array_equal(targets.head_log_probs, whole.head_log_probs)
    vocabulary = VocabularyStatistics(rows=NUM_WINDOWS // num_windows)
    assert statistics == Statistics.of(WINDOWS, whole, vocabulary=vocabulary)
    assert encoder.seconds > 0


def test_an_error_of_one_batch_is_raised_and_the_thread_ends() -> None:
    (windows, targets), *_ = batches(70)
    before = threading.active_count()
    with UnitEncoder(WINDOWS, METADATA) as encoder:
        encoder.add(windows, replace(targets, head_ids=targets.head_ids + 1000), NOTHING)
        with pytest.raises(VocabularyError):
            encoder.finish()
    assert threading.active_count() == before


def test_at_most_two_batches_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    may_encode, third_is_added = threading.Event(), threading.Event()
    encode = UnitEncoder._encode

    def wait_and_encode(*arguments) -> None:
        assert may_encode.wait(60)
        encode(*arguments)

    monkeypatch.setattr(UnitEncoder, "_encode", wait_and_encode)
    first, second, third = batches(24)
    with UnitEncoder(WINDOWS, METADATA) as encoder:
        encoder.add(*first, NOTHING)
        encoder.add(*second, NOTHING)

        def add_third() -> None:
            encoder.add(*third, NOTHING)
            third_is_added.set()

        thread = threading.Thread(target=add_third)
        thread.start()
        assert not third_is_added.is_set()
        may_encode.set()
        thread.join(60)
        assert third_is_added.is_set()
        assert encoder.finish()[0].num_positions == WINDOWS.num_positions
