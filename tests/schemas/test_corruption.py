"""Every way one bit can flip and every way a file can be cut short: nothing wrong is ever returned.

On a golden shard that has every optional column. `verify` compares the digest of the whole file and so finds each; the
reader, which reads only what it needs, reports what matters and returns the rest exactly as it was written.
"""

import io
import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from schemas.errors import CorruptShardError
from schemas.fingerprints import digest
from schemas.reader import Block, ShardReader
from schemas.shard import footer_of
from schemas.verification import _check_file

DATA = (Path(__file__).parent.parent / "golden" / "v1" / "options.parquet").read_bytes()
DIGEST, FOOTER_DIGEST = digest(DATA), digest(footer_of(DATA))
NUM_BITS = 8 * len(DATA)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "damaged.parquet"


@pytest.fixture
def truth(path) -> list:
    path.write_bytes(DATA)
    return read(path)


def read(path: Path) -> list:
    """All that a reader tells about a shard, as arrays and plain values."""
    with ShardReader(str(path), footer_digest=FOOTER_DIGEST) as reader:
        about = [reader.metadata, reader.parts, reader.window_lengths, reader.window_hashes]
        return [*about, *columns(reader.read())]


def columns(block: Block) -> list[np.ndarray]:
    windows, targets = block.windows, block.targets
    assert targets is not None
    assert targets.entropy is not None
    return [
        *(windows.token, windows.kind, windows.part, windows.window_offsets),
        *(targets.head_ids, targets.head_log_probs, targets.head_offsets),
        *(targets.log_tail, targets.log_next, targets.entropy),
        *(column for sample in targets.tail_samples for column in (sample.ids, sample.offsets)),
        *(targets.tempered_log_tails[temperature] for temperature in sorted(targets.tempered_log_tails)),
    ]


def flipped(bit: int) -> bytes:
    damaged = bytearray(DATA)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def check_reader(path: Path, bits: Iterable[int], truth: list) -> int:
    """Reads the shard with each bit flipped; returns how often that was harmless."""
    num_harmless = 0
    for bit in bits:
        path.write_bytes(flipped(bit))
        try:
            found = read(path)
        except CorruptShardError:
            continue
        num_harmless += 1
        for value, expected in zip(found, truth, strict=True):
            np.testing.assert_array_equal(value, expected, err_msg=f"bit {bit}")
    return num_harmless


def check_verify(path: Path, damaged: Iterable[bytes]) -> None:
    for data in damaged:
        path.write_bytes(data)
        # With the size unknown, so that the digest alone has to tell.
        with pytest.raises(CorruptShardError, match="digest"):
            _check_file(str(path), None, DIGEST)


def test_a_sample_of_flipped_bits_gives_no_wrong_value(path, truth):
    check_reader(path, random.Random(2).sample(range(NUM_BITS), 200), truth)


def test_a_list_cut_short_by_its_page_header_is_reported(path):
    """Some bit there lowers the number of values that the page claims, and every checksum agrees."""
    header = 8 * column_chunk("tail_sample.list.element").data_page_offset
    reports = [report_of(path, bit) for bit in range(header, header + 8 * 32)]
    assert any("column 'tail_sample' holds" in report for report in reports)


def column_chunk(name: str):
    row_group = pq.read_metadata(io.BytesIO(DATA)).row_group(0)
    return next(c for c in map(row_group.column, range(row_group.num_columns)) if c.path_in_schema == name)


def report_of(path: Path, bit: int) -> str:
    path.write_bytes(flipped(bit))
    try:
        read(path)
    except CorruptShardError as error:
        return str(error)
    return ""


def test_no_truncation_is_read(path):
    for length in range(len(DATA)):
        path.write_bytes(DATA[:length])
        with pytest.raises(CorruptShardError):
            ShardReader(str(path), footer_digest=FOOTER_DIGEST)


def test_verify_reports_every_truncation(path):
    check_verify(path, (DATA[:length] for length in range(len(DATA))))


def test_verify_reports_a_sample_of_flipped_bits(path):
    check_verify(path, map(flipped, random.Random(3).sample(range(NUM_BITS), 500)))


@pytest.mark.slow
def test_no_flipped_bit_gives_a_wrong_value_or_wrong_metadata(path, truth):
    # Page headers, which no checksum covers, hold bytes that no reader looks at.
    assert check_reader(path, range(NUM_BITS), truth) < 0.05 * NUM_BITS


@pytest.mark.slow
def test_verify_reports_every_flipped_bit(path):
    check_verify(path, map(flipped, range(NUM_BITS)))
