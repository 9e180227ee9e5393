"""Checks a dataset: every file against its digest, every row against the rules of the format."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from logitcask.schemas import storage
from logitcask.schemas.dataset.identity import Identity, differences
from logitcask.schemas.dataset.layout import record_path, shard_path
from logitcask.schemas.dataset.partial import readable_snapshot
from logitcask.schemas.dataset.record import UnitRecord, read_record
from logitcask.schemas.dataset.shard_view import SnapshotShard
from logitcask.schemas.dataset.snapshot import ShardEntry, Snapshot
from logitcask.schemas.errors import CorruptShardError, LogitcaskError, MissingShardError, StorageError
from logitcask.schemas.fingerprints import digest
from logitcask.schemas.format.columns.single_values import stored_temperatures
from logitcask.schemas.format.file_rules import broken_file_rules
from logitcask.schemas.format.reader import ShardReader, StoredBlock
from logitcask.schemas.format.row_rules import RowCheck
from logitcask.schemas.terminal.progress import shard_progress


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """A damaged file, or a violation of the format.

    Attributes:
        path: The file, relative to the dataset's directory.
        error: Name of the error's class.
        what: What was found, and what to do.
    """

    path: str
    error: str
    what: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """What `verify` checked and found."""

    url: str
    snapshot: int
    num_shards: int
    num_positions: int
    size_bytes: int
    faults: tuple[Fault, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        """One line per fault, then the totals."""
        lines = [f"{fault.path}: {fault.error}: {fault.what}" for fault in self.faults]
        name = f"snapshot {self.snapshot}" if self.snapshot else "partial dataset, no snapshot yet"
        checked = f"{name}: {self.num_shards} shards, {self.num_positions:,} positions, "
        verdict = f"{len(self.faults)} faults" if self.faults else "all well"
        return "\n".join([*lines, f"{checked}{self.size_bytes:,} bytes checked: {verdict}"])


def verify(out: str, number: int | None = None) -> Verification:
    """Checks a snapshot and all its token and target shards. Reads every byte.

    Raises:
        LogitcaskError: There is no snapshot to check. All other faults are in the result.
    """
    snapshot = readable_snapshot(out, number)
    faults = list(_snapshot_faults(snapshot))
    num_shards = num_positions = size_bytes = 0
    try:
        for entry in shard_progress(snapshot.each_shard(), "verify", snapshot.total().num_shards):
            faults += _shard_faults(snapshot, entry)
            num_shards, num_positions = num_shards + 1, num_positions + entry.num_positions
            size_bytes += entry.size_bytes
    except LogitcaskError as error:
        faults.append(_fault(f"snapshots/{snapshot.shards_file}", error))
    faults += _token_shard_faults(out)
    return Verification(
        url=storage.redact(out),
        snapshot=snapshot.number,
        num_shards=num_shards,
        num_positions=num_positions,
        size_bytes=size_bytes,
        faults=tuple(faults),
    )


def _snapshot_faults(snapshot: Snapshot) -> Iterator[Fault]:
    path = f"snapshots/{snapshot.name}.json" if snapshot.number else "snapshots"
    if not snapshot.complete:
        yield Fault(
            path=path,
            error="IncompleteDatasetError",
            what="the dataset is partial; run the same `logitcask annotate` again to finish it",
        )
    accounted = snapshot.total().num_documents + snapshot.num_rejected + snapshot.num_removed
    if snapshot.complete and accounted != snapshot.num_documents_in:
        yield Fault(
            path=path,
            error="CorruptShardError",
            what=f"{snapshot.num_documents_in} documents in, but {accounted} annotated, rejected or removed",
        )


def _shard_faults(snapshot: Snapshot, entry: ShardEntry) -> list[Fault]:
    try:
        data = _check_file(snapshot.shard_url(entry), entry.size_bytes, entry.digest)
        record = _check_record(snapshot.url, "targets", entry.split, entry.name, entry.digest)
        with ShardReader(snapshot.shard_url(entry), footer_digest=entry.footer_digest) as reader:
            found, num_targets = check_rows(reader)
            found += [*broken_file_rules(data, reader.parquet_metadata), *_other_purpose(snapshot, entry, reader)]
            shown = _shown(snapshot, entry, reader)
            if shown != (entry.num_windows, entry.num_positions):
                listed = f"{entry.num_windows} windows with {entry.num_positions} rows"
                found.append(f"{shown[0]} windows with {shown[1]} rows, but the snapshot lists {listed}")
            if record.statistics and record.statistics.targets != num_targets:
                found.append(f"{num_targets} targets, but the record says {record.statistics.targets}")
        return [Fault(path=entry.path, error="CorruptShardError", what=what) for what in found]
    except LogitcaskError as error:
        return [_fault(entry.path, error)]


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


def _shown(snapshot: Snapshot, entry: ShardEntry, reader: ShardReader) -> tuple[int, int]:
    """Windows and rows of a shard that the snapshot does not leave out."""
    rules = snapshot.rules_of(entry)
    if not rules:
        return reader.num_windows, reader.num_positions
    shard = SnapshotShard(reader, rules)
    return shard.num_windows, sum(shard.read(*block).windows.num_positions for block in shard.blocks())


def _fault(path: str, error: LogitcaskError) -> Fault:
    """Raises StorageError if the error is one: a store that is away says nothing about its files."""
    if isinstance(error, StorageError):
        raise error
    return Fault(path=path, error=type(error).__name__, what=str(error))


def _check_file(url: str, size_bytes: int | None, expected: str) -> bytes:
    try:
        data = storage.read_bytes(url, max_bytes=size_bytes)
    except FileNotFoundError as error:
        raise MissingShardError(
            f"{storage.redact(url)}: this shard is missing; restore it, or annotate again"
        ) from error
    if size_bytes is not None and len(data) != size_bytes:
        found = len(data) if len(data) < size_bytes else storage.describe_file(url).size_bytes
        raise CorruptShardError(f"{found} bytes, but {size_bytes} were written; restore the file or annotate again")
    if digest(data) != expected:
        raise CorruptShardError(
            f"digest {digest(data)}, but {expected} was written; restore the file or annotate again"
        )
    return data


def _check_record(out: str, kind: str, split: str, name: str, expected_digest: str) -> UnitRecord:
    url = storage.inside(out, record_path(kind, split, name))
    try:
        record = read_record(url)
    except FileNotFoundError as error:
        raise MissingShardError(f"{storage.redact(url)}: no record; run `logitcask annotate` to rebuild it") from error
    if record.digest != expected_digest:
        raise CorruptShardError(
            f"{storage.redact(url)}: the record is of another file ({record.digest}); restore both or annotate again"
        )
    return record


def _token_shard_faults(out: str) -> Iterator[Fault]:
    """Token shards are the checkpoint of the job: they may be removed, but not damaged."""
    for file in storage.list_members(out, "tokens"):
        if not file.url.endswith(".parquet"):
            continue
        split, name = file.url.split("/")[-2], storage.file_name(file.url).removesuffix(".parquet")
        path = shard_path("tokens", split, name)
        try:
            record = read_record(storage.inside(out, record_path("tokens", split, name)))
            data = _check_file(file.url, record.size_bytes, record.digest)
            with ShardReader(file.url, footer_digest=record.footer_digest) as reader:
                found = [*check_rows(reader)[0], *broken_file_rules(data, reader.parquet_metadata)]
                if (reader.metadata.kind, reader.metadata.split) != ("tokens", split):
                    found.append(f"a shard of {reader.metadata.split} {reader.metadata.kind}, among {split} tokens")
            yield from (Fault(path=path, error="CorruptShardError", what=what) for what in found)
        except FileNotFoundError:
            yield Fault(path=path, error="MissingShardError", what="no record; run `logitcask annotate` to rebuild it")
        except LogitcaskError as error:
            yield _fault(path, error)


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
