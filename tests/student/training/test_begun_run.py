"""The second command on a run: what it says, what it takes over, and more steps."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from train_command import train_words
from transformers import AutoModelForCausalLM

from logitcask.schemas import cli
from logitcask.schemas.maintenance.select_forget import forget_documents


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A finished run of three steps with the checkpoints 2 and 3."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def weights_of(directory: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(directory).state_dict()


def longer(dataset: str, student: Path, run: Path, steps: int, *more: str) -> list[str]:
    return [*train_words(dataset, student, run, "--save-every", "2", "--resume", *more), "--steps", str(steps)]


def test_more_steps_of_a_constant_schedule_are_those_of_one_long_run(run_dataset, pruned_student, tmp_path):
    constant = ("--schedule", "constant", "--save-every", "2", "--eval-windows", "1")
    short, whole = tmp_path / "short", tmp_path / "whole"
    assert cli.main([*train_words(run_dataset, pruned_student, short, *constant), "--steps", "2"]) == 0
    assert cli.main([*train_words(run_dataset, pruned_student, short, *constant), "--steps", "4", "--resume"]) == 0
    assert cli.main([*train_words(run_dataset, pruned_student, whole, *constant), "--steps", "4"]) == 0
    expected = weights_of(whole / "student")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights_of(short / "student").items())


def test_more_steps_that_change_the_schedule_need_extend(run, run_dataset, pruned_student, capsys):
    assert cli.main(longer(run_dataset, pruned_student, run, 6)) == 1
    printed = " ".join(capsys.readouterr().err.split())
    # A cosine from 5e-4 to 0: half way after 3 of 6 steps.
    assert "begun with 3 steps; with 6, its schedule has another shape" in printed
    assert "after step 3: learning rate 0.00025; as begun: learning rate 0)" in printed
    assert "--extend accepts this" in printed
    assert cli.main(longer(run_dataset, pruned_student, run, 6, "--extend")) == 0
    steps = [line for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[3]["learning_rate"] == pytest.approx(2.5e-4)


def test_fewer_steps_than_are_taken_are_refused(run, run_dataset, pruned_student, capsys):
    assert cli.main(longer(run_dataset, pruned_student, run, 2, "--extend")) == 1
    assert "3 steps are taken already" in capsys.readouterr().err


def test_a_resumed_run_reads_the_snapshot_that_it_began_with(run, run_dataset, pruned_student, tmp_path):
    dataset = str(shutil.copytree(run_dataset, tmp_path / "dataset"))
    begun = json.loads((run / "train.json").read_text())
    (run / "train.json").write_text(json.dumps({**begun, "datasets": [dataset]}))
    forget_documents(dataset, [first_document(dataset)])
    assert cli.main(longer(dataset, pruned_student, run, 3)) == 0
    assert json.loads((run / "results.json").read_text())["snapshots"] == [1]


def first_document(dataset: str) -> str:
    from logitcask.student.data.dataset import SoftTargetDataset

    return SoftTargetDataset(dataset)[0].windows.parts[0].id


def test_a_checkpoint_replaces_a_student_that_is_gone(run, finished_run, run_dataset, tmp_path):
    shutil.rmtree(run / "student")
    shutil.rmtree(run / "checkpoint-3")
    assert cli.main(longer(run_dataset, tmp_path / "gone", run, 3)) == 0
    expected = weights_of(finished_run / "student")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights_of(run / "student").items())
    names = {path.name for path in (finished_run / "student").iterdir()}
    assert {path.name for path in (run / "student").iterdir()} == names


def test_the_same_command_without_resume_says_how_to_continue(run, run_dataset, pruned_student):
    words = train_words(run_dataset, pruned_student, run)
    (run / "results.json").unlink()
    printed = subprocess.run([sys.executable, "-m", "logitcask", *words], capture_output=True, text=True).stderr
    assert "with checkpoint-3 as its newest checkpoint" in printed
    assert f"  logitcask {' '.join(words)} --resume" in printed
