"""From settings to `TrainingArguments`, and from those to batches."""

import json

import pytest
from train_command import train_words

from logitcask.schemas import cli
from logitcask.schemas.errors import (
    UsageError,
)
from logitcask.student.settings import TrainSettings
from logitcask.student.training.arguments import training_arguments


def test_a_constant_learning_rate_has_a_warm_up(run_dataset, pruned_student, tmp_path):
    more = ("--schedule", "constant", "--warmup-steps", "2", "--eval-windows", "1")
    assert cli.main(train_words(run_dataset, pruned_student, tmp_path / "run", *more)) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["learning_rate"] for line in lines if "loss" in line] == pytest.approx([0, 2.5e-4, 5e-4])


@pytest.mark.parametrize("setting", [{"label_smoothing_factor": 0.1}, {"auto_find_batch_size": True}])
def test_unsupported_training_arguments_are_refused(make_trainer, setting):
    with pytest.raises(UsageError, match=next(iter(setting))):
        make_trainer(**setting)


def test_without_max_steps_the_epochs_set_the_steps(make_trainer):
    trainer = make_trainer(max_steps=-1, num_train_epochs=2, per_device_train_batch_size=5)
    assert trainer.args.max_steps == 5  # 24 windows in batches of 5


def settings(**changes) -> TrainSettings:
    return TrainSettings(**{"datasets": ("data",), "student": "student", "out": "run", "device": "cpu", **changes})


def test_settings_become_arguments(tmp_path):
    args = training_arguments(settings(batch_windows=8, micro_batch_windows=2, lr=0.25, seed=7), tmp_path)
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == (2, 4)
    assert (args.learning_rate, args.seed, args.output_dir) == (0.25, 7, str(tmp_path))


def test_the_wsd_schedule_decays_over_its_steps(tmp_path):
    args = training_arguments(settings(schedule="wsd", decay_steps=3), tmp_path)
    assert (args.lr_scheduler_type, args.lr_scheduler_kwargs) == ("warmup_stable_decay", {"num_decay_steps": 3})


def test_a_batch_is_divided_over_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UsageError, match="batch_windows 8 must be a multiple of micro_batch_windows × processes = 3"):
        training_arguments(settings(), tmp_path)


def test_fsdp_needs_several_processes(tmp_path):
    with pytest.raises(UsageError, match="start several: `torchrun"):
        training_arguments(settings(fsdp=True), tmp_path)
