"""A shard and its record, written as a finished unit leaves them."""

from typing import Any

from logitcask.schemas import storage
from logitcask.schemas.dataset.layout import record_path, shard_path
from logitcask.schemas.dataset.record import UnitRecord
from logitcask.schemas.format.metadata import ShardMetadata
from logitcask.schemas.format.targets import Targets, Windows
from logitcask.schemas.format.writer import encode_shard
from logitcask.schemas.stats.target_statistics import Statistics


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
