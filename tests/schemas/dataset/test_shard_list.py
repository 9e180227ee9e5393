"""A list of shards that lies about its size, or about what it holds, is refused before it costs memory."""

import dataclasses
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from edited_json import edit_json
from random_shards import THREE_SHARDS, write_random_dataset

from logitcask.schemas.dataset.snapshot import load_snapshot
from logitcask.schemas.errors import CorruptShardError
from logitcask.schemas.fingerprints import digest


@pytest.fixture
def out(tmp_path) -> Path:
    write_random_dataset(str(tmp_path), THREE_SHARDS)
    return tmp_path


def forge(out: Path, change, num_shards: int | None = None) -> None:
    """Replaces the list of shards by a changed one, with the right digest, and perhaps another number of shards."""
    file = out / "snapshots/000001.json"

    def edit(value: dict) -> None:
        path = out / "snapshots" / value["shards_file"]
        pq.write_table(change(pq.read_table(path, use_threads=False)), path, compression="zstd")
        value["shards_digest"] = digest(path.read_bytes())
        if num_shards is not None:
            value["splits"] = {"train": value["splits"]["train"] | {"num_shards": num_shards}}

    edit_json(file, edit)


def with_column(name: str, value):
    def change(table: pa.Table) -> pa.Table:
        column = pa.array([value] * len(table), table.schema.field(name).type)
        return table.set_column(table.schema.get_field_index(name), name, column)

    return change


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (with_column("path", "targets/train/../../../x.parquet"), "has the path 'targets/train/../../../x.parquet'"),
        (with_column("name", "../x"), "Expected a file name"),
        (with_column("split", "../.."), "Invalid enum value"),
        (with_column("digest", None), "Expected `str`, got `null`"),
        (with_column("num_windows", -1), "Expected `int` >= 0"),
        (with_column("digest", "x" * 5000), "a text of 5,000 bytes in column 'digest'"),
        (lambda table: table.drop_columns(["path"]), "no column 'path'"),
        (lambda table: table.slice(1), "2 rows in "),
        (lambda table: pa.concat_tables([table.slice(0, 1)] * 3), "lists a shard twice"),
        (lambda table: table.append_column("selection", pa.array([4] * 3, pa.int32())), "refers to selection 4"),
    ],
)
def test_a_list_that_lies_is_refused(out, change, what):
    forge(out, change)
    with pytest.raises(CorruptShardError, match=r"snapshots/000001-.*\.parquet: .*" + what.replace(".", r"\.")):
        load_snapshot(str(out)).shards()


def test_millions_of_equal_rows_are_refused_before_they_are_read(out):
    forge(out, lambda table: table.take([0] * 3_000_000), num_shards=3_000_000)
    with pytest.raises(CorruptShardError, match=r"3,000,000 rows in [\d,]+ bytes"):
        next(load_snapshot(str(out)).each_shard())


def test_the_record_of_another_shard_is_refused(out):
    from logitcask.schemas.dataset.shard_view import stored_record

    snapshot = load_snapshot(str(out))
    first, second, _ = snapshot.shards()
    files = [out / entry.path.replace(".parquet", ".json") for entry in (first, second)]
    files[0].write_bytes(files[1].read_bytes())
    with pytest.raises(CorruptShardError, match="the record of another shard"):
        stored_record(snapshot, first)
    assert stored_record(snapshot, dataclasses.replace(second)).name == second.name
