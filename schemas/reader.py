"""Reading a shard: windows start..stop as arrays, and nothing that was not written.

The footer is checked against its digest before anything in it is believed (where the digest is known: it stands in
the record beside the shard and in the snapshot), pages against their checksums when they are read, and the tokens of
every window against its content hash.
"""

import json
import re
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from schemas import quantizer, shard, storage
from schemas.errors import CorruptShardError, MissingShardError, UnknownFormatVersionError
from schemas.fingerprints import digest
from schemas.targets import Part, TailSample, Targets, Windows

# Enough for the footer of nearly every shard: one request.
_TAIL_BYTES = 1 << 18

_SAMPLE_COLUMN = re.compile(r"tail_sample(@[1-9]\d*)?")
_TAIL_COLUMN = re.compile(r"tail@(\d+(?:\.\d+)?)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Windows and, in a target shard, their targets.

    Attributes:
        windows: W windows of T rows.
        targets: Decoded and renormalised: every target sums to one. None for a token shard.
    """

    windows: Windows
    targets: Targets | None


class ShardReader:
    """Random access to the windows of one shard.

    Args:
        url: Any fsspec URL.
        footer_digest: From the shard's record or a snapshot. With it a damaged footer is found on opening.

    Raises:
        MissingShardError: There is no such file.
        UnknownFormatVersionError: Another format version wrote it.
        CorruptShardError: It is not a shard, or not as it was written. `read` raises it too.
    """

    def __init__(self, url: str, *, footer_digest: str | None = None) -> None:
        self.url = url
        footer = _read_footer(url)
        if footer_digest is not None and digest(footer) != footer_digest:
            raise CorruptShardError(
                f"{storage.redact(url)}: the footer is not the one that was written "
                f"(expected {footer_digest}, found {digest(footer)}); restore the file, or remove it and annotate again"
            )
        parquet_metadata = self._parse(lambda: pq.read_metadata(pa.BufferReader(b"PAR1" + footer)))
        self._interpret(parquet_metadata)
        fs, path = storage.filesystem(url)
        self._source = pa.OSFile(path) if isinstance(fs, LocalFileSystem) else fs.open(path, "rb")
        self._file = self._parse(
            lambda: pq.ParquetFile(self._source, metadata=parquet_metadata, page_checksum_verification=True)
        )

    def _interpret(self, parquet_metadata: pq.FileMetaData) -> None:
        pairs: dict[bytes, bytes] = parquet_metadata.metadata or {}
        _check_version(pairs.get(shard.VERSION_KEY), self.url)
        self.metadata = self._parse(lambda: shard.ShardMetadata.from_json(json.loads(pairs[shard.METADATA_KEY])))
        self.parts = self._parse(lambda: _parse_parts(pairs[shard.PARTS_KEY]))
        windows = self._parse(lambda: json.loads(pairs[shard.WINDOWS_KEY]))
        self.window_lengths = np.array(windows["lengths"], dtype=np.int64)
        self.window_hashes: list[str] = windows["hashes"]
        self._window_offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.window_lengths)])
        group_rows = [parquet_metadata.row_group(i).num_rows for i in range(parquet_metadata.num_row_groups)]
        self._group_offsets = np.cumsum([0, *group_rows])
        if (
            self._group_offsets[-1] != self._window_offsets[-1]
            or not np.isin(self._group_offsets, self._window_offsets).all()
        ):
            raise self._corrupt("row groups are not made of whole windows")

    @property
    def num_windows(self) -> int:
        return len(self.window_lengths)

    @property
    def num_positions(self) -> int:
        return int(self._window_offsets[-1])

    def block_of(self, window: int) -> tuple[int, int]:
        """Windows (start, stop) of the row group that holds `window`: what one read costs anyway."""
        group = np.searchsorted(self._group_offsets, self._window_offsets[window], side="right") - 1
        bounds = np.searchsorted(self._window_offsets, self._group_offsets[group : group + 2])
        return int(bounds[0]), int(bounds[1])

    def read(self, start: int = 0, stop: int | None = None) -> Block:
        """Windows start..stop (default: all), read by whole row groups.

        Raises:
            CorruptShardError: A page, a token or a target is not as it was written.
            IndexError: There are no such windows.
        """
        stop = self.num_windows if stop is None else stop
        if not 0 <= start <= stop <= self.num_windows:
            raise IndexError(f"windows {start}..{stop} of a shard that has {self.num_windows}")
        first_row, last_row = self._window_offsets[start], self._window_offsets[stop]
        first_group = int(np.searchsorted(self._group_offsets, first_row, side="right")) - 1
        last_group = int(np.searchsorted(self._group_offsets, last_row, side="left"))
        groups = list(range(first_group, last_group)) if stop > start else []
        table = self._parse(lambda: self._file.read_row_groups(groups, columns=self._columns(), use_threads=False))
        self._check_entries(table, groups)
        table = table.slice(first_row - self._group_offsets[first_group], last_row - first_row)
        windows = self._windows(table, start, stop)
        targets = self._parse(lambda: _decode_targets(table)) if self.metadata.kind == "targets" else None
        return Block(windows=windows, targets=targets)

    def _columns(self) -> list[str]:
        """The columns this version knows; unknown ones are optional by definition and skipped."""
        required = [field.name for field in shard.TOKEN_FIELDS]
        if self.metadata.kind == "targets":
            required += [field.name for field in shard.TARGET_FIELDS]
        if self.metadata.scheme is not None:
            required += [shard.sample_column(replica) for replica in range(self.metadata.scheme.num_tail_samples)]
        present: list[str] = self._file.schema_arrow.names
        missing = [name for name in required if name not in present]
        if missing:
            raise self._corrupt(f"column {missing[0]!r} is missing")
        optional = [name for name in present if _is_known_option(name) and name not in required]
        return required + (optional if self.metadata.kind == "targets" else [])

    def _check_entries(self, table: pa.Table, groups: list[int]) -> None:
        """Lists must hold as many entries as the footer counts.

        Checksums cover pages but not their headers: one flipped bit there ends a list early, and nothing else tells.
        """
        for name in table.column_names:
            if pa.types.is_list(table[name].type):
                # Parquet counts an empty list as one value.
                offsets = _offsets(table[name].combine_chunks())
                found = int(offsets[-1]) + int((offsets[1:] == offsets[:-1]).sum())
                expected = sum(self._num_values(group, name) for group in groups)
                if found != expected:
                    raise self._corrupt(f"column {name!r} holds {found} values, the footer says {expected}")

    def _num_values(self, group: int, name: str) -> int:
        row_group = self._file.metadata.row_group(group)
        columns = (row_group.column(index) for index in range(row_group.num_columns))
        return sum(column.num_values for column in columns if column.path_in_schema.partition(".")[0] == name)

    def _windows(self, table: pa.Table, start: int, stop: int) -> Windows:
        offsets = self._window_offsets[start : stop + 1] - self._window_offsets[start]
        windows = Windows(
            token=_numpy(table["token"]),
            kind=_numpy(table["kind"]),
            part=_numpy(table["document"]),
            window_offsets=offsets,
            parts=self.parts,
        )
        if not np.array_equal(_numpy(table["window"]), windows.window_index() + start):
            raise self._corrupt(f"the rows of windows {start}..{stop} are not in order")
        for index, found in enumerate(windows.content_hashes(), start=start):
            if found != self.window_hashes[index]:
                raise self._corrupt(f"the tokens of window {index} do not have the content hash they were written with")
        return windows

    def close(self) -> None:
        self._file.close()
        self._source.close()

    def __enter__(self) -> "ShardReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _parse(self, parse: Any) -> Any:
        """Runs a step of reading; what any parser raises on damaged bytes becomes the one named error."""
        try:
            return parse()
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, MemoryError) as error:
            if isinstance(error, CorruptShardError):
                raise
            raise self._corrupt(str(error) or type(error).__name__) from error

    def _corrupt(self, what: str) -> CorruptShardError:
        return CorruptShardError(
            f"{storage.redact(self.url)}: {what}; restore the file, or remove it and annotate again"
        )


def _read_footer(url: str) -> bytes:
    try:
        size = storage.describe_file(url).size_bytes
        tail = storage.read_bytes(url, max(0, size - _TAIL_BYTES), size)
        length = int.from_bytes(tail[-8:-4], "little") + 8 if len(tail) >= 12 else 0
        if _TAIL_BYTES < length <= size:
            tail = storage.read_bytes(url, size - length, size)
    except FileNotFoundError as error:
        raise MissingShardError(f"{storage.redact(url)}: no such shard; restore it, or annotate again") from error
    try:
        return shard.footer_of(tail)
    except ValueError as error:
        raise CorruptShardError(
            f"{storage.redact(url)}: not a whole Parquet file ({error}; {size} bytes); restore it, or remove it and "
            "annotate again"
        ) from error


def _check_version(found: bytes | None, url: str) -> None:
    if found is None:
        raise CorruptShardError(f"{storage.redact(url)}: a Parquet file, but not a logitcask shard")
    if found != str(shard.FORMAT_VERSION).encode():
        raise UnknownFormatVersionError(
            f"{storage.redact(url)}: format version {found.decode(errors='replace')!r}; this release reads version "
            f"{shard.FORMAT_VERSION}; install a newer logitcask"
        )


def _is_known_option(column: str) -> bool:
    return column == shard.ENTROPY_FIELD.name or bool(
        _SAMPLE_COLUMN.fullmatch(column) or _TAIL_COLUMN.fullmatch(column)
    )


def _parse_parts(value: bytes) -> tuple[Part, ...]:
    table = json.loads(value)
    return tuple(
        Part(id=id_, source=source, offset=offset)
        for id_, source, offset in zip(table["id"], table["source"], table["offset"], strict=True)
    )


def _numpy(column: pa.ChunkedArray) -> np.ndarray:
    return column.combine_chunks().to_numpy(zero_copy_only=False)


def _decode_targets(table: pa.Table) -> Targets:
    ids, q = table["ids"].combine_chunks(), table["q"].combine_chunks()
    head_offsets = _offsets(ids)
    if not np.array_equal(head_offsets, _offsets(q)):
        raise ValueError("a row has more ids than values")
    head_log_probs, log_tail = quantizer.decode_targets(q.flatten().to_numpy(), head_offsets, _log_tail(table["tail"]))
    names = table.column_names
    return Targets(
        head_ids=ids.flatten().to_numpy(),
        head_log_probs=head_log_probs,
        head_offsets=head_offsets,
        log_tail=log_tail,
        log_next=-_nats(table["next_q"]),
        entropy=_nats(table["entropy"]) if "entropy" in names else None,
        tail_samples=tuple(
            _sample(table[name]) for name in sorted(names, key=_replica) if _SAMPLE_COLUMN.fullmatch(name)
        ),
        tempered_log_tails={
            float(match[1]): _log_tail(table[name]) for name in names if (match := _TAIL_COLUMN.fullmatch(name))
        },
    )


def _offsets(lists: pa.ListArray) -> np.ndarray:
    offsets = lists.offsets.to_numpy().astype(np.int64)
    return offsets - offsets[0]


def _replica(column: str) -> int:
    return int(column.partition("@")[2] or 0) if column.startswith("tail_sample") else -1


def _sample(column: pa.ChunkedArray) -> TailSample:
    lists = column.combine_chunks()
    return TailSample(ids=lists.flatten().to_numpy(), offsets=_offsets(lists))


def _log_tail(column: pa.ChunkedArray) -> np.ndarray:
    steps, valid = _nullable(column)
    return np.where(valid, quantizer.dequantize_tail(steps), np.float32(np.nan))


def _nullable(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Values (0 where null) and validity, [T]."""
    array = column.combine_chunks()
    return array.fill_null(0).to_numpy(), array.is_valid().to_numpy(zero_copy_only=False)


def _nats(column: pa.ChunkedArray) -> np.ndarray:
    steps, valid = _nullable(column)
    return np.where(valid, quantizer.dequantize_nats(steps), np.float32(np.nan))
