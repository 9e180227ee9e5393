"""Chooses the windows that a report shows: outliers that the annotation recorded, then a random sample.

The choice is a pure function of the snapshot and the seed, so the same dataset gives the same report. Windows are drawn
by number and no shard is read, so the cost depends on the number of windows shown, not on the size of the dataset.
"""

import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from logitcask.schemas.dataset.snapshot import Snapshot
from logitcask.schemas.inspection.numbering import NumberedShard, numbered_shards

RANDOM = "random"
# A maximum for each measure, so that outliers do not crowd out typical windows.
_OUTLIERS_PER_MEASURE = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class SampledWindow:
    """A window that a report shows.

    Attributes:
        shard: The shard that holds it.
        index: Its index in the shard.
        reason: `RANDOM`, or the measure by which it is an outlier ("highest_loss").
    """

    shard: NumberedShard
    index: int
    reason: str

    @property
    def number(self) -> int:
        """The window's number in the snapshot (`inspection.numbering`)."""
        return self.shard.first_window + self.index


def sample_windows(snapshot: Snapshot, num_windows: int, seed: int = 0) -> list[SampledWindow]:
    """At most `num_windows` windows in order of their numbers; at most half of them are outliers."""
    shards = list(numbered_shards(snapshot))
    outliers = {one.number: one for one in _outliers(snapshot, shards)}
    chosen = dict(list(outliers.items())[: num_windows // 2])
    total = sum(shard.entry.num_windows for shard in shards)
    # The extra draws replace outliers that are drawn a second time.
    drawn = random.Random(seed).sample(range(total), min(total, num_windows + len(chosen)))
    for number in drawn:
        if len(chosen) == num_windows:
            break
        chosen.setdefault(number, _window(shards, number))
    return sorted(chosen.values(), key=lambda window: window.number)


def _outliers(snapshot: Snapshot, shards: Sequence[NumberedShard]) -> Iterator[SampledWindow]:
    """Recorded outliers, the most extreme first, except those in shards that a selection has changed since."""
    by_name = {shard.entry.name: shard for shard in shards}
    extremes = snapshot.total().extremes
    for place in range(_OUTLIERS_PER_MEASURE):
        for measure, found in extremes.items():
            if place >= len(found):
                continue
            shard = by_name.get(found[place].shard)
            if shard is not None and shard.entry.selection is None and found[place].window < shard.entry.num_windows:
                yield SampledWindow(shard=shard, index=found[place].window, reason=measure)


def _window(shards: Sequence[NumberedShard], number: int) -> SampledWindow:
    shard = shards[bisect_right(shards, number, key=lambda one: one.first_window) - 1]
    return SampledWindow(shard=shard, index=number - shard.first_window, reason=RANDOM)
