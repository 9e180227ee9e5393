"""Resolving a job: invalid settings and inputs are refused before anything is written."""

import dataclasses
import shutil
from pathlib import Path

import pytest
from small_job import run, settings

from logitcask.schemas.errors import CorpusError, ForeignOutputError, TeacherError, TokenizerError, UsageError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:apache_beam")


def test_extra_temperatures_of_samples_are_refused(job_corpus: Path, tiny_teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="omit --temperatures"):
        run(settings(job_corpus, tiny_teacher, tmp_path / "out", head="random-sampling", temperatures=(2.0,)))
    assert not (tmp_path / "out").exists()


def test_choices_for_the_machine_are_kept_on_resume(
    job_out: Path, job_corpus: Path, tiny_teacher: Path, caplog: pytest.LogCaptureFixture
) -> None:
    resumed = settings(
        job_corpus, tiny_teacher, job_out, batch_tokens="auto", threads=None, shard_tokens=None, dtype="auto"
    )
    assert run(resumed).num_units == 0
    assert not caplog.records
    run(dataclasses.replace(resumed, batch_tokens=256))
    assert "batch_tokens: the dataset was begun with 128, continuing with 256" in caplog.text


def test_an_output_that_holds_other_files_is_not_touched(job_corpus: Path, tiny_teacher: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ForeignOutputError, match=r"thesis\.tex"):
        run(settings(job_corpus, tiny_teacher, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_teacher_without_a_tokenizer_is_refused(job_corpus: Path, tiny_teacher: Path, tmp_path: Path) -> None:
    teacher = Path(shutil.copytree(tiny_teacher, tmp_path / "teacher"))
    (teacher / "tokenizer.model").unlink()
    with pytest.raises(TokenizerError, match="tokenizer"):
        run(settings(job_corpus, teacher, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"corpus": ("nowhere",)}, CorpusError, "no file found"),
        ({"teacher": "/no/such/teacher"}, TeacherError, "/no/such/teacher"),
        ({"chat_field": "messages"}, TokenizerError, "has no chat template"),
        ({"window": 1}, UsageError, "--window"),
        ({"window": 1024, "shard_tokens": 4096}, UsageError, "can attend to 512 tokens at most"),
        ({"overlap": 64}, UsageError, "--overlap"),
        ({"overlap": 62}, UsageError, "overlap of 62"),
        ({"held_out": 1.0}, UsageError, "--held-out"),
        ({"shard_tokens": 10}, UsageError, "--shard-tokens"),
        ({"tau": 0.0}, UsageError, "tau"),
        ({"runner": "slurm"}, UsageError, "choose one of local, dask"),
        ({"runner": "dask"}, UsageError, "--dask-scheduler"),
        ({"dask_scheduler": "tcp://h:1"}, UsageError, "--runner dask"),
        ({"workers": 0}, UsageError, "--workers"),
        ({"attempts": 0}, UsageError, "--attempts"),
    ],
)
def test_invalid_settings_are_refused_before_anything_is_written(
    job_corpus: Path, tiny_teacher: Path, tmp_path: Path, changes: dict, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        run(dataclasses.replace(settings(job_corpus, tiny_teacher, tmp_path / "out"), **changes))
    assert not (tmp_path / "out").exists()
