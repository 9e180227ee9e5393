"""The plan of a corpus: its files, and the token units that they are divided into, recorded before the first unit.

`OUT/corpus/<fingerprint>.parquet` has one row for each slice of a file. From it a later run knows what is left to do,
and how files were named, although files have been added, moved or removed in the meantime. Where files are gone before
they were read, `OUT/corpus/<fingerprint>-<revision>.parquet` replaces the plan: the latest one counts.
"""

import io
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import pyarrow as pa
import pyarrow.parquet as pq

from logitcask.pipeline.corpus.files import CorpusFile, FileSlice, classify
from logitcask.pipeline.units.token_units import TokenUnit
from logitcask.schemas import storage
from logitcask.schemas.dataset.identity import CorpusInfo
from logitcask.schemas.errors import CorruptShardError
from logitcask.schemas.fingerprints import fingerprint

_KEY = b"logitcask.corpus"
_VERSION = 1
_TYPES = {str: pa.string(), int: pa.int64(), bool: pa.bool_()}
_ROW_GROUP_ROWS = 50_000


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """A slice; the attributes are those of `TokenUnit`, `FileSlice` and `CorpusFile`."""

    unit: str
    unit_bytes: int
    name: str
    url: str
    size_bytes: int
    etag: str
    digest: str
    start: int
    stop: int
    is_whole: bool
    rows_before: int
    text_before: int
    is_continued: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusPlan:
    """The files and units of one corpus of a dataset.

    Attributes:
        info: Number of files, their size, and the plan's fingerprint.
        patterns: The paths that were given (`recorded_pattern`).
        sources: The groups of its sources: URL prefix to name.
        known: Fingerprints of the corpora whose documents are left out.
        units: The token units. The URLs of their files are without credentials.
        revision: Counts from 0.
    """

    info: CorpusInfo
    patterns: tuple[str, ...]
    sources: Mapping[str, str]
    known: tuple[str, ...]
    units: tuple[TokenUnit, ...]
    revision: int = 0

    def each_slice(self) -> Iterator[tuple[str, FileSlice]]:
        """Every slice, with the name of its unit."""
        for unit in self.units:
            for piece in unit.slices:
                yield unit.name, piece


def corpus_info(units: Iterable[TokenUnit]) -> CorpusInfo:
    """Extent and fingerprint of the slices of units."""
    pieces = [piece for unit in units for piece in unit.slices]
    sizes = {piece.file.name: piece.file.size_bytes for piece in pieces}
    begun = {piece.file.name: piece.start for piece in reversed(pieces) if piece.file.format != "parquet"}
    return CorpusInfo(
        num_files=len(sizes),
        size_bytes=sum(size - begun.get(name, 0) for name, size in sizes.items()),
        fingerprint=fingerprint([[piece.file.identity(), piece.start, piece.stop] for piece in pieces]),
    )


def write_plan(out: str, plan: CorpusPlan) -> bool:
    """Creates the plan's file; False if another process has created it."""
    note = {
        "corpus_version": _VERSION,
        "info": asdict(plan.info),
        "patterns": plan.patterns,
        "sources": plan.sources,
        "known": plan.known,
    }
    types = [(one.name, _TYPES[one.type]) for one in fields(_Row)]  # pyright: ignore[reportArgumentType]
    schema = pa.schema(types, {_KEY: json.dumps(note, sort_keys=True).encode()})
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True) as writer:
        rows = _rows(plan)
        while batch := list(itertools.islice(rows, _ROW_GROUP_ROWS)):
            columns = [pa.array([getattr(row, name) for row in batch], type_) for name, type_ in types]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
    name = plan.info.fingerprint + (f"-{plan.revision:04d}" if plan.revision else "")
    return storage.create(storage.inside(out, "corpus", f"{name}.parquet"), sink.getvalue())


def read_plan(out: str, corpus_fingerprint: str) -> CorpusPlan | None:
    """The latest plan of a corpus; None where there is none, because an earlier release annotated it.

    Raises:
        CorruptShardError: The file is damaged.
    """
    revisions = {}
    for file in storage.list_members(out, "corpus", corpus_fingerprint):
        name = storage.file_name(file.url)
        match = re.fullmatch(rf"{re.escape(corpus_fingerprint)}(?:-(\d{{4}}))?\.parquet", name)
        if match is not None:
            revisions[int(match[1] or 0)] = file.url
    if not revisions:
        return None
    revision = max(revisions)
    url = revisions[revision]
    data = storage.read_bytes(url)
    try:
        file = pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True)
        note = json.loads(file.schema_arrow.metadata[_KEY])
        if note["corpus_version"] != _VERSION:
            raise ValueError(f"version {note['corpus_version']}")
        batches = file.iter_batches(_ROW_GROUP_ROWS, use_threads=False)
        rows = (_Row(**row) for batch in batches for row in batch.to_pylist())
        return CorpusPlan(
            info=CorpusInfo(**note["info"]),
            patterns=tuple(note["patterns"]),
            sources=note["sources"],
            known=tuple(note["known"]),
            units=tuple(_units(rows)),
            revision=revision,
        )
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise CorruptShardError(
            f"{storage.redact(url)}: not the plan of a corpus ({error}); restore the file"
        ) from error


def _rows(plan: CorpusPlan) -> Iterator[_Row]:
    for unit in plan.units:
        for piece in unit.slices:
            yield _Row(
                unit=unit.name,
                unit_bytes=unit.size_bytes,
                name=piece.file.name,
                url=piece.file.redacted_url,
                size_bytes=piece.file.size_bytes,
                etag=piece.file.etag,
                digest=piece.file.digest,
                start=piece.start,
                stop=piece.stop,
                is_whole=piece.is_whole,
                rows_before=piece.rows_before,
                text_before=piece.text_before,
                is_continued=piece.is_continued,
            )


def _units(rows: Iterable[_Row]) -> Iterator[TokenUnit]:
    for (name, size_bytes), group in itertools.groupby(rows, key=lambda row: (row.unit, row.unit_bytes)):
        yield TokenUnit(name=name, slices=tuple(_slices(list(group))), size_bytes=size_bytes)


def _slices(rows: Sequence[_Row]) -> Iterator[FileSlice]:
    file = None
    for row in rows:
        if file is None or (file.name, file.size_bytes) != (row.name, row.size_bytes):
            kind = classify(row.name)
            if kind is None:
                raise ValueError(f"a file of an unknown format: {row.name!r}")
            file = CorpusFile(
                url=row.url,
                name=row.name,
                format=kind[0],
                compression=kind[1],
                size_bytes=row.size_bytes,
                etag=row.etag,
                recorded_url=row.url,
                digest=row.digest,
            )
        yield FileSlice(
            file=file,
            start=row.start,
            stop=row.stop,
            is_whole=row.is_whole,
            rows_before=row.rows_before,
            text_before=row.text_before,
            is_continued=row.is_continued,
        )
