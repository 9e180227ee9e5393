"""Evidence against units: a unit that kills its workers is quarantined, one whose whole job died is only suspected.

A worker that dies of its unit leaves its lease behind. So does one whose machine dies, and that is not the unit's
fault. The driver tells them apart: while it lives, it notes in the lease that the worker died, and only these notes
count. Where the driver died too, no one did: the unit is *suspected*, is tried after all others, and then outside the
driver's process, so that a unit that really kills its process leaves evidence.
"""

import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from logitcask.pipeline.units.leases import (
    BEAT_SECONDS,
    DIRECTORY,
    Lease,
    UnitLimits,
    read_lease,
    read_leases,
    write_lease,
)
from logitcask.pipeline.units.processes import runs
from logitcask.schemas import outages, storage
from logitcask.schemas.errors import StorageError
from logitcask.schemas.storage import StoredFile

# A worker of another machine that did not rewrite its lease for so long counts as dead: four beats were missed.
STALE_SECONDS = 4.5 * BEAT_SECONDS
_LOOK_SECONDS = 10.0


def deaths(out: str, driver: str, units: Collection[str] | None = None) -> dict[str, list[Lease]]:
    """The leases of workers that died of a unit while their driver lived, by unit.

    Args:
        out: The dataset's directory.
        driver: The driver that lives now: a worker of it that is gone from this machine has died, noted or not.
        units: Only these units; None: all.
    """
    found: dict[str, list[Lease]] = {}
    for _, lease in read_leases(out, units):
        is_running = runs(lease.process)
        if not is_running and (lease.ending is not None or (is_running is False and lease.driver == driver)):
            found.setdefault(lease.unit, []).append(lease)
    return found


def quarantined_units(out: str, limits: UnitLimits, units: Collection[str] | None = None) -> dict[str, list[Lease]]:
    """The units that no worker takes again, each with the leases of the workers that died of it."""
    found = deaths(out, limits.driver, units)
    return {unit: leases for unit, leases in found.items() if len(leases) >= limits.attempts}


def suspected_units(out: str, driver: str) -> set[str]:
    """The units that a process held which is gone, or which another machine's process may still hold."""
    return {lease.unit for _, lease in read_leases(out) if lease.driver != driver and not runs(lease.process)}


def active_leases(out: str, recently: timedelta, finished: Collection[str] = ()) -> list[Lease]:
    """Leases of this machine's live processes, and those that other machines' processes may still work under.

    Args:
        out: The dataset's directory.
        recently: A process of another machine works if it rewrote its lease within this time, by the store's clock.
        finished: Units that no process of another machine still works on.
    """
    fs, _ = storage.filesystem(out)
    now = datetime.now(UTC)

    def is_active(url: str, lease: Lease) -> bool:
        is_running = runs(lease.process)
        if is_running is not None or lease.ending is not None or lease.unit in finished:
            return bool(is_running)
        # In either direction: a clock that was wrong for a while must not make a lease active forever.
        return abs(now - _utc(fs.modified(storage.filesystem(url)[1]))) < recently

    return [lease for url, lease in read_leases(out) if is_active(url, lease)]


def remove_dead_leases(out: str, units: Collection[str] | None = None) -> int:
    """Removes the leases of workers that are known to be dead, so that their units are retried; returns their number.

    Args:
        out: The dataset's directory.
        units: Only the leases of these units; None: of all.
    """
    urls = [url for url, lease in read_leases(out, units) if _is_over(lease)]
    for url in urls:
        storage.remove(url)
    return len(urls)


def _is_over(lease: Lease) -> bool:
    is_running = runs(lease.process)
    return is_running is False or (is_running is None and lease.ending is not None)


def _utc(time: datetime) -> datetime:
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


@dataclass(kw_only=True, slots=True)
class _Seen:
    """A lease as the driver knows it.

    Attributes:
        lease: As it was when first seen.
        etag: As it was last seen.
        since_seconds: Since when it has not changed.
    """

    lease: Lease
    etag: str
    since_seconds: float


class DeathWatch:
    """The driver's eye on its workers: notes in their leases that they died.

    A process of this machine is dead when it is gone. One of another machine is dead when its lease has not changed for
    `STALE_SECONDS` of this process's monotonic clock: no other clock matters. If it was only stopped, it rewrites its
    lease when it continues, which withdraws the note.

    Args:
        out: The dataset's directory.
        driver: This process.
        clock: Monotonic seconds.
    """

    def __init__(self, out: str, driver: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._out, self._driver, self._clock = out, driver, clock
        self._seen: dict[str, _Seen] = {}
        self._next_seconds = clock()

    def look_if_due(self) -> None:
        """Looks every few seconds; a store that is away is no reason to wait here."""
        if self._clock() >= self._next_seconds:
            with outages.waiting(0), suppress(StorageError):
                self.look()

    def look(self, ending: str | None = None) -> bool:
        """Notes the deaths since the last look.

        Args:
            ending: How a process of this machine ended, where known.

        Returns:
            Whether it is still unknown of some worker whether it lives.
        """
        files = storage.list_files(storage.join(self._out, DIRECTORY))
        self._seen = {file.url: seen for file in files if (seen := self._see(file)) is not None}
        is_unknown = False
        for url, seen in self._seen.items():
            if seen.lease.driver != self._driver or seen.lease.ending is not None:
                continue
            is_running = runs(seen.lease.process)
            unchanged_seconds = self._clock() - seen.since_seconds
            if is_running is False:
                self._note(url, ending or "its process is gone")
            elif is_running is None and unchanged_seconds >= STALE_SECONDS:
                self._note(url, f"no sign of life for {unchanged_seconds:.0f} s")
            else:
                is_unknown |= is_running is None
        self._next_seconds = self._clock() + _LOOK_SECONDS
        return is_unknown

    def _see(self, file: StoredFile) -> _Seen | None:
        seen = self._seen.get(file.url)
        if seen is not None and seen.etag == file.etag:
            return seen
        if seen is not None and seen.lease.ending is None:
            # Only its worker rewrites it, and then nothing changes that matters here.
            return _Seen(lease=seen.lease, etag=file.etag, since_seconds=self._clock())
        try:
            return _Seen(lease=read_lease(file.url), etag=file.etag, since_seconds=self._clock())
        except FileNotFoundError:
            return None

    def _note(self, url: str, ending: str) -> None:
        with suppress(OSError):
            lease = read_lease(url)
            self._seen[url].lease = replace(lease, ending=lease.ending or ending)
            write_lease(url, self._seen[url].lease)
