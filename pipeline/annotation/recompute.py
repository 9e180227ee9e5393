"""`verify --recompute`: some windows annotated again, and how far that is from what is stored.

Both sides are compared as shards hold them: what the teacher says now goes through the quantiser too, and neither is
divided by its sum, which would spread one entry's difference over its row. Where no bit of the teacher differs, every
difference is zero. Otherwise a log-probability that moved by δ crosses the border to the next step with a probability
of δ/step, and is then a whole step away: on average the stored difference is the teacher's, no more and no less, but
one alone can be as large as a step. Hence two tolerances: for means, and for what single entries differ beyond a step.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from logitcask.schemas import storage
from logitcask.schemas.dataset.layout import read_configuration
from logitcask.schemas.dataset.snapshot import ShardEntry, Snapshot, load_snapshot
from logitcask.schemas.errors import FingerprintMismatchError, UsageError
from logitcask.schemas.format import quantizer
from logitcask.schemas.format.metadata import TeacherInfo
from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.format.targets import StoredTargets, TargetRows, Targets, Windows
from logitcask.teacher.model.description import describe_teacher
from logitcask.teacher.model.loading import resolve_device
from logitcask.teacher.scoring.protocol import ScorerSpec
from logitcask.teacher.scoring.registry import load_scorer

# Nats: mean, and single entries beyond a step. A log-probability is a difference of logits of some ten nats, whose
# rounding errors add up like a random walk over some hundred operations: about 10 · 10 · u. Float32 (u = 6e-8): 6e-6;
# bfloat16 (u = 4e-3): 0.4 at worst, less on average. Float32 is allowed a hundredfold more, which is still a tenth of
# the head's smallest step; bfloat16 a quarter of that on average, as environments share most of their rounding.
TOLERANCES_NATS = {"float32": (1e-3, 1e-2), "bfloat16": (0.1, 1.0)}
# Ids whose probability is near the threshold, or near that of another, come and go.
ID_TOLERANCES = {"float32": 1e-3, "bfloat16": 0.1}


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """How far stored numbers are from those of now, over `count` of them; nats.

    Attributes:
        count: Numbers compared.
        mean_nats, max_nats: Of the absolute differences.
        beyond_step_nats: The largest, less the quantiser's step there.
    """

    count: int
    mean_nats: float
    max_nats: float
    beyond_step_nats: float

    @classmethod
    def of(cls, stored: np.ndarray, found: np.ndarray, step: np.ndarray | float) -> "Difference":
        if not len(stored):
            return cls(count=0, mean_nats=0.0, max_nats=0.0, beyond_step_nats=0.0)
        # Equal infinities (no tail on both sides) do not differ; one alone differs without bound.
        with np.errstate(invalid="ignore"):
            distance = np.where(stored == found, 0.0, np.abs(stored.astype(np.float64) - found))
        return cls(
            count=len(distance),
            mean_nats=float(distance.mean()),
            max_nats=float(distance.max()),
            beyond_step_nats=float(np.maximum(distance - step, 0.0).max()),
        )

    def is_within(self, mean_nats: float, single_nats: float) -> bool:
        return self.mean_nats <= mean_nats and self.beyond_step_nats <= single_nats


@dataclass(frozen=True, kw_only=True, slots=True)
class Recomputation:
    """What annotating windows again showed.

    Attributes:
        seed: Which windows were chosen.
        num_windows, num_positions: What was annotated again.
        dtype: Of the forward pass, as recorded; it decides the tolerances.
        head: Log-probabilities of ids that both heads have.
        tail: Log tail mass of rows whose heads have the same ids.
        next_token: Log-probability of the actual next token.
        entropy: Of the full distribution, where it was stored.
        id_difference_rate: Ids that only one of the heads has (of drawn ids: draws), as a share of all.
        mean_tolerance_nats, single_tolerance_nats, id_tolerance: What is allowed.
    """

    seed: int
    num_windows: int
    num_positions: int
    dtype: str
    head: Difference
    tail: Difference
    next_token: Difference
    entropy: Difference
    id_difference_rate: float
    mean_tolerance_nats: float
    single_tolerance_nats: float
    id_tolerance: float

    @property
    def is_within_tolerance(self) -> bool:
        differences = (self.head, self.tail, self.next_token, self.entropy)
        within = (one.is_within(self.mean_tolerance_nats, self.single_tolerance_nats) for one in differences)
        return all(within) and self.id_difference_rate <= self.id_tolerance

    def to_json(self) -> dict[str, Any]:
        return {**_finite(asdict(self)), "is_within_tolerance": self.is_within_tolerance}

    def text(self) -> str:
        """For people."""
        verdict = "within tolerance" if self.is_within_tolerance else "BEYOND TOLERANCE"
        what = f"{self.num_windows:,} windows, {self.num_positions:,} positions, {self.dtype}, seed {self.seed}"
        rows = (("head", self.head), ("tail", self.tail), ("next token", self.next_token), ("entropy", self.entropy))
        allowed = f"mean {self.mean_tolerance_nats:g}, max {self.single_tolerance_nats:g} nats beyond a step"
        return "\n".join(
            [
                f"annotated again: {what}: {verdict}",
                *(f"{name:<11} mean {d.mean_nats:.2e}  max {d.max_nats:.2e} nats  ({d.count:,})" for name, d in rows),
                f"ids         {100 * self.id_difference_rate:.3f} % differ",
                f"allowed     {allowed}, ids {100 * self.id_tolerance:g} %",
            ]
        )


def recompute(out: str, teacher: str, num_windows: int, *, number: int | None = None, seed: int = 0) -> Recomputation:
    """Annotates random windows again with the dataset's recorded settings.

    Windows are those of the snapshot's shards as they were written; rules leave rows out of what is read, but do
    not change what a target says.

    Args:
        out: The dataset's directory.
        teacher: Directory, hub id or `.gguf` file of the teacher that annotated it.
        num_windows: How many, or all if there are fewer.
        number: Of the snapshot; None: the latest.
        seed: Chooses the windows.

    Raises:
        UsageError: The number cannot be meant.
        FingerprintMismatchError: This is another teacher.
        LogitcaskError: The dataset or the teacher cannot be read.
    """
    if num_windows < 1:
        raise UsageError(f"--recompute needs at least one window, got {num_windows}")
    snapshot = load_snapshot(out, number)
    spec = _scorer_spec(snapshot, teacher)
    scorer = load_scorer(spec)
    comparison = _Comparison()
    for stored_windows, stored, environment in _chosen(snapshot, num_windows, seed):
        found = scorer.score(stored_windows)
        # Draws follow from the content hash of the window that was annotated, which rewriting changed.
        comparison.add(stored_windows, stored, found, with_draws="rewritten_from" not in environment)
    return comparison.result(seed, spec.dtype)


def _scorer_spec(snapshot: Snapshot, teacher: str) -> ScorerSpec:
    """The scorer as it was, on this machine's device where the recorded one is not here."""
    configuration, identity = read_configuration(snapshot.url), snapshot.identity
    environment = configuration.environment if configuration else {}
    if identity.teacher is None or identity.scheme is None:
        raise UsageError(
            f"{storage.redact(snapshot.url)}: snapshot {snapshot.number} does not state a teacher and a scheme that "
            "this release knows, so nothing can be recomputed"
        )
    _check_teacher(snapshot.url, identity.teacher, teacher)
    path = Path(teacher).expanduser()
    device = _device(environment.get("device", "cpu"))
    return ScorerSpec(
        reference=str(path.absolute()) if path.exists() else teacher,
        device=device,
        dtype=identity.teacher.dtype,
        attention=environment.get("attention", "auto"),
        batch_tokens=environment.get("batch_tokens", 2048),
        row_chunk=environment.get("row_chunk", 256),
        num_ids=identity.num_ids,
        kernel=environment.get("kernel", "auto"),
        device_map=environment.get("device_map") if device == environment.get("device") else None,
        scheme=identity.scheme,
        temperatures=identity.temperatures,
    )


def _device(recorded: str) -> str:
    import torch

    return recorded if not recorded.startswith("cuda") or torch.cuda.is_available() else resolve_device("auto")


def _check_teacher(out: str, recorded: TeacherInfo, teacher: str) -> None:
    """Refuses another teacher, whose targets would prove nothing, before its model is loaded."""
    given = describe_teacher(teacher, recorded.dtype)
    if given.fingerprint != recorded.fingerprint:
        raise FingerprintMismatchError(
            f"{teacher}: fingerprint {given.fingerprint}, but {storage.redact(out)} was annotated by "
            f"{recorded.name!r} with fingerprint {recorded.fingerprint}; name the same weights"
        )


def _chosen(snapshot: Snapshot, num_windows: int, seed: int) -> Iterator[tuple[Windows, StoredTargets, dict[str, Any]]]:
    """Random windows, without repeats, with what is stored and the environment that made it, shard by shard."""
    from logitcask.schemas.dataset.shard_view import stored_record

    entries = snapshot.shards()
    counts = [stored_record(snapshot, entry).num_windows for entry in entries]
    places = [(entry, window) for entry, count in zip(entries, counts, strict=True) for window in range(count)]
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(len(places), min(num_windows, len(places)), replace=False))
    by_shard: dict[str, tuple[ShardEntry, list[int]]] = {}
    for entry, window in (places[index] for index in chosen):
        by_shard.setdefault(entry.path, (entry, []))[1].append(window)
    for entry, windows in by_shard.values():
        environment = stored_record(snapshot, entry).environment
        with ShardReader(snapshot.shard_url(entry), footer_digest=entry.footer_digest) as reader:
            blocks = [reader.read_stored(window, window + 1) for window in windows]
        for block in blocks:
            assert block.targets is not None, "target shards only"
            yield block.windows, block.targets, environment


class _Comparison:
    """Gathers pairs of numbers, window by window."""

    def __init__(self) -> None:
        self._pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {
            name: [] for name in ("head", "tail", "next_token", "entropy")
        }
        self._num_windows = self._num_positions = self._num_ids = self._num_different = 0

    def add(self, windows: Windows, stored: StoredTargets, exact: Targets, *, with_draws: bool) -> None:
        found = as_stored(exact)
        keys, other_keys = _keys(stored.head_ids, stored.head_offsets), _keys(found.head_ids, found.head_offsets)
        _, ours, theirs = np.intersect1d(keys, other_keys, assume_unique=True, return_indices=True)
        head = (stored.head_q[ours], found.head_q[theirs])
        self._pairs["head"].append((quantizer.dequantize_head(head[0]), quantizer.dequantize_head(head[1])))
        different = np.setxor1d(keys, other_keys, assume_unique=True)
        rows = stored.has_target() & ~np.isin(np.arange(windows.num_positions), different >> 32)
        self._pairs["tail"].append((stored.log_tail[rows], found.log_tail[rows]))
        labelled = stored.has_label()
        self._pairs["next_token"].append((stored.log_next[labelled], found.log_next[labelled]))
        if stored.entropy is not None and found.entropy is not None:
            targets = stored.has_target()
            self._pairs["entropy"].append((stored.entropy[targets], found.entropy[targets]))
        self._count(len(different), len(ours) + len(different))
        if with_draws:
            for sample, other in zip(stored.tail_samples, found.tail_samples, strict=True):
                self._count_draws(_keys(sample.ids, sample.offsets), _keys(other.ids, other.offsets))
        self._num_windows += windows.num_windows
        self._num_positions += windows.num_positions

    def _count(self, num_different: int, num_ids: int) -> None:
        self._num_different += num_different
        self._num_ids += num_ids

    def _count_draws(self, stored: np.ndarray, found: np.ndarray) -> None:
        """Draws repeat: what counts is how often."""
        ids, index = np.unique(np.concatenate([stored, found]), return_inverse=True)
        ours, theirs = (np.bincount(part, minlength=len(ids)) for part in np.split(index, [len(stored)]))
        self._count(int(np.abs(ours - theirs).sum()), int(np.maximum(ours, theirs).sum()))

    def result(self, seed: int, dtype: str) -> Recomputation:
        mean_nats, single_nats = TOLERANCES_NATS[dtype]
        columns = {
            name: tuple(np.concatenate([np.zeros(0, np.float32), *side]) for side in zip(*pairs, strict=True))
            if pairs
            else (np.zeros(0), np.zeros(0))
            for name, pairs in self._pairs.items()
        }
        return Recomputation(
            seed=seed,
            num_windows=self._num_windows,
            num_positions=self._num_positions,
            dtype=dtype,
            head=Difference.of(*columns["head"], step=_head_step(columns["head"][0])),
            **{
                name: Difference.of(*columns[name], step=1 / quantizer.STEPS_PER_NAT + 1e-6)
                for name in ("tail", "next_token", "entropy")
            },
            id_difference_rate=self._num_different / max(1, self._num_ids),
            mean_tolerance_nats=mean_nats,
            single_tolerance_nats=single_nats,
            id_tolerance=ID_TOLERANCES[dtype],
        )


def as_stored(exact: Targets) -> StoredTargets:
    """Exact targets as a shard would hold them."""
    shared = {one.name: getattr(exact, one.name) for one in fields(TargetRows)}
    tail = quantizer.dequantize_tail(quantizer.quantize_tail(np.nan_to_num(exact.log_tail, nan=0.0, neginf=-np.inf)))
    changed = {
        "log_tail": np.where(np.isnan(exact.log_tail), np.float32(np.nan), tail),
        "log_next": -_as_stored_nats(-exact.log_next),
        "entropy": None if exact.entropy is None else _as_stored_nats(exact.entropy),
    }
    return StoredTargets(**{**shared, **changed}, head_q=quantizer.quantize_head(exact.head_log_probs))


def _as_stored_nats(values: np.ndarray) -> np.ndarray:
    stored = quantizer.dequantize_nats(quantizer.quantize_nats(values))
    return np.where(np.isnan(values), np.float32(np.nan), stored)


def _head_step(log_probs: np.ndarray) -> np.ndarray:
    """The larger of the quantiser's two steps around h = −u(1 + u), u = q/64: (1 + 2u)/64 + 1/64²; and rounding."""
    u = (np.sqrt(1 - 4 * log_probs.astype(np.float64)) - 1) / 2
    return (1 + 2 * u) / 64 + 1 / 64**2 + 1e-6


def _keys(ids: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Row and id of each entry, as one number."""
    return (np.repeat(np.arange(len(offsets) - 1, dtype=np.int64), np.diff(offsets)) << 32) + ids


def _finite(value: Any) -> Any:
    """JSON has no infinity."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
