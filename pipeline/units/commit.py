"""Exactly-once by effect: a shard, then its record, each created once; whoever comes second reads the first back.

A unit may be tried any number of times, by several workers at once, and may die anywhere. What stands in storage
afterwards is one whole shard and one record that describes it.
"""

from typing import Literal

from logitcask.schemas import fault_points, storage
from logitcask.schemas.dataset.layout import record_path, shard_path
from logitcask.schemas.dataset.record import UnitRecord, read_record
from logitcask.schemas.errors import CorruptShardError
from logitcask.schemas.fingerprints import digest
from logitcask.schemas.format.footer import footer_of
from logitcask.schemas.format.metadata import Split
from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.format.writer import EncodedShard, column_bytes
from logitcask.schemas.stats.target_statistics import Statistics

REBUILT_NOTE = (
    "rebuilt from the shard after its record was lost: statistics are those of the quantised targets, and top-1 "
    "agreement, the environment and the timings are not known"
)


def commit_shard(out: str, shard: EncodedShard, record: UnitRecord) -> UnitRecord:
    """Commits a shard and then its record.

    Args:
        out: The dataset's directory.
        shard: The whole file.
        record: What describes it, but for what the shard itself says (digests, sizes, counts).

    Returns:
        The record that stands: this one, or that of whoever was first.

    Raises:
        CorruptShardError: A record stands that describes other bytes than the shard that stands.
    """
    if not storage.create(_shard_url(out, record), shard.data):
        standing = storage.read_bytes(_shard_url(out, record))
        if digest(standing) != shard.digest:
            return commit_record(out, rebuild_record(out, record.kind, record.split, record.name))
    fault_points.reach("committed", record.name)
    return commit_record(out, record.of_shard(shard))


def commit_record(out: str, record: UnitRecord) -> UnitRecord:
    """Creates a record, or returns the one that stands.

    Raises:
        CorruptShardError: The one that stands describes another shard.
    """
    url = _record_url(out, record)
    if storage.create_json(url, record.to_json()):
        fault_points.reach("recorded", record.name)
        return record
    standing = read_record(url)
    if standing.status == record.status and standing.digest != record.digest:
        raise CorruptShardError(
            f"{storage.redact(url)}: the record says {standing.digest}, but the shard beside it is {record.digest}; "
            "remove both and run again"
        )
    return standing


def standing_record(out: str, kind: Literal["tokens", "targets"], split: Split, name: str) -> UnitRecord | None:
    """The record of a unit that is finished already, rebuilt where only its shard is there.

    Returns:
        None if the unit has to be done: nothing stands, or only the record of a shard that has been lost.

    Raises:
        CorruptShardError: What stands is not a record, or not a shard.
    """
    has_shard = storage.exists(storage.join(out, shard_path(kind, split, name)))
    try:
        record = read_record(storage.join(out, record_path(kind, split, name)))
    except FileNotFoundError:
        return commit_record(out, rebuild_record(out, kind, split, name)) if has_shard else None
    return record if has_shard or record.status == "rejected" else None


def rebuild_record(out: str, kind: Literal["tokens", "targets"], split: Split, name: str) -> UnitRecord:
    """Describes a shard from its own contents, and says that it does so.

    Raises:
        CorruptShardError: It is not a whole shard.
    """
    url = storage.join(out, shard_path(kind, split, name))
    data = storage.read_bytes(url)
    with ShardReader(url) as reader:
        block = reader.read()
    return UnitRecord(
        name=name,
        kind=kind,
        split=split,
        digest=digest(data),
        footer_digest=digest(footer_of(data)),
        size_bytes=len(data),
        num_windows=block.windows.num_windows,
        num_positions=block.windows.num_positions,
        num_documents=block.windows.num_documents(),
        column_bytes=column_bytes(data),
        statistics=None if block.targets is None else Statistics.of(block.windows, block.targets),
        environment={"note": REBUILT_NOTE},
    )


def _shard_url(out: str, record: UnitRecord) -> str:
    return storage.join(out, shard_path(record.kind, record.split, record.name))


def _record_url(out: str, record: UnitRecord) -> str:
    return storage.join(out, record_path(record.kind, record.split, record.name))
