"""Workers that die at every point of a unit, on every runner: a re-run finishes the job, byte for byte.

The teacher is a fake (`echo_scorer`), and the driver is this process wherever it is not to die: importing
`transformers` in each of some fifty processes would be all that these tests do.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import echo_scorer
import pytest
from clusters import dask_address, dask_scheduler, dask_workers, end_group, job_service, wait_for
from object_store import Fault, environment, failing_proxy, s3_server

from logitcask.pipeline.clean import clean
from logitcask.pipeline.commands import summary
from logitcask.pipeline.config import AnnotateConfig
from logitcask.pipeline.execution.background_run import UnitFailedError
from logitcask.pipeline.job import JobResult, annotate
from logitcask.schemas import fault_points, storage
from logitcask.schemas.dataset.snapshot import load_snapshot
from logitcask.schemas.maintenance.verify import verify

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning:apache_beam")]

POINTS = ("read", "forward", "encode", "written", "committed", "recorded")
# Reached with a target shard's name by workers only, not by the driver with its own files.
PATTERNS = {"written": "[0-9]*-[0-9]*-*.parquet"}
SETTINGS = {"window": 64, "shard_tokens": 512, "batch_tokens": 128, "threads": 1, "device": "cpu", "held_out": 0.2}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, english: str) -> Path:
    directory = tmp_path_factory.mktemp("corpus")
    lines = [json.dumps({"text": english[start : start + 300]}) for start in range(0, 15_000, 300)]
    (directory / "a.jsonl").write_text("\n".join(lines))
    return directory


@pytest.fixture(autouse=True)
def echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake teacher, here and in all processes that are started; those look for orders, this one does not."""
    echo_scorer.replace_teachers(monkeypatch)
    monkeypatch.setenv("PYTHONPATH", echo_scorer.processes_with_it(tmp_path / "site"))
    monkeypatch.setenv("LOGITCASK_FAULTS", str(tmp_path / "faults"))


@pytest.fixture(scope="module")
def undisturbed(corpus: Path, tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    with pytest.MonkeyPatch.context() as monkeypatch:
        echo_scorer.replace_teachers(monkeypatch)
        assert run(corpus, tiny_teacher, out).snapshot.complete
    return out


@pytest.fixture
def out(undisturbed: Path, tmp_path: Path) -> Path:
    """An output whose corpus is tokenised, and of which nothing is annotated."""
    shutil.copytree(undisturbed, tmp_path / "out", ignore=shutil.ignore_patterns("targets", "snapshots"))
    return tmp_path / "out"


@pytest.fixture
def faults(tmp_path: Path) -> Path:
    (tmp_path / "faults").mkdir()
    return tmp_path / "faults"


def run(corpus: Path, teacher: Path, out: Path | str, **settings: Any) -> JobResult:
    """The job, driven by this process."""
    config = AnnotateConfig(corpus=(str(corpus),), teacher=str(teacher), out=str(out), **{**SETTINGS, **settings})
    return annotate(config, quiet=True)


def command(corpus: Path, teacher: Path, out: Path, *more: str) -> list[str]:
    """The job as a command, whose process may die."""
    words = ["annotate", str(corpus), "--teacher", str(teacher), "--out", str(out), *more]
    words += [word for name, value in SETTINGS.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return [sys.executable, "-c", f"from logitcask.schemas.cli import console; console({words!r})"]


def order(faults: Path, point: str, action: str = "kill", *, always: bool = False, pattern: str | None = None) -> None:
    """Leaves an order, whole at once: workers may be looking."""
    words = [action, pattern or PATTERNS.get(point, "*"), *(["always"] if always else [])]
    (faults / ".new").write_text(" ".join(words))
    (faults / ".new").rename(faults / point)


def reached(faults: Path, point: str) -> Counter[str]:
    """How often each unit got to a point."""
    lines = (line.split() for line in (faults / "log").read_text().splitlines())
    return Counter(name for where, name, _ in lines if where == point)


def shards(out: Path | str) -> dict[str, bytes]:
    """The token and target shards."""
    names = sorted(name for name in files(out) if name.startswith("t") and name.endswith(".parquet"))
    return {name: storage.read_bytes(storage.join(str(out), name)) for name in names}


def check_undisturbed(out: Path | str, undisturbed: Path) -> None:
    """Every byte is as if nothing had happened, in one complete snapshot, and `clean` leaves nothing behind."""
    assert shards(out) == shards(undisturbed)
    assert verify(str(out)).faults == ()
    snapshot, expected = load_snapshot(str(out)), load_snapshot(str(undisturbed))
    assert snapshot.complete
    assert snapshot.num_documents_in == snapshot.total().num_documents + snapshot.num_rejected
    assert snapshot.shards_digest == expected.shards_digest
    clean(str(out), older_than=timedelta(0), dry_run=False)
    stray = files(out) ^ files(undisturbed)
    assert {path for path in stray if not path.startswith("snapshots/")} == set()


def files(out: Path | str) -> set[str]:
    """Every file of a dataset, temporaries included."""
    fs, root = storage.filesystem(str(out))
    return {str(name).removeprefix(root).lstrip("/") for name in fs.find(root)}


@contextmanager
def dask(directory: Path) -> Iterator[dict[str, Any]]:
    """A scheduler and two workers, each under a nanny that starts it again."""
    pytest.importorskip("distributed")
    with dask_scheduler(directory) as where, dask_workers(where, directory, "--nworkers", "2"):
        yield {"runner": "dask", "dask_scheduler": dask_address(where)}


def local(_: Path) -> AbstractContextManager[dict[str, Any]]:
    return nullcontext({"workers": 2})


@pytest.mark.parametrize("cluster", [local, dask, job_service])
def test_workers_killed_at_each_point_are_made_good_by_the_job_itself(
    corpus: Path,
    tiny_teacher: Path,
    undisturbed: Path,
    out: Path,
    faults: Path,
    tmp_path: Path,
    cluster: Callable[[Path], AbstractContextManager[dict[str, Any]]],
) -> None:
    for point in POINTS:
        order(faults, point)
    with cluster(tmp_path) as settings:
        # Chance may let the same unit die each time; that is not what is looked at here.
        run(corpus, tiny_teacher, out, attempts=9, unit_attempts=9, **settings)
    assert not [point for point in POINTS if (faults / point).exists()]
    check_undisturbed(out, undisturbed)
    # Each of the six dead cost at most the unit it had.
    begun = reached(faults, "read")
    assert begun.total() - len(begun) <= len(POINTS)


@pytest.fixture
def upload_killer(faults: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """S3, with a bucket, where the first worker to upload a target shard is killed meanwhile; gives that upload."""
    s3fs = pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    killed: list[str] = []

    def kill_uploader(request: str, _: int) -> Fault | None:
        method, path = request.split(maxsplit=1)
        if method != "PUT" or "/targets/" not in path or ".parquet" not in path or killed:
            return None
        killed.append(Path(path.partition("?")[0]).stem)
        lines = (line.split() for line in (faults / "log").read_text().splitlines())
        os.kill(next(int(pid) for point, name, pid in lines if (point, name) == ("encode", killed[0])), signal.SIGKILL)
        return "drop"

    with s3_server() as server, failing_proxy(server, kill_uploader) as proxy:
        for name, value in environment(proxy).items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("a-bucket")
        yield killed
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_workers_killed_while_the_output_is_in_an_object_store_are_made_good(
    corpus: Path, tiny_teacher: Path, undisturbed: Path, out: Path, faults: Path, upload_killer: list[str]
) -> None:
    url = "s3://a-bucket/out"
    for name in files(out):
        storage.create(storage.join(url, name), (out / name).read_bytes())
    # An object is there whole or not at all: a killed upload is what comes nearest to a temporary.
    points = ("forward", "committed", "recorded")
    for point in points:
        order(faults, point)
    run(corpus, tiny_teacher, url, attempts=9, unit_attempts=9, workers=2)
    assert not [point for point in points if (faults / point).exists()]
    assert len(upload_killer) == 1
    check_undisturbed(url, undisturbed)
    begun = reached(faults, "read")
    assert begun.total() - len(begun) <= len(points) + 1


def test_a_poison_unit_is_set_aside_with_its_evidence_and_tried_again_on_demand(
    corpus: Path, tiny_teacher: Path, undisturbed: Path, out: Path, faults: Path
) -> None:
    poison = sorted(path.stem for path in undisturbed.glob("targets/train/*.json"))[1]
    order(faults, "encode", always=True, pattern=poison)
    told = summary(run(corpus, tiny_teacher, out, workers=2, unit_attempts=2))
    assert f"unit {poison}: 2 workers died of it" in told
    assert "'encode'" in told
    assert "return code -9" in told
    assert reached(faults, "encode")[poison] == 2
    snapshot = load_snapshot(str(out))
    assert (snapshot.complete, snapshot.num_missing_units) == (False, 1)
    assert snapshot.total().num_shards == load_snapshot(str(undisturbed)).total().num_shards - 1
    # The same command leaves it aside; asked to, it tries again.
    assert not run(corpus, tiny_teacher, out, workers=2, unit_attempts=2).snapshot.complete
    assert reached(faults, "encode")[poison] == 2
    assert run(corpus, tiny_teacher, out, retry_quarantined=True).snapshot.complete
    check_undisturbed(out, undisturbed)


def test_a_hung_unit_ends_its_worker_and_is_tried_again(
    corpus: Path,
    tiny_teacher: Path,
    undisturbed: Path,
    out: Path,
    faults: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # On a busy machine this import alone takes longer than the unit may.
    echo_scorer.processes_with_it(tmp_path / "site", "torch")
    order(faults, "encode", "hang")
    run(corpus, tiny_teacher, out, workers=2, unit_timeout=5.0)
    assert "no progress for 5 s at 'encode'" in caplog.text
    check_undisturbed(out, undisturbed)


def test_a_unit_that_hangs_in_the_driver_s_own_process_ends_the_job(
    corpus: Path, tiny_teacher: Path, undisturbed: Path, out: Path, faults: Path
) -> None:
    order(faults, "encode", "hang")
    words = command(corpus, tiny_teacher, out, "--unit-timeout", "5")
    hung = subprocess.run(words, capture_output=True, text=True, timeout=200)
    assert hung.returncode == 1, hung.stderr
    assert "no progress for 5 s at 'encode'" in hung.stderr
    [mark] = out.glob("attempts/*")
    assert "threading.Event().wait()" in mark.read_text()
    run(corpus, tiny_teacher, out)
    check_undisturbed(out, undisturbed)


def test_a_full_disk_is_named_and_the_job_goes_on_when_there_is_room(
    corpus: Path,
    tiny_teacher: Path,
    undisturbed: Path,
    out: Path,
    faults: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fault_points, "_DIRECTORY", str(faults))
    order(faults, "written", "full", always=True)
    with pytest.raises(UnitFailedError, match=r"No space left on device.*run the same command again"):
        run(corpus, tiny_teacher, out)
    (faults / "written").unlink()
    run(corpus, tiny_teacher, out)
    check_undisturbed(out, undisturbed)


def test_workers_of_a_killed_driver_end_and_two_drivers_then_finish_at_once(
    corpus: Path, tiny_teacher: Path, undisturbed: Path, out: Path, faults: Path
) -> None:
    order(faults, "encode", "hang")
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    driver = subprocess.Popen(command(corpus, tiny_teacher, out, "--workers", "2"), **quiet)
    try:
        wait_for(lambda: not (faults / "encode").exists(), 200)
        driver.kill()
        driver.wait(timeout=30)
        wait_for(lambda: not group_members(driver.pid), 30)
    finally:
        end_group(driver)
    both = [subprocess.Popen(command(corpus, tiny_teacher, out), **quiet) for _ in range(2)]
    assert [process.wait(timeout=200) for process in both] == [0, 0]
    check_undisturbed(out, undisturbed)


def group_members(group: int) -> list[str]:
    listed = subprocess.run(["ps", "-o", "pid=,stat=", "-g", str(group)], capture_output=True, text=True).stdout
    return [line for line in listed.splitlines() if " Z" not in line]
