"""The Beam shape of both stages: units in, small records out, everything for one unit inside one `process`.

    Create(units) | Reshuffle | ParDo(one unit → its record) | Map(a small summary) | Reshuffle

The first Reshuffle lets a runner spread the units. The last one is required: on Beam's Python runner a worker that
is killed inside a leaf ParDo would hang the job for ever. Logits, tokens and shards never cross a stage.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import apache_beam as beam
from apache_beam.metrics.metric import Metrics
from apache_beam.pvalue import PCollection

from logitcask.pipeline.annotation.annotate_unit import AnnotationSpec, annotate_unit
from logitcask.pipeline.runners.release import require_release
from logitcask.pipeline.tokenization.token_shards import TokenSpec
from logitcask.pipeline.tokenization.tokenize_unit import tokenize_unit
from logitcask.pipeline.units.heartbeats import Heartbeats
from logitcask.pipeline.units.leases import UnitLimits, dead_marks, taking
from logitcask.pipeline.units.units import AnnotationUnit, TokenUnit
from logitcask.schemas.dataset.record import UnitRecord

T = TypeVar("T")


@dataclass
class TokenizeUnits(beam.PTransform):
    """Token units → a summary of each one's token shards.

    Attributes:
        spec: Settings of the job, the same for all units.
        heartbeats: Where workers report.
        limits: What a unit may cost.
        release: What workers must have installed (`pipeline.runners.release`); None where they are started from this
            one.
    """

    spec: TokenSpec
    heartbeats: Heartbeats
    limits: UnitLimits
    release: str | None = None

    def expand(self, input_or_inputs: PCollection[TokenUnit]) -> PCollection[tuple[str, int]]:
        return _process_each(input_or_inputs, TokenizeUnit(self.spec, self.heartbeats, self.limits), self.release)


@dataclass
class AnnotateUnits(beam.PTransform):
    """Annotation units → a summary of each one's target shard.

    Attributes:
        spec: Settings of the job, the same for all units.
        heartbeats: Where workers report.
        limits: What a unit may cost.
        release: What workers must have installed (`runners.release`); None where they are started from this one.
    """

    spec: AnnotationSpec
    heartbeats: Heartbeats
    limits: UnitLimits
    release: str | None = None

    def expand(self, input_or_inputs: PCollection[AnnotationUnit]) -> PCollection[tuple[str, int]]:
        return _process_each(input_or_inputs, AnnotateUnit(self.spec, self.heartbeats, self.limits), self.release)


class TokenizeUnit(beam.DoFn):
    """Runs `tokenize_unit`."""

    def __init__(self, spec: TokenSpec, heartbeats: Heartbeats, limits: UnitLimits) -> None:
        self._spec = spec
        self._heartbeats = heartbeats
        self._limits = limits

    def process(self, element: TokenUnit) -> Iterable[tuple[str, int]]:
        work = partial(tokenize_unit, element, self._spec, self._heartbeats)
        unit = _take(element.name, work, self._heartbeats, self._limits)
        yield element.name, 0 if unit is None else unit.num_positions


class AnnotateUnit(beam.DoFn):
    """Runs `annotate_unit`."""

    def __init__(self, spec: AnnotationSpec, heartbeats: Heartbeats, limits: UnitLimits) -> None:
        self._spec = spec
        self._heartbeats = heartbeats
        self._limits = limits

    def process(self, element: AnnotationUnit) -> Iterable[tuple[str, int]]:
        work = partial(annotate_unit, element, self._spec, self._heartbeats, count_annotated)
        record = _take(element.name, work, self._heartbeats, self._limits)
        yield element.name, 0 if record is None else record.num_positions


def count_annotated(record: UnitRecord) -> None:
    """Beam's counters of the annotation stage; runners without counters (Dask) drop them.

    Share of time in the teacher: `forward_milliseconds` / `unit_milliseconds`.
    """
    seconds = record.timings
    phases = ("read_seconds", "score_seconds", "finish_seconds")
    figures = {
        "annotated_units": 1,
        "annotated_tokens": record.num_positions,
        "forward_milliseconds": round(1000 * seconds["forward_seconds"]),
        "unit_milliseconds": round(1000 * sum(seconds[phase] for phase in phases)),
        "out_of_memory": record.environment.get("num_out_of_memory", 0),
    }
    for name, figure in figures.items():
        Metrics.counter("logitcask", name).inc(figure)


class RequireRelease(beam.DoFn):
    """Lets units pass on workers that have the driver's logitcask; runs in the process that does the unit."""

    def __init__(self, release: str) -> None:
        self._release = release

    def process(self, element: Any) -> Iterable[Any]:
        require_release(self._release)
        yield element


def _process_each(units: PCollection, process: beam.DoFn, release: str | None) -> PCollection[tuple[str, int]]:
    spread = units | "SpreadUnits" >> beam.Reshuffle()
    if release is not None:
        spread = spread | "RequireRelease" >> beam.ParDo(RequireRelease(release))
    return (  # pyright: ignore[reportReturnType]
        spread
        | type(process).__name__ >> beam.ParDo(process)
        | "Summarise" >> beam.Map(_summarise)
        | "Commit" >> beam.Reshuffle()
    )


def _summarise(summary: tuple[str, int]) -> tuple[str, int]:
    return summary


def _take(unit: str, work: Callable[[], T], heartbeats: Heartbeats, limits: UnitLimits) -> T | None:
    """Does a unit's work under a mark; None if too many workers died of it already.

    A cluster gives the unit of a dead worker to the next one without asking the driver, so it is counted here too.
    An error leaves its name with the driver before the runner turns it into text.
    """
    heartbeats.require_open()
    if len(dead_marks(limits.out, unit).get(unit, ())) >= limits.attempts:
        return None
    try:
        with taking(unit, limits, on_hang=partial(heartbeats.note_failure, unit)):
            return work()
    except Exception as error:
        heartbeats.note_failure(unit, error)
        raise
    finally:
        heartbeats.flush()
