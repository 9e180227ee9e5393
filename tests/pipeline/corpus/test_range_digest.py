"""Digests of what is read: equal to a digest of the range, however a reader reads."""

import io
from hashlib import blake2b
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from logitcask.pipeline.corpus.range_digest import RangeDigest, WatchedReader, range_digest

DATA = bytes(range(256)) * 40
READS = st.lists(st.tuples(st.integers(0, len(DATA)), st.integers(1, 3000)), max_size=10)


@given(st.integers(0, len(DATA)), st.integers(0, len(DATA)), READS)
def test_any_reads_give_the_digest_of_the_range(tmp_path_factory, one, other, reads):
    first, end = sorted((one, other))
    path = tmp_path_factory.getbasetemp() / "range-digest.bin"
    path.write_bytes(DATA)
    digest = RangeDigest(first, end)
    with path.open("rb") as stored:
        reader = WatchedReader(stored, len(DATA), digest)
        for position, length in reads:
            reader.seek(position)
            assert reader.read(length) == DATA[position : position + length]
    expected = blake2b(DATA[first:end], digest_size=16).hexdigest()
    assert digest.finish(str(path)) == range_digest(str(path), first, end) == expected


def test_a_reader_that_reads_forward_needs_no_second_read():
    digest = RangeDigest(100, 5000)
    reader = io.BufferedReader(WatchedReader(io.BytesIO(DATA), len(DATA), digest))  # type: ignore[type-var]
    reader.seek(100)
    reader.read(6000)
    assert digest.finish("/no/such/file") == blake2b(DATA[100:5000], digest_size=16).hexdigest()


def test_a_file_that_has_grown_is_read_as_it_was_planned(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(DATA)
    with (tmp_path / "a").open("rb") as stored:
        reader = io.BufferedReader(WatchedReader(stored, 1000, None))  # type: ignore[type-var]
        assert reader.read() == DATA[:1000]
        assert reader.seek(-10, io.SEEK_END) == 990
        assert reader.read() == DATA[990:1000]
