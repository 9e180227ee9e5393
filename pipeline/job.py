"""The annotation job: resolve, tokenise, annotate, finalise. Usable without the command line:

    from logitcask.pipeline.config import AnnotateConfig
    from logitcask.pipeline.job import annotate

    result = annotate(AnnotateConfig(corpus=("texts/",), teacher="google/gemma-2-2b", out="cask"))

A job that was cut short goes on where it stopped; a finished one does nothing.
"""

import dataclasses
import importlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType

from logitcask.pipeline.config import AnnotateConfig
from logitcask.pipeline.corpus.parquet import row_group_bytes
from logitcask.pipeline.execution.progress import Listener
from logitcask.pipeline.execution.stages import Stage, StageResult, UnitFailedError, finish_stage
from logitcask.pipeline.execution.telemetry import telemetry
from logitcask.pipeline.finalization.append import finished_before, write_appended
from logitcask.pipeline.finalization.finalize import BLOCK_UNITS, Tokenized, finalize, gather_segments, read_tokenized
from logitcask.pipeline.resolve import ResolvedJob, resolve_job
from logitcask.pipeline.units.annotation_units import AnnotationPlan
from logitcask.pipeline.units.finished import finished_token_units, finished_units, standing_shards
from logitcask.pipeline.units.leases import Mark, UnitLimits, forgive, this_process
from logitcask.pipeline.units.token_unit_record import read_tokenized_unit
from logitcask.pipeline.units.units import TokenUnit, plan_token_units, token_unit_name
from logitcask.schemas import storage
from logitcask.schemas.dataset.snapshot import Snapshot
from logitcask.schemas.dataset.snapshot_writer import write_draft
from logitcask.schemas.errors import CorpusError, LogitcaskError, MissingShardError

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class JobResult:
    """What a job did.

    Attributes:
        out: The dataset's directory.
        snapshot: Of all that stands there now.
        num_units: Units of both stages that were left to do; 0 if the job was finished before.
        num_annotated_positions: Positions of the target shards that were left to do.
        seconds: Wall-clock time of the annotation stage.
        set_aside: Units that were left out, each with the marks of the workers who died of it.
    """

    out: str
    snapshot: Snapshot
    num_units: int
    num_annotated_positions: int
    seconds: float
    set_aside: dict[str, list[Mark]] = field(default_factory=dict)


def annotate(config: AnnotateConfig, *, quiet: bool = False) -> JobResult:
    """Annotates a corpus.

    Args:
        config: Settings, as on the command line.
        quiet: Show no progress.

    Raises:
        LogitcaskError: An input, a setting or the output is not as it must be; the subclass says which. Nothing is
            written if that shows before the first unit; otherwise the same call goes on with what is left.
        KeyboardInterrupt: Ctrl-C or SIGTERM; workers have finished their batch.
    """
    with telemetry(config.heartbeat, config.heartbeat_seconds, config.prometheus) as listeners:
        return _annotate(config, _Crew(config, listeners, quiet=quiet))


def _annotate(config: AnnotateConfig, crew: "_Crew") -> JobResult:
    job = resolve_job(config)
    standing = finished_before(job.out, job.identity, appends=config.append)
    if standing is not None:
        return JobResult(out=job.out, snapshot=standing, num_units=0, num_annotated_positions=0, seconds=0.0)
    if config.retry_set_aside:
        forgive(job.out)
    token_units = plan_token_units(job.files, job.token_fingerprint(), row_group_bytes)
    first = crew.finish(job, _token_stage(job, token_units))
    tokenized = read_tokenized(job.out, token_units, job.target_fingerprint())
    _require_documents(job, tokenized, first)
    started_seconds = time.monotonic()
    try:
        second = _finish_targets(crew, job, token_units, tokenized)
    except LogitcaskError:
        if not config.append:
            finalize(job.out, job.identity, tokenized, check=False)
        raise
    return JobResult(
        out=job.out,
        snapshot=finalize(job.out, job.identity, tokenized, write=write_appended if config.append else write_draft),
        num_units=first.num_units + second.num_units,
        num_annotated_positions=second.size,
        seconds=time.monotonic() - started_seconds,
        set_aside=first.set_aside | second.set_aside,
    )


class _Crew:
    """Who runs the stages of a job, and how persistently."""

    def __init__(self, config: AnnotateConfig, listeners: Sequence[Listener], *, quiet: bool) -> None:
        self._config, self._listeners, self._quiet = config, listeners, quiet
        self._settings = config.runner_settings()

    def finish(self, job: ResolvedJob, stage: Stage) -> StageResult:
        limits = UnitLimits(
            out=job.out,
            attempts=self._config.unit_attempts,
            timeout_seconds=self._config.unit_timeout,
            driver=this_process(),
        )
        return finish_stage(
            stage, self._settings, limits, self._config.attempts, quiet=self._quiet, listeners=self._listeners
        )


def _finish_targets(
    crew: _Crew, job: ResolvedJob, token_units: Sequence[TokenUnit], tokenized: Tokenized
) -> StageResult:
    """The second stage; token shards that were lost since they were made are made again."""
    stage = _target_stage(job, tokenized.plan)
    try:
        return crew.finish(job, stage)
    except MissingShardError:
        lost = _lost_token_units(job, token_units, tokenized)
        if not lost:
            raise
        _logger.warning("token shards of %d units are gone: tokenising them again", len(lost))
        again = _token_stage(job, lost)
        crew.finish(job, dataclasses.replace(again, finished=partial(_whole_token_units, job.out)))
        return crew.finish(job, stage)


def _lost_token_units(job: ResolvedJob, token_units: Sequence[TokenUnit], tokenized: Tokenized) -> list[TokenUnit]:
    """Units of the first stage of whose token shards one is gone that the second stage still needs."""
    lost = set()
    for units in tokenized.plan.blocks(BLOCK_UNITS):
        finished = finished_units(job.out, units)
        shards = [unit.tokens for unit in units if unit.name not in finished]
        for shard, standing in zip(shards, standing_shards(job.out, "tokens", shards), strict=True):
            if standing.size_bytes is None:
                lost.add(token_unit_name(shard.name))
    return [unit for unit in token_units if unit.name in lost]


def _whole_token_units(out: str, units: Sequence[TokenUnit]) -> set[str]:
    """Names of the units all of whose token shards stand."""
    return {
        unit.name
        for unit in units
        if all(
            standing.size_bytes is not None
            for standing in standing_shards(out, "tokens", read_tokenized_unit(out, unit.name).shards)
        )
    }


def _token_stage(job: ResolvedJob, units: Sequence[TokenUnit]) -> Stage:
    return Stage(
        label="tokenize",
        measure="bytes",
        units=units,
        finished=partial(finished_token_units, job.out),
        size=lambda unit: unit.size_bytes,
        transform=lambda heartbeats, limits: _transforms().TokenizeUnits(job.tokens, heartbeats, limits),
    )


def _target_stage(job: ResolvedJob, plan: AnnotationPlan) -> Stage:
    return Stage(
        label="annotate",
        measure="tokens",
        units=plan,
        finished=partial(finished_units, job.out),
        size=lambda unit: unit.tokens.num_positions,
        transform=lambda heartbeats, limits: _transforms().AnnotateUnits(job.targets, heartbeats, limits),
        gather=partial(gather_segments, job.out, plan),
    )


def _transforms() -> ModuleType:
    """Beam, imported only where there is something to do."""
    return importlib.import_module("logitcask.pipeline.execution.transforms")


def _require_documents(job: ResolvedJob, tokenized: Tokenized, first: StageResult) -> None:
    """Raises CorpusError if there is nothing to annotate."""
    if len(tokenized.plan):
        return
    if first.set_aside:
        unit, marks = next(iter(first.set_aside.items()))
        raise UnitFailedError(
            f"all units of the corpus were set aside because workers died of them; unit {unit}: "
            f"{marks[-1].describe()}. Once the cause is gone: the same command with --retry-set-aside"
        )
    sums = tokenized.sums
    reasons = ", ".join(f"{reason}: {count}" for reason, count in sorted(sums.rejected.items()))
    raise CorpusError(
        f"no document of the corpus can be annotated: {sums.num_documents} found, rejected for "
        f"{reasons or 'nothing'}; see {storage.redact(storage.join(job.out, 'rejected'))}. The field with the text is "
        f"named by --text-field (now {job.tokens.fields.wanted!r})"
    )
