"""Encoding a target shard while its targets are still being computed: the same bytes as `schemas.shard.encode_shard`.

A row group is compressed as soon as its last row is there, so that what is left at the end is the footer. The layout
"compact" is the exception: its gaps refer to ids counted over the whole shard, so it is encoded at the end.
"""

import io

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.shard import (
    EncodedShard,
    ShardMetadata,
    add_targets,
    describe_shard,
    encode_shard,
    open_writer,
    row_group_bounds,
    token_table,
    write_footer,
    write_row_group,
)
from schemas.targets import Targets, Windows


class ShardStream:
    """A target shard in the making.

    Args:
        windows: All windows of the shard.
        metadata: What the shard is.

    Raises:
        VocabularyError: A token is negative or not below the vocabulary's size.
    """

    def __init__(self, windows: Windows, metadata: ShardMetadata) -> None:
        self._windows, self._metadata = windows, metadata
        self._tokens: pa.Table = token_table(windows, metadata)
        self._bounds = list(row_group_bounds(windows.window_offsets)) if metadata.layout == "plain" else []
        self._sink = io.BytesIO()
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[Targets] = []
        self._num_written = 0

    def add(self, targets: Targets) -> None:
        """Takes the targets of the next rows, and writes the row groups that are complete now.

        Raises:
            VocabularyError: A head id is negative or not below the vocabulary's size.
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
        """The whole file, once all targets have been added."""
        if self._writer is None:
            return encode_shard(self._windows, Targets.concatenate(self._waiting), self._metadata)
        assert self._num_written == self._windows.num_positions, "a target for every row"
        with self._writer as writer:
            write_footer(writer, self._windows, self._metadata)
        return describe_shard(self._sink.getvalue(), self._windows)

    def _write(self, start: int, targets: Targets) -> None:
        rows = add_targets(self._tokens.slice(start, targets.num_positions), targets, self._metadata)
        if self._writer is None:
            self._writer = open_writer(self._sink, rows.schema)
        write_row_group(self._writer, rows)
