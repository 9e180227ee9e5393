"""Evidence: what counts against a unit, what only makes it suspected, and how deaths are noticed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from logitcask.pipeline.units import evidence
from logitcask.pipeline.units.evidence import (
    STALE_SECONDS,
    DeathWatch,
    active_leases,
    deaths,
    quarantined_units,
    remove_dead_leases,
    suspected_units,
)
from logitcask.pipeline.units.leases import Lease, UnitLimits
from logitcask.pipeline.units.processes import this_process

DRIVER = this_process()
ELSEWHERE = "elsewhere:0123456789ab:7:100"
KILLED = "return code -9"


@pytest.fixture(scope="module")
def gone() -> str:
    """A process of this machine that has ended."""
    code = "from logitcask.pipeline.units.processes import this_process; print(this_process())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def stored(out: Path, unit: str) -> Lease:
    [path] = out.glob(f"attempts/{unit}~*.json")
    return Lease(**json.loads(path.read_text()))


def test_only_deaths_that_a_driver_saw_count(tmp_path: Path, leave_lease: Any, gone: str) -> None:
    leave_lease("seen", ELSEWHERE, ending=KILLED)
    leave_lease("both-died", gone, driver=gone)
    leave_lease("mine", gone, driver=DRIVER)
    leave_lease("out-of-sight", ELSEWHERE, driver=DRIVER)
    leave_lease("alive", DRIVER, driver=DRIVER)
    leave_lease("earlier-release", "elsewhere:7:100")
    assert deaths(str(tmp_path), DRIVER).keys() == {"seen", "mine"}
    assert suspected_units(str(tmp_path), DRIVER) == {"seen", "both-died", "earlier-release"}


def test_a_unit_is_quarantined_until_its_leases_are_removed(tmp_path: Path, leave_lease: Any) -> None:
    limits = UnitLimits(out=str(tmp_path), attempts=2, driver=DRIVER)
    leave_lease("u", ELSEWHERE, 0, KILLED)
    leave_lease("v", ELSEWHERE, 0, KILLED)
    leave_lease("v", ELSEWHERE, 1, KILLED)
    leave_lease("w", DRIVER, 0)
    assert list(quarantined_units(str(tmp_path), limits)) == ["v"]
    assert remove_dead_leases(str(tmp_path)) == 3
    assert quarantined_units(str(tmp_path), limits) == {}
    assert [path.name for path in (tmp_path / "attempts").iterdir()] == ["w~00000000.json"]


def test_leases_of_other_machines_workers_are_not_removed(tmp_path: Path, leave_lease: Any, gone: str) -> None:
    leave_lease("u", ELSEWHERE, 0)
    leave_lease("u", gone, 1)
    assert remove_dead_leases(str(tmp_path), {"u"}) == 1
    assert stored(tmp_path, "u").process == ELSEWHERE


def test_the_driver_notes_how_a_worker_of_this_machine_ended(tmp_path: Path, leave_lease: Any, gone: str) -> None:
    leave_lease("mine", gone, driver=DRIVER)
    leave_lease("of-another-driver", gone, driver=gone)
    assert not DeathWatch(str(tmp_path), DRIVER).look(KILLED)
    assert stored(tmp_path, "mine").describe().endswith("died at 'encode': return code -9")
    assert stored(tmp_path, "of-another-driver").ending is None


def test_another_machines_worker_is_dead_when_its_lease_stays_unchanged(tmp_path: Path, leave_lease: Any) -> None:
    now_seconds = [1e9]
    watch = DeathWatch(str(tmp_path), DRIVER, clock=lambda: now_seconds[0])
    leave_lease("u", ELSEWHERE, driver=DRIVER)
    assert watch.look()
    now_seconds[0] += STALE_SECONDS - 1
    assert watch.look()
    assert stored(tmp_path, "u").ending is None
    now_seconds[0] += 1
    assert not watch.look()
    assert stored(tmp_path, "u").ending == "no sign of life for 90 s"
    assert deaths(str(tmp_path), DRIVER).keys() == {"u"}


def test_a_lease_that_changes_is_of_a_live_worker_whatever_the_clocks_say(tmp_path: Path, leave_lease: Any) -> None:
    now_seconds = [0.0]
    watch = DeathWatch(str(tmp_path), DRIVER, clock=lambda: now_seconds[0])
    for hours in range(4):
        leave_lease("u", ELSEWHERE, driver=DRIVER)
        path = tmp_path / "attempts/u~00000000.json"
        os.utime(path, (1e9 - 3600 * hours, 1e9 - 3600 * hours))
        now_seconds[0] += STALE_SECONDS - 1
        assert watch.look()
    assert stored(tmp_path, "u").ending is None


def test_a_worker_that_continues_after_a_stop_withdraws_the_note(tmp_path: Path, leave_lease: Any) -> None:
    now_seconds = [0.0]
    watch = DeathWatch(str(tmp_path), DRIVER, clock=lambda: now_seconds[0])
    leave_lease("u", ELSEWHERE, driver=DRIVER)
    watch.look()
    now_seconds[0] += STALE_SECONDS
    watch.look()
    assert deaths(str(tmp_path), DRIVER).keys() == {"u"}
    leave_lease("u", ELSEWHERE, driver=DRIVER)
    assert watch.look()
    assert deaths(str(tmp_path), DRIVER) == {}


def test_a_worker_that_says_why_it_ends_is_quoted(tmp_path: Path, leave_lease: Any, gone: str) -> None:
    leave_lease("u", gone, 0, "no progress for 5 s", DRIVER)
    DeathWatch(str(tmp_path), DRIVER).look(KILLED)
    assert stored(tmp_path, "u").ending == "no progress for 5 s"


def test_active_leases_are_of_live_processes_and_of_recent_files(
    tmp_path: Path, leave_lease: Callable[..., None], gone: str
) -> None:
    leave_lease("gone", gone)
    leave_lease("here", DRIVER)
    leave_lease("new", ELSEWHERE)
    leave_lease("noted", ELSEWHERE, ending=KILLED)
    for unit, seconds in (("old", 1e9), ("of-the-future", 1e11)):
        leave_lease(unit, ELSEWHERE)
        os.utime(tmp_path / f"attempts/{unit}~00000000.json", (seconds, seconds))
    leave_lease("finished", ELSEWHERE)
    active = active_leases(str(tmp_path), timedelta(hours=1), {"finished"})
    assert sorted(lease.unit for lease in active) == ["here", "new"]


def test_a_watch_does_not_wait_for_a_store_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from logitcask.schemas.errors import StoreAwayError

    def be_away(*_: object) -> None:
        raise StoreAwayError("away")

    monkeypatch.setattr(evidence.storage, "list_files", be_away)
    DeathWatch(str(tmp_path), DRIVER).look_if_due()
