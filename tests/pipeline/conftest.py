"""Fixtures of the pipeline's tests."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from small_job import run, settings

from logitcask.pipeline.job import JobResult


@pytest.fixture(scope="session")
def job_corpus(tmp_path_factory: pytest.TempPathFactory, english: str) -> Path:
    """40 documents, some longer than a window, and one bad line."""
    directory = tmp_path_factory.mktemp("corpus")
    texts = [english[start : start + 20 + start % 330] for start in range(0, 7800, 200)]
    lines = [json.dumps({"text": text}) for text in texts]
    (directory / "a.jsonl").write_text("\n".join([*lines[:20], "{bad", *lines[20:]]))
    (directory / "b.md").write_text(english[20_000:20_300])
    return directory


@pytest.fixture(scope="session")
def finished_job(job_corpus: Path, tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> JobResult:
    """A finished job; tests that change its files use `job_out`."""
    return run(settings(job_corpus, tiny_teacher, tmp_path_factory.mktemp("finished") / "out"))


@pytest.fixture
def job_out(finished_job: JobResult, tmp_path: Path) -> Path:
    """A copy of the finished job's dataset."""
    return Path(shutil.copytree(finished_job.out, tmp_path / "out"))


@pytest.fixture
def leave_lease(tmp_path: Path) -> Callable[..., None]:
    """leave_lease(unit, process, number=0, ending=None, driver="") writes a lease to `tmp_path`."""

    def leave(unit: str, process: str, number: int = 0, ending: str | None = None, driver: str = "") -> None:
        (tmp_path / "attempts").mkdir(exist_ok=True)
        started_at = "2026-01-01T00:00:00+00:00"
        lease = {"unit": unit, "process": process, "started_at": started_at, "phase": "encode", "ending": ending}
        lease |= {"driver": driver}
        (tmp_path / f"attempts/{unit}~{number:08x}.json").write_text(json.dumps(lease))

    return leave


@pytest.fixture(params=["file", "memory"])
def dataset_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A dataset's directory on a local disk, and one on an object store."""
    return str(tmp_path) if request.param == "file" else f"memory://{tmp_path.name}"
