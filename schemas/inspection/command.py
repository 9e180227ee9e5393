"""`logitcask inspect`: looking at a dataset without a model or a job."""

from dataclasses import dataclass
from typing import Annotated, Optional

import tyro


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspect:
    """Show what a dataset is and what the teacher knew: as a whole, window by window, or beside another dataset.

    The summary comes from one small file (the snapshot), whatever the size of the dataset. Windows are numbered over
    all shards of the snapshot, from 0. Exit status: 0 well; 1 nothing found, or the shards are not as the snapshot
    says; 2 bad usage.

    Example:
        logitcask inspect OUT --window 3 --rows 0:40
    """

    # Plain types and `Optional`: what else there is tyro checks with typeguard, whose import takes 0.1 s.
    out: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="OUT")]]
    """Directory of the dataset: a path or any fsspec URL."""
    other: tyro.conf.Positional[Annotated[Optional[str], tyro.conf.arg(metavar="OTHER")]] = None  # noqa: UP045
    """A second dataset: the two are compared."""
    snapshot: Optional[int] = None  # noqa: UP045
    """Number of the snapshot; default: the latest."""
    deep: bool = False
    """Read every row: what the stored heads hold, calibration, the hardest ids; and check the snapshot's figures."""
    window: Optional[str] = None  # noqa: UP045
    """Show a window (its number, or SHARD:INDEX): its text shaded by loss, and what the teacher expected."""
    rows: Optional[str] = None  # noqa: UP045
    """Rows of the window to list, START:STOP."""
    top: int = 5
    """Alternatives listed for each token of a window."""
    find: Optional[str] = None  # noqa: UP045
    """List the windows whose text holds this, to the letter."""
    split: Optional[str] = None  # noqa: UP045
    """Look for text in this split only (train or held-out)."""
    limit: int = 20
    """Stop looking after so many windows."""
    document: Optional[str] = None  # noqa: UP045
    """Show where the parts of a document lie, by its id."""
    json: bool = False
    """Print JSON instead of text; docs/inspect-json.md explains it."""

    def run(self) -> int:
        from dataclasses import asdict

        from logitcask.schemas.inspection.run import Settings, run

        return run(Settings(**asdict(self)))
