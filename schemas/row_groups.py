"""Columns of whole row groups of one Parquet file, each list checked for its length.

Page checksums cover pages but not their headers: one flipped bit there ends a list early, and nothing else tells. So
the entries of every list are counted against the footer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.plain_pages import plain_list_values


@dataclass(frozen=True, kw_only=True, slots=True)
class Lists:
    """A list column of T rows: values [N], and offsets of the rows in them, int64 [T + 1], first 0."""

    values: np.ndarray
    offsets: np.ndarray

    def select(self, start: int, stop: int) -> "Lists":
        """Rows start..stop."""
        first, last = self.offsets[start], self.offsets[stop]
        return Lists(values=self.values[first:last], offsets=self.offsets[start : stop + 1] - first)


class RowGroups:
    """The row groups of one file.

    Args:
        file: Verifies page checksums.
        source: What `file` reads from.
    """

    def __init__(self, file: pq.ParquetFile, source: pa.NativeFile) -> None:
        self._file, self._source = file, source
        self._metadata = file.metadata
        self.columns: list[str] = file.schema_arrow.names
        leaves = (file.schema.column(index).path for index in range(self._metadata.num_columns))
        self._leaf = {path.partition(".")[0]: index for index, path in enumerate(leaves)}

    def read(self, groups: Sequence[int], columns: Sequence[str]) -> tuple[pa.Table, dict[str, Lists]]:
        """All rows of some row groups: the columns of single values as a table, and the lists by name.

        Raises:
            ValueError, pyarrow.ArrowException, OSError: They are not as they were written.
        """
        table: pa.Table = self._file.read_row_groups(list(groups), columns=list(columns), use_threads=False)
        names = [name for name in columns if pa.types.is_list(table[name].type)]
        lists = {name: _lists(table[name]) for name in names}
        for name in names:
            self._check_entries(groups, name, lists[name].offsets)
        return table.drop_columns(names), lists

    def read_alike(self, groups: Sequence[int], column: str, shape: str, offsets: np.ndarray) -> np.ndarray:
        """Values of a list column whose rows are as long as those of another one, int32 [N].

        Args:
            groups: Row groups.
            column: The column.
            shape: The other column, which was read from the same row groups.
            offsets: Of all rows in it, int64 [T + 1].

        Raises:
            ValueError, pyarrow.ArrowException, OSError: They are not, or not as they were written.
        """
        ends = offsets[np.cumsum([0, *(self._metadata.row_group(group).num_rows for group in groups)])]
        pieces = [
            plain_list_values(self._read_at, self._chunk(group, column), self._chunk(group, shape), num_values)
            for group, num_values in zip(groups, np.diff(ends).tolist(), strict=True)
        ]
        whole = [piece for piece in pieces if piece is not None]
        if len(whole) == len(pieces) == 1:
            return np.require(whole[0], requirements="A")
        if len(whole) == len(pieces) > 1:
            return np.concatenate(whole)
        found = self.read(groups, [column])[1][column]
        if not np.array_equal(found.offsets, offsets):
            raise ValueError(f"a row has more {column!r} than {shape!r}, or less")
        return found.values

    def _read_at(self, offset: int, length: int) -> bytes:
        return self._source.read_at(length, offset)

    def _chunk(self, group: int, column: str) -> pq.ColumnChunkMetaData:
        return self._metadata.row_group(group).column(self._leaf[column])

    def _check_entries(self, groups: Sequence[int], column: str, offsets: np.ndarray) -> None:
        # Parquet counts an empty list as one value.
        found = int(offsets[-1]) + int((offsets[1:] == offsets[:-1]).sum())
        expected = sum(self._chunk(group, column).num_values for group in groups)
        if found != expected:
            raise ValueError(f"column {column!r} holds {found} values, the footer says {expected}")


def _lists(column: pa.ChunkedArray) -> Lists:
    array = column.combine_chunks()
    offsets = array.offsets.to_numpy().astype(np.int64)
    return Lists(values=array.flatten().to_numpy(), offsets=offsets - offsets[0])
