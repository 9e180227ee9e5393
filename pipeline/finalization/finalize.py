"""After the stages, storage is the truth: its shards are checked, their records totaled, and a snapshot is written.

The annotation units are processed in blocks, and each block is kept as a segment (`pipeline.finalization.segments`)
when all its units are finished: memory holds the rows of the snapshot and one block of records.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyarrow as pa

from logitcask.pipeline.finalization.packed_shard_list import PackedShardList, entry_rows
from logitcask.pipeline.finalization.segments import Segment, UnitTotals, read_segment, segment_name, write_segment
from logitcask.pipeline.units.annotation_units import AnnotationUnit, AnnotationUnitTable, shard_table
from logitcask.pipeline.units.finished import stored_shards
from logitcask.pipeline.units.token_units import TokenUnit
from logitcask.schemas import storage
from logitcask.schemas.dataset.identity import Identity
from logitcask.schemas.dataset.layout import record_path, shard_path
from logitcask.schemas.dataset.record import UnitRecord, read_record
from logitcask.schemas.dataset.snapshot import Snapshot
from logitcask.schemas.dataset.snapshot_writer import Draft, write_draft
from logitcask.schemas.dataset.split_summary import sum_records
from logitcask.schemas.dataset.token_unit_record import TokenShard, TokenUnitRecord, read_token_unit_record
from logitcask.schemas.errors import CorruptShardError, MissingShardError
from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.stats.sum_by_key import sum_by_key

T = TypeVar("T")
W = TypeVar("W", bound=Snapshot | None)

# Units of a segment; a smaller job has none.
BLOCK_UNITS = 10_000
# From this many token units on, their records are gathered in a segment, so that a later run reads one file.
_MIN_SEGMENT_TOKEN_UNITS = 1_000
# Records in memory at a time.
_BATCH_UNITS = 1_000
# Opening a shard on an object store is mostly waiting.
_NUM_READERS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizedCorpus:
    """What the first stage produced.

    Attributes:
        units: The second stage's units.
        totals: Documents found and rejected.
        num_missing_units: Token units without a record, because they are quarantined.
        skipped_files: Files of the corpus that are not read, by reason.
    """

    units: AnnotationUnitTable
    totals: UnitTotals
    num_missing_units: int
    skipped_files: dict[str, int] = field(default_factory=dict)


def read_tokenized_corpus(out: str, units: Sequence[TokenUnit], target_fingerprint: str) -> TokenizedCorpus:
    """The second stage's units, from the records of the first stage.

    Raises:
        CorruptShardError: A record is damaged.
    """
    name = segment_name("tokens", units)
    is_large = len(units) >= _MIN_SEGMENT_TOKEN_UNITS
    segment = read_segment(out, name) if is_large else None
    if segment is None:
        segment = _gather_token_units(out, units)
        if is_large and segment.totals.num_units == len(units):
            write_segment(out, name, segment)
    return TokenizedCorpus(
        units=AnnotationUnitTable(segment.rows, target_fingerprint),
        totals=segment.totals,
        num_missing_units=len(units) - segment.totals.num_units,
    )


def gather_segments(
    out: str, units: AnnotationUnitTable, start: int, stop: int, block_units: int = BLOCK_UNITS
) -> None:
    """Writes the segments of those blocks that end among the units start..stop and are finished.

    Raises:
        MissingShardError, CorruptShardError: A shard does not match its record.
    """
    for end in range((start // block_units + 1) * block_units, stop + 1, block_units):
        _block(out, units[end - block_units : end], check=True, is_full=True)


def finalize(
    out: str,
    identity: Identity,
    tokenized: TokenizedCorpus,
    *,
    check: bool = True,
    block_units: int = BLOCK_UNITS,
    write: Callable[[str, Draft], W] = write_draft,
) -> W:
    """Writes the snapshot of what storage has; it is complete if every unit is finished or its documents rejected.

    Args:
        out: The dataset's directory.
        identity: What the shards are.
        tokenized: What the first stage produced.
        check: Whether to check the shards first; False after a failed job.
        block_units: Units of a segment.
        write: Writes the snapshot.

    Raises:
        MissingShardError, CorruptShardError: A shard does not match its record.
    """
    totals, entries = UnitTotals(), PackedShardList()
    for units in tokenized.units.blocks(block_units):
        segment = _block(out, units, check=check, is_full=len(units) == block_units)
        totals += segment.totals
        entries.add(segment.rows)
    num_missing = len(tokenized.units) - totals.num_units + tokenized.num_missing_units
    draft = Draft(
        complete=num_missing == 0,
        identity=identity,
        num_documents_in=tokenized.totals.num_documents,
        rejected=sum_by_key([tokenized.totals.rejected, totals.rejected]),
        skipped_files=tokenized.skipped_files,
        splits=totals.splits,
        shards=entries,
        num_missing_units=num_missing,
    )
    return write(out, draft)


def _gather_token_units(out: str, units: Sequence[TokenUnit]) -> Segment:
    totals = UnitTotals()

    def shards() -> Iterator[TokenShard]:
        nonlocal totals
        for record in _read_token_unit_records(out, units):
            totals += UnitTotals(
                num_units=1,
                num_documents=record.num_documents,
                num_known=record.num_known,
                num_split=record.num_split,
                rejected=record.rejected,
            )
            yield from record.shards

    rows = shard_table(shards())
    return Segment(rows=rows, totals=totals)


def _read_token_unit_records(out: str, units: Sequence[TokenUnit]) -> Iterator[TokenUnitRecord]:
    """The records that exist, in the order of the units."""

    def read(unit: TokenUnit) -> TokenUnitRecord:
        return read_token_unit_record(out, unit.name)

    for start in range(0, len(units), _BATCH_UNITS):
        yield from _read_existing(read, units[start : start + _BATCH_UNITS])


def _block(out: str, units: Sequence[AnnotationUnit], *, check: bool, is_full: bool) -> Segment:
    """The segment of a block: from storage, or gathered from its records and then kept if the block is finished."""
    name = segment_name(units[0].name, units)
    segment = read_segment(out, name) if is_full else None
    if segment is not None:
        if check:
            _check_sizes(out, PackedShardList([segment.rows]))
        return segment
    segment = _gather_annotation_units(out, units, check=check)
    if check and is_full and segment.totals.num_units == len(units):
        write_segment(out, name, segment)
    return segment


def _gather_annotation_units(out: str, units: Sequence[AnnotationUnit], *, check: bool) -> Segment:
    """The rows and totals of those units that have a record; never holds many records, which are large."""

    def read(unit: AnnotationUnit) -> UnitRecord:
        return read_record(storage.inside(out, record_path("targets", unit.split, unit.name)))

    rows, totals = [], UnitTotals()
    for start in range(0, len(units), _BATCH_UNITS):
        records = _read_existing(read, units[start : start + _BATCH_UNITS])
        done = [record for record in records if record.status == "done"]
        rows.append(entry_rows(done))
        totals = UnitTotals(
            num_units=totals.num_units + len(records),
            rejected=sum_by_key([totals.rejected, *(record.rejected for record in records)]),
            splits=sum_records(done, before=totals.splits),
        )
        if check:
            _check_sizes(out, PackedShardList(rows[-1:]))
            with ThreadPoolExecutor(_NUM_READERS) as pool:
                list(pool.map(lambda record: _check_footer(out, record), done))
    return Segment(rows=pa.concat_tables(rows).combine_chunks(), totals=totals)


def _read_existing(read: Callable[[Any], T], units: Sequence[Any]) -> list[T]:
    """The results of `read` for those units whose file exists, in the order of the units."""

    def read_or_none(unit: Any) -> T | None:
        try:
            return read(unit)
        except FileNotFoundError:
            return None

    with ThreadPoolExecutor(_NUM_READERS) as pool:
        return [found for found in pool.map(read_or_none, units) if found is not None]


def _check_sizes(out: str, entries: PackedShardList) -> None:
    """Checks that every shard exists and has the length in its record.

    Raises:
        MissingShardError, CorruptShardError: A shard does not.
    """
    listed = list(entries)
    for entry, stored in zip(listed, stored_shards(out, "targets", listed), strict=True):
        if stored.size_bytes is None:
            raise MissingShardError(
                f"{storage.redact(storage.join(out, entry.path))}: missing; run the same command again"
            )
        if stored.size_bytes != entry.size_bytes:
            raise CorruptShardError(
                f"{storage.redact(storage.join(out, entry.path))}: {stored.size_bytes} bytes, its record says "
                f"{entry.size_bytes}; remove it and run the same command again"
            )


def _check_footer(out: str, record: UnitRecord) -> None:
    url = storage.inside(out, shard_path("targets", record.split, record.name))
    ShardReader(url, footer_digest=record.footer_digest).close()
