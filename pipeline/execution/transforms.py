"""The Beam shape of both stages: units in, small summaries out, all work on a unit inside one `process`.

    Create(units) | Reshuffle | ParDo(one unit → its name and size) | Reshuffle

The first Reshuffle lets a runner spread the units. The last one is required: on Beam's Python runner, a worker killed
inside a leaf ParDo would hang the job forever. Logits, tokens and shards never cross a stage.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import apache_beam as beam
from apache_beam.metrics.metric import Metrics
from apache_beam.pvalue import PCollection

from logitcask.pipeline.annotation.annotate_unit import AnnotationSpec, annotate_unit
from logitcask.pipeline.runners.release import require_one_task, require_release
from logitcask.pipeline.tokenization.token_shards import TokenSpec
from logitcask.pipeline.tokenization.tokenize_unit import tokenize_unit
from logitcask.pipeline.units.evidence import quarantined_units
from logitcask.pipeline.units.heartbeats import Heartbeats
from logitcask.pipeline.units.leases import UnitLimits, hold_lease
from logitcask.schemas import outages
from logitcask.schemas.dataset.record import UnitRecord


def tokenize_units(spec: TokenSpec, heartbeats: Heartbeats, limits: UnitLimits) -> "ProcessUnits":
    """The first stage: token units become token shards."""
    work = partial(tokenize_unit, spec=spec, heartbeats=heartbeats)
    return ProcessUnits(work=work, name="TokenizeUnit", heartbeats=heartbeats, limits=limits)


def annotate_units(spec: AnnotationSpec, heartbeats: Heartbeats, limits: UnitLimits) -> "ProcessUnits":
    """The second stage: annotation units become target shards."""
    work = partial(annotate_unit, spec=spec, heartbeats=heartbeats, on_done=count_annotated)
    return ProcessUnits(work=work, name="AnnotateUnit", heartbeats=heartbeats, limits=limits)


@dataclass
class ProcessUnits(beam.PTransform):
    """Units of one stage → the name and the number of positions of each.

    Attributes:
        work: Does one unit; returns its record.
        name: Name of the step in Beam.
        heartbeats: Where workers report.
        limits: What a unit may cost.
        release: What workers must have installed (`pipeline.runners.release`); None where the driver starts them.
    """

    work: Callable[[Any], Any]
    name: str
    heartbeats: Heartbeats
    limits: UnitLimits
    release: str | None = None

    def expand(self, input_or_inputs: PCollection[Any]) -> PCollection[tuple[str, int]]:
        spread = input_or_inputs | "SpreadUnits" >> beam.Reshuffle()
        if self.release is not None:
            spread = spread | "RequireRelease" >> beam.ParDo(RequireRelease(self.release))
        process = self.name >> beam.ParDo(ProcessUnit(self.work, self.heartbeats, self.limits))
        return spread | process | "Commit" >> beam.Reshuffle()  # pyright: ignore[reportReturnType]


class ProcessUnit(beam.DoFn):
    """Does a unit's work under a lease, unless the unit is quarantined; the arguments are those of `ProcessUnits`."""

    def __init__(self, work: Callable[[Any], Any], heartbeats: Heartbeats, limits: UnitLimits) -> None:
        self._work, self._heartbeats, self._limits = work, heartbeats, limits

    def process(self, element: Any) -> Iterable[tuple[str, int]]:
        """Yields the unit's name and its number of positions; 0 for a quarantined unit.

        A cluster gives the unit of a dead worker to the next one without involving the driver, so the workers that
        died of it are counted here too. An error is reported to the driver by name before the runner turns it into
        text.
        """
        # A wait for the store is no hang, and ends when the driver asks for a stop.
        with outages.waiting(self._limits.store_timeout_seconds, on_pause=partial(self._heartbeats.advance, 0)):
            done = self._process(element)
        yield done

    def _process(self, element: Any) -> tuple[str, int]:
        unit = element.name
        self._heartbeats.require_open()
        if quarantined_units(self._limits.out, self._limits, {unit}):
            return unit, 0
        report_failure = partial(self._heartbeats.report_failure, unit)
        try:
            with hold_lease(unit, self._limits, on_hang=report_failure):
                num_positions = self._work(element).num_positions
        except Exception as error:
            report_failure(error)
            raise
        finally:
            self._heartbeats.flush()
        return unit, num_positions


class RequireRelease(beam.DoFn):
    """Passes units on if the worker has the driver's logitcask and runs one task at a time; in the unit's process."""

    def __init__(self, release: str) -> None:
        self._release = release

    def process(self, element: Any) -> Iterable[Any]:
        require_release(self._release)
        require_one_task()
        yield element


def count_annotated(record: UnitRecord) -> None:
    """Adds a unit to Beam's counters of the annotation stage; runners without counters (Dask) drop them.

    The teacher's share of the time is `forward_milliseconds` / `unit_milliseconds`.
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
