"""The best checkpoint and early stopping: names that `Trainer` users type, and which way is better."""

import pytest
import torch
from trainers import metrics
from transformers import EarlyStoppingCallback, TrainingArguments

from logitcask.schemas.errors import UsageError
from logitcask.student.data.collator import collate
from logitcask.student.data.dataset import SoftTargetDataset
from logitcask.student.losses.loss_settings import LossSettings
from logitcask.student.training.best_metric import settle_best_metric
from logitcask.student.training.trainer import SoftTargetTrainer

LOWER = [
    "loss",
    "eval_loss",
    "kl_nats",
    "eval_kl_nats",
    "loss_nats",
    "perplexity",
    "calibration_error",
    "divergence_nats",
]
GREATER = ["top1_agreement", "eval_teacher_agreement"]


@pytest.mark.parametrize(("name", "greater"), [*((name, False) for name in LOWER), *((name, True) for name in GREATER)])
def test_lower_is_better_except_for_agreement(tmp_path, name, greater):
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, metric_for_best_model=name)
    settle_best_metric(args, "kl_nats")
    assert args.greater_is_better is greater


def test_a_metric_that_no_evaluation_has_is_refused(tmp_path):
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, metric_for_best_model="eval_accuracy")
    with pytest.raises(UsageError, match=r"'eval_accuracy' is not a value of an evaluation; choose one of .*kl_nats"):
        settle_best_metric(args, "kl_nats")


@pytest.fixture
def evaluated(dataset_url, tiny_student, tokenizer_info, tmp_path):
    """`evaluated(loss=…, **training_arguments)`: a trainer that evaluates and saves at each step; it gets worse."""

    def make(loss=None, **arguments) -> SoftTargetTrainer:
        settings = {"max_steps": 3, "learning_rate": 3.0, "eval_strategy": "steps", "save_strategy": "steps"}
        return SoftTargetTrainer(
            tiny_student(),
            TrainingArguments(
                output_dir=str(tmp_path / "run"), report_to="none", use_cpu=True, disable_tqdm=True, logging_steps=1,
                eval_steps=1, save_steps=1, **settings, **arguments,
            ),
            train_dataset=SoftTargetDataset(dataset_url), eval_dataset=SoftTargetDataset(dataset_url, "held-out"),
            alpha=0.7, loss=loss, tokenizer=tokenizer_info(),
        )  # fmt: skip

    return make


@pytest.mark.parametrize("name", [None, "eval_kl_nats"])
def test_the_best_model_is_loaded_at_the_end(evaluated, name):
    trainer = evaluated(load_best_model_at_end=True, metric_for_best_model=name)
    trainer.train()
    key = name or "eval_loss"
    values = {line["step"]: line[key] for line in metrics(trainer) if key in line}
    best = min(values, key=values.__getitem__)
    assert trainer.state.best_metric == values[best]
    assert trainer.state.best_model_checkpoint == str(trainer.run_directory / f"checkpoint-{best}")
    assert trainer.evaluate()[key] == pytest.approx(values[best], rel=1e-6)


def test_training_stops_early_when_the_loss_no_longer_falls(evaluated):
    trainer = evaluated(load_best_model_at_end=True)
    trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=1))
    trainer.train()
    losses = [line["eval_loss"] for line in metrics(trainer) if "eval_loss" in line]
    rises = [step for step in range(1, len(losses)) if losses[step] >= min(losses[:step])]
    assert rises
    assert trainer.state.global_step == rises[0] + 1


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        (None, "kl_nats"),
        (LossSettings(divergence="reverse"), "reverse_kl_nats"),
        (LossSettings(divergence="jsd"), "jsd_nats"),
        (LossSettings(tail="raw"), "raw_kl_nats"),
    ],
)
def test_the_held_out_loss_is_the_one_that_training_minimizes(evaluated, loss, name):
    trainer = evaluated(loss=loss)
    found = trainer.evaluate()
    assert found["eval_loss"] == pytest.approx(0.7 * found[f"eval_{name}"] + 0.3 * found["eval_loss_nats"])
    windows = collate([trainer.eval_dataset[index] for index in range(len(trainer.eval_dataset))])
    with torch.no_grad():
        rows = trainer.batch_loss(trainer.model, windows, torch.tensor(1.0).double(), torch.tensor(0.0).double()).kl
    assert found[f"eval_{name}"] == pytest.approx(rows.mean().item(), rel=1e-5)
