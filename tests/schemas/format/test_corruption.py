"""Every flipped bit and every truncation of a shard: a wrong value is never returned.

The shards are golden ones: one with every optional column, and a compact one. `verify` compares the digest of the whole
file and so finds all damage. The reader reads only the bytes that it needs: it reports damage to them, and returns the
rest unchanged.
"""

import io
import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from repository import GOLDEN

from logitcask.schemas.errors import CorruptShardError
from logitcask.schemas.fingerprints import digest
from logitcask.schemas.format.footer import footer_of
from logitcask.schemas.format.reader import Block, ShardReader
from logitcask.schemas.maintenance.verify_shards import check_file

SHARDS = GOLDEN / "v1"


class Shard:
    """A whole shard, and damaged copies of it."""

    def __init__(self, name: str, path: Path) -> None:
        self.data, self.path = (SHARDS / f"{name}.parquet").read_bytes(), path
        self.num_bits = 8 * len(self.data)
        self.digest, self.footer_digest = digest(self.data), digest(footer_of(self.data))

    def read(self, data: bytes) -> list:
        """Everything that a reader returns for a shard, as arrays and plain values."""
        self.path.write_bytes(data)
        with ShardReader(str(self.path), footer_digest=self.footer_digest) as reader:
            about = [reader.metadata, reader.parts, reader.window_lengths, reader.window_hashes]
            return [*about, *columns(reader.read())]

    def flipped(self, bit: int) -> bytes:
        damaged = bytearray(self.data)
        damaged[bit // 8] ^= 1 << bit % 8
        return bytes(damaged)

    def check_reader(self, bits: Iterable[int]) -> int:
        """Reads the shard with each bit flipped in turn; returns how many flips were harmless."""
        truth, num_harmless = self.read(self.data), 0
        for bit in bits:
            try:
                found = self.read(self.flipped(bit))
            except CorruptShardError:
                continue
            num_harmless += 1
            for value, expected in zip(found, truth, strict=True):
                np.testing.assert_array_equal(value, expected, err_msg=f"bit {bit}")
        return num_harmless

    def check_verify(self, damaged: Iterable[bytes]) -> None:
        for data in damaged:
            self.path.write_bytes(data)
            # Without a size, only the digest can find the damage.
            with pytest.raises(CorruptShardError, match="digest"):
                check_file(str(self.path), None, self.digest)

    def column_chunk(self, name: str) -> pq.ColumnChunkMetaData:
        row_group = pq.read_metadata(io.BytesIO(self.data)).row_group(0)
        return next(c for c in map(row_group.column, range(row_group.num_columns)) if c.path_in_schema == name)

    def report_of(self, bit: int) -> str:
        try:
            self.read(self.flipped(bit))
        except CorruptShardError as error:
            return str(error)
        return ""


def columns(block: Block) -> list[np.ndarray]:
    windows, targets = block.windows, block.targets
    assert targets is not None
    return [
        *(windows.token, windows.kind, windows.part, windows.window_offsets),
        *(targets.head_ids, targets.head_log_probs, targets.head_offsets),
        *(targets.log_tail, targets.log_next),
        *([] if targets.entropy is None else [targets.entropy]),
        *(column for sample in targets.tail_samples for column in (sample.ids, sample.offsets)),
        *(targets.tempered_log_tails[temperature] for temperature in sorted(targets.tempered_log_tails)),
    ]


@pytest.fixture(params=["options", "compact"])
def shard(request, tmp_path) -> Shard:
    return Shard(request.param, tmp_path / "damaged.parquet")


@pytest.fixture
def with_options(tmp_path) -> Shard:
    return Shard("options", tmp_path / "damaged.parquet")


def test_a_sample_of_flipped_bits_gives_no_wrong_value(shard):
    shard.check_reader(random.Random(2).sample(range(shard.num_bits), 100))


def test_a_list_cut_short_by_its_page_header_is_reported(with_options):
    """Some bit in the header lowers the number of values that the page claims, and every checksum still agrees."""
    header = 8 * with_options.column_chunk("tail_sample.list.element").data_page_offset
    reports = [with_options.report_of(bit) for bit in range(header, header + 8 * 32)]
    assert any("column 'tail_sample' holds" in report for report in reports)


@pytest.mark.slow
def test_no_truncation_is_read(with_options):
    for length in range(len(with_options.data)):
        with_options.path.write_bytes(with_options.data[:length])
        with pytest.raises(CorruptShardError):
            ShardReader(str(with_options.path), footer_digest=with_options.footer_digest)


@pytest.mark.slow
def test_verify_reports_every_truncation(with_options):
    with_options.check_verify(with_options.data[:length] for length in range(len(with_options.data)))


def test_verify_reports_a_sample_of_flipped_bits(shard):
    shard.check_verify(map(shard.flipped, random.Random(3).sample(range(shard.num_bits), 300)))


@pytest.mark.slow
def test_no_flipped_bit_gives_a_wrong_value_or_wrong_metadata(shard):
    # Page headers, which no checksum covers, hold bytes that no reader uses.
    assert shard.check_reader(range(shard.num_bits)) < 0.05 * shard.num_bits


@pytest.mark.slow
def test_verify_reports_every_flipped_bit(shard):
    shard.check_verify(map(shard.flipped, range(shard.num_bits)))
