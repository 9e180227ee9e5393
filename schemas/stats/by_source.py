"""Statistics by group of corpus sources: how the teacher sees each source.

A group is a named set of corpus files: one input path, or, if there is only one input path, one entry directly below
it. There are few groups, and they are chosen before the first unit runs, so counts by group add up exactly however the
work is divided into units.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from logitcask.schemas.checked_json import Count
from logitcask.schemas.stats.target_statistics import Statistics

if TYPE_CHECKING:
    from logitcask.schemas.format.targets import Targets, Windows

MAX_GROUPS = 64
OTHER_SOURCES = "other sources"
# The row or byte offset at the end of `Part.source`.
_PLACE = re.compile(r"[#@]\d+$")


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceGroups:
    """Maps a document's source to its group.

    Attributes:
        prefixes: URL prefix to group name. The longest prefix that matches wins.
    """

    prefixes: Mapping[str, str] = field(default_factory=dict)

    def of_source(self, source: str) -> str:
        """The group of a `Part.source`."""
        url = _PLACE.sub("", source)
        found = max((prefix for prefix in self.prefixes if url.startswith(prefix)), key=len, default=None)
        return OTHER_SOURCES if found is None else self.prefixes[found]


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceSummary:
    """Counts and statistics of one group of sources. They are exact and add up over shards in any order.

    Attributes:
        num_documents: Documents whose first part is among these rows.
        num_positions: Number of rows.
        statistics: Statistics of the rows' targets, without vocabulary statistics, which cover whole windows.
    """

    num_documents: Count = 0
    num_positions: Count = 0
    statistics: Statistics = field(default_factory=Statistics)

    def __add__(self, other: "SourceSummary") -> "SourceSummary":
        return SourceSummary(
            num_documents=self.num_documents + other.num_documents,
            num_positions=self.num_positions + other.num_positions,
            statistics=self.statistics + other.statistics,
        )


def summarize_by_source(windows: "Windows", targets: "Targets", groups: SourceGroups) -> dict[str, SourceSummary]:
    """Group name to summary, for each group that has rows in these windows."""
    import numpy as np

    group_of_part = [groups.of_source(part.source) for part in windows.parts]
    names = sorted(set(group_of_part))
    index_of_part = np.array([names.index(name) for name in group_of_part], dtype=np.int64)
    index_of_row = index_of_part[windows.part]
    return {
        name: SourceSummary(
            num_documents=sum(
                part.offset == 0 for part, group in zip(windows.parts, group_of_part, strict=True) if group == name
            ),
            num_positions=int((index_of_row == index).sum()),
            statistics=Statistics.of(windows, targets, rows=index_of_row == index),
        )
        for index, name in enumerate(names)
    }
