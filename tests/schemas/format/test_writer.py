"""Writing: equal input gives equal bytes, in row groups of whole windows."""

import dataclasses
import io
import itertools

import numpy as np
import pyarrow.parquet as pq
import pytest

from logitcask.schemas.errors import VocabularyError
from logitcask.schemas.format import quantizer, writer
from logitcask.schemas.format.metadata import ShardMetadata
from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.format.scheme import LAYOUTS
from logitcask.schemas.format.targets import Targets, Windows
from logitcask.schemas.format.writer import ShardStream, encode_shard


def test_equal_input_gives_equal_bytes(windows, targets, metadata, encoded):
    assert encode_shard(windows, targets, metadata).data == encoded.data


def pieces_of(targets: Targets, sizes: list[int]) -> list[Targets]:
    bounds = np.cumsum([0, *sizes]).clip(max=targets.num_positions)
    return [targets.select_rows(start, stop) for start, stop in itertools.pairwise(bounds)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rows_a_piece", [1, 7, 1000])
def test_a_stream_of_pieces_gives_the_bytes_of_the_whole(
    monkeypatch, windows: Windows, targets: Targets, metadata: ShardMetadata, layout, rows_a_piece
):
    # Several row groups of several windows each.
    monkeypatch.setattr(writer, "ROW_GROUP_POSITIONS", windows.num_positions // 3)
    metadata = dataclasses.replace(metadata, layout=layout)
    stream = ShardStream(windows, metadata)
    for piece in pieces_of(targets, [rows_a_piece] * (windows.num_positions // rows_a_piece + 1)):
        stream.add(piece)
    assert stream.finish() == encode_shard(windows, targets, metadata)


def test_row_groups_are_whole_windows(windows, targets, metadata, monkeypatch, tmp_path):
    monkeypatch.setattr(writer, "ROW_GROUP_POSITIONS", 60)
    data = encode_shard(windows, targets, metadata).data
    file = pq.ParquetFile(io.BytesIO(data))
    rows = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert rows == [64, 50 + 64, 1 + 33]
    (tmp_path / "x.parquet").write_bytes(data)
    with ShardReader(str(tmp_path / "x.parquet")) as reader:
        assert [reader.block_of(window) for window in range(5)] == [(0, 1), (1, 3), (1, 3), (3, 5), (3, 5)]
        np.testing.assert_array_equal(reader.read(2, 4).windows.token, windows.select(2, 4).token)


def test_a_nearly_full_row_group_ends_with_a_block_of_eight_windows():
    offsets = np.cumsum([0] + [963] * 20)  # nine of these would pass 8,192 positions, and straddle two blocks
    assert [stop // 963 for _, stop in writer.row_group_bounds(offsets)] == [8, 16, 20]


def test_small_windows_do_not_make_small_row_groups():
    offsets = np.cumsum([0] + [128] * 100)
    assert [stop // 128 for _, stop in writer.row_group_bounds(offsets)] == [48, 96, 100]


def test_a_token_shard_has_only_the_token_columns(windows, metadata, tmp_path):
    metadata = dataclasses.replace(metadata, kind="tokens", teacher=None, scheme=None, has_entropy=False)
    (tmp_path / "t.parquet").write_bytes(encode_shard(windows, None, metadata).data)
    assert pq.read_schema(tmp_path / "t.parquet").names == ["window", "document", "token", "kind"]
    with ShardReader(str(tmp_path / "t.parquet")) as reader:
        assert reader.read().targets is None


def test_rows_of_context_and_prompt_have_no_target(encoded):
    table = pq.read_table(io.BytesIO(encoded.data))
    bare = np.isin(table["kind"].to_numpy(), [1, 2])
    assert bare.any()
    np.testing.assert_array_equal(table["tail"].is_null().to_numpy(), bare)
    assert set(np.diff(table["ids"].combine_chunks().offsets.to_numpy())[bare]) == {0}


def test_a_token_outside_the_vocabulary_is_refused(windows, targets, metadata):
    bad = dataclasses.replace(windows, token=np.where(np.arange(windows.num_positions) == 7, 300, windows.token))
    with pytest.raises(VocabularyError, match="token id 300 at entry 7"):
        encode_shard(bad, targets, metadata)


def test_sql_reproduces_the_decoded_sums(path):
    duckdb = pytest.importorskip("duckdb")
    (total,) = duckdb.sql(
        f"""select sum(list_sum(list_transform(q, lambda x: exp(-(x / 64.0) * (1 + x / 64.0))))
               + case when tail = 65535 then 0 else exp(-(tail / 2048.0)) end)
            from '{path}' where tail is not null"""
    ).fetchall()[0]
    table = pq.read_table(path)
    tail = table["tail"].drop_null().to_numpy().astype(np.float64)
    head = quantizer.dequantize_head(table["q"].combine_chunks().flatten().to_numpy()).astype(np.float64)
    assert total == pytest.approx(np.exp(head).sum() + np.exp(-tail[tail < 65535] / 2048).sum(), rel=1e-9)
