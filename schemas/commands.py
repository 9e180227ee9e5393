"""`logitcask inspect` and `logitcask verify`: looking at a dataset without a model or a job."""

import json
from dataclasses import dataclass
from typing import Annotated

import tyro


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspect:
    """Show what a dataset is and what the teacher's targets look like.

    Reads one small file (the snapshot), whatever the size of the dataset.

    Example:
        logitcask inspect OUT
    """

    out: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="OUT")]]
    """Directory of the dataset: a path or any fsspec URL."""
    snapshot: int | None = None
    """Number of the snapshot; default: the latest."""
    json: bool = False
    """Print JSON instead of tables."""

    def run(self) -> int:
        from schemas import dataset, inspection

        report = inspection.describe(dataset.load_snapshot(self.out, self.snapshot))
        if self.json:
            print(json.dumps(report, indent=1, ensure_ascii=False))
        else:
            inspection.print_report(report)
        return 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Verify:
    """Check every byte of a dataset against what was written.

    Exit status: 0 all well, 1 with each fault named, 2 bad usage.

    Example:
        logitcask verify OUT
    """

    out: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="OUT")]]
    """Directory of the dataset: a path or any fsspec URL."""
    snapshot: int | None = None
    """Number of the snapshot; default: the latest."""
    json: bool = False
    """Print JSON instead of text."""

    def run(self) -> int:
        from schemas import verification

        result = verification.verify(self.out, self.snapshot)
        if self.json:
            print(json.dumps(result.to_json(), indent=1, ensure_ascii=False))
        else:
            print(result.text())
        return 1 if result.faults else 0
