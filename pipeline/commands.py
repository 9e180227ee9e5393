"""`logitcask annotate` and `logitcask clean`. Light: Beam, torch and the teacher are imported when the command runs."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from logitcask.pipeline.config import AnnotateConfig
from logitcask.schemas.errors import UsageError

if TYPE_CHECKING:
    from logitcask.pipeline.job import JobResult
import json
from typing import Optional


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotate(AnnotateConfig):
    """Annotate a corpus with a teacher's next-token distributions.

    A job that was cut short goes on where it stopped when the same command runs again; a finished one does nothing.

    Example:
        logitcask annotate texts/ --teacher google/gemma-2-2b --out cask
    """

    def run(self) -> int:
        from logitcask.pipeline.runners.messages import log_to_stderr

        log_to_stderr()
        from logitcask.pipeline.job import annotate

        result = annotate(self)
        print(summary(result))
        return 0 if result.snapshot.complete else 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Clean:
    """Remove what a killed run left behind; never what a snapshot or a run that goes on needs.

    Refuses while a run is active. Object stores keep no temporaries of ours, but may have begun uploads of their own.

    Example:
        logitcask clean OUT --dry-run
    """

    out: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="OUT")]]
    """Directory of the dataset: a path or any fsspec URL."""
    dry_run: bool = False
    """Say what would be removed, and remove nothing."""
    older_than: Annotated[float, tyro.conf.arg(metavar="HOURS")] = 1.0
    """Keep files that were touched in the last so many hours."""
    json: bool = False
    """Print JSON instead of text."""

    def run(self) -> int:
        import json
        from dataclasses import asdict
        from datetime import timedelta

        from logitcask.pipeline import clean

        if self.older_than < 0:
            raise UsageError(f"--older-than is a number of hours, at least 0, got {self.older_than}")
        removals = clean.clean(self.out, older_than=timedelta(hours=self.older_than), dry_run=self.dry_run)
        if self.json:
            print(json.dumps([asdict(removal) for removal in removals], indent=1, ensure_ascii=False))
        else:
            print("\n".join(clean.summary(removals, dry_run=self.dry_run)))
        return 0


def summary(result: "JobResult") -> str:
    """What a job did, and what to do next, for people."""
    from logitcask.schemas import storage

    snapshot, total = result.snapshot, result.snapshot.total()
    held_out = snapshot.splits.get("held-out")
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in snapshot.rejected.items())
    rejected = f"{snapshot.num_rejected:,} rejected{f' ({reasons})' if reasons else ''}"
    lines = [
        ("documents", f"{snapshot.num_documents_in:,} in, {total.num_documents:,} annotated, {rejected}"),
        ("tokens", f"{total.num_positions:,}, of which {held_out.num_positions if held_out else 0:,} held out"),
        ("shards", f"{total.num_shards:,}, {total.size_bytes:,} bytes"),
        ("size", f"{total.size_bytes / max(total.num_positions, 1):.1f} bytes/token"),
        ("speed", _speed(result)),
        ("snapshot", storage.redact(storage.join(result.out, "snapshots", f"{snapshot.name}.json"))),
        ("next", f"logitcask inspect {storage.redact(result.out)}"),
    ]
    for unit, marks in result.set_aside.items():
        lines.insert(
            -1, ("set aside", f"unit {unit}: {len(marks)} workers died of it, the last {marks[-1].describe()}")
        )
    if result.set_aside:
        evidence = storage.redact(storage.join(result.out, "attempts"))
        lines.insert(-1, ("evidence", f"{evidence}; to try again: the same command with --retry-set-aside"))
    if held_out is None and snapshot.identity.get("held_out", 0) > 0:
        lines.insert(-1, ("note", "no document fell into the held-out split; a larger --held-out share will get some"))
    return "\n".join(f"{name:<10} {text}" for name, text in lines)


def _speed(result: "JobResult") -> str:
    if not result.num_units:
        return "nothing to do: the dataset was finished before"
    return f"{result.num_annotated_positions / max(result.seconds, 1e-9):,.0f} tokens/s in this run"


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
        from logitcask.schemas.errors import UsageError
        from logitcask.schemas.maintenance import verify

        if self.recompute and self.teacher is None:
            raise UsageError("--recompute needs --teacher: the model that annotated the dataset")
        result = verify.verify(self.out, self.snapshot)
        report, texts, is_sound = result.to_json(), [result.text()], not result.faults
        if self.recompute and self.teacher is not None and is_sound:
            from logitcask.pipeline.annotation.recompute import recompute

            again = recompute(self.out, self.teacher, self.recompute, number=self.snapshot, seed=self.seed)
            report["recomputed"] = again.to_json()
            texts.append(again.text())
            is_sound = again.is_within_tolerance
        print(json.dumps(report, indent=1, ensure_ascii=False) if self.json else "\n".join(texts))
        return 0 if is_sound else 1
