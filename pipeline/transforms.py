"""The Beam shape of both stages: units in, small records out, everything for one unit inside one `process`.

    Create(units) | Reshuffle | ParDo(one unit → its record) | Map(a small summary) | Reshuffle

The first Reshuffle lets a runner spread the units. The last one is required: on Beam's Python runner a worker that
is killed inside a leaf ParDo would hang the job for ever. Logits, tokens and shards never cross a stage.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import PCollection

from pipeline.annotating import AnnotationSpec, annotate_unit
from pipeline.heartbeats import Heartbeats
from pipeline.plan import AnnotationUnit, TokenUnit
from pipeline.token_shards import TokenSpec
from pipeline.tokenizing import tokenize_unit


@dataclass
class TokenizeUnits(beam.PTransform):
    """Token units → a summary of each one's token shards.

    Attributes:
        spec: Settings of the job, the same for all units.
        heartbeats: Where workers report.
    """

    spec: TokenSpec
    heartbeats: Heartbeats

    def expand(self, input_or_inputs: PCollection[TokenUnit]) -> PCollection[tuple[str, int]]:
        return _process_each(input_or_inputs, TokenizeUnit(self.spec, self.heartbeats))


@dataclass
class AnnotateUnits(beam.PTransform):
    """Annotation units → a summary of each one's target shard.

    Attributes:
        spec: Settings of the job, the same for all units.
        heartbeats: Where workers report.
    """

    spec: AnnotationSpec
    heartbeats: Heartbeats

    def expand(self, input_or_inputs: PCollection[AnnotationUnit]) -> PCollection[tuple[str, int]]:
        return _process_each(input_or_inputs, AnnotateUnit(self.spec, self.heartbeats))


class TokenizeUnit(beam.DoFn):
    """Runs `tokenize_unit`."""

    def __init__(self, spec: TokenSpec, heartbeats: Heartbeats) -> None:
        self._spec = spec
        self._heartbeats = heartbeats

    def process(self, element: TokenUnit) -> Iterable[tuple[str, int]]:
        unit = _reporting(tokenize_unit, element, self._spec, self._heartbeats)
        yield unit.name, unit.num_positions


class AnnotateUnit(beam.DoFn):
    """Runs `annotate_unit`."""

    def __init__(self, spec: AnnotationSpec, heartbeats: Heartbeats) -> None:
        self._spec = spec
        self._heartbeats = heartbeats

    def process(self, element: AnnotationUnit) -> Iterable[tuple[str, int]]:
        record = _reporting(annotate_unit, element, self._spec, self._heartbeats)
        yield record.name, record.num_positions


def _process_each(units: PCollection, process: beam.DoFn) -> PCollection[tuple[str, int]]:
    return (  # pyright: ignore[reportReturnType]
        units
        | "SpreadUnits" >> beam.Reshuffle()
        | type(process).__name__ >> beam.ParDo(process)
        | "Summarise" >> beam.Map(_summarise)
        | "Commit" >> beam.Reshuffle()
    )


def _summarise(summary: tuple[str, int]) -> tuple[str, int]:
    return summary


def _reporting(work: Callable[..., Any], unit: Any, spec: Any, heartbeats: Heartbeats) -> Any:
    """Runs a unit; an error leaves its name with the driver before the runner turns it into text."""
    try:
        return work(unit, spec, heartbeats)
    except Exception as error:
        heartbeats.note_failure(unit.name, error)
        raise
    finally:
        heartbeats.flush()
