"""Every file of a dataset is accounted for: damage is a fault, and an unknown file a note."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from edited_json import edit_json, write_as_first_release
from random_shards import IDENTITY

from logitcask.schemas.dataset.appends import claim_append
from logitcask.schemas.dataset.identity import CorpusInfo
from logitcask.schemas.dataset.layout import rejected_path
from logitcask.schemas.dataset.record import read_record
from logitcask.schemas.dataset.vocabulary import write_vocabulary
from logitcask.schemas.maintenance.select_forget import forget_documents
from logitcask.schemas.maintenance.verify import verify
from logitcask.schemas.seals import create_sealed


@pytest.fixture
def out(annotated_copy: str) -> Path:
    """A dataset with a file of every kind."""
    root = Path(annotated_copy)
    corpus = CorpusInfo(num_files=1, size_bytes=2, fingerprint="more")
    claim_append(annotated_copy, IDENTITY.__class__(corpus=corpus))
    write_vocabulary(annotated_copy, [b"a", b"\xff"], "f1")
    shards = [read_record(str(path)) for path in sorted((root / "tokens").rglob("*.json"))]
    unit: dict[str, Any] = {
        "tokenized_unit_version": 2,
        "name": "a0",
        "num_documents": 9,
        "rejected": {"bad": 2},
        "shards": [
            {
                "name": one.name,
                "split": one.split,
                "num_windows": 1,
                "num_positions": 1,
                "num_documents": 1,
                "footer_digest": one.footer_digest,
            }
            for one in shards
        ],
    }
    create_sealed(str(root / "tokens/units/a0.json"), unit)
    (root / "attempts").mkdir()
    (root / "attempts/a0~00000001.json").write_text("{}")
    return root


SEALED = ["logitcask.json", "tokenizer/pieces.json", "tokens/units/a0.json", "appends/more.json"]
RECORDS = ["tokens/train/a0-tokens.json", "targets/train/a0.json"]


def found(out: Path) -> dict[str, str]:
    return {fault.path: fault.what for fault in verify(str(out)).faults}


def test_a_file_of_every_kind_is_known(out):
    assert found(out) == {}
    assert verify(str(out)).notes == ()


@pytest.mark.parametrize("path", [*SEALED, *RECORDS])
@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-9], lambda data: data.replace(b"0", b"1")])
def test_a_damaged_file_is_a_fault(out, path, damage):
    (out / path).write_bytes(damage((out / path).read_bytes()))
    assert {name.removesuffix(".parquet").removesuffix(".json") for name in found(out)} >= {path.removesuffix(".json")}


@pytest.mark.parametrize("path", [*SEALED, *RECORDS])
def test_a_file_of_an_earlier_release_is_noted(out, path):
    write_as_first_release(out / path)
    result = verify(str(out))
    assert result.faults == ()
    assert [note.path for note in result.notes] == [path]


@pytest.mark.parametrize(
    ("path", "other"),
    [
        ("tokens/train/a0-tokens.json", "tokens/train/a1-tokens.json"),
        ("targets/train/a0.json", "targets/train/a1.json"),
        ("targets/train/a0.parquet", "targets/train/a1.parquet"),
        ("tokens/train/a0-tokens.parquet", "tokens/train/a1-tokens.parquet"),
    ],
)
def test_a_file_in_the_place_of_another_is_a_fault(out, path, other):
    shutil.copy(out / other, out / path)
    assert found(out)


def test_a_unit_or_a_claim_under_another_name_is_a_fault(out):
    shutil.copy(out / "tokens/units/a0.json", out / "tokens/units/a1.json")
    shutil.copy(out / "appends/more.json", out / "appends/other.json")
    assert found(out) == {
        "tokens/units/a1.json": "it is the record of the unit 'a0'; restore both",
        "appends/other.json": "the claim of another corpus; restore the file",
    }


def test_rejected_documents_are_in_files_named_by_their_digest(out):
    [file] = (out / "rejected").iterdir()
    assert file.name == rejected_path("a0-0000", file.read_bytes()).removeprefix("rejected/")
    file.write_bytes(file.read_bytes().replace(b"bad", b"bud"))
    assert "its name says the digest" in found(out)[f"rejected/{file.name}"]


def test_lines_that_are_not_json_are_a_fault(out):
    [file] = (out / "rejected").iterdir()
    file.write_bytes(b"{}\n{\n")
    assert "not lines of JSON" in found(out)[f"rejected/{file.name}"]


def test_lost_rejected_documents_are_a_fault(out):
    [file] = (out / "rejected").iterdir()
    file.unlink()
    assert "counts rejected documents that no file" in found(out)["tokens/units/a0.json"]


def test_rejected_documents_of_an_earlier_release_are_noted(out):
    [file] = (out / "rejected").iterdir()
    file.rename(out / "rejected/a0-0000.jsonl")
    [note] = verify(str(out)).notes
    assert (note.path, found(out)) == ("rejected/a0-0000.jsonl", {})


def test_another_configuration_is_a_fault(out):
    edit_json(out / "logitcask.json", lambda value: value["identity"].update(window_tokens=128))
    assert "window_tokens: 128 in the configuration, 64 in snapshot 1" in found(out)["logitcask.json"]


def test_a_missing_configuration_is_a_fault(out):
    (out / "logitcask.json").unlink()
    assert found(out) == {"logitcask.json": "missing; restore it"}


def test_a_shard_of_an_older_snapshot_is_checked(out):
    documents = [f"a0-{number}" for number in range(60)]
    held = [one for one in documents if one in (out / "targets/train/a0.parquet").read_bytes().decode("latin-1")]
    forget_documents(str(out), held)
    assert found(out) == {}
    shard = out / "targets/train/a0.parquet"
    shard.write_bytes(shard.read_bytes()[:-1])
    assert "targets/train/a0.parquet" in found(out)
    shard.unlink()
    assert "targets/train/a0.parquet" in found(out)


@pytest.mark.parametrize("path", ["notes.txt", "targets/train/.DS_Store", "targets/other/a0.parquet", "tokens/a.json"])
def test_an_unknown_file_is_noted(out, path):
    (out / path).parent.mkdir(exist_ok=True)
    (out / path).write_text("x")
    result = verify(str(out))
    assert [(note.path, note.what) for note in result.notes] == [(path, "not a file of a dataset")]
    assert result.faults == ()


def test_a_shard_that_no_snapshot_lists_is_noted(out):
    shutil.copy(out / "targets/train/a0.parquet", out / "targets/train/z.parquet")
    [note] = verify(str(out)).notes
    assert (note.path, found(out)) == ("targets/train/z.parquet", {})


def test_a_damaged_journal_of_a_compaction_is_a_fault(out):
    (out / "compaction.json").write_text(json.dumps({"journal_version": 2}))
    assert "not the journal of a compaction" in found(out)["compaction.json"]


def test_many_notes_are_counted(out):
    for number in range(25):
        (out / f"{number}.txt").write_text("x")
    text = verify(str(out)).text()
    assert text.count("note: ") == 21
    assert "note: 5 more files, listed by --json" in text
