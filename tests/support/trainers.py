"""What trainer tests read of a trainer and its directory."""

import json
from pathlib import Path

import torch

from logitcask.student.training.trainer import SoftTargetTrainer


def weights(trainer: SoftTargetTrainer) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in trainer.model.state_dict().items()}


def metrics(trainer: SoftTargetTrainer) -> list[dict]:
    return [json.loads(line) for line in (Path(trainer.args.output_dir) / "metrics.jsonl").read_text().splitlines()]
