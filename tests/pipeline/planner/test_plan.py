"""The plan's figures follow from the prices, the models and each other."""

import pytest
from plan_command import plan


def test_prices_hours_and_storage_are_consistent(capsys):
    found = plan(capsys, "--gpu-hour", "2", "--gb-month", "0.01", "--gb-read", "0.001", "--months", "3")
    teacher, storage = found["teacher"], found["storage"]
    assert teacher["cost"] == pytest.approx(2 * teacher["gpu_hours"])
    assert teacher["gpu_hours"] == pytest.approx(2e12 / 8830 / 3600, rel=1e-3)
    assert storage["keep_cost"] == pytest.approx(storage["bytes"] / 1e9 * 0.01 * 3)
    assert storage["read_cost_per_pass"] == pytest.approx(storage["bytes"] / 1e9 * 0.001)
    assert storage["bytes"] == pytest.approx(196e12, rel=0.01)


def test_a_cheap_teacher_needs_more_passes(capsys):
    large = plan(capsys)["break_even"]["passes"]
    small = plan(capsys, "--teacher", "google/gemma-2-2b")["break_even"]["passes"]
    assert 1 < large < small
    assert plan(capsys, "--gb-read", "5")["break_even"]["passes"] is None


def test_a_finished_dataset_is_compared_with_its_plan(capsys, finished_dataset):
    real = plan(capsys, "--against", finished_dataset)["against"]
    assert real["bytes_per_token"]["real"] == 90
    assert real["tokens_per_second"]["real"] == 100
    assert real["device_hours"]["real"] == pytest.approx(10 / 3600)
    assert real["device_hours"]["planned"] == pytest.approx(1000 / real["tokens_per_second"]["planned"] / 3600)


def test_another_gpu_and_an_unknown_teacher_are_given_by_flags(capsys):
    words = [
        "--parameters",
        "7e9",
        "--d-model",
        "4096",
        "--vocab-size",
        "32000",
        "--peak-tflops",
        "100",
        "--mfu",
        "0.4",
    ]
    teacher = plan(capsys, *words)["teacher"]
    assert teacher["flop_per_token"] == 2 * (7e9 + 4096 * 32_000)
    assert teacher["tokens_per_second_per_gpu"] == pytest.approx(0.4 * 100e12 / teacher["flop_per_token"])
