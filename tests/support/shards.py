"""A shard and its record, written as a finished unit leaves them."""

from typing import Any

from schemas import storage
from schemas.dataset import record_path, shard_path
from schemas.records import UnitRecord
from schemas.shard import ShardMetadata, encode_shard
from schemas.statistics import Statistics
from schemas.targets import Targets, Windows


def commit(
    out: str, metadata: ShardMetadata, name: str, windows: Windows, targets: Targets | None, **described: Any
) -> UnitRecord:
    """Writes both under a dataset's URL; `described` are further fields of the record."""
    shard = encode_shard(windows, targets, metadata)
    kind, split = metadata.kind, metadata.split
    described = {"statistics": None if targets is None else Statistics.of(windows, targets), **described}
    record = UnitRecord(name=name, kind=kind, split=split, num_documents=windows.num_documents(), **described)
    record = record.of_shard(shard)
    assert storage.create(storage.join(out, shard_path(kind, split, name)), shard.data)
    assert storage.create_json(storage.join(out, record_path(kind, split, name)), record.to_json())
    return record
