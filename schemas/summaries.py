"""What the shards of a split add up to: counts, bytes and statistics, shard by shard or sum by sum."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from schemas.extremes import Extremes, extremes_from_json, merge_extremes
from schemas.records import UnitRecord
from schemas.running_costs import RunningCost, cost_of_unit, costs_from_json, merge_costs
from schemas.sources import SourceSummary, merge_sources, sources_from_json
from schemas.statistics import Statistics


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitSummary:
    """Totals over the shards of one split; the last three are empty in snapshots of the first release."""

    num_shards: int = 0
    num_windows: int = 0
    num_positions: int = 0
    num_documents: int = 0
    size_bytes: int = 0
    column_bytes: dict[str, int] = field(default_factory=dict)
    statistics: Statistics = field(default_factory=Statistics)
    by_source: dict[str, SourceSummary] = field(default_factory=dict)
    extremes: Extremes = field(default_factory=dict)
    costs: dict[str, RunningCost] = field(default_factory=dict)

    def plus(self, record: UnitRecord) -> "SplitSummary":
        """The totals with one more shard."""
        columns = self.column_bytes.keys() | record.column_bytes.keys()
        return SplitSummary(
            num_shards=self.num_shards + 1,
            num_windows=self.num_windows + record.num_windows,
            num_positions=self.num_positions + record.num_positions,
            num_documents=self.num_documents + record.num_documents,
            size_bytes=self.size_bytes + record.size_bytes,
            column_bytes={
                name: self.column_bytes.get(name, 0) + record.column_bytes.get(name, 0) for name in sorted(columns)
            },
            statistics=self.statistics + (record.statistics or Statistics()),
            by_source=merge_sources([self.by_source, record.by_source]),
            extremes=merge_extremes([self.extremes, record.extremes]),
            costs=merge_costs([self.costs, cost_of_unit(record.num_positions, record.environment, record.timings)]),
        )

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "SplitSummary":
        parsed = {
            "statistics": Statistics.from_json(value["statistics"]),
            "by_source": sources_from_json(value.get("by_source", {})),
            "extremes": extremes_from_json(value.get("extremes", {})),
            "costs": costs_from_json(value.get("costs", {})),
        }
        return cls(**{**value, **parsed})


def sum_summaries(summaries: Iterable[SplitSummary]) -> SplitSummary:
    """Totals over totals."""
    parts = list(summaries)
    return SplitSummary(
        num_shards=sum(part.num_shards for part in parts),
        num_windows=sum(part.num_windows for part in parts),
        num_positions=sum(part.num_positions for part in parts),
        num_documents=sum(part.num_documents for part in parts),
        size_bytes=sum(part.size_bytes for part in parts),
        column_bytes={
            name: sum(part.column_bytes.get(name, 0) for part in parts)
            for name in sorted({name for part in parts for name in part.column_bytes})
        },
        statistics=Statistics.merge(part.statistics for part in parts),
        by_source=merge_sources(part.by_source for part in parts),
        extremes=merge_extremes(part.extremes for part in parts),
        costs=merge_costs(part.costs for part in parts),
    )


def sum_records(
    records: Iterable[UnitRecord], before: Mapping[str, SplitSummary] = MappingProxyType({})
) -> dict[str, SplitSummary]:
    """Totals by split, on top of those `before`."""
    splits = dict(before)
    for record in records:
        splits[record.split] = splits.get(record.split, SplitSummary()).plus(record)
    return splits
