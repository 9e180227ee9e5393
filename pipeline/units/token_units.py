"""Token units: the corpus files as slices of about equal size, a pure function of the files and the settings.

A unit is what one worker does without interruption: a deterministic slice whose name carries the fingerprint of
everything that changes the bytes it writes. A finished unit is therefore recognized by its name, and another job's
unit never matches. Neither the number of workers nor the machine changes the units.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from logitcask.pipeline.corpus.files import CorpusFile, FileSlice
from logitcask.schemas.fingerprints import fingerprint
from logitcask.schemas.format.metadata import Split

# A unit of about this many bytes of text is tokenized in well under a minute.
UNIT_BYTES = 32 << 20
# About how much larger the text is than the file; equal units matter more than exact sizes.
_EXPANSION = {None: 1, "gzip": 3, "zstd": 3}
_PARQUET_EXPANSION = 2
# Opening a file costs about as much as reading this much; it bounds the number of tiny files in a unit.
_OPENING_BYTES = 4096
_NAME_DIGITS = 12

# A slice, and its approximate bytes of text.
SizedSlice = tuple[FileSlice, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenUnit:
    """Slices of corpus files that one worker tokenizes.

    Attributes:
        name: Number and fingerprint; part of the names of all files that the unit writes.
        slices: What it reads, in order.
        size_bytes: Approximate size of the text.
    """

    name: str
    slices: tuple[FileSlice, ...]
    size_bytes: int


def make_token_units(
    files: Sequence[CorpusFile],
    settings_fingerprint: str,
    row_group_bytes: Callable[[CorpusFile], Sequence[int] | None],
    unit_bytes: int = UNIT_BYTES,
) -> list[TokenUnit]:
    """Cuts large files and groups small ones into units of about equal bytes of text.

    Args:
        files: Corpus files in order.
        settings_fingerprint: Covers everything except the slice that changes token shards.
        row_group_bytes: Stored bytes of each row group of a .parquet file; empty if it is damaged, None if it must not
            be opened.
        unit_bytes: Approximate bytes of text in a unit.
    """
    pieces = [piece for file in files for piece in slice_file(file, row_group_bytes, unit_bytes)]
    return group_slices(pieces, settings_fingerprint, unit_bytes)


def group_slices(
    pieces: Iterable[SizedSlice],
    settings_fingerprint: str,
    unit_bytes: int = UNIT_BYTES,
    file_identity: Callable[[CorpusFile], object] = CorpusFile.identity,
) -> list[TokenUnit]:
    """Groups slices into units, in their order.

    Args:
        pieces: Slices, each with its approximate bytes of text.
        settings_fingerprint: Covers everything except the slice that changes token shards.
        unit_bytes: Approximate bytes of text in a unit.
        file_identity: What a file contributes to the names of its units.
    """

    def identity(piece: FileSlice) -> list:
        return [file_identity(piece.file), piece.start, piece.stop]

    return [
        TokenUnit(
            name=unit_name(f"{index:06d}", [settings_fingerprint, [identity(piece) for piece, _ in group]]),
            slices=tuple(piece for piece, _ in group),
            size_bytes=sum(size for _, size in group),
        )
        for index, group in enumerate(_group(pieces, unit_bytes))
    ]


def token_shard_name(unit: TokenUnit, split: Split, index: int) -> str:
    """Name of a unit's token shard number `index` of a split: `<unit>-<shard>-<fingerprint>`, unique over splits."""
    number, _, digits = unit.name.partition("-")
    return f"{number}-{'h' if split == 'held-out' else ''}{index:04d}-{digits}"


def token_unit_name(shard_name: str) -> str:
    """Name of the token unit that writes a token shard: the inverse of `token_shard_name`."""
    number, _, digits = shard_name.split("-")
    return f"{number}-{digits}"


def unit_name(position: str, identity: object) -> str:
    """`<position>-<12 hex digits of the identity's fingerprint>`: sorts by position and matches only itself."""
    return f"{position}-{fingerprint(identity)[:_NAME_DIGITS]}"


def slice_file(
    file: CorpusFile, row_group_bytes: Callable[[CorpusFile], Sequence[int] | None], unit_bytes: int = UNIT_BYTES
) -> Iterator[SizedSlice]:
    """The pieces of one file."""
    if file.format == "parquet":
        yield from _slice_parquet(file, row_group_bytes(file), unit_bytes)
    elif file.format == "jsonl" and file.compression is None:
        yield from slice_bytes(file, 0, unit_bytes)
    else:
        size = file.size_bytes * _EXPANSION[file.compression]
        yield FileSlice(file=file, start=0, stop=file.size_bytes, is_whole=True), size


def slice_bytes(file: CorpusFile, first: int, unit_bytes: int = UNIT_BYTES) -> Iterator[SizedSlice]:
    """The pieces of the bytes of a file from `first` to its end."""
    num_bytes = file.size_bytes - first
    count = max(1, round(num_bytes / unit_bytes))
    bounds = [first + num_bytes * index // count for index in range(count + 1)]
    for start, stop in itertools.pairwise(bounds):
        yield FileSlice(file=file, start=start, stop=stop, is_whole=count == 1), stop - start


def _slice_parquet(file: CorpusFile, group_bytes: Sequence[int] | None, unit_bytes: int) -> Iterator[SizedSlice]:
    if not group_bytes:
        # An unreadable file is a slice like any other: reading it yields the rejection.
        stop = 0 if group_bytes is None else 1
        yield FileSlice(file=file, start=0, stop=stop, is_whole=True), file.size_bytes
        return
    start, size = 0, 0
    for index, group in enumerate(group_bytes):
        size += group * _PARQUET_EXPANSION
        if size >= unit_bytes or index == len(group_bytes) - 1:
            is_whole = start == 0 and index == len(group_bytes) - 1
            yield FileSlice(file=file, start=start, stop=index + 1, is_whole=is_whole), size
            start, size = index + 1, 0


def _group(pieces: Iterable[SizedSlice], unit_bytes: int) -> Iterator[list[SizedSlice]]:
    """Groups consecutive pieces until a unit is full; a piece that would overfill it by more than half starts the next.

    Every piece counts at least `_OPENING_BYTES`.
    """
    group: list[SizedSlice] = []
    filled = 0
    for piece, size in pieces:
        if group and filled + size > unit_bytes * 3 // 2:
            yield group
            group, filled = [], 0
        group.append((piece, size))
        filled += max(size, _OPENING_BYTES)
        if filled >= unit_bytes:
            yield group
            group, filled = [], 0
    if group:
        yield group
