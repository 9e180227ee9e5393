"""The files of a checkpoint: sealed last, compared before use, named only when they are whole."""

import json
from pathlib import Path

import pytest

from logitcask.schemas.errors import CorruptShardError
from logitcask.student.training.checkpoint_files import (
    STATE_NAME,
    _state_digest,
    begin,
    finish,
    newest_whole,
    read_state,
)

NAMES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")


def write(run: Path, step: int) -> Path:
    unfinished = begin(run) / "checkpoint"
    unfinished.mkdir()
    for name in NAMES:
        (unfinished / name).write_text(f"{name} {step}")
    finish(unfinished, run / f"checkpoint-{step}", {"seed": 3}, step)
    return run / f"checkpoint-{step}"


def test_a_state_lists_the_digest_of_each_file(tmp_path):
    state = read_state(write(tmp_path, 2))
    assert state["consumed_batches"] == 2
    assert state["seed"] == 3
    assert set(state["files"]) == set(NAMES)


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path):
    (write(tmp_path, 2) / "optimizer.pt").unlink()
    assert read_state(write(tmp_path, 2))["consumed_batches"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]


def test_the_newest_is_the_one_with_the_highest_number(tmp_path):
    for step in (2, 10, 9):
        write(tmp_path, step)
    assert newest_whole(tmp_path).checkpoint == tmp_path / "checkpoint-10"


def test_a_run_without_checkpoints_has_none(tmp_path):
    (tmp_path / "checkpoint-notes").mkdir()
    assert newest_whole(tmp_path).checkpoint is None
    assert newest_whole(tmp_path / "none").checkpoint is None


@pytest.mark.parametrize(("name", "value"), [("seed", 4), ("consumed_batches", 3), ("files", {})])
def test_a_changed_state_is_found_by_its_own_digest(tmp_path, name, value):
    path = write(tmp_path, 2) / STATE_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(CorruptShardError, match="does not have the digest that it states"):
        read_state(path.parent)


@pytest.mark.parametrize("text", ["", "[]", "null", '{"consumed_batches": "x"}', '{"consumed_batches"', "[" * 100_000])
def test_a_state_that_is_no_state_is_an_incomplete_checkpoint(tmp_path, text):
    path = write(tmp_path, 2) / STATE_NAME
    path.write_text(text)
    with pytest.raises(CorruptShardError, match="incomplete checkpoint"):
        read_state(path.parent)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd"])
def test_a_state_names_only_files_inside_the_checkpoint(tmp_path, name):
    unfinished = begin(tmp_path) / "checkpoint"
    unfinished.mkdir()
    finish(unfinished, tmp_path / "checkpoint-1", {}, 1)
    path = tmp_path / "checkpoint-1" / STATE_NAME
    state = {"consumed_batches": 1, "files": {name: "sha256:" + "0" * 64}}
    path.write_text(json.dumps({**state, "digest": _state_digest(state)}))
    with pytest.raises(CorruptShardError, match="not inside the checkpoint"):
        read_state(path.parent)
