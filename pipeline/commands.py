"""`logitcask annotate`, `clean` and `verify`. Beam, torch and the teacher are imported when the command runs."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Optional

import tyro

from logitcask.pipeline.config import AnnotateConfig
from logitcask.schemas.errors import UsageError
from logitcask.schemas.terminal.guard import print_json

if TYPE_CHECKING:
    from logitcask.pipeline.job import JobResult


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotate(AnnotateConfig):
    """Annotate a corpus with a teacher's next-token distributions.

    The same command resumes an interrupted job; for a finished job it does nothing. With --append it adds what is new.

    Example:
        logitcask annotate texts/ --teacher google/gemma-2-2b --out cask
    """

    def run(self) -> int:
        from logitcask.pipeline.runners.messages import log_to_stderr

        log_to_stderr()
        from logitcask.pipeline.job import annotate

        result = annotate(self)
        print(summary(result, is_verified=self.verify))
        return 0 if result.snapshot.complete and (not self.verify or _is_sound(result)) else 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Clean:
    """Remove leftovers of killed runs; never a file that a snapshot or a resumed run needs.

    Refuses while a run is active. Does not abort incomplete multipart uploads of object stores.

    Example:
        logitcask clean OUT --dry-run
    """

    out: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="OUT")]]
    """Directory of the dataset: a path or any fsspec URL."""
    dry_run: bool = False
    """List what would be removed, and remove nothing."""
    older_than: Annotated[float, tyro.conf.arg(metavar="HOURS")] = 1.0
    """Keep files modified within this many hours."""
    json: bool = False
    """Print JSON instead of text."""

    def run(self) -> int:
        from datetime import timedelta

        from logitcask.pipeline import clean

        if self.older_than < 0:
            raise UsageError(f"--older-than must be at least 0 hours, got {self.older_than}")
        removals = clean.clean(self.out, older_than=timedelta(hours=self.older_than), dry_run=self.dry_run)
        if self.json:
            print_json([asdict(removal) for removal in removals])
        else:
            print("\n".join(clean.summary(removals, dry_run=self.dry_run)))
        return 0


def _is_sound(result: "JobResult") -> bool:
    """Verifies the dataset and prints what was found."""
    from logitcask.schemas.maintenance import verify

    found = verify.verify(result.out)
    print(found.text())
    return not found.faults


def summary(result: "JobResult", *, is_verified: bool = False) -> str:
    """A human-readable summary of what a job did, and what to do next."""
    from logitcask.schemas import storage

    snapshot, total = result.snapshot, result.snapshot.total()
    held_out = snapshot.splits.get("held-out")
    corpus = result.corpus
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in snapshot.rejected.items())
    rejected = f"{snapshot.num_rejected:,} rejected{f' ({reasons})' if reasons else ''}"
    lines = [
        ("documents", f"{snapshot.num_documents_in:,} in, {total.num_documents:,} annotated, {rejected}"),
        ("tokens", f"{total.num_positions:,}, including {held_out.num_positions if held_out else 0:,} held out"),
        ("shards", f"{total.num_shards:,}, {total.size_bytes:,} bytes"),
        ("size", f"{total.size_bytes / max(total.num_positions, 1):.1f} bytes/token"),
        ("speed", _speed(result)),
        ("snapshot", storage.redact(storage.join(result.out, "snapshots", f"{snapshot.name}.json"))),
        ("next", f"logitcask inspect {storage.redact(result.out)}"),
    ]
    if corpus.known or corpus.new:
        counts = (
            f"{len(corpus.known):,} known, {len(corpus.grown):,} grown, {len(corpus.new) - len(corpus.grown):,} new"
        )
        lines.insert(0, ("files", counts))
    if result.num_known_documents or (corpus.new and snapshot.made_by == "append"):
        counts = f"{result.num_added_documents:,} documents, {result.num_known_documents:,} known already"
        lines.insert(1, ("added", counts))
    lines[-1:-1] = [("note", f"files {one}") for one in corpus.describe()]
    if result.num_split:
        num_chats = total.num_documents - result.num_split
        lines.insert(1, ("chats", f"{num_chats:,} annotated as {total.num_documents:,} documents, one for each answer"))
    if not result.num_units and not is_verified:
        lines.insert(-1, ("note", "only sizes and footers of shards were compared; --verify compares every byte"))
    for unit, leases in result.quarantined.items():
        lines.insert(
            -1, ("quarantine", f"unit {unit}: {len(leases)} workers died of it, the last {leases[-1].describe()}")
        )
    if result.quarantined:
        evidence = storage.redact(storage.join(result.out, "attempts"))
        lines.insert(-1, ("evidence", f"{evidence}; to retry, add --retry-quarantined to the same command"))
    if held_out is None and snapshot.identity.held_out:
        lines.insert(-1, ("note", "the held-out split got no document; choose a larger --held-out share"))
    return "\n".join(f"{name:<10} {text}" for name, text in lines)


def _speed(result: "JobResult") -> str:
    if not result.num_units:
        return "nothing to do: the dataset is already finished"
    return f"{result.num_annotated_positions / max(result.seconds, 1e-9):,.0f} tokens/s in this run"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verify:
    """Check every byte of a dataset against its records.

    --recompute also annotates random windows again, each document by itself, and compares log-probabilities with the
    stored ones. In nats, float32 may differ by 0.001 on average and, for a single entry, by 0.01 beyond one step of the
    quantizer; bfloat16 by 0.1 and 1, float16 by 0.0125 and 0.125. 0.1 % of the head ids may differ (bfloat16: 10 %,
    float16: 1.25 %).

    Exit status: 0 if no fault is found, 1 if any is (each is named), 2 for bad usage.

    Example:
        logitcask verify OUT
        logitcask verify OUT --recompute 8 --teacher google/gemma-2-2b
    """

    out: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="OUT")]]
    """Directory of the dataset: a path or any fsspec URL."""
    snapshot: Optional[int] = None  # noqa: UP045 (tyro checks `int | None` with typeguard, whose import takes 0.1 s)
    """Number of the snapshot (default: the latest)."""
    recompute: int = 0
    """Number of random windows to annotate again."""
    teacher: Optional[str] = None  # noqa: UP045
    """Directory, hub id or .gguf file of the teacher that annotated the dataset (--recompute)."""
    seed: int = 0
    """Seed of the choice of windows (--recompute)."""
    json: bool = False
    """Print JSON instead of text."""

    def run(self) -> int:
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
        if self.json:
            print_json(report)
        else:
            print("\n".join(texts))
        return 0 if is_sound else 1
