"""One unit: from its token shard to its target shard and record."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from echo_scorer import EchoScorer
from echo_unit import WINDOWS, write_unit

from logitcask.pipeline.annotation.annotate_unit import AnnotationSpec, annotate_unit
from logitcask.pipeline.units.annotation_units import AnnotationUnit
from logitcask.pipeline.units.heartbeats import Heartbeats
from logitcask.schemas.dataset.layout import shard_path
from logitcask.schemas.dataset.record import UnitRecord
from logitcask.schemas.errors import CorruptShardError, NonFiniteError, WrongTargetsError
from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.format.targets import Windows
from logitcask.teacher.scoring.protocol import ScorerSpec
from logitcask.teacher.scoring.registry import SCORERS


class NanScorer(EchoScorer):
    def score_and_measure(self, windows: Windows, measured_T: np.ndarray) -> tuple:
        raise NonFiniteError("NaN at row 3")


@pytest.fixture
def unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[AnnotationUnit, AnnotationSpec]:
    monkeypatch.setitem(SCORERS, "fake", EchoScorer)
    return write_unit(tmp_path, "fake")


def test_a_unit_becomes_a_target_shard_and_a_record(unit: tuple[AnnotationUnit, AnnotationSpec]) -> None:
    done: list[UnitRecord] = []
    record = annotate_unit(*unit, Heartbeats(), done.append)
    assert done == [record]
    assert (record.num_positions, record.num_documents) == (WINDOWS.num_positions, WINDOWS.num_documents())
    assert record.environment == {"device": "cpu", "num_threads": 1}
    assert record.timings.keys() >= {"read_seconds", "load_seconds", "score_seconds", "finish_seconds", "ended_at"}
    out = Path(unit[1].out)
    with ShardReader(str(out / shard_path("targets", "train", "target"))) as reader:
        assert (reader.metadata.corpus_licence, reader.metadata.has_entropy) == ("CC0", True)
        block = reader.read()
    assert block.windows.content_hashes() == WINDOWS.content_hashes()
    assert block.targets.head_ids.tolist() == WINDOWS.token.tolist()


def test_a_finished_unit_is_not_annotated_again(
    unit: tuple[AnnotationUnit, AnnotationSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = annotate_unit(*unit, Heartbeats())

    def load(spec: ScorerSpec) -> EchoScorer:
        raise AssertionError("a teacher is loaded")

    monkeypatch.setitem(SCORERS, "fake", load)
    done: list[UnitRecord] = []
    assert annotate_unit(*unit, Heartbeats(), done.append) == first
    assert not done


def test_a_unit_whose_teacher_gives_nan_is_rejected_with_its_documents(
    unit: tuple[AnnotationUnit, AnnotationSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCORERS, "fake", NanScorer)
    record = annotate_unit(*unit, Heartbeats())
    assert (record.status, record.rejected) == ("rejected", {"non_finite": WINDOWS.num_documents()})
    (file,) = (Path(unit[1].out) / "rejected").glob("target.*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert {line["reason"] for line in lines} == {"non_finite"}
    assert lines[3]["detail"] == "document '3' from token 0 on: NaN at row 3"
    assert not (Path(unit[1].out) / shard_path("targets", "train", "target")).exists()


class TwiceTheTail(EchoScorer):
    """As when two threads use one model: head and tail do not belong together."""

    def score_and_measure(self, windows: Windows, measured_T: np.ndarray) -> tuple:
        targets, vocabulary = super().score_and_measure(windows, measured_T)
        return replace(targets, log_tail=targets.log_tail + np.float32(np.log(2))), vocabulary


def test_targets_that_break_a_rule_are_not_committed(
    unit: tuple[AnnotationUnit, AnnotationSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCORERS, "fake", TwiceTheTail)
    with pytest.raises(WrongTargetsError, match=r"break a rule of the format: .*row 0.* Nothing was committed"):
        annotate_unit(*unit, Heartbeats())
    assert not (Path(unit[1].out) / "targets").exists()


def test_a_damaged_token_shard_is_refused(unit: tuple[AnnotationUnit, AnnotationSpec]) -> None:
    shard = Path(unit[1].out) / shard_path("tokens", "train", "tokens")
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(CorruptShardError, match=r"tokens\.parquet"):
        annotate_unit(*unit, Heartbeats())
