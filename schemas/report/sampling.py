"""Which windows a report shows: the outliers that the annotation named, then windows drawn at random.

A pure function of the snapshot and the seed, so that the same dataset gives the same report. Windows are drawn by
number, without looking at any of them: the cost is that of the windows shown, whatever the size of the dataset.
"""

import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from logitcask.schemas.dataset.snapshot import Snapshot
from logitcask.schemas.inspection.window import NumberedShard, numbered_shards

RANDOM = "random"
# Of each measure: they are there to be looked at, not to crowd out what is usual.
_OUTLIERS_PER_MEASURE = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class SampledWindow:
    """A window that a report shows.

    Attributes:
        shard: The shard that holds it.
        index: Its index in the shard.
        reason: `RANDOM`, or the measure by which it stands out ("highest_loss").
    """

    shard: NumberedShard
    index: int
    reason: str

    @property
    def number(self) -> int:
        """Counted over the snapshot's shards, from 0."""
        return self.shard.first_window + self.index


def sample_windows(snapshot: Snapshot, num_windows: int, seed: int = 0) -> list[SampledWindow]:
    """At most so many windows, in order of their numbers; outliers take at most half of them."""
    shards = list(numbered_shards(snapshot))
    outliers = {one.number: one for one in _outliers(snapshot, shards)}
    chosen = dict(list(outliers.items())[: num_windows // 2])
    total = sum(shard.entry.num_windows for shard in shards)
    # As many more as could be needed if every outlier were drawn again.
    drawn = random.Random(seed).sample(range(total), min(total, num_windows + len(chosen)))
    for number in drawn:
        if len(chosen) == num_windows:
            break
        chosen.setdefault(number, _window(shards, number))
    return sorted(chosen.values(), key=lambda window: window.number)


def _outliers(snapshot: Snapshot, shards: Sequence[NumberedShard]) -> Iterator[SampledWindow]:
    """The most extreme first. A selection may have left a window out since: then it has no place."""
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
