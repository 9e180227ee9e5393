"""Gathers the data of a report as one JSON value; docs/report-json.md explains every key.

Figures of the whole dataset come from the snapshot, as in `inspect`. Text comes from sampled windows, which may be cut,
so a report stays small for any dataset.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from logitcask.schemas.dataset.snapshot import Snapshot
from logitcask.schemas.dataset.vocabulary import Vocabulary
from logitcask.schemas.errors import UsageError
from logitcask.schemas.inspection.summary import describe
from logitcask.schemas.report.curves import describe_run
from logitcask.schemas.report.sampling import sample_windows
from logitcask.schemas.report.windows import PieceTable, Student, describe_windows
from logitcask.schemas.terminal.formatting import scheme_words

SCHEMA = "logitcask.report/1"


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleSize:
    """How much of the dataset's text a report contains.

    Attributes:
        num_windows: Maximum number of windows.
        num_tokens: Maximum number of positions in all windows together; each window is cut to an equal share.
        seed: Seed of the sample.
    """

    num_windows: int = 24
    num_tokens: int = 12_000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.num_windows <= self.num_tokens:
            raise UsageError(
                "a report requires at least one window, and one token for each window; got "
                f"--windows {self.num_windows} and --tokens {self.num_tokens}"
            )


def gather(
    snapshot: Snapshot,
    vocabulary: Vocabulary | None,
    size: SampleSize,
    *,
    run: Path | None = None,
    student: Student | None = None,
) -> dict[str, Any]:
    """The data of a report.

    Args:
        snapshot: The snapshot to report on.
        vocabulary: The text of ids; without one, the page shows numbers.
        size: Size of the sample.
        run: Directory of a training run.
        student: Scores the sampled windows.

    Raises:
        UsageError: `run` is not the directory of a run.
        MissingShardError, CorruptShardError: A shard cannot be read.
    """
    described = describe(snapshot)
    sampled = sample_windows(snapshot, size.num_windows, size.seed)
    table = PieceTable(vocabulary=vocabulary)
    max_rows = size.num_tokens // max(len(sampled), 1)
    windows = list(describe_windows(snapshot, sampled, table, max_rows=max_rows, student=student))
    return {
        "schema": SCHEMA,
        "dataset": described,
        "scheme_words": scheme_words(described["scheme"]),
        "sample": {
            "windows": len(windows),
            "windows_in_dataset": described["total"]["windows"],
            "tokens": sum(len(window["token"]) for window in windows),
            "max_tokens_per_window": max_rows,
            "seed": size.seed,
        },
        "pieces": table.to_json(),
        "windows": windows,
        "run": None if run is None else describe_run(run),
    }
