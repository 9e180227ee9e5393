"""A shard encoded piece by piece is the shard encoded at once, to the byte."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from logitcask.schemas.format.metadata import ShardMetadata
from logitcask.schemas.format.scheme import LAYOUTS
from logitcask.schemas.format.targets import Targets, Windows
from logitcask.schemas.format.writer import ShardStream, encode_shard


def pieces_of(targets: Targets, sizes: list[int]) -> list[Targets]:
    bounds = np.cumsum([0, *sizes]).clip(max=targets.num_positions)
    return [targets.select_rows(start, stop) for start, stop in itertools.pairwise(bounds)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rows_a_piece", [1, 7, 1000])
def test_a_stream_of_pieces_gives_the_bytes_of_the_whole(
    monkeypatch, windows: Windows, targets: Targets, metadata: ShardMetadata, layout, rows_a_piece
):
    # Several row groups of several windows each.
    monkeypatch.setattr("logitcask.schemas.format.writer.ROW_GROUP_POSITIONS", windows.num_positions // 3)
    metadata = replace(metadata, layout=layout)
    stream = ShardStream(windows, metadata)
    for piece in pieces_of(targets, [rows_a_piece] * (windows.num_positions // rows_a_piece + 1)):
        stream.add(piece)
    assert stream.finish() == encode_shard(windows, targets, metadata)
