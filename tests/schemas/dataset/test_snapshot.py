import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from logitcask.schemas import storage
from logitcask.schemas.dataset import snapshot_writer
from logitcask.schemas.dataset.identity import Identity
from logitcask.schemas.dataset.layout import Configuration, read_configuration, write_configuration
from logitcask.schemas.dataset.record import read_record
from logitcask.schemas.dataset.snapshot import complete_snapshot, load_snapshot, require_split, snapshot_numbers
from logitcask.schemas.errors import (
    CorruptShardError,
    ForeignOutputError,
    IncompleteDatasetError,
    MissingShardError,
    UnknownFormatVersionError,
    UsageError,
)
from logitcask.schemas.format.reader import ShardReader


@pytest.fixture
def out(tmp_path) -> str:
    return str(tmp_path / "out")


def test_a_snapshot_comes_back_as_it_was_written(out, make_dataset):
    written = make_dataset(out)
    assert load_snapshot(out) == written
    assert complete_snapshot(out, 1) == written


def test_a_snapshot_lists_shards_that_can_be_read(out, make_dataset):
    snapshot = make_dataset(out)
    assert [entry.split for entry in snapshot.shards()] == ["held-out", "train", "train"]
    for entry in snapshot.shards("train"):
        with ShardReader(snapshot.shard_url(entry), footer_digest=entry.footer_digest) as reader:
            assert reader.num_positions == entry.num_positions


def test_totals_are_those_of_the_records(out, make_dataset):
    total = make_dataset(out).total()
    assert (total.num_shards, total.num_windows, total.num_positions) == (3, 6, 312)
    assert sum(total.column_bytes.values()) < total.size_bytes


def test_writing_the_same_snapshot_again_makes_no_new_one(out, make_dataset):
    first = make_dataset(out)
    records = [
        read_record(file.url) for file in storage.list_files(storage.join(out, "targets")) if file.url.endswith(".json")
    ]
    again = snapshot_writer.write_snapshot(
        out,
        complete=True,
        identity=first.identity,
        records=records,
        num_documents_in=first.num_documents_in,
        rejected=first.rejected,
    )
    assert again == first
    fewer = snapshot_writer.write_snapshot(
        out, complete=False, identity=first.identity, records=records[:1], num_documents_in=9, rejected={}
    )
    assert (fewer.number, snapshot_numbers(out)) == (2, [1, 2])


def test_writers_that_race_get_different_numbers(out):
    def write(num_documents: int) -> int:
        return snapshot_writer.write_snapshot(
            out, complete=False, identity=Identity(), records=[], num_documents_in=num_documents, rejected={}
        ).number

    with ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(write, range(8)))
    assert sorted(numbers) == list(range(1, 9))


def test_without_a_dataset_there_is_a_clear_error(out):
    with pytest.raises(IncompleteDatasetError, match="logitcask annotate"):
        load_snapshot(out)


def test_a_snapshot_that_is_not_there_is_named(out, make_dataset):
    make_dataset(out)
    with pytest.raises(IncompleteDatasetError, match="no snapshot 7"):
        load_snapshot(out, 7)


def test_an_incomplete_snapshot_is_not_trained_on(out):
    snapshot_writer.write_snapshot(
        out, complete=False, identity=Identity(), records=[], num_documents_in=1, rejected={}
    )
    with pytest.raises(IncompleteDatasetError, match="not complete"):
        complete_snapshot(out)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '"x"'])
def test_a_damaged_snapshot_is_named(out, make_dataset, tmp_path, text):
    make_dataset(out)
    (tmp_path / "out/snapshots/000001.json").write_text(text)
    with pytest.raises(CorruptShardError, match=r"000001.json"):
        load_snapshot(out)


def test_a_snapshot_of_a_later_version_is_refused(out, make_dataset, tmp_path):
    make_dataset(out)
    file = tmp_path / "out/snapshots/000001.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "dataset_version": 2}))
    with pytest.raises(UnknownFormatVersionError, match="version 2"):
        load_snapshot(out)


def test_a_damaged_or_missing_list_of_shards_is_found(out, make_dataset, tmp_path):
    snapshot = make_dataset(out)
    file = tmp_path / "out/snapshots" / snapshot.shards_file
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(CorruptShardError, match="list of shards"):
        snapshot.shards()
    file.unlink()
    with pytest.raises(MissingShardError, match="list of shards"):
        snapshot.shards()


def test_a_directory_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("…")
    with pytest.raises(ForeignOutputError, match=r"thesis\.tex"):
        read_configuration(str(tmp_path))


def test_an_empty_directory_may_become_a_dataset(out):
    assert read_configuration(out) is None
    assert write_configuration(out, identity=Identity(window_tokens=1), environment={})
    assert not write_configuration(out, identity=Identity(window_tokens=2), environment={})
    assert read_configuration(out) == Configuration(identity=Identity(window_tokens=1), environment={})


def test_a_split_without_windows_is_refused(out, make_dataset):
    snapshot = make_dataset(out)
    require_split(snapshot, "train")
    with pytest.raises(UsageError, match="held-out"):
        require_split(
            snapshot_writer.write_snapshot(
                out, complete=True, identity=Identity(), records=[], num_documents_in=0, rejected={}
            ),
            "held-out",
        )
