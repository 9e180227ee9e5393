"""Whole jobs whose teacher, disk or shards fail."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_job import blocks, run, settings, shard_bytes

from logitcask.pipeline.annotation import annotate_unit
from logitcask.pipeline.execution.background_run import UnitFailedError
from logitcask.pipeline.job import JobResult
from logitcask.schemas.dataset.snapshot import complete_snapshot
from logitcask.schemas.errors import CorruptShardError, IncompleteDatasetError, NonFiniteError
from logitcask.schemas.format.targets import Targets, Windows
from logitcask.schemas.stats.vocabulary_statistics import VocabularyStatistics
from logitcask.teacher.scoring.registry import SCORERS

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:apache_beam")


class FailingScorer:
    """The real scorer, except that it fails on batches that contain a token."""

    def __init__(self, scorer: Any, token: int, error: Exception) -> None:
        self._scorer, self._token, self._error = scorer, token, error
        self.environment = scorer.environment
        self.batch_tokens = scorer.batch_tokens

    def prepare_thread(self) -> None:
        self._scorer.prepare_thread()

    def score_and_measure(self, windows: Windows, measured_T: np.ndarray) -> tuple[Targets, VocabularyStatistics]:
        if (windows.token == self._token).any():
            raise self._error
        return self._scorer.score_and_measure(windows, measured_T)


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Any:
    """fail(token, error): the teacher raises the error for windows that contain the token."""
    load = SCORERS["huggingface"]

    def start(token: int, error: Exception) -> None:
        monkeypatch.setitem(SCORERS, "huggingface", lambda spec: FailingScorer(load(spec), token, error))

    return start


def rare_token(finished: JobResult) -> int:
    """A token that occurs in one target shard only."""
    seen = [set(block.windows.token.tolist()) for block in blocks(finished.out)]
    return next(token for token in sorted(seen[-1]) if sum(token in one for one in seen) == 1)


def test_documents_of_a_unit_with_nan_targets_are_rejected(
    finished_job: JobResult, job_corpus: Path, tiny_teacher: Path, tmp_path: Path, fail: Any
) -> None:
    fail(rare_token(finished_job), NonFiniteError("NaN at row 3"))
    snapshot = run(settings(job_corpus, tiny_teacher, tmp_path / "out")).snapshot
    rejected = snapshot.rejected["non_finite"]
    assert rejected > 0
    assert snapshot.complete
    assert snapshot.num_documents_in == snapshot.total().num_documents + snapshot.num_rejected
    [file] = [path for path in (tmp_path / "out/rejected").iterdir() if "non_finite" in path.read_text()]
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) >= rejected
    assert all(line["source"].startswith(str(job_corpus)) and "NaN at row 3" in line["detail"] for line in lines)
    assert run(settings(job_corpus, tiny_teacher, tmp_path / "out")).num_units == 0


@pytest.mark.slow
def test_a_failed_job_names_its_error_and_can_be_resumed(
    finished_job: JobResult, job_corpus: Path, tiny_teacher: Path, tmp_path: Path, fail: Any
) -> None:
    fail(rare_token(finished_job), OSError(28, "No space left on device"))
    config = settings(job_corpus, tiny_teacher, tmp_path / "out")
    with pytest.raises(UnitFailedError, match=r"OSError: \[Errno 28\] No space left on device.*run the same command"):
        run(config)
    with pytest.raises(IncompleteDatasetError, match="not complete"):
        complete_snapshot(config.out)
    fail(-1, OSError())
    assert run(config).snapshot.complete
    assert shard_bytes(config.out) == shard_bytes(finished_job.out)


def test_a_failed_attempt_is_retried(
    finished_job: JobResult, job_corpus: Path, tiny_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, failures = annotate_unit.encode_unit, [OSError("once")]

    def flaky(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return encode(*arguments)

    monkeypatch.setattr(annotate_unit, "encode_unit", flaky)
    result = run(settings(job_corpus, tiny_teacher, tmp_path / "out", attempts=2))
    assert result.snapshot.complete
    assert shard_bytes(result.out) == shard_bytes(finished_job.out)


def test_a_damaged_token_shard_is_named(job_out: Path, job_corpus: Path, tiny_teacher: Path) -> None:
    shard = sorted(job_out.glob("tokens/train/*.parquet"))[0]
    shard.write_bytes(shard.read_bytes()[:-100])
    shutil.rmtree(job_out / "targets")
    with pytest.raises(CorruptShardError, match=shard.name):
        run(settings(job_corpus, tiny_teacher, job_out))


def test_a_target_shard_whose_length_differs_from_its_record_is_named(
    job_out: Path, job_corpus: Path, tiny_teacher: Path
) -> None:
    shard = sorted(job_out.glob("targets/train/*.parquet"))[0]
    shard.write_bytes(shard.read_bytes() + b"x")
    with pytest.raises(CorruptShardError, match=f"{shard.name}.*its record says"):
        run(settings(job_corpus, tiny_teacher, job_out))
