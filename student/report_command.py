"""`logitcask report`: a dataset, and a student trained on it, as one web page.

The command is in `student`, not in `schemas`, because with --run it scores windows with the run's student. Torch is
imported only then.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import tyro

from logitcask.schemas.terminal.guard import print_json

if TYPE_CHECKING:
    from logitcask.schemas.dataset.snapshot import Snapshot
    from logitcask.schemas.report.windows import Student


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Write a dataset as a web page: one file that needs no network and stays small for a dataset of any size.

    The page shows distributions, sources, and sampled windows of text with the teacher's distribution at each token.
    With --run it also shows a run's curves and its student's errors. Exit status: 0 written, 1 bad data, 2 bad usage.

    Example:
        logitcask report OUT --html out.html --run RUN
    """

    out: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="OUT")]]
    """Directory of the dataset: a path or any fsspec URL."""
    html: str = "report.html"
    """File to write; an existing one is replaced."""
    snapshot: Optional[int] = None  # noqa: UP045 (tyro checks `int | None` with typeguard, whose import takes 0.1 s)
    """Number of the snapshot; default: the latest."""
    run_directory: Annotated[Optional[str], tyro.conf.arg(name="run", metavar="RUN")] = None  # noqa: UP045
    """Directory of a training run on this dataset: show its curves, and its student's error at every token."""
    score: bool = True
    """With --run: score the sampled windows with the student; --no-score shows only the curves."""
    windows: int = 24
    """Maximum windows to sample."""
    tokens: int = 12_000
    """Maximum tokens in all sampled windows together; each window is cut to an equal share."""
    seed: int = 0
    """Seed of the sample."""
    json: bool = False
    """Print the report's data as JSON instead of writing a page (docs/report-json.md)."""

    def run(self) -> int:
        from logitcask.schemas import storage
        from logitcask.schemas.dataset.partial import readable_snapshot
        from logitcask.schemas.inspection.window import vocabulary_if_any
        from logitcask.schemas.output_place import require_output_file
        from logitcask.schemas.report.gathering import SampleSize, gather
        from logitcask.schemas.report.page import render_page

        if not self.json:
            require_output_file(self.html, option="--html")
        size = SampleSize(num_windows=self.windows, num_tokens=self.tokens, seed=self.seed)
        snapshot = readable_snapshot(self.out, self.snapshot)
        run = None if self.run_directory is None else Path(self.run_directory)
        student = _student(run, snapshot) if run is not None and self.score else None
        report = gather(snapshot, vocabulary_if_any(snapshot), size, run=run, student=student)
        if self.json:
            print_json(report)
            return 0
        page = render_page(report)
        storage.replace(self.html, page)
        print(_written(storage.redact(self.html), len(page), report["sample"]), file=sys.stderr)
        return 0


def _written(name: str, size_bytes: int, sample: dict[str, Any]) -> str:
    shown = f"{sample['windows']:,} of {sample['windows_in_dataset']:,} windows, {sample['tokens']:,} tokens"
    return f"{name}: {size_bytes / 1e6:.2f} MB, {shown}"


def _student(run: Path, snapshot: "Snapshot") -> "Student | None":
    """The function that scores windows with the run's student; None if the run has no student yet."""
    from logitcask.schemas.dataset.shard_view import open_shard
    from logitcask.schemas.inspection.numbering import numbered_shards

    if not (run / "student").is_dir():
        print(f"logitcask: note: {run} has no student yet; its errors are not shown", file=sys.stderr)
        return None
    shard = next(iter(numbered_shards(snapshot)), None)
    if shard is None:
        return None
    from logitcask.student.evaluation.row_errors import student_errors

    with open_shard(snapshot, shard.entry) as opened:
        return student_errors(run, opened.metadata)
