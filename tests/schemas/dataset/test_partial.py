"""What exists of a dataset whose annotation is not finished."""

import shutil
from pathlib import Path

import pytest

from logitcask.schemas.dataset.partial import readable_snapshot
from logitcask.schemas.dataset.snapshot import load_snapshot
from logitcask.schemas.errors import ForeignOutputError, IncompleteDatasetError


@pytest.fixture
def unfinished(annotated_copy: str) -> str:
    """A dataset without a snapshot."""
    shutil.rmtree(Path(annotated_copy) / "snapshots")
    return annotated_copy


def test_a_complete_snapshot_is_read_as_it_is(annotated_copy: str) -> None:
    assert readable_snapshot(annotated_copy) == load_snapshot(annotated_copy) == readable_snapshot(annotated_copy, 1)


def test_without_a_snapshot_the_finished_units_are_read(annotated_copy: str) -> None:
    whole = load_snapshot(annotated_copy)
    shards = whole.shards()
    shutil.rmtree(Path(annotated_copy) / "snapshots")
    partial = readable_snapshot(annotated_copy)
    assert (partial.number, partial.complete) == (0, False)
    assert partial.shards() == sorted(shards, key=lambda entry: (entry.split, entry.name))
    assert partial.splits == whole.splits
    assert partial.identity == whole.identity
    assert partial.shards("train") == [entry for entry in partial.shards() if entry.split == "train"]


def test_units_without_a_record_are_not_read(unfinished: str) -> None:
    record, *others = sorted(Path(unfinished).glob("targets/*/*.json"))
    record.unlink()
    assert [entry.name for entry in readable_snapshot(unfinished).shards()] == [one.stem for one in others]


def test_without_finished_units_there_is_a_clear_error(unfinished: str) -> None:
    shutil.rmtree(Path(unfinished) / "targets")
    with pytest.raises(IncompleteDatasetError, match="annotation is unfinished"):
        readable_snapshot(unfinished)


def test_without_a_configuration_there_is_a_clear_error(unfinished: str) -> None:
    (Path(unfinished) / "logitcask.json").unlink()
    with pytest.raises(ForeignOutputError, match=r"no logitcask\.json"):
        readable_snapshot(unfinished)


def test_a_directory_without_a_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(IncompleteDatasetError, match="no snapshot here"):
        readable_snapshot(str(tmp_path))
