"""Leases on units: a unit that kills every worker is quarantined, and a worker that hangs is ended.

    OUT/attempts/<unit>~<8 hex digits>.json     created when a worker takes a unit, removed when it releases the unit

A worker releases a unit when the unit is finished, and also when it ends with an error that it could report. So a
lease in storage belongs to a worker that runs or to one that died, and its last contents are the evidence: where,
when, which process, how far. Leases are the only files of a dataset that change, and none of them is data.
"""

import json
import logging
import os
import secrets
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial

from logitcask.schemas import fault_points, storage
from logitcask.schemas.checked_json import convert, read_object
from logitcask.schemas.fault_points import Point

_DIRECTORY = "attempts"
_logger = logging.getLogger(__name__)


class UnitHungError(Exception):
    """A unit made no progress within its time limit; its worker is ended."""


class DriverHungError(UnitHungError):
    """The unit hangs in the driver's own process, which cannot be ended without ending the job."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitLimits:
    """What a unit may cost; small and picklable.

    Attributes:
        out: The dataset's directory.
        attempts: A unit that this many workers died of is quarantined: no worker takes it again.
        timeout_seconds: A worker whose unit makes no progress for this long is ended; None: never.
        driver: The process that runs the job: it is not ended, it reports the error.
    """

    out: str
    attempts: int = 3
    timeout_seconds: float | None = None
    driver: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """One worker's claim on one unit.

    Attributes:
        unit: The unit's name.
        process: The worker, as returned by `this_process`.
        started_at: When the unit was taken (UTC, ISO 8601).
        phase: The last point that was reached.
        ending: How the worker ended, where known.
    """

    unit: str
    process: str
    started_at: str
    phase: str = "taken"
    ending: str | None = None

    def holder_runs_here(self) -> bool:
        """Whether its process is alive on this machine; False for all processes of other machines."""
        host, pid, start = self.process.rsplit(":", 2)
        if host != socket.gethostname():
            return False
        if int(pid) == os.getpid():
            return start == _process_start(os.getpid())
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return start == _process_start(int(pid))

    def describe(self) -> str:
        """One human-readable line about a dead worker."""
        ending = f": {self.ending.splitlines()[0]}" if self.ending else ""
        return f"{self.started_at} {self.process.rpartition(':')[0]} died at {self.phase!r}{ending}"


def this_process() -> str:
    """`host:pid:start`, different for any two processes."""
    return f"{socket.gethostname()}:{os.getpid()}:{_process_start(os.getpid())}"


def _process_start(pid: int) -> str:
    """When a process started, in ticks since boot, because pids are reused; "0" where the system does not say."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - once for each lease of a listing
            state, *fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return "0"
    # A zombie: Beam's worker pool never waits for its children, nor does a container without an init process.
    return "dead" if state in (b"Z", b"X") else fields[18].decode()


@dataclass(kw_only=True, slots=True)
class _HeldLease:
    """A lease of this process."""

    url: str
    lease: Lease
    thread: int
    progressed_seconds: float

    def update(self, **changes: str) -> None:
        self.lease = replace(self.lease, **changes)
        # Evidence only: where the lease cannot be written, the unit's shard may still be.
        with suppress(OSError):
            storage.replace(self.url, _encode(self.lease))


_lock = threading.Lock()
_held: dict[str, _HeldLease] = {}


@contextmanager
def hold_lease(unit: str, limits: UnitLimits, on_hang: Callable[[Exception], None]) -> Iterator[None]:
    """Holds a lease on a unit while the context lasts, and ends this process if the unit hangs.

    Args:
        unit: The unit's name.
        limits: When the unit counts as hung.
        on_hang: Called with the error before this process ends; in the driver, instead of ending it.
    """
    url = storage.join(limits.out, _DIRECTORY, f"{unit}~{secrets.token_hex(4)}.json")
    lease = Lease(unit=unit, process=this_process(), started_at=datetime.now(UTC).isoformat(timespec="seconds"))
    held = _HeldLease(url=url, lease=lease, thread=threading.get_ident(), progressed_seconds=time.monotonic())
    storage.create(url, _encode(lease))
    with _lock:
        _held[url] = held
    released = threading.Event()
    if limits.timeout_seconds is not None:
        threading.Thread(target=_end_if_hung, args=(held, limits, released, on_hang), daemon=True).start()
    try:
        yield
    finally:
        released.set()
        _release(held)


def report_phase(point: Point, unit: str) -> None:
    """Records the point that this process has reached in a unit.

    Raises:
        OSError: A test ordered it (`schemas.fault_points`).
    """
    with _lock:
        leases = [held for held in _held.values() if held.lease.unit == unit]
    for held in leases:
        held.progressed_seconds = time.monotonic()
        held.update(phase=point)
    fault_points.reach(point, unit)


def report_progress() -> None:
    """Records that this process's units make progress, which restarts their time limit."""
    now_seconds = time.monotonic()
    for held in tuple(_held.values()):
        held.progressed_seconds = now_seconds


def release_leases() -> None:
    """Removes this process's leases before it ends on purpose, so that no unit is blamed."""
    for held in tuple(_held.values()):
        _release(held)


def wait_until_idle() -> None:
    """Returns when this process holds no lease."""
    while _held:
        time.sleep(0.05)


def dead_leases(out: str, unit: str | None = None) -> dict[str, list[Lease]]:
    """Leases of workers that died, by unit: of one unit, or of all.

    Workers of other machines count as dead, because this machine cannot see whether they run.
    """
    found: dict[str, list[Lease]] = {}
    for _, lease in _read_leases(out, None if unit is None else {unit}):
        if not lease.holder_runs_here():
            found.setdefault(lease.unit, []).append(lease)
    return found


def quarantined_units(out: str, limits: UnitLimits) -> dict[str, list[Lease]]:
    """The units that no worker takes again, each with the leases of the workers that died of it."""
    return {unit: leases for unit, leases in dead_leases(out).items() if len(leases) >= limits.attempts}


def active_leases(out: str, recently: timedelta) -> list[Lease]:
    """Leases of live processes of this machine, and of other machines' processes that took a unit recently."""
    after = datetime.now(UTC) - recently
    host = socket.gethostname()
    return [
        lease
        for _, lease in _read_leases(out)
        if (
            lease.holder_runs_here()
            if lease.process.startswith(f"{host}:")
            else datetime.fromisoformat(lease.started_at) > after
        )
    ]


def record_endings(out: str, ending: str) -> None:
    """Adds how the worker ended to the leases of this machine's dead workers that do not say so yet."""
    host = socket.gethostname()
    for url, lease in _read_leases(out):
        if lease.ending is None and lease.process.startswith(f"{host}:") and not lease.holder_runs_here():
            with suppress(OSError):
                storage.replace(url, _encode(replace(lease, ending=ending)))


def remove_dead_leases(out: str, units: Collection[str] | None = None) -> int:
    """Removes leases of dead workers, so that their units are retried; returns their number.

    Args:
        out: The dataset's directory.
        units: Only the leases of these units; None: of all.
    """
    urls = [url for url, lease in _read_leases(out, units) if not lease.holder_runs_here()]
    for url in urls:
        storage.remove(url)
    return len(urls)


def _read_leases(out: str, units: Collection[str] | None = None) -> Iterator[tuple[str, Lease]]:
    """The leases in storage, with their URLs."""
    for file in storage.list_files(storage.join(out, _DIRECTORY)):
        if units is not None and storage.file_name(file.url).rpartition("~")[0] not in units:
            continue
        try:
            lease = read_object(file.url, partial(convert, kind=Lease), what="a lease", advice="remove it")
        except FileNotFoundError:
            continue  # its worker has just released it
        yield file.url, lease


def _encode(lease: Lease) -> bytes:
    return json.dumps(asdict(lease), indent=1).encode() + b"\n"


def _release(held: _HeldLease) -> None:
    with _lock:
        _held.pop(held.url, None)
    try:
        storage.remove(held.url)
    except OSError as error:
        _logger.debug("%s: %s", storage.redact(held.url), error)


def _end_if_hung(
    held: _HeldLease, limits: UnitLimits, released: threading.Event, on_hang: Callable[[Exception], None]
) -> None:
    """Ends this process if the unit makes no progress within the limit."""
    assert limits.timeout_seconds is not None
    while not released.wait(min(1.0, limits.timeout_seconds / 4)):
        if time.monotonic() - held.progressed_seconds < limits.timeout_seconds:
            continue
        message = f"no progress for {limits.timeout_seconds:g} s at {held.lease.phase!r}"
        held.update(ending=f"{message}\n{_stack(held.thread)}")
        if this_process() == limits.driver:
            on_hang(DriverHungError(message))
            return
        on_hang(UnitHungError(message))
        os._exit(1)


def _stack(thread: int) -> str:
    frame = sys._current_frames().get(thread)
    return "".join(traceback.format_stack(frame)) if frame is not None else ""
