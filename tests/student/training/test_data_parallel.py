"""Two processes on one machine take the same steps as one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from logitcask.student.model.student_card import StudentCard

pytestmark = pytest.mark.slow


def train(num_processes: int, dataset: str, student: Path, run: Path, *more: str) -> dict[str, torch.Tensor]:
    """The weights after two steps of four windows by `logitcask train`, over `num_processes` gloo processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}",
               "--no-python", str(Path(sys.executable).with_name("logitcask")), "train", dataset,
               "--student", str(student), "--out", str(run), "--steps", "2", "--batch-windows", "4",
               "--alpha", "0.7", "--device", "cpu", *more]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("student:") == 1
    return AutoModelForCausalLM.from_pretrained(run / "student").state_dict()


@pytest.fixture(scope="module")
def student(tmp_path_factory, tiny_student, tokenizer_info) -> Path:
    directory = tmp_path_factory.mktemp("student")
    tiny_student().save_pretrained(directory)
    StudentCard(tokenizer=tokenizer_info(), initialisation={"method": "scratch"}).write(directory)
    return directory


@pytest.fixture(scope="module")
def alone(dataset_url, student, tmp_path_factory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A run of one process with a checkpoint after its first step, and its weights."""
    run = tmp_path_factory.mktemp("alone") / "run"
    return run, train(1, dataset_url, student, run, "--save-every", "1")


@pytest.mark.parametrize("flags", [[], ["--fsdp"]], ids=["DDP", "FSDP"])
def test_two_processes_take_the_same_steps_as_one(dataset_url, student, alone, tmp_path, flags):
    first, one = alone
    two = train(2, dataset_url, student, tmp_path / "two", *flags)
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-4, rtol=1e-4)
    losses, evaluations = [], []
    for run in (first, tmp_path / "two"):
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        # The gradient's norm too: clipped gradients and AdamW's steps hide a wrong scale.
        names = ("loss", "kl_nats", "tokens", "grad_norm")
        losses += [line[name] for line in lines if "loss" in line for name in names]
        evaluations.append(json.loads((run / "results.json").read_text())["held_out"])
        for when in ("before", "after"):
            assert evaluations[-1][when].pop("full_kl_nats") is None
    assert losses[: len(losses) // 2] == pytest.approx(losses[len(losses) // 2 :], rel=1e-5)
    for when in ("before", "after"):
        assert evaluations[0][when] == pytest.approx(evaluations[1][when], rel=1e-4)


def test_a_run_of_one_process_resumes_with_two(dataset_url, student, alone, tmp_path):
    first, one = alone
    run = tmp_path / "run"
    shutil.copytree(first, run)
    assert_resumes_after_step_1(run, one, dataset_url, student)


def test_a_sharded_run_resumes_from_its_checkpoint(dataset_url, student, alone, tmp_path):
    train(2, dataset_url, student, tmp_path / "run", "--fsdp", "--save-every", "1")
    assert_resumes_after_step_1(tmp_path / "run", alone[1], dataset_url, student, "--fsdp")


def assert_resumes_after_step_1(run: Path, whole: dict[str, torch.Tensor], dataset: str, student: Path, *more: str):
    shutil.rmtree(run / "checkpoint-2")
    shutil.rmtree(run / "student")
    resumed = train(2, dataset, student, run, "--save-every", "1", "--resume", *more)
    for name, tensor in whole.items():
        torch.testing.assert_close(resumed[name], tensor, atol=1e-4, rtol=1e-4)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2]
