"""Compares the files of a corpus with what a dataset has recorded of its corpora.

A file is its bytes. Its place, its size and its time are a shortcut: while they agree, it is not read. Where they
differ, the ranges that were read before are read again, and equal digests make it the same file, whatever it is called
and wherever it is. A .jsonl file that has grown at its end is known up to there.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from logitcask.pipeline.corpus.files import CorpusFile, FileSlice
from logitcask.pipeline.corpus.jsonl import extent_of_start
from logitcask.pipeline.corpus.parquet_metadata import MetadataReader
from logitcask.pipeline.corpus.range_digest import range_digest
from logitcask.pipeline.units.corpus_plan import CorpusPlan
from logitcask.pipeline.units.token_units import SizedSlice, slice_bytes, slice_file
from logitcask.schemas.dataset.token_unit_record import SliceContent, read_token_unit_record
from logitcask.schemas.errors import CorpusError
from logitcask.schemas.redaction import printable_line

# Files that a message names; more are counted.
_NAMED_FILES = 5


@dataclass(kw_only=True, slots=True)
class RecordedFile:
    """A file as the plans of a dataset record it.

    Attributes:
        file: Its last state; its URL is the recorded one, without credentials.
        pieces: Its slices in order, each with its unit and its index in the unit.
        patterns: Of the plan.
    """

    file: CorpusFile
    pieces: list[tuple[str, int, FileSlice]] = field(default_factory=list)
    patterns: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, int, str]:
        return self.file.name, self.file.size_bytes, self.file.digest


@dataclass(frozen=True, kw_only=True, slots=True)
class NewFile:
    """A file whose documents the dataset does not have, or not all.

    Attributes:
        file: The file.
        grown_from: The recorded file that it starts with.
    """

    file: CorpusFile
    grown_from: RecordedFile | None = None

    @property
    def new_bytes(self) -> int:
        return self.file.size_bytes - (self.grown_from.file.size_bytes if self.grown_from else 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """How a corpus compares with what is recorded. All names are sorted.

    Attributes:
        known: Files that the dataset has.
        new: Files with something that it does not have.
        grown, changed, added: Names of these: grown at the end; other contents at the same place; all others.
        removed: Files that the dataset has and that are gone.
        present: Where each recorded file can be read, by `RecordedFile.key`.
    """

    known: tuple[str, ...] = ()
    new: tuple[NewFile, ...] = ()
    grown: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    present: dict[tuple[str, int, str], CorpusFile] = field(default_factory=dict)

    @property
    def new_bytes(self) -> int:
        return sum(one.new_bytes for one in self.new)

    def describe(self) -> list[str]:
        """One phrase for each kind of difference."""
        kinds = {"added": self.added, "grown": self.grown, "changed": self.changed, "removed": self.removed}
        return [f"{len(names):,} {kind}: {name_files(names)}" for kind, names in kinds.items() if names]


def name_files(names: Sequence[str]) -> str:
    """A few names, and how many more there are."""
    named = ", ".join(printable_line(name) for name in names[:_NAMED_FILES])
    return named if len(names) <= _NAMED_FILES else f"{named} and {len(names) - _NAMED_FILES:,} more"


class RecordedCorpus:
    """What the plans of a dataset and the records of its units say of its files.

    Args:
        out: The dataset's directory.
        plans: Its plans, oldest first.
    """

    def __init__(self, out: str, plans: Iterable[CorpusPlan]) -> None:
        self._out = out
        self._contents: dict[str, tuple[SliceContent, ...] | None] = {}
        self._files: list[RecordedFile] = []
        self._by_name: dict[str, list[RecordedFile]] = defaultdict(list)
        self._by_size: dict[int, list[RecordedFile]] = defaultdict(list)
        self._by_place: dict[tuple[str, int, str], RecordedFile] = {}
        for plan in plans:
            for recorded in self._files_of(plan):
                self._files.append(recorded)
                self._by_name[recorded.file.name].append(recorded)
                self._by_size[recorded.file.size_bytes].append(recorded)
                self._by_place[_place(recorded.file)] = recorded

    def compare(self, files: Iterable[CorpusFile], patterns: Sequence[str]) -> Comparison:
        """Compares a corpus with what is recorded; reads those files that the shortcut does not recognize.

        Args:
            files: The corpus as it is now.
            patterns: The paths that were given (`recorded_pattern`).

        Raises:
            StorageError: A file cannot be read.
        """
        known, grown, changed, added = [], [], [], []
        new: list[NewFile] = []
        present: dict[tuple[str, int, str], CorpusFile] = {}
        seen: set[int] = set()
        for file in files:
            ranges = _Ranges(file)
            recorded = self._by_place.get(_place(file)) or self._equal(file, ranges)
            prefix = None if recorded else self._start_of(file, ranges)
            if recorded is not None:
                known.append(file.name)
            elif prefix is not None:
                grown.append(file.name)
                new.append(NewFile(file=replace(file, name=prefix.file.name), grown_from=prefix))
            else:
                before = self._by_name.get(file.name, [])
                is_changed = any(one.file.redacted_url == file.redacted_url for one in before)
                (changed if is_changed else added).append(file.name)
                is_ambiguous = any(one.file.size_bytes == file.size_bytes for one in before)
                digest = ranges.digest(0, file.size_bytes) if is_ambiguous else ""
                new.append(NewFile(file=replace(file, digest=digest)))
                seen |= {id(one) for one in before if is_changed}
            for one in filter(None, (recorded, prefix)):
                present[one.key] = replace(one.file, url=file.url, etag=file.etag, recorded_url=one.file.redacted_url)
                seen |= {id(other) for other in self._by_name[one.file.name]}
        given = set(patterns)
        removed = {one.file.name for one in self._files if id(one) not in seen and not given.isdisjoint(one.patterns)}
        return Comparison(
            known=tuple(sorted(known)),
            new=tuple(new),
            grown=tuple(sorted(grown)),
            changed=tuple(sorted(changed)),
            added=tuple(sorted(added)),
            removed=tuple(sorted(removed)),
            present=present,
        )

    def _files_of(self, plan: CorpusPlan) -> list[RecordedFile]:
        found: dict[tuple[str, int, str], RecordedFile] = {}
        for unit in plan.units:
            for index, piece in enumerate(unit.slices):
                recorded = RecordedFile(file=piece.file, patterns=plan.patterns)
                recorded = found.setdefault(recorded.key, recorded)
                if not recorded.pieces and piece.start:
                    # The file has grown since an earlier plan.
                    before = [one for one in self._by_name[piece.file.name] if one.file.size_bytes == piece.start]
                    recorded.pieces += before[-1].pieces if before else []
                recorded.pieces.append((unit.name, index, piece))
        return list(found.values())

    def _equal(self, file: CorpusFile, ranges: "_Ranges") -> RecordedFile | None:
        """The recorded file with the same bytes. One of the same name that was not read yet counts as the same."""
        candidates = sorted(self._by_size.get(file.size_bytes, ()), key=lambda one: one.file.name != file.name)
        return next((one for one in candidates if self._agrees(one, file, ranges)), None)

    def _start_of(self, file: CorpusFile, ranges: "_Ranges") -> RecordedFile | None:
        """The longest recorded file of the same name that this one starts with, whole lines of it."""
        if file.format != "jsonl":
            return None
        candidates = [one for one in self._by_name.get(file.name, ()) if one.file.size_bytes < file.size_bytes]
        for one in sorted(candidates, key=lambda one: -one.file.size_bytes):
            if self._agrees(one, file, ranges) and extent_of_start(file, one.file.size_bytes).is_clean:
                return one
        return None

    def _agrees(self, recorded: RecordedFile, file: CorpusFile, ranges: "_Ranges") -> bool:
        """Whether everything that was read of a recorded file has the same bytes in a file."""
        for unit, index, _ in recorded.pieces:
            contents = self._contents_of(unit)
            if contents is None:
                if recorded.file.name != file.name:
                    return False
            elif index >= len(contents) or ranges.digest(contents[index].first, contents[index].end) != (
                contents[index].digest
            ):
                return False
        return True

    def _contents_of(self, unit: str) -> tuple[SliceContent, ...] | None:
        """What a unit read; None if it is not finished, empty if an earlier release made it."""
        if unit not in self._contents:
            try:
                self._contents[unit] = read_token_unit_record(self._out, unit).slices
            except FileNotFoundError:
                self._contents[unit] = None
        return self._contents[unit]


def new_slices(comparison: Comparison) -> Iterator[SizedSlice]:
    """What is new, as slices: whole files, and what follows the known start of those that have grown.

    Raises:
        StorageError: A file cannot be read.
    """
    with MetadataReader() as metadata:
        for one in comparison.new:
            if one.grown_from is None:
                yield from slice_file(one.file, metadata.row_group_bytes)
            else:
                yield from _slices_after(one.file, one.grown_from)


def _slices_after(file: CorpusFile, known: RecordedFile) -> Iterator[SizedSlice]:
    start = known.file.size_bytes
    counts_rows = all(piece.is_whole for _, _, piece in known.pieces)
    extent = extent_of_start(file, start)
    if file.compression is not None:
        piece = FileSlice(
            file=file,
            start=start,
            stop=file.size_bytes,
            is_whole=True,
            rows_before=extent.num_rows,
            text_before=extent.num_bytes,
            is_continued=not extent.ends_line,
        )
        yield piece, (file.size_bytes - start) * 3
        return
    for piece, size in slice_bytes(file, start):
        is_whole = piece.is_whole and counts_rows
        yield replace(piece, is_whole=is_whole, rows_before=extent.num_rows if is_whole else 0), size


class _Ranges:
    """Digests of ranges of one file, each computed once."""

    def __init__(self, file: CorpusFile) -> None:
        self._file = file
        self._digests: dict[tuple[int, int], str] = {}

    def digest(self, first: int, end: int) -> str:
        if (first, end) not in self._digests:
            try:
                self._digests[first, end] = range_digest(self._file.url, first, end)
            except FileNotFoundError as error:
                raise CorpusError(f"corpus file {self._file.redacted_url} was removed while it was read") from error
        return self._digests[first, end]


def _place(file: CorpusFile) -> tuple[str, int, str]:
    return file.redacted_url, file.size_bytes, file.etag
