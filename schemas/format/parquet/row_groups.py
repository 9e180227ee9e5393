"""Columns of whole row groups of one Parquet file, with the number of list entries checked.

Page checksums do not cover page headers, where one flipped bit can end a list early without any other sign. So the
entries of every list column are counted and compared with the footer.
"""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from logitcask.schemas.format.parquet.list_pages import ListPages
from logitcask.schemas.format.parquet.page_sizes import check_column_chunks, check_num_values
from logitcask.schemas.format.ragged import Lists


class RowGroups:
    """The row groups of one file.

    Args:
        file: Verifies page checksums.
        source: What `file` reads from.
        size_bytes: Length of the file.

    Raises:
        ValueError: It declares more rows than its bytes can hold.
    """

    def __init__(self, file: pq.ParquetFile, source: pa.NativeFile, size_bytes: int) -> None:
        self._file = file
        self._metadata = file.metadata
        check_num_values(self._metadata.num_rows, size_bytes, "rows")
        self._size_bytes = size_bytes
        self._read_at = lambda offset, length: source.read_at(length, offset)
        self._pages = ListPages(self._read_at)
        self.columns: list[str] = file.schema_arrow.names
        self._schemas = [file.schema.column(index) for index in range(self._metadata.num_columns)]
        self._leaf = {column_of(schema): index for index, schema in enumerate(self._schemas)}

    def read(self, groups: Sequence[int], columns: Sequence[str]) -> tuple[pa.Table, dict[str, Lists]]:
        """All rows of some row groups: the columns with one value per row as a table, and the lists by name.

        Raises:
            ValueError, pyarrow.ArrowException, OSError: The bytes are damaged.
        """
        self.check(groups, columns)
        is_list = {name: self._schema(name).max_repetition_level > 0 for name in columns}
        single = [name for name in columns if not is_list[name]]
        table: pa.Table = self._file.read_row_groups(list(groups), columns=single, use_threads=False)
        # Bytes come first: if the library must decode lists, they are less work than integers, whose levels are then
        # known.
        names = [name for name in columns if is_list[name]]
        names.sort(key=lambda name: self._schema(name).converted_type != "UINT_8")
        if not groups:
            return table, {name: self._decode_lists([], name) for name in names}
        pieces = [{name: self._lists(group, name) for name in names} for group in groups]
        return table, {name: Lists.concatenate([piece[name] for piece in pieces]) for name in names}

    def read_column(self, column: str) -> pa.ChunkedArray:
        """All rows of a column with one value per row.

        Raises:
            ValueError, pyarrow.ArrowException, OSError: The bytes are damaged.
        """
        self.check(range(self._metadata.num_row_groups), [column])
        return self._file.read(columns=[column], use_threads=False)[column]

    def check(self, groups: Sequence[int], columns: Sequence[str]) -> None:
        """Raises ValueError where columns of row groups declare more than their bytes can hold."""
        numbers = [self._leaf[column] for column in columns]
        check_column_chunks(self._metadata, groups, numbers, self._read_at, self._size_bytes)

    def _lists(self, group: int, column: str) -> Lists:
        chunk, schema = self._chunk(group, column), self._schema(column)
        found = self._pages.read(chunk, schema, self._metadata.row_group(group).num_rows)
        if found is None:
            found = self._decode_lists([group], column)
            self._pages.remember(chunk, schema, found.offsets)
        return found

    def _decode_lists(self, groups: list[int], column: str) -> Lists:
        """Lists that the library decodes."""
        array = self._file.read_row_groups(groups, columns=[column], use_threads=False)[column].combine_chunks()
        offsets = array.offsets.to_numpy().astype("int64")
        lists = Lists(values=array.flatten().to_numpy(), offsets=offsets - offsets[0])
        # Parquet counts an empty list as one value.
        found = int(lists.offsets[-1]) + int((lists.offsets[1:] == lists.offsets[:-1]).sum())
        expected = sum(self._chunk(group, column).num_values for group in groups)
        if found != expected:
            raise ValueError(f"column {column!r} holds {found} values, the footer states {expected}")
        return lists

    def _schema(self, column: str) -> pq.ColumnSchema:
        return self._schemas[self._leaf[column]]

    def _chunk(self, group: int, column: str) -> pq.ColumnChunkMetaData:
        return self._metadata.row_group(group).column(self._leaf[column])


def column_of(schema: pq.ColumnSchema) -> str:
    """Name of the column of a leaf: "ids" for `ids.list.element`, "tail@0.5" for `tail@0.5`."""
    return schema.path.partition(".")[0] if schema.max_repetition_level else schema.path
