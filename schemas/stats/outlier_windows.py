"""The most unusual windows of a dataset: found while annotating, kept by name, so that somebody looks at them.

Of each measure the few largest are kept. The largest of two shards are among the largest of each, so merging loses
nothing and its order does not matter.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from logitcask.schemas.stats.target_statistics import STEPS_PER_NAT

if TYPE_CHECKING:
    import numpy as np

    from logitcask.schemas.format.targets import Targets, Windows

NUM_EXTREMES = 4
# Means over fewer rows say little of a window.
MIN_ROWS = 32
HIGHEST_LOSS, LOWEST_LOSS, HIGHEST_ENTROPY = "highest_loss", "lowest_loss", "highest_entropy"
# Whether the largest values of a measure are kept, or the smallest.
MEASURES: Mapping[str, bool] = {HIGHEST_LOSS: True, LOWEST_LOSS: False, HIGHEST_ENTROPY: True}


@dataclass(frozen=True, kw_only=True, slots=True)
class Extreme:
    """A window whose mean of something is far out.

    Attributes:
        shard: The target shard's name.
        window: Index of the window in the shard.
        mean_steps: The mean over the window's rows that have the quantity, in 1/STEPS_PER_NAT nat.
    """

    shard: str
    window: int
    mean_steps: int

    @property
    def mean_nats(self) -> float:
        return self.mean_steps / STEPS_PER_NAT


Extremes = dict[str, tuple[Extreme, ...]]


def find_extremes(shard: str, windows: "Windows", targets: "Targets") -> Extremes:
    """The extremes of one shard, by measure; a measure that no window has is left out."""
    columns = {HIGHEST_LOSS: -targets.log_next, LOWEST_LOSS: -targets.log_next}
    if targets.entropy is not None:
        columns[HIGHEST_ENTROPY] = targets.entropy
    found = {measure: _window_means(shard, windows, column) for measure, column in columns.items()}
    return merge_extremes([found])


def merge_extremes(pieces: Iterable[Mapping[str, Iterable[Extreme]]]) -> Extremes:
    """The extremes of all pieces together; among equals the first by shard and window stay."""
    gathered: dict[str, list[Extreme]] = {}
    for piece in pieces:
        for measure, extremes in piece.items():
            gathered.setdefault(measure, []).extend(extremes)
    return {
        measure: tuple(sorted(extremes, key=lambda one: _order(measure, one))[:NUM_EXTREMES])
        for measure, extremes in sorted(gathered.items())
        if extremes
    }


def extremes_from_json(value: Mapping[str, Any]) -> Extremes:
    """What `dataclasses.asdict` made of extremes by measure."""
    return {measure: tuple(Extreme(**one) for one in extremes) for measure, extremes in value.items()}


def _order(measure: str, extreme: Extreme) -> tuple[int, str, int]:
    return (-extreme.mean_steps if MEASURES[measure] else extreme.mean_steps, extreme.shard, extreme.window)


def _window_means(shard: str, windows: "Windows", values_T: "np.ndarray") -> list[Extreme]:
    """The means of all windows with enough rows that have a finite value."""
    import numpy as np

    has_value = np.isfinite(values_T)
    steps = np.rint(np.where(has_value, values_T, 0).astype(np.float64) * STEPS_PER_NAT).astype(np.int64)
    sums, counts = (np.concatenate([[0], np.cumsum(column)]) for column in (steps, has_value.astype(np.int64)))
    starts, stops = windows.window_offsets[:-1], windows.window_offsets[1:]
    return [
        Extreme(shard=shard, window=window, mean_steps=total // count)
        for window, (total, count) in enumerate(
            zip((sums[stops] - sums[starts]).tolist(), (counts[stops] - counts[starts]).tolist(), strict=True)
        )
        if count >= MIN_ROWS
    ]
