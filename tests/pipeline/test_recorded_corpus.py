"""A corpus compared with what is recorded of it: files are their bytes."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import zstandard

from logitcask.pipeline.corpus.files import find_corpus, recorded_pattern
from logitcask.pipeline.corpus.range_digest import range_digest
from logitcask.pipeline.corpus.reading import stored_range
from logitcask.pipeline.corpus_work import GivenCorpus, new_plan
from logitcask.pipeline.recorded_corpus import Comparison, RecordedCorpus, name_files, new_slices
from logitcask.pipeline.units.corpus_plan import CorpusPlan
from logitcask.pipeline.units.token_units import TokenUnit
from logitcask.schemas.dataset.token_unit_record import SliceContent, TokenUnitRecord, token_unit_record_path
from logitcask.schemas.seals import create_sealed


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    directory = tmp_path / "corpus"
    directory.mkdir()
    (directory / "a.jsonl").write_text('{"text": "a"}\n')
    (directory / "b.txt").write_text("b" * 14)
    return directory


def given(corpus: Path | str) -> GivenCorpus:
    return GivenCorpus(paths=(str(corpus),), files=find_corpus([str(corpus)]))


def finish(out: Path, units: Sequence[TokenUnit]) -> None:
    """Records the units as a worker that read them does."""
    for unit in units:
        contents = []
        for piece in unit.slices:
            first, end = stored_range(piece)
            digest = range_digest(piece.file.url, first, end)
            contents.append(SliceContent(name=piece.file.name, first=first, end=end, digest=digest))
        record = TokenUnitRecord(name=unit.name, num_documents=1, rejected={}, shards=(), slices=tuple(contents))
        create_sealed(str(out / token_unit_record_path(unit.name)), record.to_json())


def recorded(corpus: Path, out: Path, *, is_finished: bool = True) -> CorpusPlan:
    plan = new_plan(given(corpus), "settings")
    if is_finished:
        finish(out, plan.units)
    return plan


def compare(out: Path, plans: Sequence[CorpusPlan], corpus: Path) -> Comparison:
    return RecordedCorpus(str(out), plans).compare(find_corpus([str(corpus)]), [recorded_pattern(str(corpus))])


def test_while_place_size_and_time_agree_nothing_is_read(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = recorded(corpus, tmp_path / "out")
    monkeypatch.setattr("logitcask.pipeline.recorded_corpus.range_digest", None)
    assert compare(tmp_path / "out", [plan], corpus).known == ("a.jsonl", "b.txt")


def test_other_bytes_of_the_same_size_and_time_elsewhere_are_another_file(corpus: Path, tmp_path: Path) -> None:
    plan = recorded(corpus, tmp_path / "out")
    before = (corpus / "b.txt").stat()
    other = tmp_path / "other"
    other.mkdir()
    (other / "b.txt").write_text("c" * 14)
    os.utime(other / "b.txt", ns=(before.st_atime_ns, before.st_mtime_ns))
    found = compare(tmp_path / "out", [plan], other)
    assert (found.known, found.added) == ((), ("b.txt",))
    [(piece, _)] = new_slices(found)
    names = {unit.name for unit in plan.units}
    assert piece.file.digest
    assert names.isdisjoint(unit.name for unit in new_plan(given(other), "settings").units)


def test_an_unread_file_of_the_same_name_and_size_counts_as_planned(corpus: Path, tmp_path: Path) -> None:
    plan = recorded(corpus, tmp_path / "out", is_finished=False)
    os.utime(corpus / "b.txt", ns=(1, 1))
    assert compare(tmp_path / "out", [plan], corpus).known == ("a.jsonl", "b.txt")
    (corpus / "b.txt").rename(corpus / "c.txt")
    found = compare(tmp_path / "out", [plan], corpus)
    assert (found.added, found.removed) == (("c.txt",), ("b.txt",))


@pytest.mark.parametrize("is_compressed", [False, True])
@pytest.mark.parametrize(
    ("known", "more", "rows", "is_grown"),
    [
        (b'{"text": "x"}\n', b'{"text": "y"}\n', 1, True),
        (b'{"text": "x"}', b'\n{"text": "y"}', 1, True),
        (b'{"text": "x"}\r\n\n', b'{"text": "y"}', 2, True),
        (b'{"text": "x"', b'}\n{"text": "y"}', 1, False),
    ],
)
def test_a_file_that_starts_with_known_lines_has_grown(
    tmp_path: Path, is_compressed: bool, known: bytes, more: bytes, rows: int, is_grown: bool
) -> None:
    directory = tmp_path / "corpus"
    directory.mkdir()
    path = directory / ("a.jsonl.zst" if is_compressed else "a.jsonl")
    pack = zstandard.compress if is_compressed else bytes
    path.write_bytes(pack(known))
    size_bytes = path.stat().st_size
    plan = recorded(directory, tmp_path / "out")
    with path.open("ab") as file:
        file.write(pack(more))
    found = compare(tmp_path / "out", [plan], directory)
    assert (found.grown == (path.name,)) == is_grown
    if is_grown:
        [(piece, _)] = new_slices(found)
        assert (piece.start, piece.stop, piece.rows_before) == (size_bytes, path.stat().st_size, rows)
        assert found.new_bytes == path.stat().st_size - size_bytes


def test_a_file_can_grow_again_and_again(corpus: Path, tmp_path: Path) -> None:
    plans = [recorded(corpus, tmp_path / "out")]
    for number in range(3):
        with (corpus / "a.jsonl").open("a") as file:
            file.write(f'{{"text": "{number}"}}\n')
        found = compare(tmp_path / "out", plans, corpus)
        assert found.grown == ("a.jsonl",)
        pieces = tuple(piece for piece, _ in new_slices(found))
        assert pieces[0].rows_before == number + 1
        unit = TokenUnit(name=f"00000{number}-grown", slices=pieces, size_bytes=1)
        finish(tmp_path / "out", [unit])
        plans.append(given(corpus).plan([unit]))
    os.utime(corpus / "a.jsonl", ns=(1, 1))
    assert compare(tmp_path / "out", plans, corpus).known == ("a.jsonl", "b.txt")


def test_messages_name_five_files_and_count_the_others() -> None:
    assert name_files(["a", "b\x1b[1m"]) == "a, b\\x1b[1m"
    assert name_files([str(number) for number in range(1007)]) == "0, 1, 2, 3, 4 and 1,002 more"
