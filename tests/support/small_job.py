"""Settings of an annotation job small enough for a test: eight windows a shard, four a batch."""

import dataclasses
from pathlib import Path
from typing import Any

from logitcask.pipeline.config import AnnotateConfig


def settings(corpus: Path, teacher: Path, out: Path, **changes: Any) -> AnnotateConfig:
    """A job on one thread of the CPU."""
    small = AnnotateConfig(
        corpus=(str(corpus),),
        teacher=str(teacher),
        out=str(out),
        window=64,
        shard_tokens=512,
        batch_tokens=256,
        held_out=0.2,
        threads=1,
        dtype="float32",
        device="cpu",
    )
    return dataclasses.replace(small, **changes)
