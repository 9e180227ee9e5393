"""The files of a checkpoint: written whole or not at all, and never used damaged.

A checkpoint is written in `RUN/.unfinished/`, and only a finished one is renamed to `RUN/checkpoint-N`. Its last file
is `batches.json`, which lists the digest of each other file and of itself. A checkpoint with a file that is
missing, cut short or changed is therefore found before it is used: it is passed over for an older one, never completed
with fresh values.

Checkpoints of earlier releases list no digests. They can be used, and are said to be unchecked.
"""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from logitcask.schemas.errors import CorruptShardError
from logitcask.schemas.fault_points import reach
from logitcask.schemas.fingerprints import canonical_json, digest, file_sha256

STATE_NAME = "batches.json"
UNFINISHED_NAME = ".unfinished"

# Keys of `batches.json` that describe the checkpoint itself, not the run.
_FILES, _DIGEST = "files", "digest"
OWN_KEYS = frozenset({_FILES, _DIGEST, "consumed_batches"})

# What a resumed run needs, and the names under which `transformers` and `accelerate` write it.
_NEEDED = {
    "weights": ("model*.safetensors", "adapter_model*.safetensors", "pytorch_model*", "*/adapter_model*.safetensors"),
    "state of the optimizer (optimizer.pt)": ("optimizer.pt", "optimizer.bin", "optimizer_*/*"),
    "state of the learning rate (scheduler.pt)": ("scheduler.pt",),
    "state of the random numbers (rng_state.pth)": ("rng_state*.pth",),
    "state of the trainer (trainer_state.json)": ("trainer_state.json",),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The checkpoint to resume from.

    Attributes:
        checkpoint: The newest whole one; None if the run has none at all.
        passed_over: The newer ones, each with the reason.
    """

    checkpoint: Path | None
    passed_over: tuple[str, ...] = ()


def names(run: str | Path) -> list[str]:
    """The names of a run's checkpoints, whole or not, the newest first."""
    found = [path.name for path in Path(run).glob("checkpoint-*") if path.name.rpartition("-")[2].isdecimal()]
    return sorted(found, key=lambda name: int(name.rpartition("-")[2]), reverse=True)


def newest_whole(run: str | Path) -> Choice:
    """The newest whole checkpoint of a run.

    Raises:
        CorruptShardError: There are checkpoints, but none is whole.
    """
    passed_over: list[str] = []
    for path in (Path(run) / name for name in names(run)):
        try:
            read_state(path)
        except CorruptShardError as error:
            passed_over.append(str(error))
        else:
            return Choice(checkpoint=path, passed_over=tuple(passed_over))
    if passed_over:
        raise CorruptShardError(
            f"{run}: no checkpoint is whole ({'; '.join(passed_over)}); restore one from a backup, or move them "
            "away to start from the beginning"
        )
    return Choice(checkpoint=None)


def read_state(checkpoint: str | Path) -> dict[str, Any]:
    """The contents of `batches.json`, after all files were compared with their digests.

    Raises:
        CorruptShardError: The checkpoint is incomplete or damaged; names the file.
    """
    directory = Path(checkpoint)
    state = _parsed(directory)
    if not is_unsealed(state):
        _check_digests(directory, state)
    for what, patterns in _NEEDED.items():
        if not any(path.is_file() for pattern in patterns for path in directory.glob(pattern)):
            raise CorruptShardError(f"{directory}: incomplete checkpoint: it lacks the {what}")
    return state


def is_unsealed(state: dict[str, Any]) -> bool:
    """Whether an earlier release wrote the checkpoint, without digests."""
    return _FILES not in state


def begin(run: Path) -> Path:
    """An empty directory of a run in which checkpoints are written; what a killed run left there is removed."""
    directory = run / UNFINISHED_NAME
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


def finish(unfinished: Path, final: Path, identity: dict[str, Any], consumed_batches: int) -> None:
    """Seals a checkpoint and gives it its name. Its files are on the disk before the name is.

    Args:
        unfinished: Where its files are, inside the directory that `begin` returned.
        final: The new name; what has it already is replaced.
        identity: Settings of the run, by name; JSON.
        consumed_batches: Global batches whose step was taken.
    """
    files = {name: f"sha256:{file_sha256(unfinished / name)}" for name in sorted(_file_names(unfinished))}
    state = {**identity, "consumed_batches": consumed_batches, _FILES: files}
    sealed = {**state, _DIGEST: _state_digest(state)}
    (unfinished / STATE_NAME).write_text(json.dumps(sealed, indent=1) + "\n")
    for path in (*unfinished.rglob("*"), unfinished):
        _sync(path)
    reach("checkpoint sealed", final.name)
    if final.exists():
        final.rename(unfinished.parent / "replaced")
    unfinished.rename(final)
    _sync(final.parent)
    reach("checkpoint named", final.name)
    shutil.rmtree(unfinished.parent, ignore_errors=True)


def _parsed(directory: Path) -> dict[str, Any]:
    path = directory / STATE_NAME
    try:
        state = json.loads(path.read_text())
        _ = state["consumed_batches"] + 0
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptShardError(f"{path}: incomplete checkpoint ({error})") from error
    return state


def _check_digests(directory: Path, state: dict[str, Any]) -> None:
    path, files = directory / STATE_NAME, state[_FILES]
    if state.pop(_DIGEST, None) != _state_digest(state) or not isinstance(files, dict):
        raise CorruptShardError(f"{path}: damaged checkpoint: the file does not have the digest that it states")
    for name, expected in files.items():
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts:
            raise CorruptShardError(f"{path}: names the file {name!r}, which is not inside the checkpoint")
        if not (directory / inside).is_file():
            raise CorruptShardError(f"{directory}: incomplete checkpoint: {name} is missing")
        if f"sha256:{file_sha256(directory / inside)}" != expected:
            raise CorruptShardError(
                f"{directory}: damaged checkpoint: {name} does not have the digest that {STATE_NAME} states"
            )


def _state_digest(state: dict[str, Any]) -> str:
    # As the file states it: JSON has no tuples.
    return digest(canonical_json(json.loads(json.dumps(state))).encode())


def _file_names(directory: Path) -> Iterator[str]:
    return (path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
