"""The record of a shard: what its unit of work produced, where and how.

A record is created once, after its shard, and never changed. It carries what a shard must not (times, host, package
versions), so that shards stay byte-identical.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from logitcask.schemas import storage
from logitcask.schemas.errors import CorruptShardError, UnknownFormatVersionError
from logitcask.schemas.stats.by_source import SourceSummary, sources_from_json
from logitcask.schemas.stats.outlier_windows import OutlierWindows, outliers_from_json
from logitcask.schemas.stats.target_statistics import Statistics

if TYPE_CHECKING:
    from logitcask.schemas.format.writer import EncodedShard

RECORD_VERSION = 1


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

    name: str
    kind: Literal["tokens", "targets"]
    split: Literal["train", "held-out"]
    status: Literal["done", "rejected"] = "done"
    digest: str = ""
    footer_digest: str = ""
    size_bytes: int = 0
    num_windows: int = 0
    num_positions: int = 0
    num_documents: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    column_bytes: dict[str, int] = field(default_factory=dict)
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
            KeyError, TypeError: It is not one.
            UnknownFormatVersionError: Another version wrote it.
        """
        fields = dict(value)
        version = fields.pop("record_version")
        if version != RECORD_VERSION:
            raise UnknownFormatVersionError(f"record version {version}; this release reads {RECORD_VERSION}")
        if fields["statistics"] is not None:
            fields["statistics"] = Statistics.from_json(fields["statistics"])
        # Records of the first release lack these.
        fields["by_source"] = sources_from_json(fields.get("by_source", {}))
        fields["extremes"] = outliers_from_json(fields.get("extremes", {}))
        return cls(**fields)


def read_record(url: str) -> UnitRecord:
    """Reads the record at `url`.

    Raises:
        FileNotFoundError: There is none.
        CorruptShardError: What is there is not a record.
        UnknownFormatVersionError: Another version wrote it.
    """
    try:
        return UnitRecord.from_json(storage.read_json(url))
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise CorruptShardError(
            f"{storage.redact(url)}: not a unit record ({error}); remove it and run again"
        ) from error
    except UnknownFormatVersionError as error:
        raise UnknownFormatVersionError(f"{storage.redact(url)}: {error}; install a newer logitcask") from error
    except ValueError as error:
        raise CorruptShardError(f"{storage.redact(url)}: not JSON ({error}); remove it and run again") from error
