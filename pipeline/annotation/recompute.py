"""`verify --recompute`: annotates some windows again and compares with what is stored.

The windows are annotated in another way than in a job: each document by itself, by a plain forward pass. So an error
that comes from running documents together is found too.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from logitcask.pipeline.annotation.target_comparison import TOLERANCES_NATS, Recomputation, TargetComparison
from logitcask.schemas import storage
from logitcask.schemas.dataset.layout import read_configuration
from logitcask.schemas.dataset.shard_view import stored_record
from logitcask.schemas.dataset.snapshot import ShardEntry, Snapshot, load_snapshot
from logitcask.schemas.errors import FingerprintMismatchError, UsageError
from logitcask.schemas.format.metadata import TeacherInfo
from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.format.targets import StoredTargets, Windows
from logitcask.teacher.model.description import describe_teacher
from logitcask.teacher.model.loading import resolve_device
from logitcask.teacher.scoring.protocol import ScorerSpec
from logitcask.teacher.scoring.registry import load_scorer


def recompute(out: str, teacher: str, num_windows: int, *, number: int | None = None, seed: int = 0) -> Recomputation:
    """Annotates random windows again with the dataset's recorded settings, each document by itself.

    The windows are read from the snapshot's shards as written. Rules of the snapshot leave rows out, but change no
    target.

    Args:
        out: The dataset's directory.
        teacher: Directory, hub id or `.gguf` file of the teacher that annotated it.
        num_windows: How many windows; all if there are fewer.
        number: Of the snapshot; None for the latest.
        seed: Chooses the windows.

    Raises:
        UsageError: `num_windows` is below 1, or the snapshot names no teacher or scheme.
        FingerprintMismatchError: The teacher has other weights than the recorded one.
        LogitcaskError: The dataset or the teacher cannot be read.
    """
    if num_windows < 1:
        raise UsageError(f"--recompute needs at least one window, got {num_windows}")
    snapshot = load_snapshot(out, number)
    spec = _scorer_spec(snapshot, teacher)
    scorer = load_scorer(spec)
    comparison = TargetComparison()
    for stored_windows, stored, environment in _chosen(snapshot, num_windows, seed):
        found = scorer.score(stored_windows)
        # Draws follow from the content hash of the window that was annotated, which rewriting changed.
        comparison.add(stored_windows, stored, found, with_draws="rewritten_from" not in environment)
    return comparison.result(seed, spec.dtype)


def _scorer_spec(snapshot: Snapshot, teacher: str) -> ScorerSpec:
    """The recorded scorer, on a device of this machine if it lacks the recorded one."""
    configuration, identity = read_configuration(snapshot.url), snapshot.identity
    environment = configuration.environment if configuration else {}
    if identity.teacher is None or identity.scheme is None:
        raise UsageError(
            f"{storage.redact(snapshot.url)}: snapshot {snapshot.number} does not state a teacher and a scheme that "
            "this release knows, so nothing can be recomputed"
        )
    if identity.teacher.dtype not in TOLERANCES_NATS:
        raise UsageError(
            f"{storage.redact(snapshot.url)}: annotated in {identity.teacher.dtype!r}; targets can be recomputed in "
            f"{', '.join(TOLERANCES_NATS)}"
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
        window_tokens=identity.window_tokens,
        each_part_alone=True,
    )


def _device(recorded: str) -> str:
    import torch

    return recorded if not recorded.startswith("cuda") or torch.cuda.is_available() else resolve_device("auto")


def _check_teacher(out: str, recorded: TeacherInfo, teacher: str) -> None:
    """Refuses another teacher, whose targets would prove nothing, before its model is loaded."""
    given = describe_teacher(teacher, recorded.dtype)
    if not given.is_same_model(recorded):
        raise FingerprintMismatchError(
            f"{teacher}: fingerprint {given.fingerprint}, but {storage.redact(out)} was annotated by "
            f"{recorded.name!r} with fingerprint {recorded.fingerprint}; name the same weights"
        )


def _chosen(snapshot: Snapshot, num_windows: int, seed: int) -> Iterator[tuple[Windows, StoredTargets, dict[str, Any]]]:
    """Random windows without repeats, shard by shard, with their stored targets and the unit's environment."""
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
