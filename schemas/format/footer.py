"""The footer of a shard: the key-value metadata that says what the rows do not."""

import json

import numpy as np
import pyarrow.parquet as pq

from logitcask.schemas import storage
from logitcask.schemas.errors import CorruptShardError, UnknownFormatVersionError
from logitcask.schemas.fingerprints import canonical_json
from logitcask.schemas.format.metadata import FORMAT_VERSION, ShardMetadata
from logitcask.schemas.format.scheme import LAYOUTS
from logitcask.schemas.format.targets import Part, Windows

VERSION_KEY = b"logitcask.format_version"


METADATA_KEY = b"logitcask.metadata"


PARTS_KEY = b"logitcask.parts"


WINDOWS_KEY = b"logitcask.windows"


FREQUENT_IDS_KEY = b"logitcask.frequent_ids"


def footer_of(tail: bytes) -> bytes:
    """The footer of a Parquet file (metadata, its length, magic), from bytes that end where the file ends.

    Raises:
        ValueError: `tail` does not end like a Parquet file, or is shorter than the footer.
    """
    if len(tail) < 12 or tail[-4:] != b"PAR1":
        raise ValueError("no Parquet magic at the end")
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if length > len(tail):
        raise ValueError(f"the footer claims {length} bytes")
    return tail[-length:]


def _footer_metadata(windows: Windows, metadata: ShardMetadata, frequent_ids: np.ndarray | None) -> dict[bytes, str]:
    parts = windows.parts
    pairs = {
        VERSION_KEY: str(FORMAT_VERSION),
        METADATA_KEY: canonical_json(metadata.to_json()),
        PARTS_KEY: canonical_json(
            {
                "id": [part.id for part in parts],
                "source": [part.source for part in parts],
                "offset": [part.offset for part in parts],
            }
        ),
        WINDOWS_KEY: canonical_json(
            {"lengths": np.diff(windows.window_offsets).tolist(), "hashes": windows.content_hashes()}
        ),
    }
    if frequent_ids is not None:
        pairs[FREQUENT_IDS_KEY] = canonical_json(frequent_ids.tolist())
    return pairs


def write_footer(
    writer: pq.ParquetWriter, windows: Windows, metadata: ShardMetadata, frequent_ids: np.ndarray | None = None
) -> None:
    """Adds what the footer says, before the writer is closed."""
    for key, value in _footer_metadata(windows, metadata, frequent_ids).items():
        # One at a time: within one call the order would be that of a hash table.
        writer.add_key_value_metadata({key.decode(): value})


def check_version(found: bytes | None, url: str) -> None:
    if found is None:
        raise CorruptShardError(f"{storage.redact(url)}: a Parquet file, but not a logitcask shard")
    if found != str(FORMAT_VERSION).encode():
        raise UnknownFormatVersionError(
            f"{storage.redact(url)}: format version {found.decode(errors='replace')!r}; this release reads version "
            f"{FORMAT_VERSION}; install a newer logitcask"
        )


def check_layout(layout: str, url: str) -> None:
    if layout not in LAYOUTS:
        raise UnknownFormatVersionError(
            f"{storage.redact(url)}: layout {layout!r}; this release reads {', '.join(LAYOUTS)}; install a newer "
            "logitcask"
        )


def parse_frequent_ids(pairs: dict[bytes, bytes], metadata: ShardMetadata) -> np.ndarray | None:
    if metadata.layout == "plain":
        return None
    return np.array(json.loads(pairs[FREQUENT_IDS_KEY]), dtype=np.int32)


def parse_parts(value: bytes) -> tuple[Part, ...]:
    table = json.loads(value)
    return tuple(
        Part(id=id_, source=source, offset=offset)
        for id_, source, offset in zip(table["id"], table["source"], table["offset"], strict=True)
    )
