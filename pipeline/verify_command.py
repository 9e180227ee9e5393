"""`logitcask verify`. Light: a teacher is imported only where something is annotated again."""

import json
from dataclasses import dataclass
from typing import Annotated, Optional

import tyro


@dataclass(frozen=True, kw_only=True, slots=True)
class Verify:
    """Check every byte of a dataset against what was written.

    With --recompute also annotates random windows again and compares log-probabilities with what is stored. In nats,
    float32 may differ by 0.001 on average and, for a single entry, by 0.01 beyond one step of the quantiser; bfloat16
    by 0.1 and 1. Of the ids of heads, 0.1 % may differ (bfloat16: 10 %).

    Exit status: 0 all well, 1 with each fault named, 2 bad usage.

    Example:
        logitcask verify OUT
        logitcask verify OUT --recompute 8 --teacher google/gemma-2-2b
    """

    out: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="OUT")]]
    """Directory of the dataset: a path or any fsspec URL."""
    snapshot: Optional[int] = None  # noqa: UP045 (tyro checks `int | None` with typeguard, whose import takes 0.1 s)
    """Number of the snapshot; default: the latest."""
    recompute: int = 0
    """Windows to annotate again."""
    teacher: Optional[str] = None  # noqa: UP045
    """Directory, hub id or .gguf file of the teacher that annotated the dataset (--recompute)."""
    seed: int = 0
    """Chooses the windows (--recompute)."""
    json: bool = False
    """Print JSON instead of text."""

    def run(self) -> int:
        from schemas import verification
        from schemas.errors import UsageError

        if self.recompute and self.teacher is None:
            raise UsageError("--recompute needs --teacher: the model that annotated the dataset")
        result = verification.verify(self.out, self.snapshot)
        report, texts, is_sound = result.to_json(), [result.text()], not result.faults
        if self.recompute and self.teacher is not None and is_sound:
            from pipeline.recomputing import recompute

            again = recompute(self.out, self.teacher, self.recompute, number=self.snapshot, seed=self.seed)
            report["recomputed"] = again.to_json()
            texts.append(again.text())
            is_sound = again.is_within_tolerance
        print(json.dumps(report, indent=1, ensure_ascii=False) if self.json else "\n".join(texts))
        return 0 if is_sound else 1
