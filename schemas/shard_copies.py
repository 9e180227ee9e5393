"""What a snapshot shows of a shard, as a shard of its own with its record: in this dataset or in another."""

from dataclasses import replace

from schemas import storage
from schemas.dataset import ShardEntry, Snapshot, record_path, shard_path
from schemas.derivation import describe_view, stored_record
from schemas.errors import CorruptShardError
from schemas.fingerprints import digest, fingerprint
from schemas.reader import ShardReader
from schemas.records import UnitRecord
from schemas.rewriting import rewrite_shard
from schemas.rules import rules_to_json
from schemas.shard import EncodedShard


def rewritten_name(snapshot: Snapshot, entry: ShardEntry) -> str:
    """The name of a shard without what is left out: it follows from the shard and the rules."""
    return f"{entry.name}-{fingerprint([entry.digest, rules_to_json(snapshot.rules_of(entry))])[:12]}"


def copy_shard(snapshot: Snapshot, entry: ShardEntry, out: str, name: str) -> UnitRecord:
    """Writes what the snapshot shows of a shard, and its record, into a dataset; what stands there stays.

    Args:
        snapshot, entry: The shard.
        out: A dataset's directory.
        name: What it will be called there.

    Raises:
        MissingShardError, CorruptShardError: It cannot be read, or is not as it was written.
    """
    data = read_checked(snapshot, entry)
    record = replace(stored_record(snapshot, entry), name=name)
    if snapshot.rules_of(entry):
        data, record = _rewrite(snapshot, entry, data, record)
    elif name != entry.name:
        record = replace(record, extremes=_renamed(record, name))
    storage.create(storage.join(out, shard_path("targets", entry.split, name)), data)
    storage.create_json(storage.join(out, record_path("targets", entry.split, name)), record.to_json())
    return record


def read_checked(snapshot: Snapshot, entry: ShardEntry) -> bytes:
    """The whole file.

    Raises:
        CorruptShardError: It is not the one the snapshot lists.
        MissingShardError: It is not there.
    """
    url = snapshot.shard_url(entry)
    with ShardReader(url, footer_digest=entry.footer_digest):
        data = storage.read_bytes(url)
    if digest(data) != entry.digest:
        raise CorruptShardError(
            f"{storage.redact(url)}: digest {digest(data)}, written was {entry.digest}; restore the file"
        )
    return data


def _rewrite(snapshot: Snapshot, entry: ShardEntry, data: bytes, record: UnitRecord) -> tuple[bytes, UnitRecord]:
    rules = snapshot.rules_of(entry)
    with ShardReader(snapshot.shard_url(entry), footer_digest=entry.footer_digest) as reader:
        shard: EncodedShard = rewrite_shard(reader, data, rules)
        view = describe_view(record, reader, rules)
    return shard.data, replace(view.of_shard(shard), environment={**record.environment, "rewritten_from": entry.name})


def _renamed(record: UnitRecord, name: str) -> dict:
    return {
        measure: tuple(replace(extreme, shard=name) for extreme in extremes)
        for measure, extremes in record.extremes.items()
    }
