"""Leases: held while a worker runs, kept when it dies; a hung unit ends its worker but not the driver."""

import json
import os
import signal
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from logitcask.pipeline.units import leases
from logitcask.pipeline.units.leases import (
    DriverHungError,
    Lease,
    UnitLimits,
    dead_leases,
    hold_lease,
    quarantined_units,
    this_process,
)


def never(_: Exception) -> None:
    raise AssertionError("nothing hangs here")


def stored_leases(out: Path) -> list[Lease]:
    return [Lease(**json.loads(path.read_text())) for path in sorted((out / "attempts").glob("*.json"))]


def dead_process() -> str:
    """The name in leases of a process of this machine that has ended."""
    code = "from logitcask.pipeline.units.leases import this_process; print(this_process())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("error", [None, ValueError("bad")])
def test_a_lease_is_removed_when_its_unit_ends_even_with_an_error(tmp_path: Path, error: Exception | None) -> None:
    limits = UnitLimits(out=str(tmp_path))
    try:
        with hold_lease("u", limits, never):
            leases.report_phase("forward", "u")
            [lease] = stored_leases(tmp_path)
            assert (lease.unit, lease.phase, lease.process) == ("u", "forward", this_process())
            assert dead_leases(str(tmp_path)) == {}
            if error is not None:
                raise error
    except ValueError:
        pass
    assert stored_leases(tmp_path) == []


def test_the_lease_of_a_killed_worker_keeps_its_last_phase(tmp_path: Path) -> None:
    code = f"""
from logitcask.pipeline.units import leases
with leases.hold_lease("u", leases.UnitLimits(out={str(tmp_path)!r}), print):
    leases.report_phase("encode", "u")
"""
    (tmp_path / "faults").mkdir()
    (tmp_path / "faults/encode").write_text("kill")
    environment = {**os.environ, "LOGITCASK_FAULTS": str(tmp_path / "faults")}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == -signal.SIGKILL
    [lease] = dead_leases(str(tmp_path))["u"]
    assert (lease.phase, lease.ending) == ("encode", None)
    leases.record_endings(str(tmp_path), "return code -9")
    assert dead_leases(str(tmp_path))["u"][0].describe().endswith("died at 'encode': return code -9")


def test_a_unit_is_quarantined_until_its_leases_are_removed(tmp_path: Path, leave_lease: Any) -> None:
    limits = UnitLimits(out=str(tmp_path), attempts=2)
    leave_lease("u", "elsewhere:7:100", 0)
    leave_lease("v", "elsewhere:7:100", 0)
    leave_lease("v", "elsewhere:7:200", 1)
    assert list(quarantined_units(str(tmp_path), limits)) == ["v"]
    with hold_lease("w", limits, never):
        assert leases.remove_dead_leases(str(tmp_path)) == 3
        assert [lease.unit for lease in stored_leases(tmp_path)] == ["w"]
    assert quarantined_units(str(tmp_path), limits) == {}


def test_a_reused_process_number_does_not_make_a_lease_active(tmp_path: Path, leave_lease: Any) -> None:
    host, pid, _ = this_process().rsplit(":", 2)
    leave_lease("u", f"{host}:{pid}:1", 0)
    leave_lease("u", f"{host}:{os.getppid()}:1", 1)
    leave_lease("u", dead_process(), 2)
    leave_lease("u", this_process(), 3)
    assert len(dead_leases(str(tmp_path), "u")["u"]) == 3


def test_a_zombie_process_counts_as_dead(tmp_path: Path, leave_lease: Any) -> None:
    code = (
        "from logitcask.pipeline.units.leases import this_process; import os; "
        "print(this_process(), flush=True); os.abort()"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    leave_lease("u", child.stdout.readline().strip())
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert list(dead_leases(str(tmp_path))) == ["u"]
    child.communicate()


def test_a_unit_without_progress_ends_its_worker_and_records_the_stack(tmp_path: Path) -> None:
    code = f"""
import threading
from logitcask.pipeline.units import leases
limits = leases.UnitLimits(out={str(tmp_path)!r}, timeout_seconds=0.3)
with leases.hold_lease("u", limits, lambda error: print(type(error).__name__, error, flush=True)):
    leases.report_phase("forward", "u")
    threading.Event().wait()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert ended.stdout == "UnitHungError no progress for 0.3 s at 'forward'\n"
    [lease] = dead_leases(str(tmp_path))["u"]
    assert lease.ending is not None
    assert "no progress for 0.3 s at 'forward'" in lease.ending
    assert "in wait" in lease.ending


def test_progress_restarts_the_limit_and_a_hung_driver_reports_it(tmp_path: Path) -> None:
    reported = threading.Event()
    errors: list[Exception] = []

    def on_hang(error: Exception) -> None:
        errors.append(error)
        reported.set()

    limits = UnitLimits(out=str(tmp_path), timeout_seconds=0.4, driver=this_process())
    with hold_lease("u", limits, on_hang):
        for _ in range(8):
            assert not reported.wait(0.1)
            leases.report_progress()
        assert reported.wait(30)
    assert isinstance(errors[0], DriverHungError)


def test_a_process_that_ends_on_purpose_leaves_no_lease(tmp_path: Path) -> None:
    with hold_lease("u", UnitLimits(out=str(tmp_path)), never):
        leases.release_leases()
        assert stored_leases(tmp_path) == []
        leases.wait_until_idle()


def test_active_leases_are_of_live_or_recent_processes(tmp_path: Path, leave_lease: Any) -> None:
    leave_lease("gone", dead_process(), 0)
    leave_lease("old", "elsewhere:7:1", 0)
    leave_lease("new", "elsewhere:7:1", 0, started_at="2999-01-01T00:00:00+00:00")
    leave_lease("here", this_process(), 0)
    active = leases.active_leases(str(tmp_path), timedelta(hours=1))
    assert sorted(lease.unit for lease in active) == ["here", "new"]
