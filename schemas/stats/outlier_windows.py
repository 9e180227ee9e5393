"""The most unusual windows of a dataset. The annotation records where they are, so that a person can read them.

Each measure keeps its few most outlying windows. Those of two shards together are among those of each shard, so merging
loses nothing and its order does not matter.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from logitcask.schemas.checked_json import Count, FileName
from logitcask.schemas.stats.target_statistics import STEPS_PER_NAT

if TYPE_CHECKING:
    import numpy as np

    from logitcask.schemas.format.targets import Targets, Windows

MAX_OUTLIERS = 4
# A mean over fewer rows says little about a window.
MIN_ROWS = 32
HIGHEST_LOSS, LOWEST_LOSS, HIGHEST_ENTROPY = "highest_loss", "lowest_loss", "highest_entropy"
# Whether a measure keeps its largest values (else its smallest).
MEASURES: Mapping[str, bool] = {HIGHEST_LOSS: True, LOWEST_LOSS: False, HIGHEST_ENTROPY: True}


@dataclass(frozen=True, kw_only=True, slots=True)
class OutlierWindow:
    """A window whose mean of a measured quantity is among the most extreme of its dataset.

    Attributes:
        shard: The target shard's name.
        window: Index of the window in the shard.
        mean_steps: The mean over the window's rows that have the quantity, in 1/STEPS_PER_NAT nat.
    """

    shard: FileName
    window: Count
    mean_steps: int

    @property
    def mean_nats(self) -> float:
        return self.mean_steps / STEPS_PER_NAT


OutlierWindows = dict[str, tuple[OutlierWindow, ...]]
"""Measure to its outlier windows, the most extreme first."""


def find_outliers(shard: str, windows: "Windows", targets: "Targets") -> OutlierWindows:
    """The outlier windows of one shard, without the measures that no window has."""
    columns = {HIGHEST_LOSS: -targets.log_next, LOWEST_LOSS: -targets.log_next}
    if targets.entropy is not None:
        columns[HIGHEST_ENTROPY] = targets.entropy
    found = {measure: _window_means(shard, windows, column) for measure, column in columns.items()}
    return merge_outliers([found])


def merge_outliers(pieces: Iterable[Mapping[str, Iterable[OutlierWindow]]]) -> OutlierWindows:
    """The outlier windows of all pieces together; equal means are ordered by shard and window."""
    gathered: dict[str, list[OutlierWindow]] = {}
    for piece in pieces:
        for measure, outliers in piece.items():
            gathered.setdefault(measure, []).extend(outliers)
    return {
        measure: tuple(sorted(outliers, key=lambda one: _order(measure, one))[:MAX_OUTLIERS])
        for measure, outliers in sorted(gathered.items())
        # A measure of a later release cannot be ordered here.
        if outliers and measure in MEASURES
    }


def _order(measure: str, outlier: OutlierWindow) -> tuple[int, str, int]:
    return (-outlier.mean_steps if MEASURES[measure] else outlier.mean_steps, outlier.shard, outlier.window)


def _window_means(shard: str, windows: "Windows", values_T: "np.ndarray") -> list[OutlierWindow]:
    """The means of all windows that have enough rows with a finite value."""
    import numpy as np

    has_value = np.isfinite(values_T)
    steps = np.rint(np.where(has_value, values_T, 0).astype(np.float64) * STEPS_PER_NAT).astype(np.int64)
    sums, counts = (np.concatenate([[0], np.cumsum(column)]) for column in (steps, has_value.astype(np.int64)))
    starts, stops = windows.window_offsets[:-1], windows.window_offsets[1:]
    return [
        OutlierWindow(shard=shard, window=window, mean_steps=total // count)
        for window, (total, count) in enumerate(
            zip((sums[stops] - sums[starts]).tolist(), (counts[stops] - counts[starts]).tolist(), strict=True)
        )
        if count >= MIN_ROWS
    ]
