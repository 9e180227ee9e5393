"""Checkpoints through the trainer: damage is found before a step, kills leave whole ones, errors have names."""

import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from train_command import train_words
from transformers import TrainingArguments

from logitcask.schemas import cli
from logitcask.schemas.errors import CorruptShardError, StorageError
from logitcask.student.data.dataset import SoftTargetDataset
from logitcask.student.training.checkpoint_files import STATE_NAME, newest_whole
from logitcask.student.training.trainer import SoftTargetTrainer

SETTINGS = {"max_steps": 3, "save_strategy": "steps", "save_steps": 1, "per_device_train_batch_size": 2}


@pytest.fixture(scope="module")
def saved(dataset_url, tiny_student, tokenizer_info, tmp_path_factory) -> Path:
    """The directory of a run with a checkpoint after each of its three steps."""
    directory = tmp_path_factory.mktemp("saved")
    arguments = TrainingArguments(
        output_dir=str(directory), learning_rate=1e-2, report_to="none", disable_tqdm=True, use_cpu=True,
        logging_steps=1, **SETTINGS,
    )  # fmt: skip
    SoftTargetTrainer(
        tiny_student(), arguments, train_dataset=SoftTargetDataset(dataset_url), alpha=0.7, tokenizer=tokenizer_info()
    ).train()
    return directory


@pytest.fixture
def run(saved, tmp_path) -> Path:
    """A copy of that run, stopped after its second step."""
    shutil.copytree(saved, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoint-3")
    return tmp_path / "run"


FILES = ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "config.json"]


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if how == "removed":
        path.unlink()
    else:
        path.write_bytes(data if how == "flipped" else data[: len(data) // 2])


@pytest.mark.parametrize("name", [*FILES, STATE_NAME])
@pytest.mark.parametrize("how", ["removed", "cut short", "flipped"])
def test_damage_of_any_file_of_a_checkpoint_is_found(saved, tmp_path, name, how):
    shutil.copytree(saved / "checkpoint-2", tmp_path / "checkpoint-2")
    assert newest_whole(tmp_path).checkpoint
    damage(tmp_path / "checkpoint-2" / name, how)
    with pytest.raises(CorruptShardError, match=f"checkpoint-2.*{name}"):
        newest_whole(tmp_path)


@pytest.mark.parametrize(("name", "how"), [("optimizer.pt", "removed"), ("model.safetensors", "flipped")])
def test_a_damaged_checkpoint_is_passed_over_for_an_older_one(make_trainer, run, saved, name, how, capsys):
    damage(run / "checkpoint-2" / name, how)
    trainer = make_trainer("run", **SETTINGS)
    with pytest.raises(CorruptShardError, match="checkpoint-2"):
        trainer.train(resume_from_checkpoint=str(run / "checkpoint-2"))
    trainer.train(resume_from_checkpoint=True)
    said = capsys.readouterr().err
    assert f"{run}/checkpoint-2" in said
    assert f"passed over for {run}/checkpoint-1" in said
    assert name in said
    one, whole = (path / "checkpoint-3" / "model.safetensors" for path in (run, saved))
    assert one.read_bytes() == whole.read_bytes()


def test_a_run_without_a_whole_checkpoint_is_refused(make_trainer, run):
    for number in (1, 2):
        (run / f"checkpoint-{number}" / "optimizer.pt").unlink()
    with pytest.raises(CorruptShardError, match=r"no checkpoint is whole .*optimizer.pt is missing.*beginning"):
        make_trainer("run", **SETTINGS).train(resume_from_checkpoint=True)


def without_digests(checkpoint: Path) -> None:
    """Makes a checkpoint as an earlier release wrote it."""
    path = checkpoint / STATE_NAME
    state = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in state.items() if name not in ("files", "digest")}))


def test_a_checkpoint_of_an_earlier_release_resumes_with_a_word(make_trainer, run, saved, capsys):
    without_digests(run / "checkpoint-2")
    make_trainer("run", **SETTINGS).train(resume_from_checkpoint=True)
    assert "an earlier release wrote this checkpoint without digests" in capsys.readouterr().err
    one, other = (path / "checkpoint-3" / "model.safetensors" for path in (run, saved))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_an_old_checkpoint_without_one_of_its_states_is_refused(make_trainer, run, name):
    without_digests(run / "checkpoint-2")
    (run / "checkpoint-2" / name).unlink()
    with pytest.raises(CorruptShardError, match="incomplete checkpoint: it lacks the"):
        make_trainer("run", **SETTINGS).train(resume_from_checkpoint=str(run / "checkpoint-2"))


def test_an_old_checkpoint_that_lacks_a_weight_is_refused(make_trainer, run):
    without_digests(run / "checkpoint-2")
    path = run / "checkpoint-2" / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    del tensors["model.layers.0.mlp.up_proj.weight"]
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(CorruptShardError, match=r"lacks the weights \['model.layers.0.mlp.up_proj.weight'\]"):
        make_trainer("run", **SETTINGS).train(resume_from_checkpoint=str(run / "checkpoint-2"))


class Hostile:
    def __reduce__(self):
        return os.mkdir, (os.environ["HOSTILE_MARK"],)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "pytorch_model.bin"])
@pytest.mark.parametrize("plain", [False, True], ids=["zip", "pickle"])
def test_a_hostile_checkpoint_runs_no_code(make_trainer, run, tmp_path, monkeypatch, name, plain):
    monkeypatch.setenv("HOSTILE_MARK", str(tmp_path / "mark"))
    checkpoint = run / "checkpoint-2"
    without_digests(checkpoint)
    if plain:
        (checkpoint / name).write_bytes(pickle.dumps(Hostile(), protocol=2))
    else:
        torch.save({"state": Hostile()}, checkpoint / name)
    if name == "pytorch_model.bin":
        (checkpoint / "model.safetensors").unlink()
    with pytest.raises(CorruptShardError, match="something else than tensors and numbers"):
        make_trainer("run", **SETTINGS).train(resume_from_checkpoint=str(checkpoint))
    assert not (tmp_path / "mark").exists()


def test_a_checkpoint_that_cannot_be_written_is_a_named_error(make_trainer, tmp_path):
    trainer = make_trainer("run", **SETTINGS)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(StorageError, match=r"the checkpoint cannot be written .*--resume"):
            trainer.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(trainer.run_directory.glob("checkpoint-*"))


def test_a_checkpoint_of_the_model_alone_is_not_resumed_from(make_trainer):
    make_trainer("run", **SETTINGS, save_only_model=True).train()
    with pytest.raises(CorruptShardError, match="it lacks the state of the optimizer"):
        make_trainer("run", **SETTINGS).train(resume_from_checkpoint=True)


def test_only_the_named_number_of_checkpoints_is_kept(make_trainer):
    trainer = make_trainer(**SETTINGS, save_total_limit=2)
    trainer.train()
    assert sorted(path.name for path in trainer.run_directory.glob("*check*")) == ["checkpoint-2", "checkpoint-3"]
    assert not list(trainer.run_directory.glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("point", ["begun", "sealed", "named"])
def test_a_run_killed_during_a_save_resumes_to_the_same_weights(
    run_dataset, pruned_student, finished_run, tmp_path, point
):
    words = train_words(run_dataset, pruned_student, tmp_path / "run", "--save-every", "1", "--resume")
    faults = tmp_path / "faults"
    faults.mkdir()
    (faults / f"checkpoint {point}").write_text("kill checkpoint-2")
    program = f"from logitcask.schemas import cli; import sys; sys.exit(cli.main({words!r}))"
    environment = {**os.environ, "LOGITCASK_FAULTS": str(faults), "OMP_NUM_THREADS": "1"}
    killed = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, timeout=200)
    assert killed.returncode == -signal.SIGKILL
    assert cli.main(words) == 0
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps[:3] == [1, 2, 3]
    one, whole = (path / "student" / "model.safetensors" for path in (tmp_path / "run", finished_run))
    assert one.read_bytes() == whole.read_bytes()
