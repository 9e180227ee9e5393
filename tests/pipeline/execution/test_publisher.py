"""Snapshots of what is finished, while a job runs."""

import threading
from pathlib import Path

import pytest
from small_job import run, settings

from logitcask.pipeline.execution.progress import Reading
from logitcask.pipeline.execution.publisher import Publisher, publishing
from logitcask.pipeline.job import JobResult
from logitcask.schemas.dataset.snapshot import load_snapshot, snapshot_numbers
from logitcask.schemas.errors import IncompleteDatasetError, StorageError, UsageError
from logitcask.student.data.dataset import SoftTargetDataset

READING = Reading(stage="annotate", unit="tokens", done=1, total=2, rate=None, seconds_left=None, forward_share=None)


def test_a_job_publishes_partial_snapshots_and_the_same_final_one(
    job_corpus: Path, tiny_teacher: Path, tmp_path: Path, finished_job: JobResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Published in the caller's thread, after each reading: every reading is a moment at which a thread could publish.
    monkeypatch.setattr(Publisher, "__call__", lambda self, reading: self._run())
    out = str(tmp_path / "out")
    result = run(settings(job_corpus, tiny_teacher, out, publish_every=1.0))
    whole = finished_job.snapshot
    assert result.snapshot.shards() == whole.shards()
    assert (result.snapshot.shards_digest, result.snapshot.complete) == (whole.shards_digest, True)
    partial = [load_snapshot(out, number) for number in snapshot_numbers(out)[:-1]]
    assert partial
    assert not any(snapshot.complete for snapshot in partial)
    for snapshot in partial:
        shards = snapshot.shards()
        assert 0 < len(shards) == len(whole.shards()) - snapshot.num_missing_units
        assert set(shards) < set(whole.shards())
    with pytest.raises(IncompleteDatasetError, match="--allow-partial"):
        SoftTargetDataset(out, snapshot=1)
    windows = sum(entry.num_windows for entry in partial[0].shards("train"))
    assert len(SoftTargetDataset(out, snapshot=1, allow_partial=True)) == windows


def test_a_publisher_waits_for_its_interval_and_for_itself() -> None:
    now, started, may_end = [0.0], [], threading.Event()

    def publish() -> None:
        started.append(now[0])
        may_end.wait(10)

    publisher = Publisher(5.0, publish, clock=lambda: now[0])
    for seconds in (1.0, 4.9, 5.0, 9.0, 20.0):
        now[0] = seconds
        publisher(READING)
    may_end.set()
    publisher.close()
    assert started == [5.0]
    publisher(READING)
    publisher.close()
    assert started == [5.0, 20.0]


def test_a_failed_publication_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    def publish() -> None:
        raise StorageError("the store is away")

    with publishing(1e-9, publish) as listeners:
        for listener in listeners:
            listener(READING)
    assert "a partial snapshot could not be published: the store is away" in caplog.text


def test_publishing_and_appending_exclude_each_other(job_corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--publish-every has no use with --append"):
        run(settings(job_corpus, tmp_path, tmp_path / "out", publish_every=60.0, append=True))
