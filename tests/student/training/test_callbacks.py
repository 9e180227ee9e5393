"""Callbacks: the metrics file, TensorBoard and the progress bar."""

import json
import math
from pathlib import Path

import pytest
import torch
from train_command import train_words
from trainers import metrics

from logitcask.schemas import cli
from logitcask.schemas.errors import (
    NonFiniteError,
    UsageError,
)
from logitcask.student.training import checkpoint_files
from logitcask.student.training.callbacks import ProgressBar, tensorboard_callback


def test_tensorboard_gets_the_metrics(run_dataset, pruned_student, tmp_path):
    assert (
        cli.main(train_words(run_dataset, pruned_student, tmp_path / "run", "--tensorboard", "--eval-windows", "1"))
        == 0
    )
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    written = [event.value for event in events.Scalars("train/loss")]
    assert written == pytest.approx([line["loss"] for line in lines if "loss" in line])


def test_a_resumed_run_drops_the_metrics_of_repeated_steps(make_trainer):
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    make_trainer("run", **settings).train()
    trainer = make_trainer("run", **settings)
    with (Path(trainer.args.output_dir) / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # a kill in the middle of a line
    (Path(trainer.args.output_dir) / "checkpoint-4" / checkpoint_files.STATE_NAME).unlink()
    trainer.train(resume_from_checkpoint=True)
    assert [line["step"] for line in metrics(trainer) if "loss" in line] == [1, 2, 3, 4]


def test_tensorboard_must_be_installed(tmp_path, monkeypatch):
    monkeypatch.setattr("logitcask.student.training.callbacks.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'logitcask\[tensorboard\]'"):
        tensorboard_callback(tmp_path)


def test_an_error_removes_the_progress_bar(make_trainer):
    trainer = make_trainer(disable_tqdm=False)
    (bar,) = (callback for callback in trainer.callback_handler.callbacks if isinstance(callback, ProgressBar))
    with torch.no_grad():
        next(trainer.model.parameters())[5] = math.nan
    with pytest.raises(NonFiniteError):
        trainer.train()
    assert bar._bar is None
