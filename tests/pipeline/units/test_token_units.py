"""Token units: deterministic, complete, of about equal size, with names that identify their content."""

import itertools
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from logitcask.pipeline.corpus.files import Compression, CorpusFile, Format
from logitcask.pipeline.units.token_units import TokenUnit, make_token_units, token_shard_name
from logitcask.schemas.format.metadata import SPLITS

MIB = 1 << 20


def corpus_file(
    name: str, size_bytes: int, format_: Format = "jsonl", compression: Compression | None = None
) -> CorpusFile:
    return CorpusFile(
        url=f"/corpus/{name}", name=name, format=format_, compression=compression, size_bytes=size_bytes, etag="e"
    )


def units_of(files: list[CorpusFile], settings: str = "s", unit_bytes: int = MIB) -> list[TokenUnit]:
    return make_token_units(files, settings, lambda file: [file.size_bytes // 4] * 4, unit_bytes)


@given(st.lists(st.integers(0, 5 * MIB), min_size=1, max_size=30), st.integers(4096, 2 * MIB))
def test_every_byte_of_every_file_is_in_exactly_one_unit(sizes: list[int], unit_bytes: int) -> None:
    files = [corpus_file(f"{index:02}", size) for index, size in enumerate(sizes)]
    pieces = [piece for unit in units_of(files, unit_bytes=unit_bytes) for piece in unit.slices]
    for file in files:
        bounds = [(piece.start, piece.stop) for piece in pieces if piece.file == file]
        assert bounds[0][0] == 0
        assert bounds[-1][1] == file.size_bytes
        assert all(before[1] == after[0] for before, after in itertools.pairwise(bounds))


@given(st.lists(st.integers(1, 5 * MIB), min_size=1, max_size=30))
def test_units_are_of_about_equal_size(sizes: list[int]) -> None:
    units = units_of([corpus_file(f"{index:02}", size) for index, size in enumerate(sizes)])
    assert all(unit.size_bytes <= 1.5 * MIB for unit in units)
    assert sum(unit.size_bytes for unit in units) == sum(sizes)


def test_a_compressed_file_is_never_divided() -> None:
    units = units_of([corpus_file("a.jsonl.zst", 50 * MIB, compression="zstd"), corpus_file("b.txt", 9 * MIB, "text")])
    assert [[piece.is_whole for piece in unit.slices] for unit in units] == [[True], [True]]


def test_parquet_files_are_divided_between_row_groups() -> None:
    units = units_of([corpus_file("a.parquet", 4 * MIB, "parquet")])
    assert [(piece.start, piece.stop) for unit in units for piece in unit.slices] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    units = units_of([corpus_file("a.parquet", MIB // 4, "parquet")])
    assert [(piece.start, piece.stop, piece.is_whole) for unit in units for piece in unit.slices] == [(0, 4, True)]


def test_a_unit_has_a_limited_number_of_tiny_files() -> None:
    units = units_of([corpus_file(f"{index:05}.txt", 10, "text") for index in range(1000)])
    assert max(len(unit.slices) for unit in units) == 256


def test_names_change_with_any_input_and_only_then() -> None:
    files = [corpus_file("a", 10), corpus_file("b", 10)]
    names = {unit.name for unit in units_of(files)}
    elsewhere = [replace(file, url=f"s3://bucket/{file.name}", etag="f") for file in files]
    assert names == {unit.name for unit in units_of(elsewhere)}
    for changed in (replace(files[1], digest="f"), replace(files[1], size_bytes=11), replace(files[1], name="c")):
        assert names.isdisjoint(unit.name for unit in units_of([files[0], changed]))
    assert names.isdisjoint(unit.name for unit in units_of(files, settings="t"))


def test_names_sort_in_the_order_of_the_units() -> None:
    units = units_of([corpus_file(f"{index:02}", MIB) for index in range(30)])
    names = [token_shard_name(unit, split, index) for unit in units for split in SPLITS for index in range(12)]
    assert names == sorted(names)
    assert len(set(names)) == len(names)
