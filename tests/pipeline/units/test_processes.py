"""Names of processes: alive, gone, replaced by another with the same number, or out of sight."""

import os
import subprocess
import sys

import pytest

from logitcask.pipeline.units import processes
from logitcask.pipeline.units.processes import describe_process, runs, this_process

SHOW = "from logitcask.pipeline.units.processes import this_process; print(this_process(), flush=True)"


def test_this_process_runs_and_an_ended_one_does_not() -> None:
    ended = subprocess.run([sys.executable, "-c", SHOW], capture_output=True, text=True, check=True).stdout.strip()
    assert runs(this_process()) is True
    assert runs(ended) is False


def test_a_process_with_a_reused_number_is_another_one() -> None:
    host, machine, pid, _ = this_process().split(":")
    assert runs(f"{host}:{machine}:{pid}:1") is False
    assert runs(f"{host}:{machine}:{os.getppid()}:1") is False


def test_a_zombie_does_not_run() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", f"{SHOW}; import os; os.abort()"], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    name = child.stdout.readline().strip()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert runs(name) is False
    child.communicate()


@pytest.mark.parametrize("name", ["elsewhere:0123456789ab:7:100", "elsewhere:7:100", "", "a:b:c:d:e"])
def test_nothing_is_known_of_processes_of_other_machines(name: str) -> None:
    assert runs(name) is None


def test_a_machine_that_started_again_is_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    name = this_process()
    monkeypatch.setattr(processes, "_machine", lambda: "after-reboot")
    assert runs(name) is None


def test_people_see_host_and_number() -> None:
    assert describe_process("node7:0123456789ab:42:100") == describe_process("node7:42:100") == "node7:42"
    assert describe_process("odd") == "odd"
