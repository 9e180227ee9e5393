"""The record of a shard: what its unit of work produced, where and how.

A record is created once, after its shard, and never changed. It carries what a shard must not (times, host, package
versions), so that shards stay byte-identical.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from logitcask.schemas.checked_json import Count, Digest, FileName, convert, require_version
from logitcask.schemas.format.metadata import Split
from logitcask.schemas.seals import read_sealed
from logitcask.schemas.stats.by_source import SourceSummary
from logitcask.schemas.stats.outlier_windows import OutlierWindows
from logitcask.schemas.stats.target_statistics import Statistics

if TYPE_CHECKING:
    from logitcask.schemas.format.writer import EncodedShard

# Since 2, records have a seal (`schemas.seals`).
RECORD_VERSION = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitRecord:
    """What one unit of work produced.

    Attributes:
        name: The unit's deterministic name; the shard's file name without suffix.
        kind: Which stage it belongs to.
        split: "train" or "held-out".
        status: "done", or "rejected" if the unit could not be annotated and its documents were rejected.
        digest, footer_digest: Of the shard's file and its footer; empty for a rejected unit.
        size_bytes: Of the shard's file.
        num_windows, num_positions: What the shard holds.
        num_documents: Documents that begin in it, so that every document is counted once.
        rejected: Number of rejected documents by reason.
        column_bytes: Compressed bytes of each column.
        statistics: Of the targets; None for token shards.
        by_source: The same for each group of sources; empty where the groups are not known.
        extremes: The shard's most unusual windows, by measure.
        environment: The numeric environment that made the bytes.
        timings: Seconds by phase, and the wall-clock time of the end (UTC, ISO 8601).
    """

    name: FileName
    kind: Literal["tokens", "targets"]
    split: Split
    status: Literal["done", "rejected"] = "done"
    digest: Digest = ""
    footer_digest: Digest = ""
    size_bytes: Count = 0
    num_windows: Count = 0
    num_positions: Count = 0
    num_documents: Count = 0
    rejected: dict[str, Count] = field(default_factory=dict)
    column_bytes: dict[str, Count] = field(default_factory=dict)
    statistics: Statistics | None = None
    by_source: dict[str, SourceSummary] = field(default_factory=dict)
    extremes: OutlierWindows = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, Any] = field(default_factory=dict)

    def of_shard(self, shard: "EncodedShard") -> "UnitRecord":
        """The same with what the shard says itself: digests, sizes and counts."""
        return replace(
            self,
            digest=shard.digest,
            footer_digest=shard.footer_digest,
            size_bytes=len(shard.data),
            num_windows=shard.num_windows,
            num_positions=shard.num_positions,
            column_bytes=shard.column_bytes,
        )

    def to_json(self) -> dict[str, Any]:
        return {"record_version": RECORD_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "UnitRecord":
        """Parses a record.

        Raises:
            InvalidValueError: It is not one.
            UnknownFormatVersionError: Another version wrote it.
        """
        require_version(value, "record_version", RECORD_VERSION)
        return convert(value, cls)


def read_record(url: str) -> UnitRecord:
    """Reads the record at `url`.

    Raises:
        FileNotFoundError: There is none.
        CorruptShardError: What is there is not a record.
        UnknownFormatVersionError: Another version wrote it.
    """
    return read_sealed(
        url,
        UnitRecord.from_json,
        version_key="record_version",
        what="the record of a unit",
        advice="restore it, or remove it and run again",
    )
