"""The local runner with real processes: the same bytes with any number of workers, also after one is killed."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from clusters import group_members, wait_for
from small_job import command, shard_bytes

from logitcask.schemas.dataset.snapshot import load_snapshot
from logitcask.schemas.maintenance.verify import verify

pytestmark = pytest.mark.slow

# Python imports a module of this name when it starts, which changes worker processes without a hook in the product.
SABOTAGE = """
import os, signal, time
from logitcask.pipeline.annotation import annotate_unit

encode, advance = annotate_unit.encode_unit, annotate_unit.Heartbeats.advance

def encode_unit(*arguments):
    try:
        os.close(os.open(os.environ["KILL_ONCE"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return encode(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)

def slow_advance(self, amount):
    time.sleep(float(os.environ["SLOW_SECONDS"]))
    advance(self, amount)

if "KILL_ONCE" in os.environ:
    annotate_unit.encode_unit = encode_unit
if "SLOW_SECONDS" in os.environ:
    annotate_unit.Heartbeats.advance = slow_advance
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, english: str) -> Path:
    directory = tmp_path_factory.mktemp("corpus")
    lines = [json.dumps({"text": english[start : start + 300]}) for start in range(0, 12_000, 300)]
    (directory / "a.jsonl").write_text("\n".join(lines))
    return directory


@pytest.fixture(scope="module")
def undisturbed(corpus: Path, tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    finished = subprocess.run(command(corpus, tiny_teacher, out), capture_output=True, text=True, timeout=200)
    assert finished.returncode == 0, finished.stderr
    return out


def sabotage(directory: Path, **switches: str) -> dict[str, str]:
    """An environment whose Python processes fail as the switches say."""
    (directory / "sitecustomize.py").write_text(SABOTAGE)
    return {**os.environ, "PYTHONPATH": str(directory), **switches}


def check_undisturbed(out: Path, undisturbed: Path) -> None:
    assert shard_bytes(out) == shard_bytes(undisturbed)
    assert load_snapshot(str(out)).complete
    assert verify(str(out)).faults == ()
    assert not list(out.rglob(".tmp-*"))


def test_two_workers_write_the_same_bytes_as_one(
    corpus: Path, tiny_teacher: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    finished = subprocess.run(
        command(corpus, tiny_teacher, out, "--workers", "2"), capture_output=True, text=True, timeout=200
    )
    assert finished.returncode == 0, finished.stderr
    assert "Traceback" not in finished.stderr
    assert "WARNING" not in finished.stderr
    check_undisturbed(out, undisturbed)


def test_a_killed_worker_fails_the_job_and_a_second_run_finishes_it(
    corpus: Path, tiny_teacher: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    environment = sabotage(tmp_path, KILL_ONCE=str(tmp_path / "killed"))
    both = command(corpus, tiny_teacher, out, "--workers", "2", "--attempts", "1")
    killed = subprocess.run(both, capture_output=True, text=True, timeout=200, env=environment)
    assert killed.returncode == 1, killed.stderr
    assert "a worker died" in killed.stderr
    assert "run the same command again" in killed.stderr
    assert "Traceback" not in killed.stderr
    assert (tmp_path / "killed").exists()
    finished = subprocess.run(both, capture_output=True, text=True, timeout=200, env=environment)
    assert finished.returncode == 0, finished.stderr
    check_undisturbed(out, undisturbed)


def test_a_second_attempt_finishes_the_unit_of_a_killed_worker(
    corpus: Path, tiny_teacher: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    finished = subprocess.run(
        command(corpus, tiny_teacher, out, "--workers", "2", "--attempts", "2"),
        capture_output=True,
        text=True,
        timeout=250,
        env=sabotage(tmp_path, KILL_ONCE=str(tmp_path / "killed")),
    )
    assert finished.returncode == 0, finished.stderr
    assert "attempt 1 of 2 failed: a worker died" in finished.stderr
    check_undisturbed(out, undisturbed)


@pytest.mark.parametrize(("stop", "workers"), [(signal.SIGINT, "1"), (signal.SIGTERM, "2")])
def test_a_signal_ends_all_processes_and_the_job_can_be_resumed(
    corpus: Path, tiny_teacher: Path, undisturbed: Path, tmp_path: Path, stop: signal.Signals, workers: str
) -> None:
    out = tmp_path / "out"
    words = command(corpus, tiny_teacher, out, "--workers", workers)
    environment = sabotage(tmp_path, SLOW_SECONDS="0.5")
    process = subprocess.Popen(
        words,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
        # A shell that runs the tests in the background ignores Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_for(lambda: list(out.glob("targets/*/*.json")))
    process.send_signal(stop)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "stopping after the current batch" in stderr
    assert "Traceback" not in stderr
    wait_for(lambda: not group_members(process.pid))
    assert len(list(out.glob("targets/*/*.json"))) < len(list(undisturbed.glob("targets/*/*.json")))
    assert subprocess.run(words, capture_output=True, timeout=200).returncode == 0
    check_undisturbed(out, undisturbed)
