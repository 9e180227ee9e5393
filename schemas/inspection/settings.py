"""The options of `logitcask inspect`, without anything heavy."""

from dataclasses import dataclass
from typing import Annotated, Optional

import tyro


@dataclass(frozen=True, kw_only=True, slots=True)
class InspectSettings:
    """What to show of a dataset."""

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
