"""The second stage: one token shard → one target shard, as four plain steps: read, score, encode, commit.

The model is loaded once a process, never pickled, and shared by all units of the process. A unit whose teacher gives
NaN or infinity is set aside whole, with its documents in `rejected/`: never lost, never fatal.
"""

import json
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipeline.committing import commit_record, commit_shard, standing_record
from pipeline.heartbeats import Heartbeats
from pipeline.plan import AnnotationUnit
from schemas import storage
from schemas.dataset import shard_path
from schemas.errors import NonFiniteError
from schemas.reader import ShardReader
from schemas.records import UnitRecord
from schemas.scheme import Scheme
from schemas.shard import EncodedShard, ShardMetadata, TeacherInfo, TokenizerInfo, encode_shard
from schemas.statistics import Statistics
from schemas.targets import Targets, Windows
from teacher.packing import batches

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
        row_chunk: Positions whose logits exist at a time.
        scheme: How heads are chosen.
        temperatures: Further temperatures at which the tail is stored.
    """

    reference: str
    device: str
    dtype: str
    attention: str
    num_threads: int
    batch_tokens: int
    row_chunk: int
    scheme: Scheme
    temperatures: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotationSpec:
    """What a worker needs to annotate units; small and picklable.

    Attributes:
        out: The dataset's directory.
        scorer: How the teacher runs.
        teacher, tokenizer: What goes into the shards' metadata.
        window_tokens: Most positions of a window.
        has_entropy: Whether shards get the column `entropy`.
        corpus_licence: Terms of the text.
    """

    out: str
    scorer: ScorerSpec
    teacher: TeacherInfo
    tokenizer: TokenizerInfo
    window_tokens: int
    has_entropy: bool
    corpus_licence: str | None


def annotate_unit(unit: AnnotationUnit, spec: AnnotationSpec, heartbeats: Heartbeats) -> UnitRecord:
    """Annotates one token shard, or returns the record of whoever did.

    Raises:
        CorruptShardError, MissingShardError: The token shard, or what stands of the target shard, is damaged.
        TeacherError: The teacher cannot be loaded.
    """
    standing = standing_record(spec.out, "targets", unit.split, unit.name)
    if standing is not None:
        heartbeats.advance(unit.tokens.num_positions)
        return standing
    stopwatch = _Stopwatch()
    windows = read_unit(unit, spec)
    stopwatch.lap("read")
    scorer = cached_scorer(spec.scorer)
    stopwatch.lap("load")
    try:
        targets = score_windows(windows, scorer, spec.scorer.batch_tokens, heartbeats)
    except NonFiniteError as error:
        heartbeats.advance(unit.tokens.num_positions)
        return reject_unit(unit, windows, spec, error)
    stopwatch.lap("score")
    shard = encode_unit(unit, windows, targets, spec)
    stopwatch.lap("encode")
    record = UnitRecord(
        name=unit.name,
        kind="targets",
        split=unit.split,
        num_documents=windows.num_documents(),
        statistics=Statistics.of(windows, targets),
        environment=scorer.environment,
        timings=stopwatch.timings(),
    )
    return commit_shard(spec.out, shard, record)


def read_unit(unit: AnnotationUnit, spec: AnnotationSpec) -> Windows:
    """The windows of the unit's token shard.

    Raises:
        CorruptShardError, MissingShardError: It is not as its record says, or not there.
    """
    url = storage.join(spec.out, shard_path("tokens", unit.split, unit.tokens.name))
    with ShardReader(url, footer_digest=unit.tokens.footer_digest) as reader:
        return reader.read().windows


def score_windows(windows: Windows, scorer: "Scorer", batch_tokens: int, heartbeats: Heartbeats) -> Targets:
    """The targets of all windows, batch by batch, with a heartbeat after each.

    Raises:
        NonFiniteError: The teacher gave NaN or infinity.
    """
    pieces = []
    for start, stop in batches(windows.window_offsets, batch_tokens):
        batch = windows.select(start, stop)
        pieces.append(scorer.score(batch))
        heartbeats.advance(batch.num_positions)
    return Targets.concatenate(pieces)


def encode_unit(unit: AnnotationUnit, windows: Windows, targets: Targets, spec: AnnotationSpec) -> EncodedShard:
    """The target shard as bytes."""
    metadata = ShardMetadata(
        kind="targets",
        split=unit.split,
        window_tokens=spec.window_tokens,
        tokenizer=spec.tokenizer,
        teacher=spec.teacher,
        scheme=spec.scorer.scheme,
        has_entropy=spec.has_entropy,
        corpus_licence=spec.corpus_licence,
    )
    return encode_shard(windows, targets, metadata)


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
    with _scorer_lock:
        if spec not in _scorers:
            _scorers.clear()
            _scorers[spec] = load_scorer(spec)
        return _scorers[spec]


def load_scorer(spec: ScorerSpec) -> "Scorer":
    """Loads the teacher as the spec says."""
    from teacher.loading import load_model
    from teacher.scorer import HuggingFaceScorer

    model = load_model(spec.reference, spec.dtype, spec.device, spec.attention)
    return HuggingFaceScorer(
        model,
        spec.scheme,
        batch_tokens=spec.batch_tokens,
        row_chunk=spec.row_chunk,
        temperatures=spec.temperatures,
    )


class _Stopwatch:
    """Seconds by phase."""

    def __init__(self) -> None:
        self._laps: dict[str, float] = {}
        self._last_seconds = time.perf_counter()

    def lap(self, phase: str) -> None:
        """Ends a phase."""
        now_seconds = time.perf_counter()
        self._laps[f"{phase}_seconds"] = round(now_seconds - self._last_seconds, 4)
        self._last_seconds = now_seconds

    def timings(self) -> dict[str, float | str]:
        """Seconds by phase and the time of now."""
        return {**self._laps, "ended_at": datetime.now(UTC).isoformat(timespec="seconds")}
