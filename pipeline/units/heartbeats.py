"""Heartbeats: progress and errors that workers of this machine report to the driver, as files in a local directory.

Beam's own metrics arrive late or never (not at all on Dask), and a unit can take minutes on a CPU. So each process
keeps one small file with its progress, and each error leaves a file with its class name, because runners pass errors
on as text. None of this decides anything about the data: storage is the truth.
"""

import json
import os
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from logitcask.pipeline.units import leases
from logitcask.schemas import errors, storage
from logitcask.schemas.errors import LogitcaskError
from logitcask.schemas.system_errors import describe_system_error

_WRITE_INTERVAL_SECONDS = 0.5
STOP_FILE = "stop"
_DRAIN_FILE = "drain"

_lock = threading.Lock()
_done: dict[str, int] = {}
_spent: dict[str, tuple[float, float]] = {}
_written_seconds: dict[str, float] = {}


class StopRequested(Exception):  # noqa: N818 - not a fault
    """The driver requested a stop; raised between two batches, so that no batch is lost."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Heartbeats:
    """One attempt's directory of heartbeats; small and picklable, used by driver and workers alike.

    Attributes:
        directory: Local directory, or None to report nothing. On a worker of another machine it does not exist, and
            nothing is written.
    """

    directory: str | None = None

    def advance(self, amount: int) -> None:
        """Counts work done by this process.

        Raises:
            StopRequested: The driver requested a stop, or has ended.
        """
        leases.report_progress()
        if not self._has_listener():
            if self._key in _done:
                raise StopRequested
            return
        with _lock:
            _done[self._key] = _done.get(self._key, 0) + amount
            due = time.monotonic() - _written_seconds.get(self._key, 0) >= _WRITE_INTERVAL_SECONDS
        if due:
            self.flush()
        if (self._path / STOP_FILE).exists():
            raise StopRequested

    def spend(self, seconds: float, *, forward_seconds: float = 0.0) -> None:
        """Adds time that this process spent on units, and how much of it the teacher took."""
        if not self._has_listener():
            return
        with _lock:
            before_seconds, before_forward_seconds = _spent.get(self._key, (0.0, 0.0))
            _spent[self._key] = (before_seconds + seconds, before_forward_seconds + forward_seconds)

    def flush(self) -> None:
        """Writes this process's counts now."""
        if not self._has_listener():
            return
        with _lock:
            done, spent = _done.get(self._key, 0), _spent.get(self._key, (0.0, 0.0))
            _written_seconds[self._key] = time.monotonic()
        storage.replace(str(self._path / f"{os.getpid()}.count"), json.dumps([done, *spent]).encode())

    def done(self) -> int:
        """Work counted by all processes so far."""
        return sum(counts[0] for counts in self._counts())

    def forward_share(self) -> float | None:
        """Share of the time on units that the teacher's forward pass took; None if no process reported it."""
        counts = self._counts()
        seconds, forward_seconds = sum(count[1] for count in counts), sum(count[2] for count in counts)
        return forward_seconds / seconds if seconds and forward_seconds else None

    def _counts(self) -> list[list]:
        """What each process has written: work done, seconds on units, seconds in the teacher."""
        return [json.loads(file.read_bytes()) for file in self._path.glob("*.count")]

    def request_stop(self) -> None:
        """Asks all workers to stop at their next heartbeat."""
        (self._path / STOP_FILE).touch()

    def request_drain(self) -> None:
        """Asks all workers to finish their units and to take no more."""
        (self._path / _DRAIN_FILE).touch()

    def require_open(self) -> None:
        """Called before a unit is taken.

        Raises:
            StopRequested: The driver requested a stop or a drain.
        """
        if self._has_listener() and any((self._path / name).exists() for name in (STOP_FILE, _DRAIN_FILE)):
            raise StopRequested

    def report_failure(self, unit: str, error: BaseException) -> None:
        """Reports an error to the driver, by class name."""
        if not self._has_listener() or isinstance(error, StopRequested):
            return
        note = {
            "unit": unit,
            "error": type(error).__name__,
            "message": describe_system_error(error) or str(error),
            "traceback": "".join(traceback.format_exception(error)),
        }
        storage.replace(str(self._path / f"{unit}.failure"), json.dumps(note).encode())

    def failures(self) -> list["Failure"]:
        """The errors that workers reported, by unit."""
        return [Failure(**json.loads(file.read_bytes())) for file in sorted(self._path.glob("*.failure"))]

    @property
    def _path(self) -> Path:
        assert self.directory is not None
        return Path(self.directory)

    @property
    def _key(self) -> str:
        # A forked worker must not continue its parent's count.
        return f"{os.getpid()}:{self.directory}"

    def _has_listener(self) -> bool:
        return self.directory is not None and self._path.is_dir()


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """An error of a worker.

    Attributes:
        unit: The unit's name.
        error: The name of its class.
        message, traceback: As text.
    """

    unit: str
    error: str
    message: str
    traceback: str

    def as_error(self) -> LogitcaskError | None:
        """The error of `schemas.errors` with its message, or None if it was of another class."""
        kind = getattr(errors, self.error, None)
        if isinstance(kind, type) and issubclass(kind, LogitcaskError):
            return kind(self.message)
        return None
