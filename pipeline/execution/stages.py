"""Running one stage of the job until storage has all its units.

Units are submitted in waves, so that a job of any length stays small in memory and in the runner. A wave is attempted
until storage has all its units; an attempt without progress counts against `attempts`, and a unit that too many
workers died of is quarantined (`pipeline.units.evidence`). Units that an earlier job died with come last. After a
fault, workers finish the units they have. Ctrl-C and SIGTERM let them finish their batch; a second one ends
immediately. In every case the same command resumes.
"""

import dataclasses
import itertools
import logging
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from logitcask.pipeline.execution.background_run import BackgroundRun, UnitFailedError, not_stored
from logitcask.pipeline.execution.progress import Listener, ProgressDisplay, progress_display
from logitcask.pipeline.execution.storage_progress import StorageProgress
from logitcask.pipeline.runners.settings import RunnerSettings
from logitcask.pipeline.units.evidence import (
    STALE_SECONDS,
    DeathWatch,
    deaths,
    quarantined_units,
    remove_dead_leases,
    suspected_units,
)
from logitcask.pipeline.units.heartbeats import Heartbeats
from logitcask.pipeline.units.leases import Lease, UnitLimits
from logitcask.schemas.errors import LogitcaskError, WrongTargetsError

if TYPE_CHECKING:
    import apache_beam as beam

# Maximum number of units that a runner holds at a time: hours of work, a few megabytes.
WAVE_UNITS = 10_000
_SETTLE_SECONDS = 2.0
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One stage of the job.

    Attributes:
        label: What it does; shown with its progress.
        measure: What its progress counts: "tokens" or "bytes".
        units: All its units, each with a `name`; may be created on access.
        finished: Returns the names of those of the given units that storage has.
        size: Returns how much of the measure a unit is.
        transform: Returns the stage as a transform, given where its workers report and what a unit may cost.
        gather: Called after each wave with the range of units that has been processed since the last call.
        listeners: Called with the progress of this stage, in addition to those of the job.
    """

    label: str
    measure: str
    units: Sequence[Any]
    finished: Callable[[Sequence[Any]], set[str]]
    size: Callable[[Any], int]
    transform: "Callable[[Heartbeats, UnitLimits], beam.PTransform]"
    gather: Callable[[int, int], None] = lambda start, stop: None
    listeners: Sequence[Listener] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class StageResult:
    """The result of a stage.

    Attributes:
        num_units: Units that were left to do.
        size: How much of the stage's measure that was.
        quarantined: Units that were not done, each with the leases of the workers that died of it.
    """

    num_units: int
    size: int
    quarantined: dict[str, list[Lease]]


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
    """Runs the stage until storage has all its units except the quarantined ones.

    Args:
        stage: What to do.
        settings: Where to do it.
        limits: What a unit may cost.
        attempts: How many times in a row a wave may fail without finishing a unit.
        wave_units: Maximum number of units submitted at a time.
        quiet: Show no progress.
        listeners: Called with the progress a few times a second, also with `quiet`.

    Raises:
        LogitcaskError: The last attempt's error, as the worker reported it.
        KeyboardInterrupt: Ctrl-C or SIGTERM.
    """
    left = _unfinished(stage, wave_units, suspected_units(limits.out, limits.driver))
    quarantined: dict[str, list[Lease]] = {}
    if not left.indices and not left.suspected:
        return StageResult(num_units=0, size=0, quarantined=quarantined)
    listeners = (*listeners, *stage.listeners)
    if left.suspected:
        _logger.warning("%d units were held by processes that are gone: they come last", len(left.suspected))
        settings = dataclasses.replace(settings, spares_driver=True)
    with progress_display(stage.label, stage.measure, left.size, quiet=quiet, listeners=listeners) as display:
        done, gathered = 0, 0
        for indices in itertools.chain(_waves(left.indices, wave_units), _waves(left.suspected, wave_units)):
            wave = _pick(stage.units, indices)
            quarantined |= _Wave(stage, settings, limits, display, done).finish(wave, attempts)
            if indices[-1] >= gathered:
                stage.gather(gathered, indices[-1] + 1)
                gathered = indices[-1] + 1
            done += sum(map(stage.size, wave))
            display.update(done)
    return StageResult(num_units=len(left.indices) + len(left.suspected), size=left.size, quarantined=quarantined)


@dataclass(kw_only=True, slots=True)
class _Unfinished:
    """The units that storage does not have.

    Attributes:
        indices: Those that nothing is known against.
        suspected: Those that an earlier job may have died of.
        size: Of all.
    """

    indices: list[int] = field(default_factory=list)
    suspected: list[int] = field(default_factory=list)
    size: int = 0


def _unfinished(stage: Stage, block_units: int, suspected: Collection[str]) -> _Unfinished:
    left = _Unfinished()
    for block in _waves(range(len(stage.units)), block_units):
        units = _pick(stage.units, block)
        finished = stage.finished(units)
        for index, unit in zip(block, units, strict=True):
            if unit.name not in finished:
                (left.suspected if unit.name in suspected else left.indices).append(index)
                left.size += stage.size(unit)
    return left


def _waves(indices: Iterable[int], wave_units: int) -> Iterator[list[int]]:
    iterator = iter(indices)
    while wave := list(itertools.islice(iterator, wave_units)):
        yield wave


def _pick(units: Sequence[Any], indices: Sequence[int]) -> list[Any]:
    """The units at `indices`; consecutive ones as one slice, which is faster where units are created on access."""
    if indices[-1] - indices[0] == len(indices) - 1:
        return list(units[indices[0] : indices[-1] + 1])
    return [units[index] for index in indices]


class _Wave:
    """Some units of a stage, attempted until storage has them."""

    def __init__(
        self, stage: Stage, settings: RunnerSettings, limits: UnitLimits, display: ProgressDisplay, done: int
    ) -> None:
        self._stage, self._settings, self._limits = stage, settings, limits
        self._display, self._done_before = display, done
        self._watch = DeathWatch(limits.out, limits.driver)

    def finish(self, units: Sequence[Any], attempts: int) -> dict[str, list[Lease]]:
        """Attempts the units until storage has them all; returns the quarantined ones."""
        size = self._size(units)
        left = list(units)
        failed_in_a_row = 0
        quarantined = self._quarantined(left)
        while todo := [unit for unit in left if unit.name not in quarantined]:
            error = self._attempt(todo, self._done_before + size - self._size(todo))
            finished = self._stage.finished(left)
            # A worker that died after its unit's last step has cost nothing.
            remove_dead_leases(self._limits.out, finished)
            left = [unit for unit in left if unit.name not in finished]
            quarantined = self._quarantined(left)
            if len(left) == len(quarantined):
                continue
            # A quarantined unit is progress too, unless no unit was ever finished: then no single unit is to blame.
            progressed = len(left) < len(units) and len(left) - len(quarantined) < len(todo)
            failed_in_a_row = 1 if progressed else failed_in_a_row + 1
            self._report(error or not_stored(len(left), len(units)), failed_in_a_row, attempts)
        return quarantined

    def _quarantined(self, units: Sequence[Any]) -> dict[str, list[Lease]]:
        return quarantined_units(self._limits.out, self._limits, {unit.name for unit in units})

    def _size(self, units: Iterable[Any]) -> int:
        return sum(map(self._stage.size, units))

    def _attempt(self, units: Sequence[Any], done: int) -> LogitcaskError | None:
        """One attempt; returns the error that ended it, if another attempt may help.

        Raises:
            LogitcaskError: An error that would occur again.
        """
        with tempfile.TemporaryDirectory(prefix="logitcask-", ignore_cleanup_errors=True) as directory:
            heartbeats = Heartbeats(directory=directory)
            run = BackgroundRun(units, self._stage.transform(heartbeats, self._limits), self._settings)
            stored = StorageProgress(units, self._stage.finished, self._stage.size)

            def draw() -> None:
                elsewhere = 0
                if self._settings.is_cluster:
                    self._watch.look_if_due()
                    elsewhere = stored.done()
                self._display.update(done + max(heartbeats.done(), elsewhere), heartbeats.forward_share())

            interrupted = run.wait(heartbeats, draw)
            if interrupted:
                raise KeyboardInterrupt
            self._note_deaths(run)
            if run.error is None:
                return None
            error = run.named_error(heartbeats)
            # Bad data fails again, and so does a store that was waited for.
            if not isinstance(error, UnitFailedError | WrongTargetsError) or not run.can_be_retried:
                raise error from run.error
            return error

    def _note_deaths(self, run: BackgroundRun) -> None:
        """Notes which workers died; after a failure, workers of other machines get the time to show that they live."""
        deadline_seconds = time.monotonic() + STALE_SECONDS
        while self._watch.look(run.deaths[0] if run.deaths else None):
            if run.error is None or time.monotonic() >= deadline_seconds:
                return
            time.sleep(_SETTLE_SECONDS)

    def _report(self, error: LogitcaskError, failed_in_a_row: int, attempts: int) -> None:
        for unit, leases in sorted(deaths(self._limits.out, self._limits.driver).items()):
            _logger.warning(
                "unit %s: %d workers died of it (quarantined at %d): %s",
                unit,
                len(leases),
                self._limits.attempts,
                leases[-1].describe(),
            )
        if failed_in_a_row >= attempts:
            raise error
        _logger.warning("attempt %d of %d failed: %s", failed_in_a_row, attempts, error)
