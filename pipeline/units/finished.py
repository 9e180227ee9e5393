"""What stands in storage of some units, at a cost that follows their number and not the size of the dataset.

On local disks each file is asked for. Object stores answer a listing of a thousand names as fast as a question for one
file, and list by prefix: a unit's name begins with its number, so neighbours are listed together.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from logitcask.schemas import storage
from logitcask.schemas.dataset.layout import record_path, shard_path
from logitcask.schemas.dataset.record import read_record
from logitcask.schemas.errors import CorruptShardError

# Of a unit's six-digit number: a hundred neighbours a listing.
_PREFIX_DIGITS = 4


class ShardName(Protocol):
    """Whatever has the name and the split of a shard."""

    @property
    def name(self) -> str: ...

    @property
    def split(self) -> str: ...


class Named(Protocol):
    @property
    def name(self) -> str: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """What stands of one shard.

    Attributes:
        size_bytes: Of its file; None where there is none.
        has_record: Whether its record is there.
    """

    size_bytes: int | None
    has_record: bool


def standing_shards(out: str, kind: Literal["tokens", "targets"], shards: Sequence[ShardName]) -> list[Standing]:
    """What stands of some shards, in their order."""
    shard_paths = [shard_path(kind, shard.split, shard.name) for shard in shards]
    record_paths = [record_path(kind, shard.split, shard.name) for shard in shards]
    sizes = _sizes(out, [*shard_paths, *record_paths])
    return [
        Standing(size_bytes=sizes.get(shard), has_record=record in sizes)
        for shard, record in zip(shard_paths, record_paths, strict=True)
    ]


def finished_units(out: str, units: Sequence[ShardName]) -> set[str]:
    """Names of the annotation units that are done, or set aside by a record that says so."""
    return {
        unit.name
        for unit, standing in zip(units, standing_shards(out, "targets", units), strict=True)
        if standing.has_record and (standing.size_bytes is not None or _is_rejected(out, unit))
    }


def finished_token_units(out: str, units: Sequence[Named]) -> set[str]:
    """Names of the token units whose record stands."""
    paths = {unit.name: f"tokens/units/{unit.name}.json" for unit in units}
    sizes = _sizes(out, list(paths.values()))
    return {name for name, path in paths.items() if path in sizes}


def _is_rejected(out: str, unit: ShardName) -> bool:
    try:
        record = read_record(storage.join(out, record_path("targets", unit.split, unit.name)))
    except (FileNotFoundError, CorruptShardError):
        return False
    return record.status == "rejected"


def _sizes(out: str, paths: Sequence[str]) -> dict[str, int]:
    """Sizes of those files that are there, by path relative to the dataset's directory."""
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
    wanted = set(paths)
    found = {}
    for directory, prefix in sorted({_prefix(path) for path in paths}):
        for file in storage.list_files(storage.join(out, directory), prefix):
            path = f"{directory}/{storage.file_name(file.url)}"
            if path in wanted:
                found[path] = file.size_bytes
    return found


def _prefix(path: str) -> tuple[str, str]:
    directory, _, name = path.rpartition("/")
    return directory, name[:_PREFIX_DIGITS]
