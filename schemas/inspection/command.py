"""`logitcask inspect`: shows a dataset, without a model or a job."""

from dataclasses import dataclass
from typing import Annotated, Optional

import tyro


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspect:
    """Show a dataset and the teacher's distributions: a summary, single windows, or a comparison with another dataset.

    The summary comes from one small file (the snapshot), whatever the size of the dataset. Windows are numbered from 0
    over all shards of the snapshot. Exit status: 0 success; 1 nothing found, or the shards contradict the snapshot; 2
    bad usage.

    Example:
        logitcask inspect OUT --window 3 --rows 0:40
    """

    # Only plain types and `Optional`: tyro checks all others with typeguard, whose import takes 0.1 s.
    out: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="OUT")]]
    """Directory of the dataset: a path or any fsspec URL."""
    other: tyro.conf.Positional[Annotated[Optional[str], tyro.conf.arg(metavar="OTHER")]] = None  # noqa: UP045
    """A second dataset to compare with."""
    snapshot: Optional[int] = None  # noqa: UP045
    """Number of the snapshot; default: the latest."""
    deep: bool = False
    """Read every row: mass of the stored heads, calibration, hardest ids, and a check of the snapshot's figures."""
    window: Optional[str] = None  # noqa: UP045
    """Show a window (its number, or SHARD:INDEX): its text shaded by loss, and the most probable next tokens."""
    rows: Optional[str] = None  # noqa: UP045
    """Rows of the window to list: START:STOP."""
    top: int = 5
    """Maximum alternatives listed for each token of a window."""
    find: Optional[str] = None  # noqa: UP045
    """List the windows that contain exactly this text."""
    split: Optional[str] = None  # noqa: UP045
    """Search only this split (train or held-out)."""
    limit: int = 20
    """Maximum windows that --find lists."""
    document: Optional[str] = None  # noqa: UP045
    """List the parts of the document with this id."""
    json: bool = False
    """Print JSON instead of text (docs/inspect-json.md)."""

    def run(self) -> int:
        from logitcask.schemas.inspection.run import run

        return run(self)
