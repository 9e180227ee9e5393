"""The second stage: one token shard → one target shard. Reads, scores and encodes at the same time, commits.

The teacher is loaded once in each process, never pickled, and shared by all units of the process. If it gives NaN or
infinity, the whole unit is rejected and its documents go to `rejected/`: nothing is lost, and the job continues.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from logitcask.pipeline.annotation.cached_scorer import exclusive_scorer
from logitcask.pipeline.annotation.encoder import UnitEncoder
from logitcask.pipeline.annotation.score_windows import score_windows
from logitcask.pipeline.units import leases
from logitcask.pipeline.units.annotation_units import AnnotationUnit
from logitcask.pipeline.units.heartbeats import Heartbeats
from logitcask.schemas import storage
from logitcask.schemas.dataset.commit import commit_record, commit_shard, finished_record
from logitcask.schemas.dataset.layout import rejected_path, shard_path
from logitcask.schemas.dataset.record import UnitRecord
from logitcask.schemas.errors import NonFiniteError
from logitcask.schemas.format.metadata import ShardMetadata, TeacherInfo, TokenizerInfo
from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.format.scheme import Layout
from logitcask.schemas.format.targets import Targets, Windows
from logitcask.schemas.format.writer import EncodedShard
from logitcask.schemas.stats.by_source import SourceGroups, summarize_by_source
from logitcask.schemas.stats.outlier_windows import find_outliers
from logitcask.schemas.stats.target_statistics import Statistics
from logitcask.teacher.scoring.protocol import ScorerSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotationSpec:
    """What a worker needs to annotate units; small and picklable.

    Attributes:
        out: The dataset's directory.
        scorer: How the teacher runs.
        teacher, tokenizer: What goes into the shards' metadata.
        window_tokens: Maximum positions of a window.
        has_entropy: Whether shards get the column `entropy`.
        layout: How head ids are stored.
        corpus_license: License of the text.
        sources: The groups of sources that statistics are counted by.
    """

    out: str
    scorer: ScorerSpec
    teacher: TeacherInfo
    tokenizer: TokenizerInfo
    window_tokens: int
    has_entropy: bool
    corpus_license: str | None
    layout: Layout = "plain"
    sources: SourceGroups = field(default_factory=SourceGroups)


def annotate_unit(
    unit: AnnotationUnit,
    spec: AnnotationSpec,
    heartbeats: Heartbeats,
    on_done: Callable[[UnitRecord], None] = lambda record: None,
) -> UnitRecord:
    """Annotates one token shard, or returns its record if another worker annotated it.

    Args:
        unit: The unit.
        spec: The job's settings.
        heartbeats: Receives the progress.
        on_done: Called with the record if this call annotated the unit.

    Raises:
        CorruptShardError, MissingShardError: The token shard, or a target shard from an earlier attempt, is damaged.
        TeacherError: The teacher cannot be loaded.
        MemoryExhaustedError: A single window does not fit into memory.
        WrongTargetsError: Its targets break a rule of the format; nothing is committed.
    """
    finished = finished_record(spec.out, "targets", unit.split, unit.name)
    if finished is not None:
        heartbeats.advance(unit.tokens.num_positions)
        return finished
    stopwatch = _Stopwatch()
    leases.report_phase("read", unit.name)
    windows = read_unit(unit, spec)
    heartbeats.spend(stopwatch.lap("read"))
    with UnitEncoder(windows, target_metadata(unit, spec)) as encoder:
        with exclusive_scorer(spec.scorer) as scorer:
            stopwatch.lap("load")
            leases.report_phase("forward", unit.name)
            try:
                scoring = score_windows(windows, scorer, spec.scorer.batch_tokens, heartbeats, encoder)
            except NonFiniteError as error:
                heartbeats.advance(unit.tokens.num_positions)
                return reject_unit(unit, windows, spec, error)
            environment = scorer.environment | scoring.environment()
        stopwatch.lap("score")
        leases.report_phase("encode", unit.name)
        shard, targets, statistics = encode_unit(unit, encoder)
        encoder.require_sound()
        heartbeats.spend(stopwatch.lap("finish"))
    record = UnitRecord(
        name=unit.name,
        kind="targets",
        split=unit.split,
        num_documents=windows.num_documents(),
        statistics=statistics,
        by_source=summarize_by_source(windows, targets, spec.sources),
        extremes=find_outliers(unit.name, windows, targets),
        environment=environment,
        timings={
            "forward_seconds": round(scoring.forward_seconds, 4),
            "encode_seconds": round(encoder.seconds, 4),
            "check_seconds": round(encoder.check_seconds, 4),
            **stopwatch.timings(),
        },
    )
    record = commit_shard(spec.out, shard, record)
    heartbeats.spend(stopwatch.lap("commit"))
    on_done(record)
    return record


def read_unit(unit: AnnotationUnit, spec: AnnotationSpec) -> Windows:
    """The windows of the unit's token shard.

    Raises:
        CorruptShardError, MissingShardError: The shard differs from its record, or is missing.
    """
    url = storage.inside(spec.out, shard_path("tokens", unit.split, unit.tokens.name))
    with ShardReader(url, footer_digest=unit.tokens.footer_digest) as reader:
        return reader.read().windows


def encode_unit(unit: AnnotationUnit, encoder: UnitEncoder) -> tuple[EncodedShard, Targets, Statistics]:
    """Finishes the encoding: the unit's shard, targets and statistics."""
    encoded = encoder.finish()
    assert encoded[0].num_positions == unit.tokens.num_positions, "every row of the token shard is encoded"
    return encoded


def target_metadata(unit: AnnotationUnit, spec: AnnotationSpec) -> ShardMetadata:
    """The metadata of the unit's target shard."""
    return ShardMetadata(
        kind="targets",
        split=unit.split,
        window_tokens=spec.window_tokens,
        tokenizer=spec.tokenizer,
        teacher=spec.teacher,
        scheme=spec.scorer.scheme,
        has_entropy=spec.has_entropy,
        layout=spec.layout,
        corpus_licence=spec.corpus_license,
    )


def reject_unit(unit: AnnotationUnit, windows: Windows, spec: AnnotationSpec, error: NonFiniteError) -> UnitRecord:
    """Writes a unit's parts to `rejected/`, and its record. A document counts in the unit in which it begins."""
    lines = [
        {
            "source": part.source,
            "row": None,
            "offset_bytes": None,
            "reason": "non_finite",
            "detail": f"document {part.id!r} from token {part.offset} on: {error}",
            "raw": None,
        }
        for part in windows.parts
    ]
    data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    storage.create(storage.inside(spec.out, rejected_path(unit.name, data)), data)
    record = UnitRecord(
        name=unit.name,
        kind="targets",
        split=unit.split,
        status="rejected",
        rejected={"non_finite": windows.num_documents()},
    )
    return commit_record(spec.out, record)


class _Stopwatch:
    """Measures seconds by phase."""

    def __init__(self) -> None:
        self._laps: dict[str, float] = {}
        self._last_seconds = time.perf_counter()

    def lap(self, phase: str) -> float:
        """Ends a phase and returns its seconds."""
        before_seconds, self._last_seconds = self._last_seconds, time.perf_counter()
        self._laps[f"{phase}_seconds"] = round(self._last_seconds - before_seconds, 4)
        return self._last_seconds - before_seconds

    def timings(self) -> dict[str, float | str]:
        """Seconds by phase, and the current time."""
        return {**self._laps, "ended_at": datetime.now(UTC).isoformat(timespec="seconds")}
