"""The footer: what was written comes back, and versions, schemes and layouts of later releases are refused by name."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from logitcask.schemas.errors import CorruptShardError, UnknownFormatVersionError, UnknownSchemeError
from logitcask.schemas.format.footer import METADATA_KEY, PARTS_KEY, VERSION_KEY, footer_of, parse_footer
from logitcask.schemas.format.metadata import ShardMetadata
from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.format.writer import encode_shard


@pytest.fixture
def compact(metadata) -> ShardMetadata:
    return dataclasses.replace(metadata, layout="compact")


def test_the_footer_is_parsed_unchanged(encoded, windows, metadata):
    footer = parse_footer(pq.read_metadata(pa.BufferReader(encoded.data)).metadata)
    assert (footer.metadata, footer.parts, footer.frequent_ids) == (metadata, windows.parts, None)
    np.testing.assert_array_equal(footer.window_lengths, np.diff(windows.window_offsets))
    assert footer.window_hashes == windows.content_hashes()


def test_the_bytes_of_a_footer_alone_describe_the_file(encoded):
    footer = footer_of(encoded.data)
    assert pq.read_metadata(pa.BufferReader(b"PAR1" + footer)).num_rows == encoded.num_positions
    assert footer_of(encoded.data[-len(footer) :]) == footer


@pytest.mark.parametrize(
    ("tail", "reason"),
    [
        (b"", "no Parquet magic"),
        (b"PAR1", "no Parquet magic"),
        (b"\0" * 8 + b"PAR2", "no Parquet magic"),
        (b"\0" * 8 + (100).to_bytes(4, "little") + b"PAR1", "claims 108 bytes"),
    ],
)
def test_bytes_that_do_not_end_with_a_footer_are_refused(tail, reason):
    with pytest.raises(ValueError, match=reason):
        footer_of(tail)


def test_an_unknown_version_is_refused_before_anything_else_is_read(rewrite):
    path = rewrite(lambda table, m: (table, {**m, VERSION_KEY: b"2", METADATA_KEY: b"not JSON"}))
    with pytest.raises(UnknownFormatVersionError, match=r"shard.parquet: format version '2'"):
        ShardReader(path)


def test_a_scheme_of_a_later_release_is_refused_with_the_file(rewrite):
    def change(table, pairs):
        return table, {**pairs, METADATA_KEY: pairs[METADATA_KEY].replace(b'"kind":"threshold"', b'"kind":"oracle"')}

    with pytest.raises(UnknownSchemeError, match=r"shard.parquet: head scheme 'oracle'; this release knows threshold"):
        ShardReader(rewrite(change))


def test_an_invalid_scheme_is_refused_with_the_file(rewrite):
    def change(table, pairs):
        return table, {**pairs, METADATA_KEY: pairs[METADATA_KEY].replace(b'"tau":0.001', b'"tau":-0.01')}

    with pytest.raises(CorruptShardError, match=r"shard.parquet: head scheme .* is invalid: tau .* got -0.01"):
        ShardReader(rewrite(change))


def test_a_layout_of_a_later_release_is_refused_with_the_file(tmp_path, windows, targets, compact):
    data = encode_shard(windows, targets, compact).data
    (tmp_path / "x").write_bytes(data.replace(b'"layout":"compact"', b'"layout":"crystal"'))
    with pytest.raises(UnknownFormatVersionError, match="x: layout 'crystal'"):
        ShardReader(str(tmp_path / "x"))


def test_a_compact_shard_without_its_list_is_corrupt(tmp_path, windows, targets, compact):
    data = encode_shard(windows, targets, compact).data
    (tmp_path / "x").write_bytes(data.replace(b"logitcask.frequent_ids", b"logitcask.freakvent_ids"[:22]))
    with pytest.raises(CorruptShardError):
        ShardReader(str(tmp_path / "x"))


@pytest.mark.parametrize("value", [b"not JSON", b"[]", b'{"id":["a"],"source":[],"offset":[0]}'])
def test_a_damaged_table_of_parts_is_corrupt(rewrite, value):
    with pytest.raises(CorruptShardError, match=r"shard.parquet"):
        ShardReader(rewrite(lambda table, pairs: (table, {**pairs, PARTS_KEY: value})))
