"""Two processes on one machine take the same steps as one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

pytestmark = pytest.mark.slow


def train(num_processes: int, dataset: str, student: Path, run: Path) -> dict[str, torch.Tensor]:
    """Two steps of four windows by `logitcask train`, over so many gloo processes; the weights."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}",
               "--no-python", str(Path(sys.executable).with_name("logitcask")), "train", dataset,
               "--student", str(student), "--out", str(run), "--steps", "2", "--batch-windows", "4",
               "--alpha", "0.7", "--device", "cpu"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("student:") == 1
    return AutoModelForCausalLM.from_pretrained(run / "student").state_dict()


def test_two_processes_give_the_steps_of_one(dataset_url, student_directory, tmp_path):
    one = train(1, dataset_url, student_directory, tmp_path / "one")
    two = train(2, dataset_url, student_directory, tmp_path / "two")
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-4, rtol=1e-4)
    losses, evaluations = [], []
    for run in (tmp_path / "one", tmp_path / "two"):
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        losses += [line[name] for line in lines if "loss" in line for name in ("loss", "kl_nats", "tokens")]
        evaluations.append(json.loads((run / "results.json").read_text())["held_out"])
    assert losses[: len(losses) // 2] == pytest.approx(losses[len(losses) // 2 :], rel=1e-5)
    for when in ("before", "after"):
        assert evaluations[0][when] == pytest.approx(evaluations[1][when], rel=1e-4)
