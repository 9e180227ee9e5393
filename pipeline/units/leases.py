"""Leases: which worker holds which unit, and how far it is.

    OUT/attempts/<unit>~<8 hex digits>.json     created when a worker takes a unit, removed when it releases the unit

A worker releases a unit when the unit is finished, and also when it ends with an error that it could report. So a
lease in storage belongs to a worker that runs or to one that is gone (`pipeline.units.evidence` tells them apart). It
is rewritten at each phase and every `BEAT_SECONDS`. Leases are the only files of a dataset that change, and none of
them is data.
"""

import json
import logging
import os
import secrets
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

from logitcask.pipeline.units.processes import describe_process, this_process
from logitcask.schemas import fault_points, outages, storage
from logitcask.schemas.checked_json import convert, read_object
from logitcask.schemas.errors import StorageError
from logitcask.schemas.fault_points import Point

DIRECTORY = "attempts"
# How often a worker rewrites its leases, so that other machines see that it lives.
BEAT_SECONDS = 20.0
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
        driver: The process that runs the job. It is not ended if a unit hangs in it: it reports the error.
        store_timeout_seconds: How long a worker waits for a store that is away.
    """

    out: str
    attempts: int = 3
    timeout_seconds: float | None = None
    driver: str = ""
    store_timeout_seconds: float = outages.SHORT_TIMEOUT_SECONDS


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """One worker's claim on one unit.

    Attributes:
        unit: The unit's name.
        process: The worker, named as by `this_process`.
        driver: The driver that it works for, named in the same way.
        started_at: When the unit was taken (UTC, ISO 8601).
        phase: The last point that was reached.
        beats: How often the lease was rewritten: it changes while the worker lives, whatever the clocks say.
        ending: How the worker ended, as the driver saw it; None while it runs, and where the driver ended too.
    """

    unit: str
    process: str
    driver: str = ""
    started_at: str
    phase: str = "taken"
    beats: int = 0
    ending: str | None = None

    def describe(self) -> str:
        """One human-readable line about a worker that is gone."""
        ending = f": {self.ending.splitlines()[0]}" if self.ending else ""
        return f"{self.started_at} {describe_process(self.process)} died at {self.phase!r}{ending}"


@dataclass(kw_only=True, slots=True)
class _HeldLease:
    """A lease of this process."""

    url: str
    lease: Lease
    thread: int
    progressed_seconds: float
    is_released: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def update(self, **changes: str) -> None:
        """Rewrites it; nothing after its release."""
        with self.lock:
            if self.is_released:
                return
            self.lease = replace(self.lease, beats=self.lease.beats + 1, **changes)
            # Evidence only: where the lease cannot be written, the unit's shard may still be.
            with suppress(OSError, StorageError):
                write_lease(self.url, self.lease)

    def release(self) -> None:
        with self.lock:
            self.is_released = True
        with _lock:
            _held.pop(self.url, None)
        try:
            storage.remove(self.url)
        except (OSError, StorageError) as error:
            _logger.debug("%s: %s", storage.redact(self.url), error)


_lock = threading.Lock()
_held: dict[str, _HeldLease] = {}
# The process whose leases are being rewritten: a fork has no threads of its parent.
_beating_pid: int | None = None


@contextmanager
def hold_lease(unit: str, limits: UnitLimits, on_hang: Callable[[Exception], None]) -> Iterator[None]:
    """Holds a lease on a unit while the context lasts, and ends this process if the unit hangs.

    Args:
        unit: The unit's name.
        limits: When the unit counts as hung.
        on_hang: Called with the error before this process ends; in the driver, instead of ending it.
    """
    url = storage.join(limits.out, DIRECTORY, f"{unit}~{secrets.token_hex(4)}.json")
    lease = Lease(
        unit=unit,
        process=this_process(),
        driver=limits.driver,
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    held = _HeldLease(url=url, lease=lease, thread=threading.get_ident(), progressed_seconds=time.monotonic())
    storage.create(url, _encode(lease))
    with _lock:
        _held[url] = held
    _start_beating()
    released = threading.Event()
    if limits.timeout_seconds is not None:
        threading.Thread(target=_end_if_hung, args=(held, limits, released, on_hang), daemon=True).start()
    try:
        yield
    finally:
        released.set()
        held.release()


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
    """Removes this process's leases before it ends on purpose, so that no unit is suspected."""
    with outages.waiting(0):
        for held in tuple(_held.values()):
            held.release()


def wait_until_idle() -> None:
    """Returns when this process holds no lease."""
    while _held:
        time.sleep(0.05)


def read_leases(out: str, units: Collection[str] | None = None) -> Iterator[tuple[str, Lease]]:
    """The leases in storage, with their URLs: of some units, or of all."""
    for file in storage.list_files(storage.join(out, DIRECTORY)):
        if units is not None and storage.file_name(file.url).rpartition("~")[0] not in units:
            continue
        with suppress(FileNotFoundError):  # its worker has just released it
            yield file.url, read_lease(file.url)


def read_lease(url: str) -> Lease:
    """Raises FileNotFoundError if it was released."""
    return read_object(url, partial(convert, kind=Lease), what="a lease", advice="remove it")


def write_lease(url: str, lease: Lease) -> None:
    """Replaces a lease."""
    storage.replace(url, _encode(lease))


def _encode(lease: Lease) -> bytes:
    return json.dumps(asdict(lease), indent=1).encode() + b"\n"


def _start_beating() -> None:
    """Starts this process's thread that rewrites its leases, once."""
    global _beating_pid
    with _lock:
        if _beating_pid == os.getpid():
            return
        _beating_pid = os.getpid()
    threading.Thread(target=_beat, name="leases", daemon=True).start()


def _beat() -> None:
    while True:
        time.sleep(BEAT_SECONDS)
        for held in tuple(_held.values()):
            held.update()


def _end_if_hung(
    held: _HeldLease, limits: UnitLimits, released: threading.Event, on_hang: Callable[[Exception], None]
) -> None:
    """Ends this process if the unit makes no progress within the limit."""
    assert limits.timeout_seconds is not None
    pause_seconds = min(1.0, limits.timeout_seconds / 4)
    looked_seconds = time.monotonic()
    while not released.wait(pause_seconds):
        before_seconds, looked_seconds = looked_seconds, time.monotonic()
        # A much longer pause than intended: this process was stopped, and its unit with it.
        held.progressed_seconds += max(0.0, looked_seconds - before_seconds - 2 * pause_seconds)
        if looked_seconds - held.progressed_seconds < limits.timeout_seconds:
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
