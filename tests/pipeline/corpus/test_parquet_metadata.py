"""Metadata that end the process that reads them cost their file only."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_reading import reasons

from logitcask.pipeline.corpus.fields import Fields
from logitcask.pipeline.corpus.files import CorpusFile, find_corpus
from logitcask.pipeline.corpus.parquet import read_parquet, row_group_bytes
from logitcask.pipeline.corpus.parquet_metadata import MetadataReader
from logitcask.pipeline.units.token_units import make_token_units
from logitcask.schemas.errors import CorpusError

# Bytes of the footer, and the bit of the first one whose flip makes pyarrow abort: a histogram of levels of another
# size than the column has levels, and a repetition that is none.
DEADLY = {"histogram": (b"\x19\x06\x19\x26", 4), "repetition": (b"\x02\x18\x04text", 0)}


@pytest.fixture(params=DEADLY)
def corpus(tmp_path: Path, request: pytest.FixtureRequest) -> dict[str, CorpusFile]:
    """`deadly.parquet` differs in one bit from `good.parquet`."""
    pq.write_table(pa.table({"text": ["a" * 50, None, "c"]}), tmp_path / "good.parquet")
    data = bytearray((tmp_path / "good.parquet").read_bytes())
    place, bit = DEADLY[request.param]
    data[data.rindex(place)] ^= 1 << bit
    (tmp_path / "deadly.parquet").write_bytes(data)
    (tmp_path / "torn.parquet").write_bytes(data[:-20])
    return {file.name: file for file in find_corpus([str(tmp_path)])}


def test_a_file_that_ends_its_reader_is_told_from_damaged_and_good_ones(corpus: dict[str, CorpusFile]) -> None:
    expected = row_group_bytes(corpus["good.parquet"])
    with MetadataReader() as reader:
        assert reader.row_group_bytes(corpus["deadly.parquet"]) is None
        assert reader.row_group_bytes(corpus["torn.parquet"]) == ()
        found = reader.row_group_bytes(corpus["good.parquet"])
        child = reader._child
        (Path(corpus["good.parquet"].url)).unlink()
        with pytest.raises(CorpusError):
            reader.row_group_bytes(corpus["good.parquet"])
    assert found == expected
    assert child is not None
    assert child.returncode is not None


def test_a_file_that_ends_its_reader_is_one_rejection(corpus: dict[str, CorpusFile]) -> None:
    deadly, good = corpus["deadly.parquet"], corpus["good.parquet"]
    with MetadataReader() as reader:
        units = make_token_units([deadly, good], "settings", reader.row_group_bytes)
    found = [list(read_parquet(piece, Fields())) for unit in units for piece in unit.slices]
    assert [reasons(one) for one in found] == [["corrupt_stream"], ["ok", "wrong_type", "ok"]]


def test_a_child_that_was_killed_says_nothing_about_its_file(corpus: dict[str, CorpusFile]) -> None:
    good = corpus["good.parquet"]
    with MetadataReader() as reader:
        reader.row_group_bytes(good)
        assert reader._child is not None
        reader._child.kill()
        reader._child.wait()
        assert reader.row_group_bytes(good) == row_group_bytes(good)


def test_files_of_this_process_alone_are_read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    file = CorpusFile(url="memory://a.parquet", name="a", format="parquet", compression=None, size_bytes=1, etag="")
    monkeypatch.setattr("logitcask.pipeline.corpus.parquet_metadata.row_group_bytes", lambda _: (7,))
    with MetadataReader() as reader:
        assert reader.row_group_bytes(file) == (7,)
        assert reader._child is None
