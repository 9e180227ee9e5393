"""Segments: a damaged one is named and can be removed."""

from pathlib import Path

import pytest
from token_shards import reject, unit_table

from logitcask.pipeline.finalization.finalize import gather_segments
from logitcask.pipeline.finalization.segments import segment_url
from logitcask.schemas.errors import CorruptShardError


def test_a_damaged_segment_is_named_and_can_be_removed(tmp_path: Path) -> None:
    out, units = str(tmp_path), unit_table(4)
    reject(out, units[0:4])
    gather_segments(out, units, 0, 4, block_units=4)
    [segment] = (tmp_path / "segments").iterdir()
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-20])
    with pytest.raises(CorruptShardError, match="remove it and run again"):
        gather_segments(out, units, 0, 4, block_units=4)
    segment.unlink()
    gather_segments(out, units, 0, 4, block_units=4)
    assert segment.read_bytes() == whole
    assert segment_url(out, segment.stem) == str(segment)
