"""Reads windows of a shard as arrays. Damaged bytes raise an error and never become values.

The footer is checked against its digest before it is parsed, if the digest is known (the shard's record and the
snapshot hold it). Pages are checked against their checksums when they are read, and the tokens of every window against
its content hash.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from logitcask.schemas import storage
from logitcask.schemas.errors import (
    CorruptShardError,
    LogitcaskError,
    MissingShardError,
    UnknownFormatVersionError,
)
from logitcask.schemas.fingerprints import digest
from logitcask.schemas.format import id_gaps
from logitcask.schemas.format.columns.family import StoredColumns
from logitcask.schemas.format.columns.heads import ID_COLUMNS, ID_GAPS
from logitcask.schemas.format.columns.registry import decode_targets, is_optional, required_columns
from logitcask.schemas.format.columns.tokens import decode_windows, to_numpy
from logitcask.schemas.format.file_rules import check_columns
from logitcask.schemas.format.footer import footer_of, parse_footer
from logitcask.schemas.format.parquet.row_groups import RowGroups
from logitcask.schemas.format.ragged import Lists, offsets_from_lengths
from logitcask.schemas.format.targets import StoredTargets, Targets, Windows

T = TypeVar("T")

# One request of this size fetches the footer of nearly every shard.
_TAIL_BYTES = 1 << 18


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Windows and, in a target shard, their targets.

    Attributes:
        windows: W windows of T rows.
        targets: Decoded and renormalized: every target sums to one. None for a token shard.
    """

    windows: Windows
    targets: Targets | None


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredBlock:
    """Windows and, in a target shard, their targets as they are stored."""

    windows: Windows
    targets: StoredTargets | None

    def decode(self) -> Block:
        """The windows with decoded targets; each target sums to one."""
        return Block(windows=self.windows, targets=None if self.targets is None else self.targets.decode())


class ShardReader:
    """Random access to the windows of one shard.

    Args:
        url: Any fsspec URL.
        footer_digest: From the shard's record or a snapshot; finds a damaged footer when the shard is opened.

    Attributes:
        url: As given.
        metadata, parts, window_lengths, window_hashes, frequent_ids: See `schemas.format.footer.Footer`.
        parquet_metadata: What Parquet itself says in the footer.

    Raises:
        MissingShardError: The file does not exist.
        UnknownFormatVersionError: Another format version wrote it.
        CorruptShardError: It is not a shard, or is damaged. `read` raises it too.
    """

    def __init__(self, url: str, *, footer_digest: str | None = None) -> None:
        self.url = url
        footer, size_bytes = _read_footer(url)
        if footer_digest is not None and digest(footer) != footer_digest:
            raise CorruptShardError(
                f"{storage.redact(url)}: the footer has digest {digest(footer)}, expected {footer_digest}; the file is "
                "damaged or replaced: restore it, or remove it and annotate again"
            )
        self.parquet_metadata = self._parse(lambda: pq.read_metadata(pa.BufferReader(b"PAR1" + footer)))
        self._read_metadata(self.parquet_metadata)
        self._source = _open_source(url)
        self._file = self._parse(
            lambda: pq.ParquetFile(self._source, metadata=self.parquet_metadata, page_checksum_verification=True)
        )
        self._parse(lambda: check_columns(self._file.schema, self.parquet_metadata.num_columns))
        self._groups = self._parse(lambda: RowGroups(self._file, self._source, size_bytes))

    def _read_metadata(self, parquet_metadata: pq.FileMetaData) -> None:
        footer = self._parse(lambda: parse_footer(parquet_metadata.metadata or {}))
        self.metadata, self.parts = footer.metadata, footer.parts
        self.window_lengths, self.window_hashes = footer.window_lengths, footer.window_hashes
        self.frequent_ids = footer.frequent_ids
        self._window_offsets = offsets_from_lengths(self.window_lengths)
        group_rows = [parquet_metadata.row_group(i).num_rows for i in range(parquet_metadata.num_row_groups)]
        self._group_offsets = offsets_from_lengths(group_rows)
        if (
            self._group_offsets[-1] != self._window_offsets[-1]
            or not np.isin(self._group_offsets, self._window_offsets).all()
        ):
            raise self._corrupt("row groups do not consist of whole windows")

    @property
    def num_windows(self) -> int:
        return len(self.window_lengths)

    @property
    def num_positions(self) -> int:
        return int(self._window_offsets[-1])

    @cached_property
    def options(self) -> tuple[str, ...]:
        """The shard's optional columns that this version knows."""
        return tuple(filter(is_optional, self._groups.columns))

    def block_of(self, window: int) -> tuple[int, int]:
        """Windows (start, stop) of the row group that holds `window`; reading one of them costs as much as all."""
        group = np.searchsorted(self._group_offsets, self._window_offsets[window], side="right") - 1
        bounds = np.searchsorted(self._window_offsets, self._group_offsets[group : group + 2])
        return int(bounds[0]), int(bounds[1])

    def read(self, start: int = 0, stop: int | None = None, *, options: Collection[str] | None = None) -> Block:
        """Windows start..stop (default: all), read by whole row groups.

        Args:
            start, stop: Window indices.
            options: Optional columns to read (`entropy`, `tail_sample@1`, `tail@2`, ...); None: all. Names that the
                shard lacks are ignored. Columns that are not read are absent from the targets.

        Raises:
            CorruptShardError: A page, a token or a target is damaged.
            IndexError: There are no such windows.
        """
        return self.read_stored(start, stop, options=options).decode()

    def read_stored(
        self, start: int = 0, stop: int | None = None, *, options: Collection[str] | None = None, ids: bool = True
    ) -> StoredBlock:
        """As `read`, without decoding, which is a third of the work of `read`.

        Args:
            start, stop, options: As `read`.
            ids: Whether to read the ids of heads, which are most of the bytes; if not, `head_ids` is empty.
        """
        start, stop = check_windows(start, stop, self.num_windows)
        first_row, last_row = self._window_offsets[start], self._window_offsets[stop]
        first_group = int(np.searchsorted(self._group_offsets, first_row, side="right")) - 1
        last_group = int(np.searchsorted(self._group_offsets, last_row, side="left"))
        groups = range(first_group, last_group if stop > start else first_group)
        columns = [name for name in self._known_columns(options) if ids or name not in ID_COLUMNS]
        table, lists = self._parse(lambda: self._groups.read(groups, columns))
        before = self._group_offsets[first_group] if groups else first_row
        rows = range(int(first_row - before), int(last_row - before))
        table = table.slice(rows.start, len(rows))
        windows = self._windows(table, start, stop)
        if self.metadata.kind == "tokens":
            return StoredBlock(windows=windows, targets=None)
        return StoredBlock(windows=windows, targets=self._parse(lambda: self._targets(table, lists, rows)))

    def _targets(self, table: pa.Table, lists: dict[str, Lists], rows: range) -> StoredTargets:
        """Targets of some rows of row groups, given the single values of these rows and the lists of all rows."""
        chosen = {name: column.select(rows.start, rows.stop) for name, column in lists.items()}
        ids_by_rank = self._ids_by_rank if ID_GAPS in chosen else None
        return decode_targets(StoredColumns(single=table, lists=chosen, ids_by_rank=ids_by_rank))

    @cached_property
    def _ids_by_rank(self) -> np.ndarray:
        """The id of each rank in a compact shard, int32 [V]."""
        assert self.frequent_ids is not None, "compact shards list frequent ids"
        return id_gaps.ids_by_rank(self.frequent_ids, self.metadata.vocab_size)

    def read_parts(self) -> np.ndarray:
        """The part of every row of the shard, int32 [T], from one small column.

        Raises:
            CorruptShardError: A page is damaged.
        """
        return self._read_column("document")

    def read_tokens(self) -> np.ndarray:
        """The token of every row of the shard, int32 [T], from one column; content hashes are not checked.

        Raises:
            CorruptShardError: A page is damaged.
        """
        return self._read_column("token")

    def read_kinds(self) -> np.ndarray:
        """The `Kind` of every row of the shard, uint8 [T], from one small column.

        Raises:
            CorruptShardError: A page is damaged.
        """
        return self._read_column("kind")

    def _read_column(self, name: str) -> np.ndarray:
        return to_numpy(self._parse(lambda: self._groups.read_column(name)))

    def _known_columns(self, options: Collection[str] | None) -> list[str]:
        """The columns to read. Columns that this version does not know are optional by definition and skipped."""
        required = required_columns(self.metadata)
        missing = [name for name in required if name not in self._groups.columns]
        if missing:
            raise self._corrupt(f"column {missing[0]!r} is missing")
        if self.metadata.kind == "tokens":
            return required
        columns = [*required, *(name for name in self.options if name not in required)]
        return [name for name in columns if options is None or name in options or name not in self.options]

    def _windows(self, table: pa.Table, start: int, stop: int) -> Windows:
        offsets = self._window_offsets[start : stop + 1] - self._window_offsets[start]
        windows = self._parse(lambda: decode_windows(table, start, offsets, self.parts))
        for index, found in enumerate(windows.content_hashes(), start=start):
            if found != self.window_hashes[index]:
                raise self._corrupt(f"the tokens of window {index} do not match its content hash")
        return windows

    def check_sizes(self) -> None:
        """Checks all columns, unknown ones included, before another reader takes memory for them.

        Raises:
            CorruptShardError: A column declares more than its bytes can hold.
        """
        groups = range(len(self._group_offsets) - 1)
        self._parse(lambda: self._groups.check(groups, self._groups.columns))

    def close(self) -> None:
        self._file.close()
        self._source.close()

    def __enter__(self) -> "ShardReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _parse(self, parse: Callable[[], T]) -> T:
        """Runs one step of reading; an error that a parser raises on damaged bytes becomes CorruptShardError."""
        try:
            return parse()
        except UnknownFormatVersionError as error:
            raise type(error)(f"{storage.redact(self.url)}: {error}; install a newer logitcask") from error
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, MemoryError) as error:
            if isinstance(error, LogitcaskError) and not isinstance(error, CorruptShardError):
                raise
            raise self._corrupt(str(error) or type(error).__name__) from error

    def _corrupt(self, what: str) -> CorruptShardError:
        return CorruptShardError(
            f"{storage.redact(self.url)}: {what}; restore the file, or remove it and annotate again"
        )


def check_windows(start: int, stop: int | None, num_windows: int) -> tuple[int, int]:
    """Window indices (start, stop), where None stands for `num_windows`.

    Raises:
        IndexError: There are no such windows.
    """
    stop = num_windows if stop is None else stop
    if not 0 <= start <= stop <= num_windows:
        raise IndexError(f"windows {start}..{stop} do not exist: there are {num_windows}")
    return start, stop


def _open_source(url: str) -> pa.NativeFile:
    if storage.is_local(url):
        return pa.OSFile(storage.filesystem(url)[1])
    return pa.PythonFile(storage.open_reader(url), "r")


def _read_footer(url: str) -> tuple[bytes, int]:
    """The footer of a file, and the length of the file."""
    try:
        size = storage.describe_file(url).size_bytes
        tail = storage.read_bytes(url, max(0, size - _TAIL_BYTES), size)
        length = int.from_bytes(tail[-8:-4], "little") + 8 if len(tail) >= 12 else 0
        if _TAIL_BYTES < length <= size:
            tail = storage.read_bytes(url, size - length, size)
    except FileNotFoundError as error:
        raise MissingShardError(f"{storage.redact(url)}: no such shard; restore it, or annotate again") from error
    try:
        return footer_of(tail), size
    except ValueError as error:
        raise CorruptShardError(
            f"{storage.redact(url)}: not a complete Parquet file ({error}; {size} bytes); restore it, or remove it and "
            "annotate again"
        ) from error
