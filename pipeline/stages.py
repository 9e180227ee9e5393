"""Running one stage of the job: Beam in a thread of its own, progress and signals in the caller's.

A stage is tried `attempts` times; between two tries storage says what is left to do. Ctrl-C and SIGTERM let every
worker finish its batch; a second one ends at once. Either way the output can be gone on with.
"""

import dataclasses
import logging
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.configuration import RunnerSettings
from pipeline.heartbeats import Heartbeats
from pipeline.progress import ProgressDisplay, progress_display
from schemas.errors import LogitcaskError

if TYPE_CHECKING:
    import apache_beam as beam

_POLL_SECONDS = 0.2
# After a worker process has died, the runner and the other workers have this long to end by themselves.
_DEATH_GRACE_SECONDS = 30.0
_logger = logging.getLogger(__name__)


class UnitFailedError(LogitcaskError):
    """A unit met an error that is nobody's input; what was finished stands."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One stage of the job.

    Attributes:
        label: What it does, for people.
        measure: What its progress counts: "tokens" or "bytes".
        remaining: Lists the units that storage does not have yet.
        size: How much of the measure a unit is.
        transform: The stage as a transform, given where its workers report.
    """

    label: str
    measure: str
    remaining: Callable[[], Sequence[Any]]
    size: Callable[[Any], int]
    transform: "Callable[[Heartbeats], beam.PTransform]"


def finish_stage(stage: Stage, settings: RunnerSettings, attempts: int, *, quiet: bool = False) -> int:
    """Runs the stage until storage has all its units.

    Returns:
        Number of units that were left to do.

    Raises:
        LogitcaskError: The last attempt's error, named as the worker met it.
        KeyboardInterrupt: Ctrl-C or SIGTERM.
    """
    units = stage.remaining()
    num_units = len(units)
    for attempt in range(1, attempts + 1):
        if not units:
            break
        try:
            _attempt(stage, units, settings, quiet=quiet)
        except LogitcaskError as error:
            if attempt == attempts:
                raise
            _logger.warning("attempt %d of %d: %s", attempt, attempts, error)
        units = stage.remaining()
    if units:
        # Storage is the truth, whatever the runner said.
        raise UnitFailedError(
            f"the runner reported success, but {len(units)} of {num_units} units have not arrived in storage. Finished "
            "units are kept: run the same command again to go on"
        )
    return num_units


def _attempt(stage: Stage, units: Sequence[Any], settings: RunnerSettings, *, quiet: bool) -> None:
    total = sum(map(stage.size, units))
    with tempfile.TemporaryDirectory(prefix="logitcask-", ignore_cleanup_errors=True) as directory:
        heartbeats = Heartbeats(directory=directory)
        run = _BackgroundRun(units, stage.transform(heartbeats), settings)
        with progress_display(stage.label, stage.measure, total, quiet=quiet) as display:
            interrupted = _wait(run, heartbeats, display)
        if interrupted:
            raise KeyboardInterrupt
        if run.error is not None:
            raise _named_error(heartbeats, run.error) from run.error


def _wait(run: "_BackgroundRun", heartbeats: Heartbeats, display: ProgressDisplay) -> bool:
    """Draws progress until the run ends; True if the user asked for the end."""
    interrupted = False
    with _terminate_as_interrupt():
        while run.is_running():
            try:
                run.join(_POLL_SECONDS)
                display.update(heartbeats.done())
                if run.deaths or heartbeats.failures():
                    heartbeats.request_stop()
                if run.is_given_up():
                    break
            except KeyboardInterrupt:
                if interrupted:
                    raise
                interrupted = True
                heartbeats.request_stop()
                _logger.warning("stopping after the current batch (once more: at once); the same command goes on later")
    return interrupted


def _named_error(heartbeats: Heartbeats, error: BaseException) -> LogitcaskError:
    """The error as a worker met it, if it could still say; else what the runner made of it."""
    failures = heartbeats.failures()
    if isinstance(error, LogitcaskError):
        return error
    if not failures:
        return UnitFailedError(
            f"a worker died or could not be reached ({type(error).__name__}: {_last_line(error)}). Finished units are "
            "kept: run the same command again to go on"
        )
    failure = failures[0]
    named = failure.as_error()
    if named is not None:
        return named
    _logger.debug("%s", failure.traceback)
    return UnitFailedError(
        f"unit {failure.unit}: {failure.error}: {failure.message}. Finished units are kept: run the same command "
        "again to go on"
    )


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else "no message"


class _BackgroundRun:
    """A stage running in a daemon thread, so that signals reach the main thread at once."""

    def __init__(self, units: Sequence[Any], transform: "beam.PTransform", settings: RunnerSettings) -> None:
        self.error: BaseException | None = None
        self.deaths: list[str] = []
        self._given_up_seconds = float("inf")
        self._thread = threading.Thread(target=self._run, args=(units, transform, settings), daemon=True)
        self._thread.start()

    def is_running(self) -> bool:
        return self._thread.is_alive()

    def join(self, timeout_seconds: float) -> None:
        self._thread.join(timeout_seconds)

    def is_given_up(self) -> bool:
        """Whether a worker died and the runner has not noticed: it never will."""
        if time.monotonic() < self._given_up_seconds:
            return False
        self.error = self.error or ChildProcessError(self.deaths[0])
        return True

    def _run(self, units: Sequence[Any], transform: "beam.PTransform", settings: RunnerSettings) -> None:
        # A process costs seconds to start; more of them than units would idle.
        settings = dataclasses.replace(settings, num_workers=min(settings.num_workers, len(units)))
        try:
            from pipeline.runners import run_stage

            run_stage(units, transform, settings, on_worker_death=self._note_death)
        except BaseException as error:
            self.error = error

    def _note_death(self, message: str) -> None:
        self.deaths.append(message)
        self._given_up_seconds = min(self._given_up_seconds, time.monotonic() + _DEATH_GRACE_SECONDS)


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """SIGTERM means the same as Ctrl-C while the context lasts (signals belong to the main thread only)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
