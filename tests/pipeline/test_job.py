"""The job: exactly once, resumable, complete or explained."""

import gzip
import shutil
from pathlib import Path
from typing import Any

import pytest
from small_job import run, settings, shard_bytes

from logitcask.pipeline.commands import summary
from logitcask.pipeline.job import JobResult
from logitcask.schemas.errors import CorpusError
from logitcask.schemas.maintenance.verify import verify

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:apache_beam")


def test_documents_in_are_annotated_plus_rejected(finished_job: JobResult) -> None:
    snapshot = finished_job.snapshot
    assert snapshot.complete
    assert snapshot.num_documents_in == 41
    assert snapshot.rejected == {"malformed_json": 1}
    assert snapshot.total().num_documents == 40
    assert snapshot.splits["held-out"].num_documents > 0
    assert verify(finished_job.out).faults == ()


def test_two_runs_give_byte_identical_shards(
    finished_job: JobResult, job_corpus: Path, tiny_teacher: Path, tmp_path: Path
) -> None:
    again = run(settings(job_corpus, tiny_teacher, tmp_path / "again"))
    assert shard_bytes(again.out) == shard_bytes(finished_job.out)
    assert len(shard_bytes(again.out)) == 2 * finished_job.snapshot.total().num_shards > 8


def test_running_a_finished_job_again_does_nothing(job_out: Path, job_corpus: Path, tiny_teacher: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in job_out.rglob("*")}
    result = run(settings(job_corpus, tiny_teacher, job_out))
    assert (result.num_units, result.num_annotated_positions) == (0, 0)
    assert {path: path.stat().st_mtime_ns for path in job_out.rglob("*")} == before


def test_a_job_resumes_wherever_it_was_interrupted(
    job_out: Path, finished_job: JobResult, job_corpus: Path, tiny_teacher: Path
) -> None:
    records = sorted(job_out.glob("targets/train/*.json"))
    records[0].unlink()  # between the shard and its record
    records[1].with_suffix(".parquet").unlink()  # a shard lost later
    for path in (
        records[2],
        records[2].with_suffix(".parquet"),
        *job_out.glob("tokens/units/*"),
        *job_out.glob("rejected/*"),
    ):
        path.unlink()
    shutil.rmtree(job_out / "snapshots")
    result = run(settings(job_corpus, tiny_teacher, job_out))
    assert result.num_units == 1 + 3
    assert shard_bytes(job_out) == shard_bytes(finished_job.out)
    assert result.snapshot.complete
    assert verify(str(job_out)).faults == ()


@pytest.mark.slow
def test_lost_token_shards_are_written_again_if_needed(
    job_out: Path, finished_job: JobResult, job_corpus: Path, tiny_teacher: Path
) -> None:
    needed = sorted(job_out.glob("targets/train/*.parquet"))[0]
    needed.unlink()
    needed.with_suffix(".json").unlink()
    for path in job_out.glob("tokens/*/*.parquet"):
        path.unlink()
    result = run(settings(job_corpus, tiny_teacher, job_out))
    assert result.num_units == 1
    assert shard_bytes(job_out) == shard_bytes(finished_job.out)
    assert verify(str(job_out)).faults == ()


def test_a_quarantined_unit_is_skipped_until_a_retry_is_requested(
    finished_job: JobResult, job_corpus: Path, tiny_teacher: Path, tmp_path: Path, job_out: Path, leave_lease: Any
) -> None:
    unit = sorted(job_out.glob("targets/train/*.parquet"))[1]
    unit.unlink()
    unit.with_suffix(".json").unlink()
    for number in range(3):
        leave_lease(unit.stem, "elsewhere:7:1", number, "return code -9")
    shutil.move(tmp_path / "attempts", job_out / "attempts")
    result = run(settings(job_corpus, tiny_teacher, job_out))
    assert result.quarantined.keys() == {unit.stem}
    assert (result.snapshot.complete, result.snapshot.num_missing_units) == (False, 1)
    for words in ("3 workers died of it", "died at 'encode'", "--retry-quarantined"):
        assert words in summary(result)
    assert run(settings(job_corpus, tiny_teacher, job_out, retry_quarantined=True)).snapshot.complete
    assert shard_bytes(job_out) == shard_bytes(finished_job.out)


def test_a_corpus_with_only_rejected_documents_fails_with_reasons(tiny_teacher: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "x"}\n' * 3)
    with pytest.raises(CorpusError, match=r"missing_field: 3; .*--text-field \(now 'text'\)"):
        run(settings(tmp_path / "a.jsonl", tiny_teacher, tmp_path / "out"))


def test_a_corrupt_stream_loses_only_the_rest_of_its_file(tiny_teacher: Path, tmp_path: Path, english: str) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/a.txt.gz").write_bytes(gzip.compress(english[:2000].encode())[:-30])
    (tmp_path / "corpus/b.txt.gz").write_bytes(gzip.compress(english[:2000].encode()))
    snapshot = run(settings(tmp_path / "corpus", tiny_teacher, tmp_path / "out", held_out=0.0)).snapshot
    assert snapshot.rejected == {"corrupt_stream": 1}
    assert (snapshot.num_documents_in, snapshot.total().num_documents, snapshot.complete) == (2, 1, True)
