"""Who has taken which unit: so that a unit that kills every worker is set aside, and a hung one is ended.

    OUT/attempts/<unit>~<8 hex digits>.json     made when a worker takes a unit, removed when it lets go of it

A worker lets go of a unit when it is finished, and also when it ends with an error that it could report. So a mark
that stands is of a worker at work or of one that died, and what it says last is the evidence: where, when, which
process, how far. Marks are the only files of a dataset that change, and none of them is data.
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

from logitcask.schemas import fault_points, storage
from logitcask.schemas.fault_points import Point

_DIRECTORY = "attempts"
_logger = logging.getLogger(__name__)


class UnitHungError(Exception):
    """A unit made no progress for longer than it may; its worker is ended."""


class DriverHungError(UnitHungError):
    """The same in the process of the driver, which cannot end and go on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitLimits:
    """What a unit may cost; small and picklable.

    Attributes:
        out: The dataset's directory.
        attempts: After so many workers have died of a unit, nobody takes it any more.
        timeout_seconds: A unit without progress for so long ends its worker; None: never.
        driver: The process that runs the job: it is not ended, it gives up.
    """

    out: str
    attempts: int = 3
    timeout_seconds: float | None = None
    driver: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """One worker's hold on one unit.

    Attributes:
        unit: Its name.
        process: Who holds it, as `this_process` says.
        started_at: When it was taken (UTC, ISO 8601).
        phase: The last point that was reached.
        ending: How it ended, where anybody knows.
    """

    unit: str
    process: str
    started_at: str
    phase: str = "taken"
    ending: str | None = None

    def is_of_the_living(self) -> bool:
        """Whether its process runs on this machine; of other machines' processes nobody can say so."""
        host, pid, mark = self.process.rsplit(":", 2)
        if host != socket.gethostname():
            return False
        if int(pid) == os.getpid():
            return mark == _process_mark(os.getpid())
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return mark == _process_mark(int(pid))

    def describe(self) -> str:
        """For people, in one line."""
        ending = f": {self.ending.splitlines()[0]}" if self.ending else ""
        return f"{self.started_at} {self.process.rpartition(':')[0]} died at {self.phase!r}{ending}"


def this_process() -> str:
    """`host:pid:start`, different for any two processes."""
    return f"{socket.gethostname()}:{os.getpid()}:{_process_mark(os.getpid())}"


def _process_mark(pid: int) -> str:
    """When a process started, in ticks since boot: pids are used again. 0 where the system does not say."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - once for each mark of a listing
            state, *fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return "0"
    # Its parent has not asked for its end yet: Beam's worker pool never does, nor does a container without an init.
    return "dead" if state in (b"Z", b"X") else fields[18].decode()


@dataclass(kw_only=True, slots=True)
class _Hold:
    """A unit in this process's hands."""

    url: str
    mark: Mark
    thread: int
    progressed_seconds: float

    def write(self, **changes: str) -> None:
        self.mark = replace(self.mark, **changes)
        # Evidence only: where it cannot be written, the unit may still be.
        with suppress(OSError):
            storage.replace(self.url, _encode(self.mark))


_lock = threading.Lock()
_holds: dict[str, _Hold] = {}


@contextmanager
def taking(unit: str, limits: UnitLimits, on_hang: Callable[[Exception], None]) -> Iterator[None]:
    """Marks a unit as taken while the context lasts, and watches over it.

    Args:
        unit: Its name.
        limits: When it counts as hung.
        on_hang: Told of it, before this process ends (unless it is the driver).
    """
    url = storage.join(limits.out, _DIRECTORY, f"{unit}~{secrets.token_hex(4)}.json")
    mark = Mark(unit=unit, process=this_process(), started_at=datetime.now(UTC).isoformat(timespec="seconds"))
    hold = _Hold(url=url, mark=mark, thread=threading.get_ident(), progressed_seconds=time.monotonic())
    storage.create(url, _encode(mark))
    with _lock:
        _holds[url] = hold
    let_go = threading.Event()
    if limits.timeout_seconds is not None:
        threading.Thread(target=_watch, args=(hold, limits, let_go, on_hang), daemon=True).start()
    try:
        yield
    finally:
        let_go.set()
        _let_go(hold)


def reach(point: Point, unit: str) -> None:
    """Says how far this process has come with a unit.

    Raises:
        OSError: If a test ordered it (`schemas.fault_points`).
    """
    with _lock:
        holds = [hold for hold in _holds.values() if hold.mark.unit == unit]
    for hold in holds:
        hold.progressed_seconds = time.monotonic()
        hold.write(phase=point)
    fault_points.reach(point, unit)


def progressed() -> None:
    """Says that this process's units get on: nobody is to end them yet."""
    now_seconds = time.monotonic()
    for hold in tuple(_holds.values()):
        hold.progressed_seconds = now_seconds


def let_go_of_all() -> None:
    """Removes this process's marks, before it ends on purpose: its units are not to blame."""
    for hold in tuple(_holds.values()):
        _let_go(hold)


def wait_until_idle() -> None:
    """Returns when this process holds no unit."""
    while _holds:
        time.sleep(0.05)


def dead_marks(out: str, unit: str | None = None) -> dict[str, list[Mark]]:
    """Marks of workers that died, by unit: of one unit, or all."""
    found: dict[str, list[Mark]] = {}
    for _, mark in _marks(out, None if unit is None else {unit}):
        if not mark.is_of_the_living():
            found.setdefault(mark.unit, []).append(mark)
    return found


def set_aside(out: str, limits: UnitLimits) -> dict[str, list[Mark]]:
    """The units that nobody takes any more, each with the marks of those who died of it."""
    return {unit: marks for unit, marks in dead_marks(out).items() if len(marks) >= limits.attempts}


def living_marks(out: str, recently: timedelta) -> list[Mark]:
    """Marks of processes that run on this machine, and of others' that took a unit, or got on with it, lately."""
    after = datetime.now(UTC) - recently
    host = socket.gethostname()
    return [
        mark
        for _, mark in _marks(out)
        if (mark.is_of_the_living() if mark.process.startswith(f"{host}:") else _time(mark) > after)
    ]


def _time(mark: Mark) -> datetime:
    return datetime.fromisoformat(mark.started_at)


def explain_deaths(out: str, ending: str) -> None:
    """Adds how they ended to the marks of this machine's dead that do not say so."""
    host = socket.gethostname()
    for url, mark in _marks(out):
        if mark.ending is None and mark.process.startswith(f"{host}:") and not mark.is_of_the_living():
            with suppress(OSError):
                storage.replace(url, _encode(replace(mark, ending=ending)))


def forgive(out: str, units: Collection[str] | None = None) -> int:
    """Removes marks of the dead, so that their units are tried again; returns their number.

    Args:
        out: The dataset's directory.
        units: Those units' marks; None: all.
    """
    urls = [url for url, mark in _marks(out, units) if not mark.is_of_the_living()]
    for url in urls:
        storage.remove(url)
    return len(urls)


def _marks(out: str, units: Collection[str] | None = None) -> Iterator[tuple[str, Mark]]:
    """The marks that stand, with their URLs."""
    for file in storage.list_files(storage.join(out, _DIRECTORY)):
        if units is not None and storage.file_name(file.url).rpartition("~")[0] not in units:
            continue
        mark = _read(file.url)
        if mark is not None:
            yield file.url, mark


def _read(url: str) -> Mark | None:
    try:
        return Mark(**storage.read_json(url))
    except FileNotFoundError:
        return None  # its worker has just let go of it


def _encode(mark: Mark) -> bytes:
    return json.dumps(asdict(mark), indent=1).encode() + b"\n"


def _let_go(hold: _Hold) -> None:
    with _lock:
        _holds.pop(hold.url, None)
    try:
        storage.remove(hold.url)
    except OSError as error:
        _logger.debug("%s: %s", storage.redact(hold.url), error)


def _watch(hold: _Hold, limits: UnitLimits, let_go: threading.Event, on_hang: Callable[[Exception], None]) -> None:
    """Ends this process if the unit does not get on."""
    assert limits.timeout_seconds is not None
    while not let_go.wait(min(1.0, limits.timeout_seconds / 4)):
        if time.monotonic() - hold.progressed_seconds < limits.timeout_seconds:
            continue
        message = f"no progress for {limits.timeout_seconds:g} s at {hold.mark.phase!r}"
        hold.write(ending=f"{message}\n{_stack(hold.thread)}")
        if this_process() == limits.driver:
            on_hang(DriverHungError(message))
            return
        on_hang(UnitHungError(message))
        os._exit(1)


def _stack(thread: int) -> str:
    frame = sys._current_frames().get(thread)
    return "".join(traceback.format_stack(frame)) if frame is not None else ""
