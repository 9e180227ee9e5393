"""Writes a shard: one Parquet file whose rows are positions (format version 1; FORMAT.md is the specification).

A token shard has the columns `window, document, token, kind`; a target shard also has the teacher's targets. All are
plain Arrow types, so DuckDB, polars, pandas, Spark and `datasets` read a shard without our code. Everything that is not
a row is in the footer's key-value metadata: the format version, what the shard is, its parts and its windows.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from logitcask.schemas.fingerprints import digest
from logitcask.schemas.format import id_gaps
from logitcask.schemas.format.columns.heads import ID_GAPS, IDS, Q
from logitcask.schemas.format.columns.registry import encode_targets
from logitcask.schemas.format.columns.tokens import encode_windows
from logitcask.schemas.format.footer import footer_of, write_footer
from logitcask.schemas.format.metadata import ShardMetadata
from logitcask.schemas.format.targets import Targets, Windows

# A row group is closed at the first window boundary past this many positions: small enough that eight windows of 1,024
# are one read, large enough to compress (groups of one window cost 8 bytes a token more).
ROW_GROUP_POSITIONS = 8192
# At a multiple of eight windows it is closed earlier: windows are not quite full, and a group of nine would straddle
# two blocks.
BLOCK_WINDOWS, BLOCK_POSITIONS = 8, 6144

_IDS_LEAF, _ID_GAPS_LEAF, _Q_LEAF = (f"{name}.list.element" for name in (IDS, ID_GAPS, Q))
# Compression level by column. Ids take four fifths of the time to write: one level less costs 1 % of a shard and saves
# a third of the time. Levels above 3 do not compress quantized values or the bytes of gaps any further.
_LEVELS = {_IDS_LEAF: 6, _Q_LEAF: 3, _ID_GAPS_LEAF: 3}
_DEFAULT_LEVEL = 9
# Columns with few distinct values use a dictionary. Ids do not: zstd finds repeated four-byte ids by itself.
_DICTIONARY_COLUMNS = ["window", "document", "kind", _Q_LEAF]


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedShard:
    """A whole Parquet file in memory.

    Attributes:
        data: The file.
        digest: Of the whole file.
        footer_digest: Of its footer, which page checksums do not cover.
        num_windows, num_positions: Windows and rows in the file.
        column_bytes: Compressed bytes of each column.
    """

    data: bytes
    digest: str
    footer_digest: str
    num_windows: int
    num_positions: int
    column_bytes: dict[str, int]


def encode_shard(windows: Windows, targets: Targets | None, metadata: ShardMetadata) -> EncodedShard:
    """Encodes windows (and their targets) as one Parquet file. Equal input gives equal bytes.

    Raises:
        VocabularyError: An id is negative or not below the vocabulary's size.
    """
    assert (targets is None) == (metadata.kind == "tokens"), "only target shards have targets, for all rows"
    table, frequent_ids = encode_windows(windows, metadata.vocab_size), None
    if targets is not None:
        assert targets.num_positions == windows.num_positions, "a target for every row"
        if metadata.layout == "compact":
            frequent_ids = id_gaps.frequent_ids(targets.head_ids)
        table = encode_targets(table, targets, metadata, frequent_ids)
    return encode_table(table, windows, metadata, frequent_ids=frequent_ids)


def encode_table(
    table: pa.Table, windows: Windows, metadata: ShardMetadata, *, frequent_ids: np.ndarray | None = None
) -> EncodedShard:
    """Encodes already quantized columns as one Parquet file.

    Args:
        table: The columns.
        windows: The windows that the token columns encode.
        metadata: What the shard is.
        frequent_ids: The ids that the gaps of the layout "compact" refer to.
    """
    assert (frequent_ids is None) == (metadata.layout == "plain"), "gaps mean nothing without the list of ids"
    sink = io.BytesIO()
    with _open_writer(sink, table.schema) as writer:
        for start, stop in row_group_bounds(windows.window_offsets):
            _write_row_group(writer, table.slice(start, stop - start))
        write_footer(writer, windows, metadata, frequent_ids)
    return describe_shard(sink.getvalue(), windows)


class ShardStream:
    """Encodes a target shard piece by piece, with the same bytes as `encode_shard`.

    Args:
        windows: All windows of the shard.
        metadata: What the shard is.

    Raises:
        VocabularyError: A token is negative or not below the vocabulary's size.
    """

    def __init__(self, windows: Windows, metadata: ShardMetadata) -> None:
        self._windows, self._metadata = windows, metadata
        self._tokens: pa.Table = encode_windows(windows, metadata.vocab_size)
        # The layout "compact" counts the ids of the whole shard first, so it is encoded in one step at the end.
        self._bounds = list(row_group_bounds(windows.window_offsets)) if metadata.layout == "plain" else []
        self._sink = io.BytesIO()
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[Targets] = []
        self._num_written = 0

    def add(self, targets: Targets) -> None:
        """Takes the targets of the next rows and writes every row group that is now complete.

        Raises:
            VocabularyError: An id is negative or not below the vocabulary's size.
        """
        self._waiting.append(targets)
        num_rows = self._num_written + sum(piece.num_positions for piece in self._waiting)
        while self._bounds and self._bounds[0][1] <= num_rows:
            start, stop = self._bounds.pop(0)
            waiting = Targets.concatenate(self._waiting)
            self._write(start, waiting.select_rows(0, stop - start))
            self._waiting = [waiting.select_rows(stop - start, waiting.num_positions)]
            self._num_written = stop

    def finish(self) -> EncodedShard:
        """The whole file; call it after all targets have been added."""
        if self._writer is None:
            return encode_shard(self._windows, Targets.concatenate(self._waiting), self._metadata)
        assert self._num_written == self._windows.num_positions, "a target for every row"
        with self._writer as writer:
            write_footer(writer, self._windows, self._metadata)
        return describe_shard(self._sink.getvalue(), self._windows)

    def _write(self, start: int, targets: Targets) -> None:
        rows = encode_targets(self._tokens.slice(start, targets.num_positions), targets, self._metadata)
        if self._writer is None:
            self._writer = _open_writer(self._sink, rows.schema)
        _write_row_group(self._writer, rows)


def describe_shard(data: bytes, windows: Windows) -> EncodedShard:
    """A whole file with its digests and sizes.

    Args:
        data: The file.
        windows: The windows in it.
    """
    return EncodedShard(
        data=data,
        digest=digest(data),
        footer_digest=digest(footer_of(data)),
        num_windows=windows.num_windows,
        num_positions=windows.num_positions,
        column_bytes=_column_bytes(data),
    )


def row_group_bounds(window_offsets: np.ndarray) -> Iterator[tuple[int, int]]:
    """Rows (start, stop) of each row group: whole windows, at least 8,192 positions, or 6,144 in blocks of eight.

    A shuffled reader takes blocks of eight windows: a row group should not end inside a block.

    Args:
        window_offsets: First row of each window, int64 [W + 1].
    """
    start = 0
    for window, offset in enumerate(window_offsets[1:].tolist(), start=1):
        min_positions = BLOCK_POSITIONS if window % BLOCK_WINDOWS == 0 else ROW_GROUP_POSITIONS
        if offset - start >= min_positions:
            yield start, offset
            start = offset
    if start < window_offsets[-1]:
        yield start, int(window_offsets[-1])


def _open_writer(sink: io.BytesIO, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer with every setting that decides a shard's bytes."""
    leaves = [f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name for field in schema]
    return pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        compression_level={leaf: _LEVELS.get(leaf, _DEFAULT_LEVEL) for leaf in leaves},
        use_dictionary=_DICTIONARY_COLUMNS,  # pyright: ignore[reportArgumentType]
        use_byte_stream_split=[_ID_GAPS_LEAF] if _ID_GAPS_LEAF in leaves else False,  # pyright: ignore[reportArgumentType]
        write_statistics=["window", "document"],  # pyright: ignore[reportArgumentType]
        write_page_checksum=True,
        store_schema=False,
        # One page for each column and row group: a block of windows is always read whole.
        data_page_size=64 << 20,
        max_rows_per_page=1 << 24,
    )


def _write_row_group(writer: pq.ParquetWriter, rows: pa.Table) -> None:
    writer.write_table(rows, row_group_size=max(1, rows.num_rows))


def _column_bytes(data: bytes) -> dict[str, int]:
    """Compressed bytes of each column of a whole Parquet file."""
    metadata = pq.read_metadata(pa.BufferReader(data))
    sizes: dict[str, int] = {}
    for group in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            column = metadata.row_group(group).column(index)
            name = column.path_in_schema.split(".")[0]
            sizes[name] = sizes.get(name, 0) + column.total_compressed_size
    return sizes
