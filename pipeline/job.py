"""The annotation job: resolve, tokenize, annotate, finalize. Usable without the command line:

    from logitcask.pipeline.config import AnnotateConfig
    from logitcask.pipeline.job import annotate

    result = annotate(AnnotateConfig(corpus=("texts/",), teacher="google/gemma-2-2b", out="cask"))

The same call resumes an interrupted job; a finished job does nothing.
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
from logitcask.pipeline.corpus_work import require_everything, require_files
from logitcask.pipeline.execution.background_run import UnitFailedError
from logitcask.pipeline.execution.progress import Listener
from logitcask.pipeline.execution.publisher import publishing
from logitcask.pipeline.execution.stages import Stage, StageResult, finish_stage
from logitcask.pipeline.execution.telemetry import telemetry
from logitcask.pipeline.finalization.append import write_appended
from logitcask.pipeline.finalization.finalize import (
    BLOCK_UNITS,
    TokenizedCorpus,
    finalize,
    gather_segments,
    read_tokenized_corpus,
)
from logitcask.pipeline.recorded_corpus import Comparison
from logitcask.pipeline.resolve import ResolvedJob, resolve_job
from logitcask.pipeline.tokenization.token_shards import TokenSpec
from logitcask.pipeline.units.annotation_units import AnnotationUnitTable
from logitcask.pipeline.units.evidence import remove_dead_leases
from logitcask.pipeline.units.finished import finished_annotation_units, finished_token_units, stored_shards
from logitcask.pipeline.units.known_documents import known_index, remove_index
from logitcask.pipeline.units.leases import Lease, UnitLimits
from logitcask.pipeline.units.processes import this_process
from logitcask.pipeline.units.token_units import TokenUnit, token_unit_name
from logitcask.schemas import outages, storage
from logitcask.schemas.checked_json import parse_object
from logitcask.schemas.dataset.snapshot import Snapshot, complete_snapshot
from logitcask.schemas.dataset.snapshot_writer import Draft, write_draft
from logitcask.schemas.dataset.token_unit_record import read_token_unit_record
from logitcask.schemas.errors import CorpusError, LogitcaskError, MissingShardError, StorageError

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class JobResult:
    """The result of a job.

    Attributes:
        out: The dataset's directory.
        snapshot: The snapshot of everything in it.
        num_units: Units of both stages that were left to do; 0 if the job was finished before.
        num_annotated_positions: Positions of the target shards that were left to do.
        num_added_documents, num_known_documents: Documents annotated by the plans of this run, and those that they left
            out because the dataset has them.
        corpus: How the corpus compared with what was recorded before this run.
        seconds: Wall-clock time of the annotation stage.
        quarantined: Units that were not done, each with the leases of the workers that died of it.
        num_split: How many more documents this corpus has because each answer of a chat is one.
    """

    out: str
    snapshot: Snapshot
    num_units: int
    num_annotated_positions: int
    seconds: float
    num_added_documents: int = 0
    num_known_documents: int = 0
    corpus: Comparison = field(default_factory=Comparison)
    quarantined: dict[str, list[Lease]] = field(default_factory=dict)
    num_split: int = 0


def annotate(config: AnnotateConfig, *, quiet: bool = False) -> JobResult:
    """Annotates a corpus.

    Args:
        config: Settings, as on the command line.
        quiet: Show no progress.

    Raises:
        LogitcaskError: An input, a setting or the output is invalid; the subclass says which. If this is found before
            the first unit, nothing is written; otherwise the same call resumes.
        KeyboardInterrupt: Ctrl-C or SIGTERM; workers have finished their batch.
    """
    with telemetry(config.heartbeat, config.heartbeat_seconds, config.prometheus) as listeners:
        return _annotate(config, StageRunner(config, listeners, quiet=quiet))


def _annotate(config: AnnotateConfig, runner: "StageRunner") -> JobResult:
    job = resolve_job(config)
    # Not before: a store that has never answered is rather a wrong address.
    with outages.store_timeout(config.store_timeout):
        return _finish(config, job, runner)


def _finish(config: AnnotateConfig, job: ResolvedJob, runner: "StageRunner") -> JobResult:
    if config.retry_quarantined:
        remove_dead_leases(job.out)
    first = result = _run_plan(job, runner, config.publish_every)
    while config.append and not job.work.is_last and result.snapshot.complete:
        job = resolve_job(config)
        result = _join(result, _run_plan(job, runner, config.publish_every))
    if not config.append:
        require_everything(job.out, job.work)
    return dataclasses.replace(result, corpus=first.corpus)


def _run_plan(job: ResolvedJob, runner: "StageRunner", publish_every: float | None) -> JobResult:
    """Works on one plan until it is finished."""
    work = job.work
    if work.plan is None:
        snapshot = complete_snapshot(job.out)
        return JobResult(
            out=job.out, snapshot=snapshot, num_units=0, num_annotated_positions=0, seconds=0.0, corpus=work.comparison
        )
    token_units = work.units
    able = [unit for unit in token_units if unit.name not in work.absent]
    first = runner.finish(job, _token_stage(job, able))
    tokenized = dataclasses.replace(
        read_tokenized_corpus(job.out, token_units, job.identity.target_fingerprint()), skipped_files=job.num_skipped
    )
    if work.plan.units and not work.absent:
        _require_documents(job, tokenized, first)
    started_seconds = time.monotonic()
    try:
        with publishing(publish_every, partial(_publish_finished, job, tokenized)) as listeners:
            second = _finish_targets(runner, job, token_units, tokenized, listeners)
    except StorageError:
        raise
    except LogitcaskError:
        if not work.is_append:
            finalize(job.out, job.identity, tokenized, check=False)
        raise
    snapshot = finalize(job.out, job.identity, tokenized, write=write_appended if work.is_append else write_draft)
    require_files(work)
    if work.is_append:
        remove_index(job.out, work.plan.info.fingerprint)
    return JobResult(
        out=job.out,
        snapshot=snapshot,
        num_units=first.num_units + second.num_units,
        num_annotated_positions=second.size,
        seconds=time.monotonic() - started_seconds,
        num_added_documents=tokenized.totals.num_documents - sum(tokenized.totals.rejected.values()),
        num_known_documents=tokenized.totals.num_known,
        corpus=work.comparison,
        quarantined=first.quarantined | second.quarantined,
        num_split=tokenized.totals.num_split,
    )


def _join(before: JobResult, after: JobResult) -> JobResult:
    """The result of two plans, one after the other."""
    names = ("num_units", "num_annotated_positions", "seconds", "num_added_documents", "num_known_documents")
    sums = {name: getattr(before, name) + getattr(after, name) for name in names}
    return dataclasses.replace(after, **sums, quarantined=before.quarantined | after.quarantined)


class StageRunner:
    """Runs the stages of a job with the settings of its configuration."""

    def __init__(self, config: AnnotateConfig, listeners: Sequence[Listener], *, quiet: bool) -> None:
        self._config, self._listeners, self._quiet = config, listeners, quiet
        self._settings = config.runner_settings()

    def finish(self, job: ResolvedJob, stage: Stage) -> StageResult:
        """Runs a stage until storage has all its units; see `finish_stage`."""
        limits = UnitLimits(
            out=job.out,
            attempts=self._config.unit_attempts,
            timeout_seconds=self._config.unit_timeout,
            driver=this_process(),
            store_timeout_seconds=self._config.store_timeout,
        )
        return finish_stage(
            stage, self._settings, limits, self._config.attempts, quiet=self._quiet, listeners=self._listeners
        )


def _publish_finished(job: ResolvedJob, tokenized: TokenizedCorpus) -> None:
    """Writes a snapshot of the finished units, if there are any."""

    def write(out: str, draft: Draft) -> Snapshot | None:
        return write_draft(out, draft) if draft.splits and not draft.complete else None

    finalize(job.out, job.identity, tokenized, check=False, write=write)


def _finish_targets(
    runner: StageRunner,
    job: ResolvedJob,
    token_units: Sequence[TokenUnit],
    tokenized: TokenizedCorpus,
    listeners: Sequence[Listener],
) -> StageResult:
    """Runs the second stage; token shards that were lost in the meantime are written again."""
    stage = dataclasses.replace(_target_stage(job, tokenized.units), listeners=listeners)
    try:
        return runner.finish(job, stage)
    except MissingShardError:
        lost = _lost_token_units(job, token_units, tokenized)
        if not lost:
            raise
        _logger.warning("token shards of %d units are missing: tokenizing them again", len(lost))
        again = _token_stage(job, lost)
        runner.finish(job, dataclasses.replace(again, finished=partial(_whole_token_units, job.out)))
        return runner.finish(job, stage)


def _lost_token_units(
    job: ResolvedJob, token_units: Sequence[TokenUnit], tokenized: TokenizedCorpus
) -> list[TokenUnit]:
    """Token units that lost a token shard which the second stage still needs."""
    lost = set()
    for units in tokenized.units.blocks(BLOCK_UNITS):
        finished = finished_annotation_units(job.out, units)
        shards = [unit.tokens for unit in units if unit.name not in finished]
        for shard, stored in zip(shards, stored_shards(job.out, "tokens", shards), strict=True):
            if stored.size_bytes is None:
                lost.add(token_unit_name(shard.name))
    return [unit for unit in token_units if unit.name in lost]


def _whole_token_units(out: str, units: Sequence[TokenUnit]) -> set[str]:
    """Names of the units whose token shards all exist."""
    return {
        unit.name
        for unit in units
        if all(
            stored.size_bytes is not None
            for stored in stored_shards(out, "tokens", read_token_unit_record(out, unit.name).shards)
        )
    }


def _token_stage(job: ResolvedJob, units: Sequence[TokenUnit]) -> Stage:
    return Stage(
        label="tokenize",
        measure="bytes",
        units=units,
        finished=partial(finished_token_units, job.out),
        size=lambda unit: unit.size_bytes,
        transform=lambda heartbeats, limits: _transforms().tokenize_units(_with_known(job), heartbeats, limits),
    )


def _with_known(job: ResolvedJob) -> TokenSpec:
    """The settings of the first stage with the index of known documents, which is written only if a unit is left."""
    if job.work.plan is None or not job.work.plan.known:
        return job.tokens
    return dataclasses.replace(job.tokens, known=known_index(job.out, job.work.plan, complete_snapshot(job.out)))


def _target_stage(job: ResolvedJob, units: AnnotationUnitTable) -> Stage:
    return Stage(
        label="annotate",
        measure="tokens",
        units=units,
        finished=partial(finished_annotation_units, job.out),
        size=lambda unit: unit.tokens.num_positions,
        transform=lambda heartbeats, limits: _transforms().annotate_units(job.targets, heartbeats, limits),
        gather=partial(gather_segments, job.out, units),
    )


def _transforms() -> ModuleType:
    """Beam is imported only if a unit is left to do."""
    return importlib.import_module("logitcask.pipeline.execution.transforms")


def _require_documents(job: ResolvedJob, tokenized: TokenizedCorpus, first: StageResult) -> None:
    """Raises an error if there is nothing to annotate.

    Raises:
        UnitFailedError: All token units are quarantined.
        CorpusError: All documents are rejected.
    """
    if len(tokenized.units) or tokenized.totals.num_known:
        return
    if first.quarantined:
        unit, leases = next(iter(first.quarantined.items()))
        raise UnitFailedError(
            f"all units of the corpus are quarantined because workers died of them; unit {unit}: "
            f"{leases[-1].describe()}. When the cause is fixed, run the same command with --retry-quarantined"
        )
    totals = tokenized.totals
    reasons = ", ".join(f"{reason}: {count}" for reason, count in sorted(totals.rejected.items()))
    raise CorpusError(
        f"no document of the corpus can be annotated: {totals.num_documents} found, rejected for "
        f"{reasons or 'nothing'}; see {storage.redact(storage.join(job.out, 'rejected'))}{_first_rejection(job.out)}. "
        f"Set --text-field (now {job.tokens.fields.required!r}) to the field that holds the text"
    )


def _first_rejection(out: str) -> str:
    """What was wrong with one document, for an error message."""
    for file in storage.list_members(out, "rejected"):
        line = parse_object(storage.read_bytes(file.url).partition(b"\n")[0])
        return f". The first: {line.get('source')}: {line.get('detail')}"
    return ""
