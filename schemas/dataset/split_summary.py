"""What the shards of a split add up to: counts, bytes and statistics, shard by shard or sum by sum."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from logitcask.schemas.dataset.record import UnitRecord
from logitcask.schemas.stats.by_source import SourceSummary, sources_from_json
from logitcask.schemas.stats.compute_cost import RunningCost, cost_of_unit, costs_from_json
from logitcask.schemas.stats.outlier_windows import OutlierWindows, merge_outliers, outliers_from_json
from logitcask.schemas.stats.sum_by_key import sum_by_key
from logitcask.schemas.stats.target_statistics import Statistics


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
    extremes: OutlierWindows = field(default_factory=dict)
    costs: dict[str, RunningCost] = field(default_factory=dict)

    @classmethod
    def of_record(cls, record: UnitRecord) -> "SplitSummary":
        """The totals of one shard."""
        return cls(
            num_shards=1,
            num_windows=record.num_windows,
            num_positions=record.num_positions,
            num_documents=record.num_documents,
            size_bytes=record.size_bytes,
            column_bytes=record.column_bytes,
            statistics=record.statistics or Statistics(),
            by_source=record.by_source,
            extremes=record.extremes,
            costs=cost_of_unit(record.num_positions, record.environment, record.timings),
        )

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "SplitSummary":
        parsed = {
            "statistics": Statistics.from_json(value["statistics"]),
            "by_source": sources_from_json(value.get("by_source", {})),
            "extremes": outliers_from_json(value.get("extremes", {})),
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
        column_bytes=sum_by_key(part.column_bytes for part in parts),
        statistics=Statistics.merge(part.statistics for part in parts),
        by_source=sum_by_key(part.by_source for part in parts),
        extremes=merge_outliers(part.extremes for part in parts),
        costs=sum_by_key(part.costs for part in parts),
    )


def sum_records(
    records: Iterable[UnitRecord], before: Mapping[str, SplitSummary] = MappingProxyType({})
) -> dict[str, SplitSummary]:
    """Totals by split, on top of those `before`."""
    splits = dict(before)
    for record in records:
        before_it = splits.get(record.split, SplitSummary())
        splits[record.split] = sum_summaries([before_it, SplitSummary.of_record(record)])
    return splits
