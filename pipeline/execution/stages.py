"""Running one stage of the job: Beam in a thread of its own, progress and signals in the caller's.

Units are submitted in waves, so that a job of any length stays small in memory and in the runner. A wave is tried
until storage has all its units; a try that got nowhere counts against `attempts`, and a unit of which too many
workers died is set aside (`pipeline.units.leases`). On a fault, workers finish the units they have. Ctrl-C and SIGTERM
let them finish their batch; a second one ends at once. Either way the output can be gone on with.
"""

import dataclasses
import itertools
import logging
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from logitcask.pipeline.execution.progress import Listener, ProgressDisplay, progress_display
from logitcask.pipeline.execution.storage_progress import StorageProgress
from logitcask.pipeline.runners.settings import RunnerSettings
from logitcask.pipeline.units.heartbeats import Heartbeats
from logitcask.pipeline.units.leases import (
    DriverHungError,
    Mark,
    UnitLimits,
    dead_marks,
    explain_deaths,
    forgive,
    set_aside,
)
from logitcask.schemas.errors import LogitcaskError, StorageError

if TYPE_CHECKING:
    import apache_beam as beam

# Most units that a runner holds at a time: hours of work, a few megabytes.
WAVE_UNITS = 10_000

_POLL_SECONDS = 0.2
# After a worker process has died, the runner and the other workers have this long to get on or to end by themselves.
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
        units: All its units, each with a `name`; may be made as they are asked for.
        finished: Names of those of some units that storage has.
        size: How much of the measure a unit is.
        transform: The stage as a transform, given where its workers report and what a unit may cost.
        gather: Told after each wave that the units start..stop were gone through.
    """

    label: str
    measure: str
    units: Sequence[Any]
    finished: Callable[[Sequence[Any]], set[str]]
    size: Callable[[Any], int]
    transform: "Callable[[Heartbeats, UnitLimits], beam.PTransform]"
    gather: Callable[[int, int], None] = lambda start, stop: None


@dataclass(frozen=True, kw_only=True, slots=True)
class StageResult:
    """What became of a stage.

    Attributes:
        num_units: Units that were left to do.
        size: How much of the stage's measure that was.
        set_aside: Units that were not done, each with the marks of the workers who died of it.
    """

    num_units: int
    size: int
    set_aside: dict[str, list[Mark]]


def finish_stage(
    stage: Stage,
    settings: RunnerSettings,
    limits: UnitLimits,
    attempts: int,
    *,
    wave_units: int = WAVE_UNITS,
    quiet: bool = False,
    listeners: Sequence[Listener] = (),
) -> StageResult:
    """Runs the stage until storage has all its units, but for those set aside.

    Args:
        stage: What to do.
        settings: Where.
        limits: What a unit may cost.
        attempts: How often in a row a wave may fail without any unit finished.
        wave_units: Most units submitted at a time.
        quiet: Show no progress.
        listeners: Told of progress a few times a second, also where it is not shown.

    Raises:
        LogitcaskError: The last attempt's error, named as the worker met it.
        KeyboardInterrupt: Ctrl-C or SIGTERM.
    """
    left, size = _left(stage, wave_units)
    if not left:
        return StageResult(num_units=0, size=0, set_aside={})
    poison: dict[str, list[Mark]] = {}
    with progress_display(stage.label, stage.measure, size, quiet=quiet, listeners=listeners) as display:
        done, gathered = 0, 0
        for indices in _waves(left, wave_units):
            wave = _pick(stage.units, indices)
            poison |= _Wave(stage, settings, limits, display, done).finish(wave, attempts)
            stage.gather(gathered, indices[-1] + 1)
            gathered = indices[-1] + 1
            done += sum(map(stage.size, wave))
            display.update(done)
    return StageResult(num_units=len(left), size=size, set_aside=poison)


def _left(stage: Stage, block_units: int) -> tuple[list[int], int]:
    """The indices of units that storage does not have, and how much they are."""
    left, size = [], 0
    for block in _waves(range(len(stage.units)), block_units):
        units = _pick(stage.units, block)
        done = stage.finished(units)
        for index, unit in zip(block, units, strict=True):
            if unit.name not in done:
                left.append(index)
                size += stage.size(unit)
    return left, size


def _waves(indices: Iterable[int], wave_units: int) -> Iterator[list[int]]:
    iterator = iter(indices)
    while wave := list(itertools.islice(iterator, wave_units)):
        yield wave


def _pick(units: Sequence[Any], indices: Sequence[int]) -> list[Any]:
    """Some units; neighbours at once, where they are made on demand."""
    if indices[-1] - indices[0] == len(indices) - 1:
        return list(units[indices[0] : indices[-1] + 1])
    return [units[index] for index in indices]


class _Wave:
    """Some units of a stage on their way into storage."""

    def __init__(
        self, stage: Stage, settings: RunnerSettings, limits: UnitLimits, display: ProgressDisplay, done: int
    ) -> None:
        self._stage, self._settings, self._limits = stage, settings, limits
        self._display, self._done_before = display, done

    def finish(self, units: Sequence[Any], attempts: int) -> dict[str, list[Mark]]:
        """Tries until storage has them all; returns those set aside."""
        size = self._size(units)
        left = list(units)
        failed_in_a_row = 0
        poison = self._set_aside(left)
        while todo := [unit for unit in left if unit.name not in poison]:
            error = self._attempt(todo, self._done_before + size - self._size(todo))
            finished = self._stage.finished(left)
            # Whoever died after the last step has cost nothing.
            forgive(self._limits.out, finished)
            left = [unit for unit in left if unit.name not in finished]
            now_poison = self._set_aside(left)
            # A unit set aside is a step forward, unless there are no others: then it is not the unit's fault.
            got_on = len(left) < len(units) and len(left) - len(now_poison) < len(todo)
            poison = now_poison
            if len(left) == len(poison):
                continue
            failed_in_a_row = 1 if got_on else failed_in_a_row + 1
            self._report(error or _not_arrived(len(left), len(units)), failed_in_a_row, attempts)
        return poison

    def _set_aside(self, units: Sequence[Any]) -> dict[str, list[Mark]]:
        names = {unit.name for unit in units}
        return {name: marks for name, marks in set_aside(self._limits.out, self._limits).items() if name in names}

    def _size(self, units: Iterable[Any]) -> int:
        return sum(map(self._stage.size, units))

    def _attempt(self, units: Sequence[Any], done: int) -> LogitcaskError | None:
        """One try; returns what ended it, if another may help.

        Raises:
            LogitcaskError: An error that will come again.
        """
        with tempfile.TemporaryDirectory(prefix="logitcask-", ignore_cleanup_errors=True) as directory:
            heartbeats = Heartbeats(directory=directory)
            run = _BackgroundRun(units, self._stage.transform(heartbeats, self._limits), self._settings)
            stored = StorageProgress(units, self._stage.finished, self._stage.size)

            def draw() -> None:
                elsewhere = stored.done() if self._settings.is_cluster else 0
                self._display.update(done + max(heartbeats.done(), elsewhere), heartbeats.forward_share())

            interrupted = _wait(run, heartbeats, draw)
            if run.deaths:
                explain_deaths(self._limits.out, run.deaths[0])
            if interrupted:
                raise KeyboardInterrupt
            if run.error is None:
                return None
            error = _named_error(heartbeats, run.cause())
            # Bad data comes again; a store that failed may have come back.
            if not isinstance(error, UnitFailedError | StorageError) or not run.may_be_followed:
                raise error from run.error
            return error

    def _report(self, error: LogitcaskError, failed_in_a_row: int, attempts: int) -> None:
        for unit, marks in sorted(dead_marks(self._limits.out).items()):
            _logger.warning(
                "unit %s has cost %d of %d tries: %s", unit, len(marks), self._limits.attempts, marks[-1].describe()
            )
        if failed_in_a_row >= attempts:
            raise error
        _logger.warning("attempt %d of %d: %s", failed_in_a_row, attempts, error)


def _not_arrived(num_units: int, of_units: int) -> UnitFailedError:
    """Storage is the truth, whatever the runner said."""
    return UnitFailedError(
        f"the runner reported success, but {num_units} of {of_units} units have not arrived in storage. Finished "
        "units are kept: run the same command again to go on"
    )


def _wait(run: "_BackgroundRun", heartbeats: Heartbeats, draw: Callable[[], None]) -> bool:
    """Draws progress until the run ends; True if the user asked for the end."""
    interrupted = False
    with _terminate_as_interrupt():
        while run.is_running():
            try:
                run.join(_POLL_SECONDS)
                draw()
                if run.deaths or heartbeats.failures():
                    heartbeats.request_drain()
                if run.is_given_up(heartbeats):
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
        # Whether another run may be begun: not beside a thread of this process that hangs.
        self.may_be_followed = True
        self._alive_seconds = time.monotonic()
        self._alive_done = 0
        self._thread = threading.Thread(target=self._run, args=(units, transform, settings), daemon=True)
        self._thread.start()

    def is_running(self) -> bool:
        return self._thread.is_alive()

    def cause(self) -> BaseException:
        """What ended it: where a worker died, that, and not what the runner or the drained workers made of it."""
        assert self.error is not None
        died = self.deaths and not isinstance(self.error, LogitcaskError)
        return ChildProcessError(self.deaths[0]) if died else self.error

    def join(self, timeout_seconds: float) -> None:
        self._thread.join(timeout_seconds)

    def is_given_up(self, heartbeats: Heartbeats) -> bool:
        """Whether this run will never end: a worker died and the runner has not noticed, or a unit hangs in here."""
        if any(failure.error == DriverHungError.__name__ for failure in heartbeats.failures()):
            self.error, self.may_be_followed = DriverHungError(), False
            return True
        done = heartbeats.done()
        if not self.deaths or done != self._alive_done:
            self._alive_seconds, self._alive_done = time.monotonic(), done
        if time.monotonic() - self._alive_seconds < _DEATH_GRACE_SECONDS:
            return False
        self.error = self.error or ChildProcessError(self.deaths[0])
        return True

    def _run(self, units: Sequence[Any], transform: "beam.PTransform", settings: RunnerSettings) -> None:
        # A process costs seconds to start; more of them than units would idle. But one would be this process, and a
        # unit that kills its worker must not kill the driver.
        if settings.num_workers > 1:
            settings = dataclasses.replace(settings, num_workers=max(2, min(settings.num_workers, len(units))))
        try:
            from logitcask.pipeline.runners.run_stage import run_stage

            run_stage(units, transform, settings, on_worker_death=self._note_death)
        except BaseException as error:
            self.error = error

    def _note_death(self, message: str) -> None:
        self.deaths.append(message)


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
