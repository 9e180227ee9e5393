"""Snapshots that were edited, exchanged, rolled back or lost: readers refuse them, or `verify` names them."""

import json
import shutil
from pathlib import Path

import pytest
from edited_json import edit_json, write_as_first_release

from logitcask.schemas.dataset.rules import Rule
from logitcask.schemas.dataset.snapshot import load_snapshot, snapshot_numbers
from logitcask.schemas.errors import CorruptShardError, MissingShardError
from logitcask.schemas.maintenance.select_forget import forget_documents, select_rows
from logitcask.schemas.maintenance.verify import verify


@pytest.fixture
def out(annotated_copy: str) -> str:
    """Three snapshots: annotated, selected from, and one document forgotten."""
    select_rows(annotated_copy, Rule(min_loss=2.0))
    forget_documents(annotated_copy, ["a1-1"])
    return annotated_copy


@pytest.fixture
def snapshots(out: str) -> Path:
    return Path(out) / "snapshots"


def faults(out: str, number: int | None = None) -> dict[str, str]:
    return {fault.path: fault.what for fault in verify(out, number).faults}


def test_sound_snapshots_have_no_faults_and_no_notes(out):
    for number in (1, 2, 3):
        result = verify(out, number)
        assert (result.faults, result.notes) == ((), ())


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_in_a_forgotten_id_is_refused(out, snapshots, bit):
    data = bytearray((snapshots / "000003.json").read_bytes())
    data[data.index(b'"a1-1"') + 4] ^= 1 << bit
    (snapshots / "000003.json").write_bytes(data)
    with pytest.raises(CorruptShardError, match=r"000003\.json: not a snapshot"):
        load_snapshot(out)
    assert [fault.error for fault in verify(out).faults] == ["CorruptShardError"]


def test_a_snapshot_under_another_number_is_refused(out, snapshots):
    shutil.copy(snapshots / "000002.json", snapshots / "000003.json")
    with pytest.raises(CorruptShardError, match="it says that it is snapshot 2"):
        load_snapshot(out)


def test_a_lost_latest_snapshot_is_not_replaced_by_an_older_one(out, snapshots):
    (snapshots / "000003.json").unlink()
    with pytest.raises(MissingShardError, match=r"snapshot 3 was published, but snapshots/000003\.json is missing"):
        load_snapshot(out)
    assert load_snapshot(out, 2).number == 2
    assert faults(out, 2)["snapshots/000003.json"].startswith("published, but missing")


def test_an_edited_snapshot_does_not_match_its_digests(out, snapshots):
    edit_json(snapshots / "000002.json", lambda value: value["rejected"].update(bad=7))
    found = [fault.what for fault in verify(out).faults]
    assert "not the file whose digest is in snapshots/000002.sha256, or that file is damaged" in found
    assert "not the file that snapshot 3 followed; restore it" in found


def roll_back(snapshots: Path) -> None:
    """Snapshot 3 becomes a copy of snapshot 2, with its own number and a valid seal; nothing else shows its digest."""
    shutil.copy(snapshots / "000002.json", snapshots / "000003.json")
    edit_json(snapshots / "000003.json", lambda value: value.update(number=3))
    (snapshots / "000003.sha256").unlink()


def test_a_snapshot_that_was_rolled_back_is_named_by_its_list(out, snapshots):
    roll_back(snapshots)
    assert "equal to snapshot 2, but snapshots/000003-" in faults(out)["snapshots/000003.json"]


def test_a_snapshot_that_was_rolled_back_is_named_without_its_list(out, snapshots):
    roll_back(snapshots)
    [own] = snapshots.glob("000003-*.parquet")
    own.unlink()
    assert "equal to snapshot 2, but it names the list" in faults(out)["snapshots/000003.json"]


def test_a_base_that_was_rolled_back_is_named_by_a_later_selection(out, snapshots):
    shutil.copy(snapshots / "000001.json", snapshots / "000002.json")
    edit_json(snapshots / "000002.json", lambda value: value.update(number=2))
    for file in (snapshots / "000002.sha256", *snapshots.glob("000002-*.parquet")):
        file.unlink()
    edit_json(snapshots / "000003.json", lambda value: value.pop("previous"))
    (snapshots / "000003.sha256").unlink()
    assert "selects from rows that it does not show" in faults(out)["snapshots/000002.json"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda value: value.update(num_documents_in=1), "1 documents in, but"),
        (lambda value: value["splits"]["train"].update(num_windows=1), "train: num_windows: 1 is not that of"),
        (lambda value: value["splits"]["train"]["statistics"].update(targets=1), "train: statistics is not that of"),
        (lambda value: value["splits"]["train"].update(column_bytes={}), "train: column_bytes is not that of"),
    ],
)
@pytest.mark.parametrize("number", [1, 3])
def test_counts_and_statistics_are_those_of_the_records(out, snapshots, number, change, what):
    edit_json(snapshots / f"00000{number}.json", change)
    assert any(fault.what.startswith(what) for fault in verify(out, number).faults)


def test_a_snapshot_of_an_earlier_release_is_read_and_noted(annotated_copy):
    file = Path(annotated_copy) / "snapshots/000001.json"
    write_as_first_release(file)
    file.with_suffix(".sha256").unlink()
    assert not load_snapshot(annotated_copy).is_sealed
    result = verify(annotated_copy)
    assert result.faults == ()
    assert [note.path for note in result.notes] == ["snapshots/000001.json"]
    assert "without a seal" in result.text()


def test_a_new_snapshot_without_its_seal_is_damaged(annotated_copy):
    file = Path(annotated_copy) / "snapshots/000001.json"
    value = json.loads(file.read_text())
    del value["seal"]
    file.write_text(json.dumps(value))
    with pytest.raises(CorruptShardError, match="no seal in its second line"):
        load_snapshot(annotated_copy)


def test_an_older_snapshot_that_is_damaged_is_named(out, snapshots):
    (snapshots / "000001.json").write_bytes(b"")
    found = faults(out)["snapshots/000001.json"]
    assert "logitcask compact --drop 1" in found or "not the file" in found
    assert snapshot_numbers(out) == [1, 2, 3]


def test_a_list_that_no_snapshot_names_is_noted(out, snapshots):
    (snapshots / "000004-0123456789ab.parquet").write_bytes(b"")
    [note] = verify(out).notes
    assert (note.path, verify(out).faults) == ("snapshots/000004-0123456789ab.parquet", ())
