"""Workers of one machine: each has a place, a GPU and a share of the threads; each warning is logged once."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from logitcask.pipeline.environment import default_threads
from logitcask.pipeline.runners.local_workers import (
    WarningFile,
    check_devices,
    device_of,
    take_place,
    visible_devices,
    worker_command,
)
from logitcask.schemas.errors import UsageError

TAKE = "import sys; from pathlib import Path; from logitcask.pipeline.runners.local_workers import take_place; "
TAKE += "print(take_place(Path(sys.argv[1])), flush=True); sys.stdin.read()"


def start(directory: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", TAKE, str(directory)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def place_of(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def end(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        process.communicate()


def test_live_workers_have_different_places_and_a_dead_one_frees_its_place(tmp_path: Path) -> None:
    first, second = start(tmp_path), start(tmp_path)
    assert sorted([place_of(first), place_of(second)]) == [0, 1]
    assert take_place(tmp_path) == 2
    first.kill()
    end(first)
    third = start(tmp_path)
    assert place_of(third) in (0, 1)
    end(second, third)


@pytest.mark.parametrize(("place", "devices", "expected"), [(0, "4,5", "4"), (1, "4,5", "5"), (2, "4,5", "4")])
def test_places_get_gpus_in_turn(place: int, devices: str, expected: str) -> None:
    assert device_of(place, devices) == expected


def test_without_gpus_a_place_gets_none() -> None:
    assert device_of(3, "") is None


def test_gpus_are_those_the_driver_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-ab")
    assert visible_devices() == ["2", "GPU-ab"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_devices() == []


@pytest.mark.parametrize(
    ("device", "num_workers", "visible"), [("cpu", 8, []), ("cuda", 2, ["0", "1"]), ("cuda:1", 1, ["0", "1"])]
)
def test_as_many_workers_as_gpus_are_accepted(device: str, num_workers: int, visible: list[str]) -> None:
    check_devices(device, num_workers, visible)


@pytest.mark.parametrize(("device", "match"), [("cuda", "its own GPU, and 1"), ("cuda:0", "share one GPU")])
def test_workers_that_would_share_a_gpu_are_refused(device: str, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        check_devices(device, 2, ["0"])


def test_workers_divide_the_threads_and_have_at_least_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    assert [default_threads(workers) for workers in (1, 2, 4, 9)] == [6, 3, 1, 1]


def test_a_warning_of_several_workers_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with worker_command() as command:
        directory = Path(command.split("LOGITCASK_WORKERS=")[1].split()[0])
        logger = logging.Logger("logitcask.teacher.scoring.huggingface")
        # Two handlers represent two processes: they share only the directory.
        logger.handlers = [WarningFile(directory), WarningFile(directory)]
        logger.warning("each document runs %s", "alone")
        logger.warning("another")
    assert sorted(caplog.messages) == ["another", "each document runs alone"]
    assert {record.name for record in caplog.records} == {"logitcask.teacher.scoring.huggingface"}
