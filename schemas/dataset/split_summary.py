"""What the shards of a split add up to: counts, bytes and statistics, shard by shard or sum by sum."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from logitcask.schemas.checked_json import Count
from logitcask.schemas.dataset.record import UnitRecord
from logitcask.schemas.stats.by_source import SourceSummary
from logitcask.schemas.stats.compute_cost import RunningCost, cost_of_unit
from logitcask.schemas.stats.outlier_windows import OutlierWindows, merge_outliers
from logitcask.schemas.stats.sum_by_key import sum_by_key
from logitcask.schemas.stats.target_statistics import Statistics


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitSummary:
    """Totals over the shards of one split; the last three are empty in snapshots of the first release."""

    num_shards: Count = 0
    num_windows: Count = 0
    num_positions: Count = 0
    num_documents: Count = 0
    size_bytes: Count = 0
    column_bytes: dict[str, Count] = field(default_factory=dict)
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
