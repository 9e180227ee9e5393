"""The second stage: one token shard → one target shard: read, score and encode side by side, commit.

The model is loaded once a process, never pickled, and shared by all units of the process. A unit whose teacher gives
NaN or infinity is set aside whole, with its documents in `rejected/`: never lost, never fatal.
"""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipeline import attempts
from pipeline.committing import commit_record, commit_shard, standing_record
from pipeline.heartbeats import Heartbeats
from pipeline.plan import AnnotationUnit
from pipeline.scoring import UnitEncoder, score_windows
from schemas import storage
from schemas.dataset import shard_path
from schemas.errors import NonFiniteError
from schemas.extremes import find_extremes
from schemas.reader import ShardReader
from schemas.records import UnitRecord
from schemas.scheme import Layout, Scheme
from schemas.shard import EncodedShard, ShardMetadata, TeacherInfo, TokenizerInfo
from schemas.sources import SourceGroups, summarize_by_source
from schemas.statistics import Statistics
from schemas.targets import Targets, Windows

if TYPE_CHECKING:
    # torch is not needed before the first window is scored; workers of the other stage never need it.
    from teacher.scorer import Scorer


@dataclass(frozen=True, kw_only=True, slots=True)
class ScorerSpec:
    """How the teacher runs; all of it pinned for the life of a dataset, because it moves the low bits.

    Attributes:
        reference: Directory, hub id or `.gguf` file.
        device: "cpu", "cuda" or "cuda:1".
        dtype: Of weights and forward pass.
        attention: Attention implementation of `transformers`.
        num_threads: CPU threads of a worker.
        batch_tokens: Most positions of a forward pass, padding included.
        row_chunk: Positions whose logits exist at a time; None for what suits the teacher's vocabulary.
        scheme: How heads are chosen.
        temperatures: Further temperatures at which the tail is stored.
        num_ids: Ids from here on are padding of the vocabulary and get no probability; None if there are none.
        kernel: What passes over the logits (`teacher.block_sums`).
        device_map: Instead of one device, how the teacher is spread (`teacher.loading.load_model`).
    """

    reference: str
    device: str
    dtype: str
    attention: str
    num_threads: int
    batch_tokens: int
    row_chunk: int | None
    scheme: Scheme
    temperatures: tuple[float, ...] = ()
    num_ids: int | None = None
    kernel: str = "auto"
    device_map: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotationSpec:
    """What a worker needs to annotate units; small and picklable.

    Attributes:
        out: The dataset's directory.
        scorer: How the teacher runs.
        teacher, tokenizer: What goes into the shards' metadata.
        window_tokens: Most positions of a window.
        has_entropy: Whether shards get the column `entropy`.
        layout: How head ids are stored.
        corpus_licence: Terms of the text.
        sources: The groups of sources that are counted apart.
    """

    out: str
    scorer: ScorerSpec
    teacher: TeacherInfo
    tokenizer: TokenizerInfo
    window_tokens: int
    has_entropy: bool
    corpus_licence: str | None
    layout: Layout = "plain"
    sources: SourceGroups = field(default_factory=SourceGroups)


def annotate_unit(
    unit: AnnotationUnit,
    spec: AnnotationSpec,
    heartbeats: Heartbeats,
    on_done: Callable[[UnitRecord], None] = lambda record: None,
) -> UnitRecord:
    """Annotates one token shard, or returns the record of whoever did.

    Args:
        unit: Which.
        spec: How.
        heartbeats: Where progress is told.
        on_done: Told the record if it was annotated here and now.

    Raises:
        CorruptShardError, MissingShardError: The token shard, or what stands of the target shard, is damaged.
        TeacherError: The teacher cannot be loaded.
    """
    standing = standing_record(spec.out, "targets", unit.split, unit.name)
    if standing is not None:
        heartbeats.advance(unit.tokens.num_positions)
        return standing
    stopwatch = _Stopwatch()
    attempts.reach("read", unit.name)
    windows = read_unit(unit, spec)
    heartbeats.spend(stopwatch.lap("read"))
    scorer = cached_scorer(spec.scorer)
    stopwatch.lap("load")
    attempts.reach("forward", unit.name)
    with UnitEncoder(windows, target_metadata(unit, spec)) as encoder:
        try:
            scoring = score_windows(windows, scorer, spec.scorer.batch_tokens, heartbeats, encoder)
        except NonFiniteError as error:
            heartbeats.advance(unit.tokens.num_positions)
            return reject_unit(unit, windows, spec, error)
        stopwatch.lap("score")
        attempts.reach("encode", unit.name)
        shard, targets, statistics = encode_unit(unit, encoder)
        heartbeats.spend(stopwatch.lap("finish"))
    record = UnitRecord(
        name=unit.name,
        kind="targets",
        split=unit.split,
        num_documents=windows.num_documents(),
        statistics=statistics,
        by_source=summarize_by_source(windows, targets, spec.sources),
        extremes=find_extremes(unit.name, windows, targets),
        environment=scorer.environment | scoring.environment(),
        timings={
            "forward_seconds": round(scoring.forward_seconds, 4),
            "encode_seconds": round(encoder.seconds, 4),
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
        CorruptShardError, MissingShardError: It is not as its record says, or not there.
    """
    url = storage.join(spec.out, shard_path("tokens", unit.split, unit.tokens.name))
    with ShardReader(url, footer_digest=unit.tokens.footer_digest) as reader:
        return reader.read().windows


def encode_unit(unit: AnnotationUnit, encoder: UnitEncoder) -> tuple[EncodedShard, Targets, Statistics]:
    """The end of a unit's encoding: its shard, targets and statistics."""
    encoded = encoder.finish()
    assert encoded[0].num_positions == unit.tokens.num_positions, "a target for every row of the token shard"
    return encoded


def target_metadata(unit: AnnotationUnit, spec: AnnotationSpec) -> ShardMetadata:
    """What the unit's target shard is."""
    return ShardMetadata(
        kind="targets",
        split=unit.split,
        window_tokens=spec.window_tokens,
        tokenizer=spec.tokenizer,
        teacher=spec.teacher,
        scheme=spec.scorer.scheme,
        has_entropy=spec.has_entropy,
        layout=spec.layout,
        corpus_licence=spec.corpus_licence,
    )


def reject_unit(unit: AnnotationUnit, windows: Windows, spec: AnnotationSpec, error: NonFiniteError) -> UnitRecord:
    """Sets a unit aside: its parts go to `rejected/`, its record says so. A document counts where it begins."""
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
    storage.create(storage.join(spec.out, "rejected", f"{unit.name}.jsonl"), data)
    record = UnitRecord(
        name=unit.name,
        kind="targets",
        split=unit.split,
        status="rejected",
        rejected={"non_finite": windows.num_documents()},
    )
    return commit_record(spec.out, record)


_scorer_lock = threading.Lock()
_scorers: dict[ScorerSpec, "Scorer"] = {}


def cached_scorer(spec: ScorerSpec) -> "Scorer":
    """This process's teacher, loaded once; another spec takes its place.

    Raises:
        TeacherError: It cannot be loaded.
    """
    import torch

    # For every unit, because OpenMP keeps the number for each calling thread, and Beam has many.
    torch.set_num_threads(spec.num_threads)
    # The batch size is no reason to load a teacher again.
    key = replace(spec, batch_tokens=0)
    with _scorer_lock:
        if key not in _scorers:
            _scorers.clear()
            _scorers[key] = load_scorer(spec)
        _scorers[key].batch_tokens = spec.batch_tokens
        return _scorers[key]


def load_scorer(spec: ScorerSpec) -> "Scorer":
    """Loads the teacher as the spec says."""
    from teacher.loading import load_model
    from teacher.scorer import HuggingFaceScorer

    model = load_model(spec.reference, spec.dtype, spec.device, spec.attention, device_map=spec.device_map)
    return HuggingFaceScorer(
        model,
        spec.scheme,
        batch_tokens=spec.batch_tokens,
        row_chunk=spec.row_chunk,
        temperatures=spec.temperatures,
        num_ids=spec.num_ids,
        kernel=spec.kernel,
    )


class _Stopwatch:
    """Seconds by phase."""

    def __init__(self) -> None:
        self._laps: dict[str, float] = {}
        self._last_seconds = time.perf_counter()

    def lap(self, phase: str) -> float:
        """Ends a phase, and says how long it was."""
        before_seconds, self._last_seconds = self._last_seconds, time.perf_counter()
        self._laps[f"{phase}_seconds"] = round(self._last_seconds - before_seconds, 4)
        return self._last_seconds - before_seconds

    def timings(self) -> dict[str, float | str]:
        """Seconds by phase and the time of now."""
        return {**self._laps, "ended_at": datetime.now(UTC).isoformat(timespec="seconds")}
