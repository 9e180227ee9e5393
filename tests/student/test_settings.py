"""Settings: invalid values, and old names of option values."""

import pytest
from train_command import train_words

from logitcask.schemas import cli
from logitcask.student.commands import Train
from logitcask.student.losses.loss_settings import LossSettings


@pytest.mark.parametrize(
    "flags",
    [
        ["--batch-windows", "3", "--micro-batch-windows", "2"],
        ["--lr", "0"],
        ["--steps", "0"],
        ["--fsdp"],
        ["--schedule", "wsd"],
        ["--weights", "1", "2"],
        ["--alpha-schedule", "wsd"],
    ],
)
def test_invalid_settings_are_usage_errors(run_dataset, pruned_student, tmp_path, flags):
    assert cli.main([*train_words(run_dataset, pruned_student, tmp_path / "run"), *flags]) == 2
    assert not (tmp_path / "run").exists()


def test_the_old_name_of_a_tail_treatment_is_accepted():
    words = ["OUT", "--student", "S", "--out", "RUN", "--tail", "renormalise"]
    command = cli.parse_command(Train, "train", words)
    assert command.tail == "renormalize"
    assert LossSettings(tail="renormalise") == LossSettings(tail="renormalize")
