"""Segments: the records of very many units, gathered so that a later run reads one file instead of thousands.

    OUT/segments/tokens-<units>.<digest>.parquet        token shards, one row each, in the order of the token units
    OUT/segments/<first unit>-<units>.<digest>.parquet  target shards, one row each, of one block of annotation units

A segment is written when all its units are finished. Which units it covers follows from the list of units alone, so
two drivers write the same segments. Its metadata holds the totals over its units. It holds nothing that the records do
not hold: where it is missing or damaged, the records are read.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from logitcask.pipeline.units.finished import Named
from logitcask.schemas import storage
from logitcask.schemas.checked_json import Count, convert, parse_object
from logitcask.schemas.dataset.layout import named_digest
from logitcask.schemas.dataset.split_summary import SplitSummary, sum_summaries
from logitcask.schemas.errors import CorruptShardError
from logitcask.schemas.fingerprints import digest, fingerprint
from logitcask.schemas.stats.sum_by_key import sum_by_key

_KEY = b"logitcask.segment"
_SEGMENT_VERSION = 1
_ROW_GROUP_ROWS = 50_000


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitTotals:
    """Totals over units.

    Attributes:
        num_units: Number of units with a record.
        num_documents: Documents found (token units only).
        num_known: Further documents that the dataset had already (token units only).
        num_split: How many more they are than the corpus has, because each answer of a chat is a document.
        rejected: Reason to number of documents.
        splits: Totals and statistics of target shards.
    """

    num_units: Count = 0
    num_documents: Count = 0
    num_known: Count = 0
    num_split: Count = 0
    rejected: dict[str, Count] = field(default_factory=dict)
    splits: dict[str, SplitSummary] = field(default_factory=dict)

    def __add__(self, other: "UnitTotals") -> "UnitTotals":
        return UnitTotals(
            num_units=self.num_units + other.num_units,
            num_documents=self.num_documents + other.num_documents,
            num_known=self.num_known + other.num_known,
            num_split=self.num_split + other.num_split,
            rejected=sum_by_key([self.rejected, other.rejected]),
            splits={
                split: sum_summaries(totals.splits[split] for totals in (self, other) if split in totals.splits)
                for split in sorted({*self.splits, *other.splits})
            },
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """The shards of a block of units, one row each, and the totals over the units."""

    rows: pa.Table
    totals: UnitTotals


def segment_name(prefix: str, units: Sequence[Named]) -> str:
    """Name of the segment of exactly these units."""
    return f"{prefix}-{fingerprint([unit.name for unit in units])[:12]}"


def write_segment(out: str, name: str, segment: Segment) -> None:
    """Creates a segment, unless it exists."""
    note = {"segment_version": _SEGMENT_VERSION, **asdict(segment.totals)}
    table = segment.rows.replace_schema_metadata({_KEY: json.dumps(note, sort_keys=True).encode()})
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=_ROW_GROUP_ROWS, compression="zstd", write_page_checksum=True)
    data = sink.getvalue()
    storage.create(storage.inside(out, "segments", f"{name}.{digest(data)[-12:]}.parquet"), data)


def read_segment(out: str, name: str) -> Segment | None:
    """A segment; None if it does not exist or has another version.

    Raises:
        CorruptShardError: It is damaged. No data is lost with it, as the message says.
    """
    # Not all stores apply the prefix.
    urls = [file.url for file in storage.list_members(out, "segments", f"{name}.")]
    own = [url for url in urls if storage.file_name(url).startswith(f"{name}.") and named_digest(url)]
    url = own[0] if own else None
    if url is None:
        return None
    data = storage.read_bytes(url)
    try:
        if not digest(data).endswith(named_digest(url) or ""):
            raise ValueError(f"its digest is {digest(data)}")
        # One row group at a time: a million rows at once would take five times the memory of the table.
        table = pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True).read(use_threads=False)
        note = parse_object(table.schema.metadata[_KEY])
        if note.get("segment_version") != _SEGMENT_VERSION:
            return None
        return Segment(rows=table.replace_schema_metadata(None), totals=convert(note, UnitTotals))
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise CorruptShardError(
            f"{storage.redact(url)}: not a segment ({error}); remove it and run again; the records hold the same data"
        ) from error
