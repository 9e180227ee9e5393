"""Workers that die at every point of a unit, on every runner: the job still writes the same bytes.

The teacher is a fake (`echo_scorer`), and the driver is this process unless it must die: otherwise these tests would
mostly import `transformers` in about fifty processes.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import echo_scorer
import pytest
from clusters import dask_address, dask_scheduler, dask_workers, end_group, group_members, job_service, wait_for
from object_store import Fault, environment, failing_proxy, s3_server
from small_job import command, files, run, settings, shard_bytes, words

from logitcask.pipeline.clean import clean
from logitcask.pipeline.commands import summary
from logitcask.pipeline.execution.background_run import UnitFailedError
from logitcask.schemas import fault_points, storage
from logitcask.schemas.dataset.snapshot import load_snapshot
from logitcask.schemas.errors import StoreAwayError
from logitcask.schemas.maintenance.verify import verify

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning:apache_beam")]

OUTAGE_SECONDS = 5.0
POINTS = ("read", "forward", "encode", "written", "committed", "recorded")
# Matches target shards, which only workers write, and not the driver's files.
PATTERNS = {"written": "[0-9]*-[0-9]*-*.parquet"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, english: str) -> Path:
    directory = tmp_path_factory.mktemp("corpus")
    lines = [json.dumps({"text": english[start : start + 300]}) for start in range(0, 15_000, 300)]
    (directory / "a.jsonl").write_text("\n".join(lines))
    return directory


@pytest.fixture(autouse=True)
def echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uses the fake teacher in this process and its children; only the children obey ordered faults."""
    echo_scorer.replace_teachers(monkeypatch)
    monkeypatch.setenv("PYTHONPATH", echo_scorer.processes_with_it(tmp_path / "site"))
    monkeypatch.setenv("LOGITCASK_FAULTS", str(tmp_path / "faults"))


@pytest.fixture(scope="module")
def undisturbed(corpus: Path, tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    with pytest.MonkeyPatch.context() as monkeypatch:
        echo_scorer.replace_teachers(monkeypatch)
        assert run(settings(corpus, tiny_teacher, out)).snapshot.complete
    return out


@pytest.fixture
def out(undisturbed: Path, tmp_path: Path) -> Path:
    """An output with a tokenized corpus and no annotated unit."""
    shutil.copytree(undisturbed, tmp_path / "out", ignore=shutil.ignore_patterns("targets", "snapshots"))
    return tmp_path / "out"


@pytest.fixture
def faults(tmp_path: Path) -> Path:
    (tmp_path / "faults").mkdir()
    return tmp_path / "faults"


def order(faults: Path, point: str, action: str = "kill", *, always: bool = False, pattern: str | None = None) -> None:
    """Orders a fault at a point, by an atomic rename because workers may be reading."""
    words = [action, pattern or PATTERNS.get(point, "*"), *(["always"] if always else [])]
    (faults / ".new").write_text(" ".join(words))
    (faults / ".new").rename(faults / point)


def reached(faults: Path, point: str) -> Counter[str]:
    """How often each unit reached a point."""
    lines = (line.split() for line in (faults / "log").read_text().splitlines())
    return Counter(name for where, name, _ in lines if where == point)


def check_undisturbed(out: Path | str, undisturbed: Path) -> None:
    """Checks that shards and snapshot equal those of an undisturbed run, and that `clean` removes all leftovers."""
    assert shard_bytes(out) == shard_bytes(undisturbed)
    assert verify(str(out)).faults == ()
    snapshot, expected = load_snapshot(str(out)), load_snapshot(str(undisturbed))
    assert snapshot.complete
    assert snapshot.num_documents_in == snapshot.total().num_documents + snapshot.num_rejected
    assert snapshot.shards_digest == expected.shards_digest
    clean(str(out), older_than=timedelta(0), dry_run=False)
    stray = files(out) ^ files(undisturbed)
    assert {path for path in stray if not path.startswith("snapshots/")} == set()


@contextmanager
def dask(directory: Path) -> Iterator[dict[str, Any]]:
    """A scheduler and two workers, each restarted by a nanny."""
    pytest.importorskip("distributed")
    with dask_scheduler(directory) as where, dask_workers(where, directory, "--nworkers", "2"):
        yield {"runner": "dask", "dask_scheduler": dask_address(where)}


def local(_: Path) -> AbstractContextManager[dict[str, Any]]:
    return nullcontext({"workers": 2})


@pytest.mark.parametrize("cluster", [local, dask, job_service])
def test_the_job_recovers_from_workers_killed_at_each_point(
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
    with cluster(tmp_path) as where:
        # The same unit may die each time by chance, which must not end this test.
        run(settings(corpus, tiny_teacher, out, attempts=9, unit_attempts=9, **where))
    assert not [point for point in POINTS if (faults / point).exists()]
    check_undisturbed(out, undisturbed)
    # Each of the six dead workers cost at most its current unit.
    begun = reached(faults, "read")
    assert begun.total() - len(begun) <= len(POINTS)


@pytest.fixture
def upload_killer(faults: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """S3 with a bucket that kills the first worker uploading a target shard; yields the name of that shard."""
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
def test_the_job_recovers_from_killed_workers_on_an_object_store(
    corpus: Path, tiny_teacher: Path, undisturbed: Path, out: Path, faults: Path, upload_killer: list[str]
) -> None:
    url = "s3://a-bucket/out"
    for name in files(out):
        storage.create(storage.join(url, name), (out / name).read_bytes())
    # An object exists whole or not at all: a killed upload is the closest equivalent of a temporary file.
    points = ("forward", "committed", "recorded")
    for point in points:
        order(faults, point)
    run(settings(corpus, tiny_teacher, url, attempts=9, unit_attempts=9, workers=2))
    assert not [point for point in points if (faults / point).exists()]
    assert len(upload_killer) == 1
    check_undisturbed(url, undisturbed)
    begun = reached(faults, "read")
    assert begun.total() - len(begun) <= len(points) + 1


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """S3 that drops every connection for some seconds after the second target shard; yields when it did so."""
    s3fs = pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    dropped: list[float] = []
    uploads: set[str] = set()

    def be_away(request: str, _: int) -> Fault | None:
        if request.startswith("PUT") and "/targets/" in request and ".parquet" in request:
            uploads.add(request)
        if len(uploads) < 2 or (dropped and time.monotonic() > dropped[0] + OUTAGE_SECONDS):
            return None
        dropped.append(time.monotonic())
        return "drop"

    with s3_server() as server, failing_proxy(server, be_away) as proxy:
        for name, value in environment(proxy).items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("a-bucket")
        yield dropped
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_outage_of_the_store_costs_its_time_and_no_attempt(
    corpus: Path,
    tiny_teacher: Path,
    undisturbed: Path,
    out: Path,
    outage: list[float],
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = "s3://a-bucket/out"
    for name in files(out):
        storage.create(storage.join(url, name), (out / name).read_bytes())
    run(settings(corpus, tiny_teacher, url, attempts=1, unit_attempts=1))
    assert outage[-1] - outage[0] > OUTAGE_SECONDS / 2
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2, messages
    assert messages[0].endswith("Waiting for it, up to 30 min")
    assert messages[1].startswith("the store answers again")
    check_undisturbed(url, undisturbed)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_outage_that_lasts_too_long_ends_the_job_with_a_store_error(
    corpus: Path, tiny_teacher: Path, out: Path, outage: list[float]
) -> None:
    url = "s3://a-bucket/out"
    for name in files(out):
        storage.create(storage.join(url, name), (out / name).read_bytes())
    with pytest.raises(StoreAwayError, match=r"s3://a-bucket/out/.*finished work is kept \(waited \d s\)"):
        run(settings(corpus, tiny_teacher, url, store_timeout=0.5))
    assert outage


def test_a_unit_that_kills_workers_is_quarantined_and_retried_on_request(
    corpus: Path, tiny_teacher: Path, undisturbed: Path, out: Path, faults: Path
) -> None:
    deadly = sorted(path.stem for path in undisturbed.glob("targets/train/*.json"))[1]
    order(faults, "encode", always=True, pattern=deadly)
    shown = summary(run(settings(corpus, tiny_teacher, out, workers=2, unit_attempts=2)))
    assert f"unit {deadly}: 2 workers died of it" in shown
    assert "'encode'" in shown
    assert "return code -9" in shown
    assert reached(faults, "encode")[deadly] == 2
    snapshot = load_snapshot(str(out))
    assert (snapshot.complete, snapshot.num_missing_units) == (False, 1)
    assert snapshot.total().num_shards == load_snapshot(str(undisturbed)).total().num_shards - 1
    # The same command skips it; with `retry_quarantined` it is retried.
    assert not run(settings(corpus, tiny_teacher, out, workers=2, unit_attempts=2)).snapshot.complete
    assert reached(faults, "encode")[deadly] == 2
    assert run(settings(corpus, tiny_teacher, out, retry_quarantined=True)).snapshot.complete
    check_undisturbed(out, undisturbed)


def test_a_unit_that_kills_the_driver_is_quarantined_for_killing_a_child(
    corpus: Path, tiny_teacher: Path, undisturbed: Path, out: Path, faults: Path
) -> None:
    deadly = sorted(path.stem for path in undisturbed.glob("targets/train/*.json"))[0]
    order(faults, "encode", always=True, pattern=deadly)
    words = command(corpus, tiny_teacher, out, "--unit-attempts", "2")
    assert subprocess.run(words, capture_output=True, timeout=200).returncode == -signal.SIGKILL
    survivor = subprocess.run(words, capture_output=True, text=True, timeout=200)
    assert survivor.returncode == 1, survivor.stderr
    assert f"unit {deadly}: 2 workers died of it" in survivor.stdout
    assert reached(faults, "encode")[deadly] == 3
    snapshot = load_snapshot(str(out))
    assert (snapshot.complete, snapshot.num_missing_units) == (False, 1)


def test_a_job_killed_twenty_times_as_a_whole_is_then_completed(
    corpus: Path, tiny_teacher: Path, undisturbed: Path, tmp_path: Path, faults: Path
) -> None:
    out = tmp_path / "out"
    program = Path(__file__).parents[2] / "support/killed_jobs.py"
    killed = subprocess.run(
        [sys.executable, program, "20", "0", *words(corpus, tiny_teacher, out, "--unit-attempts", "1")],
        capture_output=True,
        text=True,
        timeout=280,
    )
    num_hit, num_holding = map(int, killed.stdout.split())
    assert num_hit >= 10, killed.stderr
    assert num_holding >= 2
    result = run(settings(corpus, tiny_teacher, out, unit_attempts=1))
    assert result.quarantined == {}
    check_undisturbed(out, undisturbed)


def test_a_hung_unit_ends_its_worker_and_is_retried(
    corpus: Path,
    tiny_teacher: Path,
    undisturbed: Path,
    out: Path,
    faults: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # On a busy machine this import alone can exceed the unit's time limit.
    echo_scorer.processes_with_it(tmp_path / "site", "torch")
    order(faults, "encode", "hang")
    run(settings(corpus, tiny_teacher, out, workers=2, unit_timeout=5.0))
    assert "no progress for 5 s at 'encode'" in caplog.text
    check_undisturbed(out, undisturbed)


def test_a_worker_that_is_stopped_and_continued_costs_nothing(
    corpus: Path,
    tiny_teacher: Path,
    undisturbed: Path,
    out: Path,
    faults: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # On a busy machine this import alone can exceed the unit's time limit.
    echo_scorer.processes_with_it(tmp_path / "site", "torch")
    stopped: list[int] = []

    def stop_and_continue() -> None:
        wait_for(lambda: (faults / "log").exists() and "forward" in (faults / "log").read_text(), 200)
        lines = [line.split() for line in (faults / "log").read_text().splitlines()]
        stopped.append(next(int(pid) for point, _, pid in lines if point == "forward"))
        os.kill(stopped[0], signal.SIGSTOP)
        time.sleep(6.0)
        os.kill(stopped[0], signal.SIGCONT)

    signals = threading.Thread(target=stop_and_continue)
    signals.start()
    run(settings(corpus, tiny_teacher, out, workers=2, attempts=1, unit_attempts=1, unit_timeout=5.0))
    signals.join()
    assert stopped
    assert not caplog.records
    check_undisturbed(out, undisturbed)


def test_a_second_interrupt_ends_a_job_that_hangs(
    corpus: Path, tiny_teacher: Path, undisturbed: Path, out: Path, faults: Path
) -> None:
    order(faults, "encode", "hang")
    job = subprocess.Popen(
        command(corpus, tiny_teacher, out, "--workers", "2"),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell that runs the tests in the background ignores Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        wait_for(lambda: not (faults / "encode").exists(), 200)
        job.send_signal(signal.SIGINT)
        assert job.stderr is not None
        assert any("interrupt again to stop now" in line for line in job.stderr)
        job.send_signal(signal.SIGINT)
        _, stderr = job.communicate(timeout=60)
        assert (job.returncode, "Traceback" in stderr) == (130, False), stderr
        wait_for(lambda: not group_members(job.pid), 30)
    finally:
        end_group(job)
    assert run(settings(corpus, tiny_teacher, out)).quarantined == {}
    check_undisturbed(out, undisturbed)


def test_a_unit_that_hangs_in_the_driver_ends_the_job(
    corpus: Path, tiny_teacher: Path, undisturbed: Path, out: Path, faults: Path
) -> None:
    order(faults, "encode", "hang")
    words = command(corpus, tiny_teacher, out, "--unit-timeout", "5")
    hung = subprocess.run(words, capture_output=True, text=True, timeout=200)
    assert hung.returncode == 1, hung.stderr
    assert "no progress for 5 s at 'encode'" in hung.stderr
    [lease] = out.glob("attempts/*")
    assert "threading.Event().wait()" in lease.read_text()
    run(settings(corpus, tiny_teacher, out))
    check_undisturbed(out, undisturbed)


def test_a_full_disk_is_named_and_the_job_resumes_when_there_is_space(
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
        run(settings(corpus, tiny_teacher, out))
    (faults / "written").unlink()
    run(settings(corpus, tiny_teacher, out))
    check_undisturbed(out, undisturbed)


def test_workers_of_a_killed_driver_end_and_two_drivers_then_finish(
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
