"""Leases: held while a worker runs, kept when it dies; a hung unit ends its worker but not the driver."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from logitcask.pipeline.units import leases
from logitcask.pipeline.units.leases import DriverHungError, Lease, UnitLimits, hold_lease
from logitcask.pipeline.units.processes import runs, this_process
from logitcask.schemas import outages, storage
from logitcask.schemas.errors import StoreAwayError


def never(_: Exception) -> None:
    raise AssertionError("nothing hangs here")


def stored_leases(out: Path) -> list[Lease]:
    return [Lease(**json.loads(path.read_text())) for path in sorted((out / "attempts").glob("*.json"))]


@pytest.mark.parametrize("error", [None, ValueError("bad")])
def test_a_lease_is_removed_when_its_unit_ends_even_with_an_error(tmp_path: Path, error: Exception | None) -> None:
    limits = UnitLimits(out=str(tmp_path))
    try:
        with hold_lease("u", limits, never):
            leases.report_phase("forward", "u")
            [lease] = stored_leases(tmp_path)
            assert (lease.unit, lease.phase, lease.process) == ("u", "forward", this_process())
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
    [lease] = stored_leases(tmp_path)
    assert (lease.phase, lease.ending, runs(lease.process)) == ("encode", None, False)


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
    [lease] = stored_leases(tmp_path)
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


def test_a_held_lease_changes_while_its_worker_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beaten = threading.Event()
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(leases, "_beating_pid", None)
    update = leases._HeldLease.update
    monkeypatch.setattr(leases._HeldLease, "update", lambda self, **changes: (update(self, **changes), beaten.set()))
    with hold_lease("u", UnitLimits(out=str(tmp_path)), never):
        assert beaten.wait(30)
        assert stored_leases(tmp_path)[0].beats > 0
        [held] = leases._held.values()
    held.update(phase="forward")
    assert stored_leases(tmp_path) == []


def test_a_stopped_process_is_no_hung_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]

    class Released(threading.Event):
        """Each wait of 1 s takes 1,000 s, as after SIGSTOP and SIGCONT; the third is the last."""

        num_waits = 0

        def wait(self, timeout: float | None = None) -> bool:
            clock[0] += 1000
            self.num_waits += 1
            return self.num_waits > 3

    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    limits = UnitLimits(out=str(tmp_path), timeout_seconds=60)
    lease = Lease(unit="u", process=this_process(), started_at="")
    held = leases._HeldLease(url=str(tmp_path / "u"), lease=lease, thread=0, progressed_seconds=clock[0])
    leases._end_if_hung(held, limits, Released(), never)
    assert not (tmp_path / "u").exists()


def test_a_store_that_is_away_does_not_end_a_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def be_away(*_: object) -> None:
        raise StoreAwayError("away")

    with outages.store_timeout(0), hold_lease("u", UnitLimits(out=str(tmp_path)), never):
        monkeypatch.setattr(storage, "replace", be_away)
        monkeypatch.setattr(storage, "remove", be_away)
        leases.report_phase("forward", "u")
