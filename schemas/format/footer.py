"""The footer of a shard: key-value metadata about everything that is not a row."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pyarrow.parquet as pq
from msgspec import Meta

from logitcask.schemas.checked_json import Count, InvalidValueError, TokenId, convert, parse_json, parse_object
from logitcask.schemas.errors import UnknownFormatVersionError
from logitcask.schemas.fingerprints import canonical_json
from logitcask.schemas.format.metadata import FORMAT_VERSION, ShardMetadata
from logitcask.schemas.format.targets import Part, Windows

VERSION_KEY = b"logitcask.format_version"
METADATA_KEY = b"logitcask.metadata"
PARTS_KEY = b"logitcask.parts"
WINDOWS_KEY = b"logitcask.windows"
FREQUENT_IDS_KEY = b"logitcask.frequent_ids"


@dataclass(frozen=True, kw_only=True, slots=True)
class Footer:
    """What the footer of a shard states.

    Attributes:
        metadata: What the shard is.
        parts: The parts, in order of their first row.
        window_lengths: Positions of each window, int64 [W].
        window_hashes: Content hash of each window.
        frequent_ids: The ids with the lowest ranks, int32; None in the layout "plain".
    """

    metadata: ShardMetadata
    parts: tuple[Part, ...]
    window_lengths: np.ndarray
    window_hashes: list[str]
    frequent_ids: np.ndarray | None


def footer_of(tail: bytes) -> bytes:
    """The bytes of a Parquet footer (metadata, its length, magic), given bytes that end where the file ends.

    Raises:
        ValueError: `tail` does not end like a Parquet file, or is shorter than the footer.
    """
    if len(tail) < 12 or tail[-4:] != b"PAR1":
        raise ValueError("no Parquet magic at the end")
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if length > len(tail):
        raise ValueError(f"the footer claims {length} bytes")
    return tail[-length:]


def write_footer(
    writer: pq.ParquetWriter, windows: Windows, metadata: ShardMetadata, frequent_ids: np.ndarray | None = None
) -> None:
    """Adds the key-value metadata; call it before the writer is closed."""
    parts, lengths = windows.parts, np.diff(windows.window_offsets)
    pairs = {
        VERSION_KEY: FORMAT_VERSION,
        METADATA_KEY: metadata.to_json(),
        PARTS_KEY: {name: [getattr(part, name) for part in parts] for name in ("id", "source", "offset")},
        WINDOWS_KEY: {"lengths": lengths.tolist(), "hashes": windows.content_hashes()},
    }
    if frequent_ids is not None:
        pairs[FREQUENT_IDS_KEY] = frequent_ids.tolist()
    for key, value in pairs.items():
        # One pair per call: several pairs in one call would be written in the order of a hash table.
        writer.add_key_value_metadata({key.decode(): canonical_json(value)})


def parse_footer(pairs: Mapping[bytes, bytes]) -> Footer:
    """The footer that `write_footer` wrote. The format version is checked before anything else.

    Raises:
        UnknownFormatVersionError: A format version, scheme or layout is not one that this release reads.
        InvalidValueError: The pairs are not those of a shard, or are damaged.
    """
    version = pairs.get(VERSION_KEY)
    if version is None:
        raise InvalidValueError("a Parquet file, but not a logitcask shard")
    if version != str(FORMAT_VERSION).encode():
        raise UnknownFormatVersionError(
            f"format version {version[:40].decode(errors='replace')!r}; this release reads version {FORMAT_VERSION}"
        )
    metadata = ShardMetadata.from_json(parse_object(_value(pairs, METADATA_KEY)))
    parts = convert(parse_object(_value(pairs, PARTS_KEY)), _Parts, at=PARTS_KEY.decode())
    windows = convert(parse_object(_value(pairs, WINDOWS_KEY)), _Windows, at=WINDOWS_KEY.decode())
    if not len(parts.id) == len(parts.source) == len(parts.offset):
        raise InvalidValueError(f"{PARTS_KEY.decode()} has lists of different lengths")
    if len(windows.lengths) != len(windows.hashes):
        raise InvalidValueError(f"{WINDOWS_KEY.decode()} has lists of different lengths")
    if max(windows.lengths, default=0) > metadata.window_tokens:
        raise InvalidValueError(f"a window of {max(windows.lengths)} rows, the maximum is {metadata.window_tokens}")
    return Footer(
        metadata=metadata,
        parts=tuple(
            Part(id=id_, source=source, offset=offset)
            for id_, source, offset in zip(parts.id, parts.source, parts.offset, strict=True)
        ),
        window_lengths=np.array(windows.lengths, dtype=np.int64),
        window_hashes=windows.hashes,
        frequent_ids=None if metadata.layout == "plain" else _frequent_ids(pairs),
    )


def _frequent_ids(pairs: Mapping[bytes, bytes]) -> np.ndarray:
    found = convert(parse_json(_value(pairs, FREQUENT_IDS_KEY)), list[TokenId], at=FREQUENT_IDS_KEY.decode())
    return np.array(found, dtype=np.int32)


def _value(pairs: Mapping[bytes, bytes], key: bytes) -> bytes:
    if key not in pairs:
        raise InvalidValueError(f"no {key.decode()} in the footer")
    return pairs[key]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Parts:
    """The table of parts, as it is stored."""

    id: list[str]
    source: list[str]
    offset: list[Count]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Windows:
    """The table of windows, as it is stored."""

    lengths: list[Annotated[int, Meta(ge=1, lt=1 << 31)]]
    hashes: list[Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]]
