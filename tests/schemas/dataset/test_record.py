"""A record is read back unchanged; older ones are understood, later and damaged ones refused."""

from pathlib import Path

import pytest
from edited_json import edit_json, write_as_first_release
from random_shards import random_targets, random_windows

from logitcask.schemas.dataset.record import UnitRecord, read_record
from logitcask.schemas.errors import CorruptShardError, UnknownFormatVersionError
from logitcask.schemas.seals import create_sealed
from logitcask.schemas.stats.by_source import SourceGroups, summarize_by_source
from logitcask.schemas.stats.outlier_windows import find_outliers
from logitcask.schemas.stats.target_statistics import Statistics


@pytest.fixture
def record(rng) -> UnitRecord:
    windows = random_windows(rng, [64, 40])
    targets = random_targets(rng, windows)
    return UnitRecord(
        name="u",
        kind="targets",
        split="train",
        statistics=Statistics.of(windows, targets),
        by_source=summarize_by_source(windows, targets, SourceGroups(prefixes={"corpus/": "corpus"})),
        extremes=find_outliers("u", windows, targets),
        timings={"forward_seconds": 1.5},
    )


@pytest.fixture
def file(record, tmp_path) -> Path:
    create_sealed(str(tmp_path / "u.json"), record.to_json())
    return tmp_path / "u.json"


def test_a_record_comes_back_unchanged(record, file):
    assert read_record(str(file)) == record


def test_a_record_of_the_first_release_has_no_sources_and_outliers(record, file):
    write_as_first_release(file, lambda value: [value.pop(name) for name in ("by_source", "extremes")])
    read = read_record(str(file))
    assert (read.by_source, read.extremes) == ({}, {})
    assert read.statistics == record.statistics


def test_a_record_of_a_later_version_is_refused(file):
    edit_json(file, lambda value: value.update(record_version=3))
    with pytest.raises(UnknownFormatVersionError, match=r"u\.json: record version 3; this release reads up to 2"):
        read_record(str(file))


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"record_version": 1}', "\\xff"])
def test_a_damaged_record_is_named(file, text):
    file.write_bytes(text.encode().decode("unicode_escape").encode("latin-1"))
    with pytest.raises(CorruptShardError, match=r"u\.json: not"):
        read_record(str(file))


def test_a_missing_record_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_record(str(tmp_path / "none.json"))
