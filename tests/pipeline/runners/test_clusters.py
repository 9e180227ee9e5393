"""Clusters of real processes: the same bytes as a local run, and a clear error for an unsuitable worker."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import small_job
from clusters import dask_address, dask_scheduler, dask_workers, job_service
from small_job import command, shard_bytes

from logitcask.pipeline.runners.dask import ask_workers
from logitcask.pipeline.runners.release import release
from logitcask.schemas.dataset.record import read_record
from logitcask.schemas.dataset.snapshot import load_snapshot
from logitcask.schemas.maintenance.verify import verify

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning:apache_beam")]

# Python imports a module of this name when it starts; it hides an installed logitcask.
WITHOUT_LOGITCASK = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "logitcask":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, english: str) -> Path:
    file = tmp_path_factory.mktemp("corpus") / "a.jsonl"
    file.write_text("\n".join(json.dumps({"text": english[start : start + 300]}) for start in range(0, 4500, 300)))
    return file


@pytest.fixture(scope="module")
def local(corpus: Path, tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The shards of a run on this machine."""
    out = tmp_path_factory.mktemp("local") / "out"
    small_job.run(small_job.settings(corpus, tiny_teacher, out))
    return shard_bytes(out)


def run(corpus: Path, teacher: Path, out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`logitcask annotate` with the settings of the local run."""
    return subprocess.run(command(corpus, teacher, out, *words), capture_output=True, text=True, timeout=200)


def check_same(finished: subprocess.CompletedProcess[str], out: Path, local: dict[str, bytes]) -> None:
    assert finished.returncode == 0, finished.stderr
    assert "Traceback" not in finished.stderr
    assert "WARNING" not in finished.stderr
    assert shard_bytes(out) == local
    assert load_snapshot(str(out)).complete
    assert verify(str(out)).faults == ()
    records = [read_record(str(path)) for path in out.glob("targets/*/*.json")]
    assert len(records) > 2
    assert {record.environment["num_threads"] for record in records} == {1}


def without_logitcask(directory: Path) -> str:
    """A PYTHONPATH whose processes cannot import logitcask."""
    (directory / "sitecustomize.py").write_text(WITHOUT_LOGITCASK)
    return str(directory)


def another_release(directory: Path) -> str:
    """A PYTHONPATH whose processes have another version of logitcask."""
    information = directory / "logitcask-0.0.1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: logitcask\nVersion: 0.0.1\n")
    return f"{directory}:{os.environ.get('PYTHONPATH', '')}"


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The options of a scheduler with two workers."""
    pytest.importorskip("distributed")
    directory = tmp_path_factory.mktemp("dask")
    with ExitStack() as stack:
        where = stack.enter_context(dask_scheduler(directory))
        for device in ("3", "5"):
            stack.enter_context(dask_workers(where, directory, "--no-nanny", CUDA_VISIBLE_DEVICES=device))
        yield where


def dask_words(where: list[str]) -> list[str]:
    return ["--runner", "dask", "--dask-scheduler", dask_address(where)]


def test_a_dask_cluster_writes_the_bytes_of_a_local_run(
    corpus: Path, tiny_teacher: Path, local: dict[str, bytes], tmp_path: Path, scheduler: list[str]
) -> None:
    finished = run(corpus, tiny_teacher, tmp_path / "out", *dask_words(scheduler))
    check_same(finished, tmp_path / "out", local)
    workers = ask_workers(dask_words(scheduler)[-1])
    assert sorted((worker.release, worker.num_threads, worker.visible_devices) for worker in workers) == [
        (release(), 1, "3"),
        (release(), 1, "5"),
    ]


@pytest.mark.parametrize(
    ("make_path", "found"),
    [
        (without_logitcask, "cannot import logitcask (No module named 'logitcask"),
        (another_release, "has logitcask '0.0.1+"),
    ],
)
def test_an_unsuitable_dask_worker_is_named_and_nothing_is_annotated(
    corpus: Path,
    tiny_teacher: Path,
    tmp_path: Path,
    scheduler: list[str],
    make_path: Callable[[Path], str],
    found: str,
) -> None:
    odd = ("--no-nanny", "--name", "odd")
    with dask_workers(scheduler, tmp_path / "scratch", *odd, PYTHONPATH=make_path(tmp_path)):
        from distributed import Client

        with Client(dask_address(scheduler), set_as_default=False) as client:
            client.wait_for_workers(3, timeout=60)
        finished = run(corpus, tiny_teacher, tmp_path / "out", *dask_words(scheduler))
    assert finished.returncode == 1
    assert found in finished.stderr
    assert "install the same wheel on all workers" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not shard_bytes(tmp_path / "out")


def portable_words(settings: dict[str, str]) -> list[str]:
    return [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", value)]


def test_a_job_service_writes_the_bytes_of_a_local_run_and_names_errors(
    corpus: Path, tiny_teacher: Path, local: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with job_service(tmp_path) as settings:
        words = portable_words(settings)
        check_same(run(corpus, tiny_teacher, out, *words), out, local)
        damaged = sorted(out.glob("tokens/train/*.parquet"))[0]
        damaged.write_bytes(damaged.read_bytes()[:-100])
        for file in out.glob("targets/train/*"):
            file.unlink()
        failed = run(corpus, tiny_teacher, out, *words)
    assert failed.returncode == 1
    assert damaged.name in failed.stderr
    assert "not a complete Parquet file" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_pool_workers_without_logitcask_are_reported(corpus: Path, tiny_teacher: Path, tmp_path: Path) -> None:
    with job_service(tmp_path, PYTHONPATH=without_logitcask(tmp_path)) as settings:
        failed = run(corpus, tiny_teacher, tmp_path / "out", *portable_words(settings))
    assert failed.returncode == 1
    assert "a worker cannot import logitcask (No module named 'logitcask" in failed.stderr
    assert "Traceback" not in failed.stderr
