"""Reading: what was written comes back, and damage is an error."""

import dataclasses
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from logitcask.schemas import storage
from logitcask.schemas.errors import CorruptShardError, MissingShardError
from logitcask.schemas.format.reader import ShardReader, check_windows
from logitcask.schemas.format.scheme import ThresholdSamplingScheme
from logitcask.schemas.format.targets import TailSample, Targets
from logitcask.schemas.format.writer import encode_shard


def test_windows_are_read_as_they_were_written(path, windows):
    with ShardReader(path) as reader:
        read = reader.read().windows
    for name in ("token", "kind", "part", "window_offsets"):
        np.testing.assert_array_equal(getattr(read, name), getattr(windows, name))
    assert read.parts == windows.parts


def test_targets_are_read_to_within_a_quantization_step(path, targets):
    with ShardReader(path) as reader:
        read = reader.read().targets
    np.testing.assert_array_equal(read.head_ids, targets.head_ids)
    np.testing.assert_array_equal(read.head_offsets, targets.head_offsets)
    # Half a step of the head at −20 nats is 0.07; renormalizing moves a whole row by less than 0.02.
    np.testing.assert_allclose(read.head_log_probs, targets.head_log_probs, atol=0.1)
    for name in ("log_next", "entropy"):
        np.testing.assert_allclose(getattr(read, name), getattr(targets, name), atol=0.5 / 2048 + 1e-6)


def test_metadata_are_read_as_they_were_written(path, metadata):
    with ShardReader(path) as reader:
        assert reader.metadata == metadata


def test_samples_and_tempered_tails_are_read(windows, targets, metadata, rng, tmp_path):
    widths = np.where(targets.has_target(), rng.integers(0, 5, windows.num_positions), 0)
    offsets = np.cumsum([0, *widths])
    samples = tuple(
        TailSample(ids=rng.integers(0, 300, offsets[-1], dtype=np.int32), offsets=offsets) for _ in range(2)
    )
    tempered = {t: (targets.log_tail / t).astype(np.float32) for t in (0.5, 2.0)}
    rich = dataclasses.replace(targets, tail_samples=samples, tempered_log_tails=tempered)
    (tmp_path / "x.parquet").write_bytes(encode_shard(windows, rich, metadata).data)
    with ShardReader(str(tmp_path / "x.parquet")) as reader:
        read = reader.read(1, 4).targets
    start, stop = windows.window_offsets[[1, 4]]
    for sample, expected in zip(read.tail_samples, samples, strict=True):
        np.testing.assert_array_equal(sample.ids, expected.select_rows(start, stop).ids)
        np.testing.assert_array_equal(sample.offsets, expected.select_rows(start, stop).offsets)
    assert sorted(read.tempered_log_tails) == [0.5, 2.0]
    for temperature, expected in tempered.items():
        found = read.tempered_log_tails[temperature]
        np.testing.assert_allclose(found, expected[start:stop], atol=0.5 / 2048 + 1e-6)


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (1, 3), (4, 5), (2, 2), (0, 5)])
def test_any_range_of_windows_can_be_read(path, windows, start, stop):
    with ShardReader(path) as reader:
        block = reader.read(start, stop)
    np.testing.assert_array_equal(block.windows.token, windows.select(start, stop).token)
    assert block.targets.num_positions == block.windows.num_positions


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 2), (0, 6)])
def test_windows_that_do_not_exist_are_refused(path, start, stop):
    with ShardReader(path) as reader, pytest.raises(IndexError, match="do not exist: there are 5"):
        reader.read(start, stop)


def test_windows_without_a_stop_end_with_the_last_one():
    assert check_windows(2, None, 5) == (2, 5)


def test_one_column_is_read_alone(path, windows):
    with ShardReader(path) as reader:
        np.testing.assert_array_equal(reader.read_parts(), windows.part)
        np.testing.assert_array_equal(reader.read_tokens(), windows.token)


def test_only_the_requested_optional_columns_are_read(windows, targets, metadata, tmp_path):
    rich = dataclasses.replace(targets, tempered_log_tails={0.5: targets.log_tail, 2.0: targets.log_tail})
    (tmp_path / "x.parquet").write_bytes(encode_shard(windows, rich, metadata).data)
    with ShardReader(str(tmp_path / "x.parquet")) as reader:
        assert reader.options == ("entropy", "tail@0.5", "tail@2")
        whole, nothing, some = (reader.read(options=names).targets for names in (None, (), ("tail@2", "unknown")))
    assert nothing.entropy is some.entropy is None
    assert not nothing.tempered_log_tails
    assert list(some.tempered_log_tails) == [2.0]
    np.testing.assert_array_equal(some.tempered_log_tails[2.0], whole.tempered_log_tails[2.0])
    np.testing.assert_array_equal(some.head_log_probs, whole.head_log_probs)


@pytest.mark.parametrize("layout", ["plain", "compact"])
def test_without_ids_everything_else_is_read(windows, targets, metadata, tmp_path, layout):
    metadata = dataclasses.replace(metadata, layout=layout)
    (tmp_path / "x.parquet").write_bytes(encode_shard(windows, targets, metadata).data)
    with ShardReader(str(tmp_path / "x.parquet")) as reader:
        whole, without = (reader.read_stored(1, 3, ids=ids).targets for ids in (True, False))
    assert len(without.head_ids) == 0 < len(whole.head_ids)
    for name in ("head_offsets", "log_tail", "log_next", "entropy"):
        np.testing.assert_array_equal(getattr(without, name), getattr(whole, name))
    row = np.repeat(np.arange(whole.num_positions), whole.head_widths())
    # Within a row the compact layout has its own order.
    np.testing.assert_array_equal(*(targets.head_q[np.lexsort((targets.head_q, row))] for targets in (whole, without)))


def test_lists_of_one_length_are_read_like_all_others(windows, metadata, rng, tmp_path):
    """The reader decodes them itself, and must give what the library gives."""
    windows = dataclasses.replace(windows, kind=np.zeros_like(windows.kind))
    num_rows, width = windows.num_positions, 40
    targets = Targets(
        head_ids=np.tile(7 * np.arange(width, dtype=np.int32), num_rows),
        head_log_probs=-rng.uniform(0, 19, num_rows * width).astype(np.float32),
        head_offsets=width * np.arange(num_rows + 1),
        log_tail=np.full(num_rows, -1, np.float32),
        log_next=np.where(windows.has_label(), np.float32(-1), np.float32(np.nan)),
        entropy=np.ones(num_rows, np.float32),
    )
    path = tmp_path / "x.parquet"
    path.write_bytes(encode_shard(windows, targets, metadata).data)
    with ShardReader(str(path)) as reader:
        read = reader.read_stored().targets
    columns = {name: pq.read_table(path)[name].combine_chunks() for name in ("ids", "q")}
    np.testing.assert_array_equal(read.head_ids, columns["ids"].flatten().to_numpy())
    np.testing.assert_array_equal(read.head_q, columns["q"].flatten().to_numpy())
    np.testing.assert_array_equal(read.head_offsets, columns["q"].offsets.to_numpy())


def test_a_missing_shard_is_named(tmp_path):
    with pytest.raises(MissingShardError, match=r"gone.parquet"):
        ShardReader(str(tmp_path / "gone.parquet"))


@pytest.mark.parametrize("keep", [0, 3, 11, 100, -1, -9])
def test_a_truncated_file_is_refused(tmp_path, encoded, keep):
    (tmp_path / "cut.parquet").write_bytes(encoded.data[:keep])
    with pytest.raises(CorruptShardError, match=r"cut.parquet"):
        ShardReader(str(tmp_path / "cut.parquet"), footer_digest=encoded.footer_digest)


def test_no_flipped_bit_gives_a_wrong_value(tmp_path, encoded, windows):
    """300 random bits, footer and pages: an error, or exactly what was written."""
    with ShardReader(_write(tmp_path, encoded.data)) as reader:
        truth = reader.read()
    bits = random.Random(1).sample(range(len(encoded.data) * 8), 300)
    num_reported = 0
    for bit in bits:
        damaged = bytearray(encoded.data)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            with ShardReader(_write(tmp_path, bytes(damaged)), footer_digest=encoded.footer_digest) as reader:
                block = reader.read()
        except CorruptShardError:
            num_reported += 1
            continue
        np.testing.assert_array_equal(block.windows.token, truth.windows.token)
        np.testing.assert_array_equal(block.windows.kind, truth.windows.kind)
        for name in ("head_ids", "head_log_probs", "log_tail", "log_next", "entropy"):
            np.testing.assert_array_equal(getattr(block.targets, name), getattr(truth.targets, name))
    assert num_reported > 250


def _write(directory, data: bytes) -> str:
    file = directory / "flipped.parquet"
    file.write_bytes(data)
    return str(file)


def test_an_unknown_optional_column_is_ignored(rewrite, windows):
    extra = pa.array(np.arange(windows.num_positions))
    path = rewrite(lambda table, m: (table.append_column("rank", extra), m))
    with ShardReader(path) as reader:
        assert reader.read().targets.num_positions == windows.num_positions


def test_a_missing_column_is_named(rewrite):
    path = rewrite(lambda table, m: (table.drop_columns(["tail"]), m))
    with ShardReader(path) as reader, pytest.raises(CorruptShardError, match="'tail' is missing"):
        reader.read()


def test_a_missing_sample_of_a_scheme_that_samples_is_named(windows, targets, metadata, tmp_path):
    metadata = dataclasses.replace(metadata, scheme=ThresholdSamplingScheme())
    (tmp_path / "x.parquet").write_bytes(encode_shard(windows, targets, metadata).data)
    with (
        ShardReader(str(tmp_path / "x.parquet")) as reader,
        pytest.raises(CorruptShardError, match="'tail_sample' is missing"),
    ):
        reader.read()


def test_tokens_that_do_not_match_the_content_hash_are_refused(rewrite):
    def swap(table, metadata):
        token = table["token"].to_numpy().copy()
        token[70] = (token[70] + 1) % 300
        return table.set_column(2, pa.field("token", pa.int32(), nullable=False), pa.array(token)), metadata

    path = rewrite(swap)
    with ShardReader(path) as reader, pytest.raises(CorruptShardError, match=r"window 1 .*content hash"):
        reader.read()


def test_rows_out_of_order_are_refused(rewrite):
    def swap(table, metadata):
        window = table["window"].to_numpy().copy()
        window[[3, 70]] = window[[70, 3]]
        return table.set_column(0, pa.field("window", pa.int32(), nullable=False), pa.array(window)), metadata

    with ShardReader(rewrite(swap)) as reader, pytest.raises(CorruptShardError, match="not in order"):
        reader.read()


def test_a_parquet_file_that_is_no_shard_is_refused(tmp_path):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    with pytest.raises(CorruptShardError, match="not a logitcask shard"):
        ShardReader(str(tmp_path / "x.parquet"))


def test_shards_can_be_read_from_any_file_system(encoded, windows):
    url = "memory://test-shard/shard.parquet"
    assert storage.create(url, encoded.data)
    with ShardReader(url, footer_digest=encoded.footer_digest) as reader:
        np.testing.assert_array_equal(reader.read().windows.token, windows.token)
