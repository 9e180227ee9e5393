"""The annotation job: resolve, tokenise, annotate, finalise. Usable without the command line:

    from pipeline.configuration import AnnotateConfig
    from pipeline.job import annotate

    result = annotate(AnnotateConfig(corpus=("texts/",), teacher="google/gemma-2-2b", out="cask"))

A job that was cut short goes on where it stopped; a finished one does nothing.
"""

import importlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

from pipeline.configuration import AnnotateConfig, RunnerSettings
from pipeline.corpus.parquet import row_group_bytes
from pipeline.finalizing import account, finalize, finished_units, read_tokenized_units
from pipeline.plan import AnnotationUnit, TokenUnit, plan_annotation_units, plan_token_units
from pipeline.resolving import ResolvedJob, resolve_job
from pipeline.stages import Stage, finish_stage
from pipeline.tokenizing import TokenizedUnit
from schemas import storage
from schemas.dataset import Snapshot
from schemas.errors import CorpusError, LogitcaskError


@dataclass(frozen=True, kw_only=True, slots=True)
class JobResult:
    """What a job did.

    Attributes:
        out: The dataset's directory.
        snapshot: Of all that stands there now.
        num_units: Units of both stages that were left to do; 0 if the job was finished before.
        num_annotated_positions: Positions of the target shards that were left to do.
        seconds: Wall-clock time of the annotation stage.
    """

    out: str
    snapshot: Snapshot
    num_units: int
    num_annotated_positions: int
    seconds: float


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
    runner = RunnerSettings(name=config.runner, num_workers=config.workers, dask_scheduler=config.dask_scheduler)
    job = resolve_job(config)
    token_units = plan_token_units(job.files, job.token_fingerprint(), row_group_bytes)
    num_tokenized = finish_stage(_token_stage(job, token_units), runner, config.attempts, quiet=quiet)
    tokenized = read_tokenized_units(job.out, token_units)
    units = plan_annotation_units((shard for unit in tokenized for shard in unit.shards), job.target_fingerprint())
    _require_documents(job, tokenized, units)
    return _annotate_units(job, tokenized, units, runner, config.attempts, num_tokenized, quiet=quiet)


def _annotate_units(
    job: ResolvedJob,
    tokenized: Sequence[TokenizedUnit],
    units: Sequence[AnnotationUnit],
    runner: RunnerSettings,
    attempts: int,
    num_tokenized: int,
    *,
    quiet: bool,
) -> JobResult:
    before = finished_units(job.out, units)
    started_seconds = time.monotonic()
    try:
        num_units = finish_stage(_target_stage(job, units), runner, attempts, quiet=quiet)
    except LogitcaskError:
        finalize(job, tokenized, units, check=False)
        raise
    return JobResult(
        out=job.out,
        snapshot=finalize(job, tokenized, units),
        num_units=num_tokenized + num_units,
        num_annotated_positions=sum(u.tokens.num_positions for u in units if u.name not in before),
        seconds=time.monotonic() - started_seconds,
    )


def _token_stage(job: ResolvedJob, units: Sequence[TokenUnit]) -> Stage:
    def remaining() -> list[TokenUnit]:
        files = storage.list_files(storage.join(job.out, "tokens", "units"))
        done = {storage.file_name(file.url).removesuffix(".json") for file in files}
        return [unit for unit in units if unit.name not in done]

    return Stage(
        label="tokenize",
        measure="bytes",
        remaining=remaining,
        size=lambda unit: unit.size_bytes,
        transform=lambda heartbeats: _transforms().TokenizeUnits(job.tokens, heartbeats),
    )


def _target_stage(job: ResolvedJob, units: Sequence[AnnotationUnit]) -> Stage:
    def remaining() -> list[AnnotationUnit]:
        done = finished_units(job.out, units)
        return [unit for unit in units if unit.name not in done]

    return Stage(
        label="annotate",
        measure="tokens",
        remaining=remaining,
        size=lambda unit: unit.tokens.num_positions,
        transform=lambda heartbeats: _transforms().AnnotateUnits(job.targets, heartbeats),
    )


def _transforms() -> ModuleType:
    """Beam, imported only where there is something to do."""
    return importlib.import_module("pipeline.transforms")


def _require_documents(job: ResolvedJob, tokenized: Sequence[TokenizedUnit], units: Sequence[AnnotationUnit]) -> None:
    """Raises CorpusError if there is nothing to annotate."""
    if units:
        return
    accounting = account(tokenized, [])
    reasons = ", ".join(f"{reason}: {count}" for reason, count in sorted(accounting.rejected.items()))
    raise CorpusError(
        f"no document of the corpus can be annotated: {accounting.num_documents} found, rejected for "
        f"{reasons or 'nothing'}; see {storage.redact(storage.join(job.out, 'rejected'))}. The field with the text is "
        f"named by --text-field (now {job.tokens.fields.wanted!r})"
    )
