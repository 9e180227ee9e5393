"""Exactly-once by effect: a shard and then its record are each created once; a later attempt reads the first back.

A unit may be tried any number of times, by several workers at once, and may die anywhere. Afterwards storage holds
one whole shard and one record that describes it.
"""

from typing import Literal

from logitcask.schemas import fault_points, storage
from logitcask.schemas.dataset.layout import record_path, shard_path
from logitcask.schemas.dataset.record import UnitRecord, read_record
from logitcask.schemas.errors import CorruptShardError
from logitcask.schemas.fingerprints import digest
from logitcask.schemas.format.metadata import Split
from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.format.writer import EncodedShard, describe_shard
from logitcask.schemas.seals import create_sealed
from logitcask.schemas.stats.target_statistics import Statistics

REBUILT_NOTE = (
    "rebuilt from the shard after its record was lost: statistics are those of the quantized targets, and top-1 "
    "agreement, the environment and the timings are not known"
)


def commit_shard(out: str, shard: EncodedShard, record: UnitRecord) -> UnitRecord:
    """Commits a shard and then its record.

    Args:
        out: The dataset's directory.
        shard: The whole file.
        record: Its description, except what follows from the shard (digests, sizes, counts).

    Returns:
        The record in storage: this one, or that of the first attempt.

    Raises:
        CorruptShardError: The record in storage does not describe the shard in storage.
    """
    url = storage.inside(out, shard_path(record.kind, record.split, record.name))
    if not storage.create(url, shard.data) and digest(storage.read_bytes(url)) != shard.digest:
        return commit_record(out, rebuild_record(out, record.kind, record.split, record.name))
    fault_points.reach("committed", record.name)
    return commit_record(out, record.of_shard(shard))


def commit_record(out: str, record: UnitRecord) -> UnitRecord:
    """Creates a record, or returns the one that exists.

    Raises:
        CorruptShardError: The existing record describes another shard.
    """
    url = storage.inside(out, record_path(record.kind, record.split, record.name))
    if create_sealed(url, record.to_json()):
        fault_points.reach("recorded", record.name)
        return record
    existing = read_record(url)
    if existing.status == record.status and existing.digest != record.digest:
        raise CorruptShardError(
            f"{storage.redact(url)}: the record says {existing.digest}, but the shard next to it is {record.digest}; "
            "remove both and run again"
        )
    return existing


def finished_record(out: str, kind: Literal["tokens", "targets"], split: Split, name: str) -> UnitRecord | None:
    """The record of a finished unit, rebuilt where only its shard exists.

    Returns:
        None if the unit must be done: nothing exists, or only the record of a shard that was lost.

    Raises:
        CorruptShardError: The file is not a record, or not a shard.
    """
    has_shard = storage.exists(storage.inside(out, shard_path(kind, split, name)))
    try:
        record = read_record(storage.inside(out, record_path(kind, split, name)))
    except FileNotFoundError:
        return commit_record(out, rebuild_record(out, kind, split, name)) if has_shard else None
    return record if has_shard or record.status == "rejected" else None


def rebuild_record(out: str, kind: Literal["tokens", "targets"], split: Split, name: str) -> UnitRecord:
    """Describes a shard from its own contents; the record says so in its environment.

    Raises:
        CorruptShardError: The file is not a whole shard.
    """
    url = storage.inside(out, shard_path(kind, split, name))
    data = storage.read_bytes(url)
    with ShardReader(url) as reader:
        block = reader.read()
    record = UnitRecord(
        name=name,
        kind=kind,
        split=split,
        num_documents=block.windows.num_documents(),
        statistics=None if block.targets is None else Statistics.of(block.windows, block.targets),
        environment={"note": REBUILT_NOTE},
    )
    return record.of_shard(describe_shard(data, block.windows))
