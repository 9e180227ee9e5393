"""Segments: a damaged one is named and can be removed."""

from collections.abc import Callable
from pathlib import Path

import pytest
from token_shards import reject, unit_table

from logitcask.pipeline.finalization.finalize import gather_segments
from logitcask.schemas.errors import CorruptShardError
from logitcask.schemas.fingerprints import digest


def flipped(data: bytes) -> bytes:
    """A bit of the footer, which no checksum of Parquet covers."""
    return data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]


@pytest.mark.parametrize("damage", [lambda data: data[:-20], flipped])
def test_a_damaged_segment_is_named_and_can_be_removed(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    out, units = str(tmp_path), unit_table(4)
    reject(out, units[0:4])
    gather_segments(out, units, 0, 4, block_units=4)
    [segment] = (tmp_path / "segments").iterdir()
    whole = segment.read_bytes()
    segment.write_bytes(damage(whole))
    with pytest.raises(CorruptShardError, match="remove it and run again"):
        gather_segments(out, units, 0, 4, block_units=4)
    segment.unlink()
    gather_segments(out, units, 0, 4, block_units=4)
    assert segment.read_bytes() == whole
    assert segment.name.endswith(f".{digest(whole)[-12:]}.parquet")
