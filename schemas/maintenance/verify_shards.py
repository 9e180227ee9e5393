"""Checks shards: bytes, pages, rows, and what shard, record and snapshot say of each other."""

from collections.abc import Iterator
from dataclasses import fields, replace

from logitcask.schemas import storage
from logitcask.schemas.dataset.identity import Identity, differences
from logitcask.schemas.dataset.layout import record_path, shard_path
from logitcask.schemas.dataset.record import UnitRecord, read_record
from logitcask.schemas.dataset.snapshot import ShardEntry, Snapshot
from logitcask.schemas.errors import CorruptShardError, LogitcaskError, MissingShardError
from logitcask.schemas.fingerprints import digest
from logitcask.schemas.format.columns.single_values import stored_temperatures
from logitcask.schemas.format.file_rules import broken_file_rules
from logitcask.schemas.format.reader import ShardReader, StoredBlock
from logitcask.schemas.format.row_rules import RowCheck
from logitcask.schemas.maintenance.faults import Fault
from logitcask.schemas.maintenance.rewrite_shard import describe_view


def check_target_shard(snapshot: Snapshot, entry: ShardEntry) -> tuple[list[Fault], UnitRecord | None]:
    """Checks a shard of a snapshot completely.

    Returns:
        The faults, and the shard's record as the snapshot shows the shard; None if it cannot be read.
    """
    try:
        data = check_file(snapshot.shard_url(entry), entry.size_bytes, entry.digest)
        record = _check_record(snapshot.url, entry)
        with ShardReader(snapshot.shard_url(entry), footer_digest=entry.footer_digest) as reader:
            found, num_targets = check_rows(reader)
            found += [*broken_file_rules(data, reader.parquet_metadata), *_other_purpose(snapshot, entry, reader)]
            if (record.num_windows, record.num_positions) != (reader.num_windows, reader.num_positions):
                found.append(f"its record counts {record.num_windows} windows with {record.num_positions} rows")
            if record.statistics and record.statistics.targets != num_targets:
                found.append(f"{num_targets} targets, but the record says {record.statistics.targets}")
            shown = _shown(snapshot, entry, reader, record)
        if (shown.num_windows, shown.num_positions) != (entry.num_windows, entry.num_positions):
            listed = f"{entry.num_windows} windows with {entry.num_positions} rows"
            found.append(
                f"{shown.num_windows} windows with {shown.num_positions} rows, but the snapshot lists {listed}"
            )
        return [Fault.damaged(entry.path, what) for what in found], shown
    except LogitcaskError as error:
        return [Fault.of(entry.path, error)], None


def _shown(snapshot: Snapshot, entry: ShardEntry, reader: ShardReader, record: UnitRecord) -> UnitRecord:
    rules = snapshot.rules_of(entry)
    if rules:
        return describe_view(record, reader, rules)
    return replace(record, num_windows=reader.num_windows, num_positions=reader.num_positions)


def check_token_shard(out: str, split: str, name: str) -> Iterator[Fault]:
    """Checks a token shard against its record."""
    path = shard_path("tokens", split, name)
    url = storage.inside(out, path)
    try:
        record = read_record(storage.inside(out, record_path("tokens", split, name)))
        data = check_file(url, record.size_bytes, record.digest)
        with ShardReader(url, footer_digest=record.footer_digest) as reader:
            found = [*check_rows(reader)[0], *broken_file_rules(data, reader.parquet_metadata)]
            if (reader.metadata.kind, reader.metadata.split) != ("tokens", split):
                found.append(f"a shard of {reader.metadata.split} {reader.metadata.kind}, among {split} tokens")
        yield from (Fault.damaged(path, what) for what in found)
    except FileNotFoundError:
        yield Fault(path=path, error="MissingShardError", what="no record; run `logitcask annotate` to rebuild it")
    except LogitcaskError as error:
        yield Fault.of(path, error)


def check_file(url: str, size_bytes: int | None, expected: str) -> bytes:
    """The bytes of a file whose digest is known.

    Raises:
        MissingShardError, CorruptShardError: It does not exist, or holds other bytes.
    """
    try:
        data = storage.read_bytes(url, max_bytes=size_bytes)
    except FileNotFoundError as error:
        raise MissingShardError(f"{storage.redact(url)}: no such shard; restore it, or annotate again") from error
    if size_bytes is not None and len(data) != size_bytes:
        found = len(data) if len(data) < size_bytes else storage.describe_file(url).size_bytes
        raise CorruptShardError(f"{found} bytes, but {size_bytes} were written; restore the file or annotate again")
    if digest(data) != expected:
        raise CorruptShardError(
            f"digest {digest(data)}, but {expected} was written; restore the file or annotate again"
        )
    return data


def _check_record(out: str, entry: ShardEntry) -> UnitRecord:
    url = storage.inside(out, record_path("targets", entry.split, entry.name))
    try:
        record = read_record(url)
    except FileNotFoundError as error:
        raise MissingShardError(f"{storage.redact(url)}: no record; run `logitcask annotate` to rebuild it") from error
    found = (record.kind, record.split, record.name)
    if record.digest != entry.digest or found != ("targets", entry.split, entry.name):
        raise CorruptShardError(
            f"{storage.redact(url)}: the record is of another file ({' '.join(found)}, {record.digest}); restore both "
            "or annotate again"
        )
    return record


def _other_purpose(snapshot: Snapshot, entry: ShardEntry, reader: ShardReader) -> Iterator[str]:
    """What a shard says of itself that is not what the snapshot says of it."""
    if (reader.metadata.kind, reader.metadata.split) != ("targets", entry.split):
        yield f"a shard of {reader.metadata.split} {reader.metadata.kind}, listed as one of {entry.split} targets"
        return
    # What a shard does not state, or the snapshot does not know, cannot differ.
    identity, found = snapshot.identity, Identity.of_shards(reader.metadata)
    unknown = {one.name: None for one in fields(Identity) if getattr(identity, one.name) is None}
    temperatures = tuple(sorted(stored_temperatures(reader.options)))
    found = replace(found, temperatures=temperatures, **{**unknown, "num_ids": identity.num_ids})
    yield from differences(identity, found, "targets", where=("in the snapshot", "in the shard"))


def check_rows(reader: ShardReader) -> tuple[list[str], int]:
    """Checks all rules of the format that rows can break. Reads the whole shard.

    Returns:
        The broken rules, and the number of rows with a target.

    Raises:
        CorruptShardError: A page or a token is damaged.
    """
    check = RowCheck(metadata=reader.metadata)
    for block in _blocks(reader):
        check.add(block.windows, block.targets)
    return check.finish(len(reader.parts)), check.num_targets


def _blocks(reader: ShardReader) -> Iterator[StoredBlock]:
    start = 0
    while start < reader.num_windows:
        _, stop = reader.block_of(start)
        yield reader.read_stored(start, stop)
        start = stop
