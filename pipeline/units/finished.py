"""Which units storage has finished, at a cost that grows with their number and not with the dataset.

On local disks each file is checked. Object stores list a thousand names as fast as they answer for one file, and list
by prefix: a unit's name begins with its number, so consecutive units are listed together.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from logitcask.schemas import storage
from logitcask.schemas.dataset.layout import record_path, shard_path
from logitcask.schemas.dataset.record import read_record
from logitcask.schemas.dataset.token_unit_record import token_unit_record_path
from logitcask.schemas.errors import CorruptShardError

# Digits of a unit's six-digit number: one listing covers a hundred consecutive units.
_PREFIX_DIGITS = 4


class Named(Protocol):
    @property
    def name(self) -> str: ...


class ShardName(Named, Protocol):
    """Anything with the name and the split of a shard."""

    @property
    def split(self) -> str: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredShard:
    """What storage has of one shard.

    Attributes:
        size_bytes: Size of its file; None where there is none.
        has_record: Whether its record exists.
    """

    size_bytes: int | None
    has_record: bool


def stored_shards(out: str, kind: Literal["tokens", "targets"], shards: Sequence[ShardName]) -> list[StoredShard]:
    """What storage has of each of the shards, in their order."""
    shard_paths = [shard_path(kind, shard.split, shard.name) for shard in shards]
    record_paths = [record_path(kind, shard.split, shard.name) for shard in shards]
    sizes = _sizes(out, [*shard_paths, *record_paths])
    return [
        StoredShard(size_bytes=sizes.get(shard), has_record=record in sizes)
        for shard, record in zip(shard_paths, record_paths, strict=True)
    ]


def finished_annotation_units(out: str, units: Sequence[ShardName]) -> set[str]:
    """Names of the units that have a shard and its record, or a record that says that all documents are rejected."""
    return {
        unit.name
        for unit, stored in zip(units, stored_shards(out, "targets", units), strict=True)
        if stored.has_record and (stored.size_bytes is not None or _is_rejected(out, unit))
    }


def finished_token_units(out: str, units: Sequence[Named]) -> set[str]:
    """Names of the units that have a record."""
    paths = {unit.name: token_unit_record_path(unit.name) for unit in units}
    sizes = _sizes(out, list(paths.values()))
    return {name for name, path in paths.items() if path in sizes}


def _is_rejected(out: str, unit: ShardName) -> bool:
    try:
        record = read_record(storage.inside(out, record_path("targets", unit.split, unit.name)))
    except (FileNotFoundError, CorruptShardError):
        return False
    return record.status == "rejected"


def _sizes(out: str, paths: Sequence[str]) -> dict[str, int]:
    """Sizes of those files that exist, by path relative to the dataset's directory."""
    return _local_sizes(out, paths) if storage.is_local(out) else _listed_sizes(out, paths)


def _local_sizes(out: str, paths: Sequence[str]) -> dict[str, int]:
    root = storage.filesystem(out)[1]
    found = {}
    for path in paths:
        try:
            found[path] = os.stat(f"{root}/{path}").st_size  # noqa: PTH116 - a million of them
        except FileNotFoundError:
            continue
    return found


def _listed_sizes(out: str, paths: Sequence[str]) -> dict[str, int]:
    requested = set(paths)
    found = {}
    for directory, prefix in sorted({_prefix(path) for path in paths}):
        for file in storage.list_members(out, directory, prefix):
            path = f"{directory}/{storage.file_name(file.url)}"
            if path in requested:
                found[path] = file.size_bytes
    return found


def _prefix(path: str) -> tuple[str, str]:
    directory, _, name = path.rpartition("/")
    return directory, name[:_PREFIX_DIGITS]
