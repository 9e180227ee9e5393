"""After the stages: storage is the truth. What stands there is checked, added up, and put into a snapshot.

The plan is gone through in blocks, each of which ends as a segment (`pipeline.finalization.segments`) once all its
units are done: memory holds the rows of the snapshot and one block of records.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from logitcask.pipeline.finalization.packed_shard_list import EntryTable, entry_rows
from logitcask.pipeline.finalization.segments import Segment, Sums, read_segment, write_segment
from logitcask.pipeline.units.annotation_units import AnnotationPlan, shard_table
from logitcask.pipeline.units.finished import standing_shards
from logitcask.pipeline.units.token_unit_record import TokenizedUnit, read_tokenized_unit
from logitcask.pipeline.units.units import AnnotationUnit, TokenShard, TokenUnit
from logitcask.schemas import storage
from logitcask.schemas.dataset.layout import record_path, shard_path
from logitcask.schemas.dataset.record import UnitRecord, read_record
from logitcask.schemas.dataset.snapshot import Snapshot
from logitcask.schemas.dataset.snapshot_writer import Draft, write_draft
from logitcask.schemas.dataset.split_summary import sum_records
from logitcask.schemas.errors import CorruptShardError, MissingShardError
from logitcask.schemas.fingerprints import fingerprint
from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.stats.sum_by_key import sum_by_key

# Units of a segment; a smaller plan has none.
BLOCK_UNITS = 10_000
# Token units whose records are gathered in one segment, so that a later run need not read them one by one.
_MANY_TOKEN_UNITS = 1_000
# Units whose records are in memory at a time.
_LOT_UNITS = 1_000
# Opening a shard on an object store is mostly waiting.
_NUM_READERS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokenized:
    """What the first stage made.

    Attributes:
        plan: The second stage's units.
        sums: Documents found and rejected.
        num_missing_units: Token units that were set aside.
    """

    plan: AnnotationPlan
    sums: Sums
    num_missing_units: int


def read_tokenized(out: str, units: Sequence[TokenUnit], target_fingerprint: str) -> Tokenized:
    """The plan of the second stage, from the records of the first.

    Raises:
        CorruptShardError: A record is damaged.
    """
    name = f"tokens-{fingerprint([unit.name for unit in units])[:12]}"
    is_large = len(units) >= _MANY_TOKEN_UNITS
    segment = read_segment(out, name) if is_large else None
    if segment is None:
        segment = _gather_token_units(out, units)
        if is_large and segment.sums.num_units == len(units):
            write_segment(out, name, segment)
    return Tokenized(
        plan=AnnotationPlan(segment.rows, target_fingerprint),
        sums=segment.sums,
        num_missing_units=len(units) - segment.sums.num_units,
    )


def gather_segments(out: str, plan: AnnotationPlan, start: int, stop: int, block_units: int = BLOCK_UNITS) -> None:
    """Makes the segments of the blocks that end among the units start..stop, where all of a block is done.

    Raises:
        MissingShardError, CorruptShardError: A shard is not as its record says.
    """
    for end in range((start // block_units + 1) * block_units, stop + 1, block_units):
        _block(out, plan[end - block_units : end], check=True, is_full=True)


def finalize(
    out: str,
    identity: dict[str, Any],
    tokenized: Tokenized,
    *,
    check: bool = True,
    block_units: int = BLOCK_UNITS,
    write: Callable[[str, Draft], Snapshot] = write_draft,
) -> Snapshot:
    """Writes the snapshot of what stands; it is complete if every unit is done or set aside with its documents.

    Args:
        out: The dataset's directory.
        identity: What the shards are.
        tokenized: What the first stage made.
        check: Whether the shards are looked at first; not where the job failed anyway.
        block_units: Units of a segment.
        write: Makes a snapshot of what was found.

    Raises:
        MissingShardError, CorruptShardError: A shard is not as its record says.
    """
    sums, entries = Sums(), EntryTable()
    for units in tokenized.plan.blocks(block_units):
        segment = _block(out, units, check=check, is_full=len(units) == block_units)
        sums += segment.sums
        entries.add(segment.rows)
    num_missing = len(tokenized.plan) - sums.num_units + tokenized.num_missing_units
    draft = Draft(
        complete=num_missing == 0,
        identity=identity,
        num_documents_in=tokenized.sums.num_documents,
        rejected=sum_by_key([tokenized.sums.rejected, sums.rejected]),
        splits=sums.splits,
        shards=entries,
        num_missing_units=num_missing,
    )
    return write(out, draft)


def _gather_token_units(out: str, units: Sequence[TokenUnit]) -> Segment:
    num_units, num_documents = 0, 0
    rejected: dict[str, int] = {}

    def shards() -> Iterator[TokenShard]:
        nonlocal num_units, num_documents, rejected
        for unit in _read_token_units(out, units):
            num_units += 1
            num_documents += unit.num_documents
            rejected = sum_by_key([rejected, unit.rejected])
            yield from unit.shards

    rows = shard_table(shards())
    return Segment(rows=rows, sums=Sums(num_units=num_units, num_documents=num_documents, rejected=rejected))


def _read_token_units(out: str, units: Sequence[TokenUnit]) -> Iterator[TokenizedUnit]:
    """The records that stand, in order."""

    def read(unit: TokenUnit) -> TokenizedUnit | None:
        try:
            return read_tokenized_unit(out, unit.name)
        except FileNotFoundError:
            return None

    iterator = iter(units)
    with ThreadPoolExecutor(_NUM_READERS) as pool:
        while lot := list(itertools.islice(iterator, _MANY_TOKEN_UNITS)):
            yield from (unit for unit in pool.map(read, lot) if unit is not None)


def _block(out: str, units: Sequence[AnnotationUnit], *, check: bool, is_full: bool) -> Segment:
    """The segment of a block: the one that stands, or one of its records, which then stands if the block is done."""
    name = f"{units[0].name}-{fingerprint([unit.name for unit in units])[:12]}"
    segment = read_segment(out, name) if is_full else None
    if segment is not None:
        if check:
            _check_sizes(out, EntryTable([segment.rows]))
        return segment
    segment = _gather_units(out, units, check=check)
    if check and is_full and segment.sums.num_units == len(units):
        write_segment(out, name, segment)
    return segment


def _gather_units(out: str, units: Sequence[AnnotationUnit], *, check: bool) -> Segment:
    """The rows and sums of those units whose records stand; never holds many records, which are large."""
    rows, sums = [], Sums()
    for start in range(0, len(units), _LOT_UNITS):
        records = read_unit_records(out, units[start : start + _LOT_UNITS])
        done = [record for record in records if record.status == "done"]
        rows.append(entry_rows(done))
        sums = _add_records(sums, records, done)
        if check:
            _check_sizes(out, EntryTable(rows[-1:]))
            with ThreadPoolExecutor(_NUM_READERS) as pool:
                list(pool.map(lambda record: _check_footer(out, record), done))
    return Segment(rows=pa.concat_tables(rows).combine_chunks(), sums=sums)


def _add_records(sums: Sums, records: Sequence[UnitRecord], done: Iterable[UnitRecord]) -> Sums:
    return Sums(
        num_units=sums.num_units + len(records),
        rejected=sum_by_key([sums.rejected, *(record.rejected for record in records)]),
        splits=sum_records(done, before=sums.splits),
    )


def read_unit_records(out: str, units: Sequence[AnnotationUnit]) -> list[UnitRecord]:
    """The records that stand for these units, in order."""

    def read(unit: AnnotationUnit) -> UnitRecord | None:
        try:
            return read_record(storage.join(out, record_path("targets", unit.split, unit.name)))
        except FileNotFoundError:
            return None

    with ThreadPoolExecutor(_NUM_READERS) as pool:
        return [record for record in pool.map(read, units) if record is not None]


def _check_sizes(out: str, entries: EntryTable) -> None:
    """Checks that every finished shard is there, as long as its record says.

    Raises:
        MissingShardError, CorruptShardError: One is not.
    """
    listed = list(entries)
    for entry, standing in zip(listed, standing_shards(out, "targets", listed), strict=True):
        if standing.size_bytes is None:
            raise MissingShardError(
                f"{storage.redact(storage.join(out, entry.path))}: gone; run the same command again"
            )
        if standing.size_bytes != entry.size_bytes:
            raise CorruptShardError(
                f"{storage.redact(storage.join(out, entry.path))}: {standing.size_bytes} bytes, its record says "
                f"{entry.size_bytes}; remove it and run the same command again"
            )


def _check_footer(out: str, record: UnitRecord) -> None:
    url = storage.join(out, shard_path("targets", record.split, record.name))
    ShardReader(url, footer_digest=record.footer_digest).close()
