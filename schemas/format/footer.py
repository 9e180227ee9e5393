"""The footer of a shard: key-value metadata about everything that is not a row."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq

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
        KeyError, TypeError, ValueError: The pairs are not those of a shard, or are damaged.
    """
    version = pairs.get(VERSION_KEY)
    if version is None:
        raise ValueError("a Parquet file, but not a logitcask shard")
    if version != str(FORMAT_VERSION).encode():
        raise UnknownFormatVersionError(
            f"format version {version.decode(errors='replace')!r}; this release reads version {FORMAT_VERSION}; "
            "install a newer logitcask"
        )
    metadata = ShardMetadata.from_json(json.loads(pairs[METADATA_KEY]))
    parts, windows = json.loads(pairs[PARTS_KEY]), json.loads(pairs[WINDOWS_KEY])
    return Footer(
        metadata=metadata,
        parts=tuple(
            Part(id=id_, source=source, offset=offset)
            for id_, source, offset in zip(parts["id"], parts["source"], parts["offset"], strict=True)
        ),
        window_lengths=np.array(windows["lengths"], dtype=np.int64),
        window_hashes=windows["hashes"],
        frequent_ids=(
            None if metadata.layout == "plain" else np.array(json.loads(pairs[FREQUENT_IDS_KEY]), dtype=np.int32)
        ),
    )
