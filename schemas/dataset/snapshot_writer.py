"""Writes the next snapshot of a dataset: its list of shards first, then the numbered file that names it.

Both files are create-only. The first writer gets a number; the other one takes the next, unless they are equal.
"""

import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from logitcask.schemas import storage
from logitcask.schemas.dataset.identity import Identity
from logitcask.schemas.dataset.layout import DATASET_VERSION, shard_path
from logitcask.schemas.dataset.record import UnitRecord
from logitcask.schemas.dataset.rules import Rules, rules_to_json
from logitcask.schemas.dataset.snapshot import (
    Origin,
    PreviousSnapshot,
    ShardEntry,
    Snapshot,
    latest_snapshot,
    load_snapshot,
    snapshot_numbers,
    snapshot_url,
)
from logitcask.schemas.dataset.split_summary import SplitSummary, sum_records
from logitcask.schemas.fingerprints import digest
from logitcask.schemas.seals import sealed

if TYPE_CHECKING:
    import pyarrow as pa

# Row groups of the list of shards: a bounded amount of memory for any number of shards.
_ROW_GROUP_ENTRIES = 50_000
_BATCH_ENTRIES = 5_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """A snapshot without its number. The attributes are those of `Snapshot`."""

    complete: bool
    identity: Identity
    num_documents_in: int
    rejected: dict[str, int]
    splits: dict[str, SplitSummary]
    shards: Sequence[ShardEntry]
    skipped_files: dict[str, int] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)
    selections: tuple[Rules, ...] = ()
    made_by: Origin = "annotate"
    base: int | None = None
    num_missing_units: int = 0

    @classmethod
    def of_records(cls, records: Sequence[UnitRecord], **fields: Any) -> "Draft":
        """A draft over whole target shards, from their records; `fields` are the other attributes."""
        shards = tuple(entry_of(record) for record in records)
        return cls(splits=sum_records(records), shards=shards, **fields)


def write_draft(out: str, draft: Draft) -> Snapshot:
    """Writes the next snapshot, or returns the latest if the two are equal."""
    latest = latest_snapshot(out)
    number = latest.number + 1 if latest else 1
    shards = _encode_entries(draft.shards)
    while latest is None or not _equals(draft, shards, latest):
        snapshot = _publish(out, draft, shards, number)
        if snapshot is not None:
            return snapshot
        latest = load_snapshot(out, number)
        number += 1
    return latest


def publish(out: str, draft: Draft, number: int) -> Snapshot | None:
    """Writes a snapshot under a number; None if another writer has taken the number."""
    return _publish(out, draft, _encode_entries(draft.shards), number)


def _publish(out: str, draft: Draft, shards: bytes, number: int) -> Snapshot | None:
    snapshot = replace(_numbered(out, draft, shards, number), previous=_previous(out, number))
    storage.create(storage.inside(out, "snapshots", snapshot.shards_file), shards)
    data = sealed(_snapshot_json(snapshot))
    if not storage.create(snapshot_url(out, number), data):
        return None
    _mark_published(out, number, digest(data))
    return snapshot


def _previous(out: str, number: int) -> PreviousSnapshot | None:
    """The snapshot before a number; marks it as published if its writer was killed before it could."""
    before = [one for one in snapshot_numbers(out) if one < number]
    if not before:
        return None
    return PreviousSnapshot(number=before[-1], digest=mark_published(out, before[-1]))


def mark_published(out: str, number: int) -> str:
    """Marks a snapshot as published, if its writer was killed before it could; returns the digest of its file."""
    found = digest(storage.read_bytes(snapshot_url(out, number)))
    _mark_published(out, number, found)
    return found


def _mark_published(out: str, number: int, digest_of_file: str) -> None:
    """So that a missing snapshot is noticed."""
    storage.create(snapshot_url(out, number, "sha256"), published_line(number, digest_of_file))


def published_line(number: int, digest_of_file: str) -> bytes:
    """What the file says that a published snapshot leaves; `sha256sum --check` reads it."""
    return f"{digest_of_file.removeprefix('sha256:')}  {number:06d}.json\n".encode()


def draft_digest(draft: Draft) -> str:
    """The digest that the draft's list of shards will have."""
    return digest(_encode_entries(draft.shards))


def _equals(draft: Draft, shards: bytes, snapshot: Snapshot) -> bool:
    """Whether a snapshot equals a draft; files that are not read can come and go meanwhile."""
    same = replace(draft, skipped_files=snapshot.skipped_files)
    numbered = _numbered(snapshot.url, same, shards, snapshot.number)
    return _snapshot_json(numbered) == _snapshot_json(replace(snapshot, previous=None))


def _numbered(out: str, draft: Draft, shards: bytes, number: int) -> Snapshot:
    fields = {name: getattr(draft, name) for name in Draft.__dataclass_fields__ if name != "shards"}
    return Snapshot(
        url=out,
        number=number,
        **{
            **fields,
            "rejected": dict(sorted(draft.rejected.items())),
            "removed": dict(sorted(draft.removed.items())),
        },
        shards_file=f"{number:06d}-{digest(shards)[-12:]}.parquet",
        shards_digest=digest(shards),
    )


def entry_of(record: UnitRecord, selection: int | None = None) -> ShardEntry:
    """A shard's line in the list."""
    return ShardEntry(
        name=record.name,
        split=record.split,
        path=shard_path("targets", record.split, record.name),
        num_windows=record.num_windows,
        num_positions=record.num_positions,
        size_bytes=record.size_bytes,
        digest=record.digest,
        footer_digest=record.footer_digest,
        selection=selection,
    )


def _encode_entries(entries: Sequence[ShardEntry]) -> bytes:
    """The list of shards as Parquet, in batches, because it may have a million rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"num_windows": pa.int64(), "num_positions": pa.int64(), "size_bytes": pa.int64(), "selection": pa.int32()}
    names = list(ShardEntry.__dataclass_fields__)
    if all(entry.selection is None for entry in entries):
        # The first release had no such column: equal lists keep equal digests.
        names.remove("selection")
    schema = pa.schema([(name, types.get(name, pa.string())) for name in names])
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True) as writer:
        batches = _entry_batches(iter(entries), schema)
        while group := list(itertools.islice(batches, _ROW_GROUP_ENTRIES // _BATCH_ENTRIES)):
            writer.write_table(pa.Table.from_batches(group).combine_chunks())
    return sink.getvalue()


def _entry_batches(entries: Iterator[ShardEntry], schema: "pa.Schema") -> "Iterator[pa.RecordBatch]":
    """Entries as columns, in batches: as objects they take three times the memory."""
    import pyarrow as pa

    while batch := list(itertools.islice(entries, _BATCH_ENTRIES)):
        columns = [
            pa.array([getattr(entry, name) for entry in batch], schema.field(name).type) for name in schema.names
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _snapshot_json(snapshot: Snapshot) -> dict[str, Any]:
    fields = asdict(snapshot)
    del fields["url"], fields["is_sealed"]
    if not snapshot.skipped_files:
        # The first snapshots had no such field: equal snapshots must keep equal bytes.
        del fields["skipped_files"]
    fields["identity"] = snapshot.identity.to_json()
    fields["selections"] = [rules_to_json(rules) for rules in snapshot.selections]
    return {"dataset_version": DATASET_VERSION, **_string_keys(fields)}


def _string_keys(value: Any) -> Any:
    """The value as JSON reads it back, so that a written and a read snapshot compare equal."""
    if isinstance(value, dict):
        return {str(key): _string_keys(one) for key, one in value.items()}
    return value
