"""Reading snapshots: by number, whole, and never a damaged or a later one."""

import dataclasses
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from edited_json import edit_json, write_as_first_release

from logitcask.schemas.dataset.identity import Identity
from logitcask.schemas.dataset.rules import Rule
from logitcask.schemas.dataset.snapshot import complete_snapshot, latest_snapshot, load_snapshot, require_split
from logitcask.schemas.dataset.snapshot_writer import Draft, write_draft
from logitcask.schemas.errors import (
    CorruptShardError,
    IncompleteDatasetError,
    MissingShardError,
    UnknownFormatVersionError,
    UsageError,
)
from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.maintenance.select_forget import forget_documents, select_rows


@pytest.fixture
def out(small_dataset) -> str:
    return small_dataset.url


@pytest.fixture
def file(out) -> Path:
    return Path(out) / "snapshots/000001.json"


def test_a_snapshot_comes_back_as_it_was_published(out, small_dataset):
    assert load_snapshot(out) == small_dataset
    assert complete_snapshot(out, 1) == small_dataset
    assert latest_snapshot(out) == small_dataset


def test_a_snapshot_with_rules_comes_back_as_it_was_published(annotated_copy):
    select_rows(annotated_copy, Rule(min_loss=2.0))
    published = forget_documents(annotated_copy, ["a1-1"]).snapshot
    assert load_snapshot(annotated_copy) == published
    assert [len(rules) for rules in published.selections] == [1, 2]


def test_a_snapshot_lists_shards_that_can_be_read(small_dataset):
    assert [entry.split for entry in small_dataset.shards()] == ["held-out", "train", "train"]
    for entry in small_dataset.shards("train"):
        with ShardReader(small_dataset.shard_url(entry), footer_digest=entry.footer_digest) as reader:
            assert reader.num_positions == entry.num_positions


def test_totals_are_those_of_the_records(small_dataset):
    total = small_dataset.total()
    assert (total.num_shards, total.num_windows, total.num_positions) == (3, 6, 312)
    assert sum(total.column_bytes.values()) < total.size_bytes


def test_without_a_dataset_there_is_a_clear_error(tmp_path):
    with pytest.raises(IncompleteDatasetError, match="logitcask annotate"):
        load_snapshot(str(tmp_path / "nowhere"))
    assert latest_snapshot(str(tmp_path / "nowhere")) is None


def test_a_snapshot_that_does_not_exist_is_named(out):
    with pytest.raises(IncompleteDatasetError, match="no snapshot 7"):
        load_snapshot(out, 7)


def test_an_incomplete_snapshot_is_not_trained_on(tmp_path):
    out = str(tmp_path / "half")
    write_draft(out, Draft.of_records([], complete=False, identity=Identity(), num_documents_in=1, rejected={}))
    with pytest.raises(IncompleteDatasetError, match="not complete"):
        complete_snapshot(out)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '"x"'])
def test_a_damaged_snapshot_is_named(out, file, text):
    file.write_text(text)
    with pytest.raises(CorruptShardError, match=r"000001.json"):
        load_snapshot(out)


def test_an_identity_that_is_none_is_damage(out, file):
    edit_json(file, lambda value: value.update(identity=[]))
    with pytest.raises(CorruptShardError, match=r"000001.json: not a snapshot"):
        load_snapshot(out)


def test_a_snapshot_of_a_later_version_is_refused(out, file):
    edit_json(file, lambda value: value.update(dataset_version=3))
    with pytest.raises(UnknownFormatVersionError, match="version 3"):
        load_snapshot(out)


def test_a_snapshot_of_the_first_release_is_read_and_selected_from(annotated_copy):
    """It has no rules, and its list of shards has no column for them."""
    file = Path(annotated_copy) / "snapshots/000001.json"
    write_as_first_release(file, lambda value: [value.pop(one) for one in ("selections", "removed", "made_by", "base")])
    old = load_snapshot(annotated_copy)
    assert not old.is_sealed
    assert "selection" not in pq.read_schema(Path(annotated_copy) / "snapshots" / old.shards_file).names
    assert (old.selections, old.removed, old.made_by) == ((), {}, "annotate")
    assert [entry.selection for entry in old.shards()] == [None] * 3
    assert forget_documents(annotated_copy, ["a0-0"]).snapshot.base == 1


def test_a_rule_that_this_release_does_not_know_stops_reading(annotated_copy):
    forget_documents(annotated_copy, ["a0-0"])
    file = Path(annotated_copy) / "snapshots/000002.json"
    edit_json(
        file, lambda value: value["selections"][0][0].update(remembered=value["selections"][0][0].pop("forgotten"))
    )
    with pytest.raises(UnknownFormatVersionError, match="'remembered'"):
        load_snapshot(annotated_copy)


def test_settings_of_a_later_release_do_not_stop_reading(out, file):
    edit_json(file, lambda value: value["identity"].update(beauty=1))
    assert load_snapshot(out).identity.unknown == {"beauty": 1}


def test_a_damaged_or_missing_list_of_shards_is_found(small_dataset):
    file = Path(small_dataset.url) / "snapshots" / small_dataset.shards_file
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(CorruptShardError, match="list of shards"):
        small_dataset.shards()
    file.unlink()
    with pytest.raises(MissingShardError, match="list of shards"):
        small_dataset.shards()


def test_a_split_without_windows_is_refused(small_dataset):
    require_split(small_dataset, "train")
    with pytest.raises(UsageError, match="held-out"):
        require_split(dataclasses.replace(small_dataset, splits={}), "held-out")
