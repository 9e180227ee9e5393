"""An annotation job small enough for a test: eight windows in a shard, two in a batch, on one thread of the CPU."""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from logitcask.pipeline.config import AnnotateConfig
from logitcask.pipeline.job import JobResult, annotate
from logitcask.schemas import storage
from logitcask.schemas.dataset.snapshot import load_snapshot
from logitcask.schemas.format.reader import Block, ShardReader

SETTINGS: dict[str, Any] = {
    "window": 64,
    "shard_tokens": 512,
    "batch_tokens": 128,
    "held_out": 0.2,
    "threads": 1,
    "dtype": "float32",
    "device": "cpu",
}


def settings(corpus: Path, teacher: Path, out: Path | str, **changes: Any) -> AnnotateConfig:
    small = AnnotateConfig(corpus=(str(corpus),), teacher=str(teacher), out=str(out), **SETTINGS)
    return dataclasses.replace(small, **changes)


def run(config: AnnotateConfig) -> JobResult:
    """Runs the job in this process."""
    return annotate(config, quiet=True)


def words(corpus: Path | str, teacher: Path, out: Path, *more: str) -> list[str]:
    """The job as words of the command line."""
    options = [word for name, value in SETTINGS.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return ["annotate", str(corpus), "--teacher", str(teacher), "--out", str(out), *options, *more]


def command(corpus: Path, teacher: Path, out: Path, *more: str) -> list[str]:
    """The job as a command that runs it in a process of its own."""
    program = f"from logitcask.schemas.cli import console; console({words(corpus, teacher, out, *more)!r})"
    return [sys.executable, "-c", program]


def files(out: Path | str) -> set[str]:
    """Every file of a dataset, including temporary ones."""
    fs, root = storage.filesystem(str(out))
    return {str(name).removeprefix(root).lstrip("/") for name in fs.find(root)}


def shard_bytes(out: Path | str) -> dict[str, bytes]:
    """The token and target shards of a dataset, by path."""
    names = sorted(name for name in files(out) if name.startswith("t") and name.endswith(".parquet"))
    return {name: storage.read_bytes(storage.join(str(out), name)) for name in names}


def blocks(out: str) -> Iterator[Block]:
    """The contents of the target shards of the latest snapshot."""
    snapshot = load_snapshot(out)
    for entry in snapshot.shards():
        with ShardReader(snapshot.shard_url(entry), footer_digest=entry.footer_digest) as reader:
            yield reader.read()
