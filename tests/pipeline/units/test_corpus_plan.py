"""The plan of a corpus comes back unchanged, without credentials."""

from pathlib import Path

import pytest

from logitcask.pipeline.corpus.files import CorpusFile, FileSlice
from logitcask.pipeline.units.corpus_plan import CorpusPlan, corpus_info, read_plan, write_plan
from logitcask.pipeline.units.token_units import TokenUnit
from logitcask.schemas import storage
from logitcask.schemas.errors import CorruptShardError


def plan() -> CorpusPlan:
    text = CorpusFile(
        url="s3://key:secret@bucket/a.txt", name="a.txt", format="text", compression=None, size_bytes=5, etag="e"
    )
    lines = CorpusFile(
        url="/corpus/b.jsonl.zst", name="b.jsonl.zst", format="jsonl", compression="zstd", size_bytes=90, etag="f"
    )
    whole = FileSlice(file=text, start=0, stop=5, is_whole=True)
    rest = FileSlice(file=lines, start=40, stop=90, is_whole=True, rows_before=7, text_before=400, is_continued=True)
    units = (
        TokenUnit(name="000000-aa", slices=(whole, rest), size_bytes=155),
        TokenUnit(name="000001-bb", slices=(FileSlice(file=lines, start=0, stop=40, is_whole=True),), size_bytes=120),
    )
    return CorpusPlan(
        info=corpus_info(units), patterns=("/corpus",), sources={"/corpus/": "c"}, known=("k",), units=units
    )


def test_a_plan_comes_back_unchanged_without_credentials(dataset_url: str) -> None:
    written = plan()
    write_plan(dataset_url, written)
    found = read_plan(dataset_url, written.info.fingerprint)
    assert found is not None
    assert (found.info, found.patterns, found.sources, found.known) == (
        written.info,
        written.patterns,
        written.sources,
        written.known,
    )
    assert [unit.name for unit in found.units] == ["000000-aa", "000001-bb"]
    for (_, one), (_, other) in zip(found.each_slice(), written.each_slice(), strict=True):
        assert (one.file.redacted_url, one.file.identity()) == (other.file.redacted_url, other.file.identity())
        assert (one.start, one.stop, one.is_whole, one.rows_before, one.text_before, one.is_continued) == (
            other.start,
            other.stop,
            other.is_whole,
            other.rows_before,
            other.text_before,
            other.is_continued,
        )
    assert all(b"secret" not in storage.read_bytes(file.url) for file in storage.list_files(dataset_url))


def test_a_missing_plan_is_none_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    assert read_plan(str(tmp_path), "0" * 32) is None
    storage.create(str(tmp_path / "corpus" / f"{'0' * 32}.parquet"), b"PAR1 damaged")
    with pytest.raises(CorruptShardError, match="not the plan of a corpus"):
        read_plan(str(tmp_path), "0" * 32)
