"""Training with a live teacher: with the scheme of the shards, losses are equal within quantization."""

import json
from dataclasses import replace

import pytest
from transformers import TrainingArguments

from logitcask.schemas.errors import UsageError, VocabularyError
from logitcask.student.data.dataset import SoftTargetDataset
from logitcask.student.losses.loss_settings import LossSettings
from logitcask.student.model.load import load_student
from logitcask.student.online.teacher import LiveTeacher
from logitcask.student.online.trainer import FullDistillationTrainer, LiveTargetsTrainer
from logitcask.student.training.trainer import SoftTargetTrainer
from logitcask.teacher.scoring.protocol import ScorerSpec
from logitcask.teacher.scoring.registry import load_scorer
from logitcask.teacher.text.tokenizers import load_tokenizer


@pytest.fixture
def train(dataset_url, pruned_student, tiny_teacher, tmp_path):
    """`train(trainer class, **options)`: three steps; the trainer and the losses."""

    def run(trainer_class=SoftTargetTrainer, alpha=0.8, **options):
        directory = tmp_path / trainer_class.__name__
        trainer = trainer_class(
            load_student(pruned_student),
            TrainingArguments(
                output_dir=str(directory), max_steps=3, per_device_train_batch_size=2, learning_rate=1e-3,
                logging_steps=1, report_to="none", use_cpu=True, disable_tqdm=True, save_strategy="no",
            ),
            train_dataset=SoftTargetDataset(dataset_url),
            alpha=alpha,
            tokenizer=load_tokenizer(tiny_teacher).info,
            **options,
        )  # fmt: skip
        trainer.train()
        lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
        return trainer, [line for line in lines if "loss" in line]

    return run


def test_a_live_teacher_with_the_shards_scheme_gives_their_losses(train, tiny_teacher, scheme):
    _, cached = train()
    spec = ScorerSpec(reference=str(tiny_teacher), device="cpu", dtype="float32", scheme=scheme)
    _, live = train(LiveTargetsTrainer, scorer=load_scorer(spec))
    # Slightly: the stored targets were quantized.
    assert live[0]["kl_nats"] != cached[0]["kl_nats"]
    # A quantized target differs by 1e-4 nats of KL on average (FORMAT.md).
    assert [line["loss"] for line in live] == pytest.approx([line["loss"] for line in cached], rel=2e-3)


def test_the_full_kl_is_above_the_lower_bound_of_the_buckets(train, tiny_teacher):
    _, cached = train(alpha=1.0)
    _, full = train(FullDistillationTrainer, alpha=1.0, teacher=LiveTeacher.load(tiny_teacher, "float32", "cpu"))
    assert all(line["full_kl_nats"] == pytest.approx(line["loss"], rel=1e-5) for line in full)
    assert full[0]["full_kl_nats"] > cached[0]["kl_nats"]


def test_full_distillation_refuses_other_losses(train, tiny_teacher):
    with pytest.raises(UsageError, match="--online-targets stored"):
        train(FullDistillationTrainer, loss=LossSettings(tail="residual"), teacher=LiveTeacher.load(tiny_teacher))


def test_a_live_teacher_of_another_size_is_refused(dataset_url, tiny_teacher, train):
    teacher = LiveTeacher.load(tiny_teacher, "float32", "cpu")
    teacher._head = replace(teacher._head, weight=teacher._head.weight[:990])
    with pytest.raises(VocabularyError, match="990 ids, the dataset's 1000"):
        train(FullDistillationTrainer, teacher=teacher)
