"""Segments: what the records of very many units say, gathered so that a later run reads one file instead of thousands.

    OUT/segments/tokens-<12 digits>.parquet      token shards, one row each, in the order of the token units
    OUT/segments/<first unit>-<12 digits>.parquet  target shards, one row each, of one block of the plan

A segment is made once all its units are done, of units that follow from the plan alone, so that two drivers make the
same ones. The sums over its units stand in its metadata. It says nothing that the records do not say: where it is
missing or damaged, they are read.
"""

import io
import json
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from logitcask.schemas import storage
from logitcask.schemas.dataset.split_summary import SplitSummary, sum_summaries
from logitcask.schemas.errors import CorruptShardError
from logitcask.schemas.stats.sum_by_key import sum_by_key

_KEY = b"logitcask.segment"
_SEGMENT_VERSION = 1
_ROW_GROUP_ROWS = 50_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Sums:
    """What units add up to.

    Attributes:
        num_units: How many there are records of.
        num_documents: Documents they found (token units only).
        rejected: Reason to number of documents.
        splits: Totals and statistics of target shards.
    """

    num_units: int = 0
    num_documents: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    splits: dict[str, SplitSummary] = field(default_factory=dict)

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(
            num_units=self.num_units + other.num_units,
            num_documents=self.num_documents + other.num_documents,
            rejected=sum_by_key([self.rejected, other.rejected]),
            splits={
                split: sum_summaries(sums.splits[split] for sums in (self, other) if split in sums.splits)
                for split in sorted({*self.splits, *other.splits})
            },
        )

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Sums":
        splits = {split: SplitSummary.from_json(summary) for split, summary in value["splits"].items()}
        return cls(**{**value, "splits": splits})


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """Rows of a block of units, and their sums."""

    rows: pa.Table
    sums: Sums


def write_segment(out: str, name: str, segment: Segment) -> None:
    """Creates a segment, unless somebody was first."""
    note = {"segment_version": _SEGMENT_VERSION, **asdict(segment.sums)}
    table = segment.rows.replace_schema_metadata({_KEY: json.dumps(note, sort_keys=True).encode()})
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=_ROW_GROUP_ROWS, compression="zstd", write_page_checksum=True)
    storage.create(segment_url(out, name), sink.getvalue())


def read_segment(out: str, name: str) -> Segment | None:
    """A segment; None where none is there.

    Raises:
        CorruptShardError: It is damaged. Nothing is lost with it: the message says so.
    """
    url = segment_url(out, name)
    try:
        data = storage.read_bytes(url)
    except FileNotFoundError:
        return None
    try:
        # By row groups, and never two at once: all of a million rows would take five times what they are in the end.
        table = pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True).read(use_threads=False)
        note = json.loads(table.schema.metadata[_KEY])
        if note.pop("segment_version") != _SEGMENT_VERSION:
            return None
        return Segment(rows=table.replace_schema_metadata(None), sums=Sums.from_json(note))
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise CorruptShardError(
            f"{storage.redact(url)}: not a segment ({error}); remove it and run again: the records hold all it held"
        ) from error


def segment_url(out: str, name: str) -> str:
    """Where a segment stands."""
    return storage.join(out, "segments", f"{name}.parquet")
