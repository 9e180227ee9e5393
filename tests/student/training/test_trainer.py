"""The trainer: denominators, alpha, precision, evaluation, refusals."""

import math
from collections import Counter

import pytest
import torch
from trainers import metrics, weights
from transformers import TrainerCallback, TrainingArguments

from logitcask.schemas.errors import (
    FingerprintMismatchError,
    NonFiniteError,
    UsageError,
    VocabularyError,
)
from logitcask.student.alpha_schedule import AlphaSchedule
from logitcask.student.data.collator import collate
from logitcask.student.data.dataset import SoftTargetDataset
from logitcask.student.training.batch_loss import soft_target_loss


class Recorder(TrainerCallback):
    """Keeps the gradients of each step."""

    def __init__(self):
        self.gradients = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))


def test_four_windows_at_once_equal_four_accumulated(make_trainer):
    gradients, losses = [], []
    for micro in (1, 2, 4):
        recorder = Recorder()
        trainer = make_trainer(
            f"micro-{micro}", per_device_train_batch_size=micro, gradient_accumulation_steps=4 // micro, max_steps=1,
            max_grad_norm=0.0,
        )  # fmt: skip
        trainer.add_callback(recorder)
        trainer.train()
        gradients.append(recorder.gradients[0])
        losses.append(metrics(trainer)[0]["loss"])
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=1e-6)
    for other in gradients[1:]:
        assert ((other - gradients[0]).norm() / gradients[0].norm()).item() < 1e-6


def test_kl_is_divided_by_targets_and_cross_entropy_by_labels(make_trainer, dataset):
    trainer = make_trainer(per_device_train_batch_size=3, max_steps=1, alpha=0.7)
    batch = collate([dataset[index] for index in trainer.global_batches.micro_batches(0, 0)[0][0].tolist()])
    with torch.no_grad():
        parts = soft_target_loss(
            trainer.model, batch, vocab_size=dataset.vocab_size, kl_weight=1, cross_entropy_weight=1
        )
    num_labels = (batch["labels"] >= 0).sum()
    kl, ce = parts.kl.sum() / len(batch["labels"]), parts.cross_entropy.sum() / num_labels
    trainer.train()
    line = metrics(trainer)[0]
    assert line["loss"] == pytest.approx((0.7 * kl + 0.3 * ce).item(), rel=1e-5)
    assert line["kl_nats"] == pytest.approx(kl.item(), rel=1e-5)
    assert line["cross_entropy_nats"] == pytest.approx(ce.item(), rel=1e-5)
    assert line["tokens"] == batch["num_positions"]


def test_training_brings_the_student_closer_to_its_teacher(make_trainer):
    trainer = make_trainer(max_steps=25, per_device_train_batch_size=4, alpha=1.0, learning_rate=3e-2)
    trainer.train()
    losses = [line["loss"] for line in metrics(trainer) if "loss" in line]
    assert len(losses) == 25
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_alpha_follows_its_schedule(make_trainer):
    trainer = make_trainer(max_steps=3, alpha=AlphaSchedule(shape="linear", alpha=1.0, end=0.0))
    trainer.train()
    lines = [line for line in metrics(trainer) if "loss" in line]
    assert [line["alpha"] for line in lines] == [1.0, 0.5, 0.0]
    for line in lines:
        mixed = line["alpha"] * line["kl_nats"] + (1 - line["alpha"]) * line["cross_entropy_nats"]
        assert line["loss"] == pytest.approx(mixed, rel=1e-5)


def test_a_nan_loss_stops_before_the_step_and_names_the_windows(make_trainer, dataset):
    trainer = make_trainer(per_device_train_batch_size=1, gradient_accumulation_steps=4)
    with torch.no_grad():
        next(trainer.model.parameters())[5] = math.nan
    before = weights(trainer)
    with pytest.raises(NonFiniteError, match=r"the loss is nan on .* no step was taken and there is no") as error:
        trainer.train()
    first = int(trainer.global_batches.micro_batches(0, 0)[0][0, 0])
    assert f"step 1: the loss is nan on {dataset.describe(first)};" in str(error.value)
    for name, tensor in weights(trainer).items():
        torch.testing.assert_close(tensor, before[name], equal_nan=True, rtol=0, atol=0)


def test_an_infinite_gradient_stops_before_the_step_and_names_its_windows(make_trainer, dataset):
    trainer = make_trainer(per_device_train_batch_size=1, gradient_accumulation_steps=4)
    before = weights(trainer)
    calls = iter([math.inf, 1, 1, 1])  # the first of four micro-batches overflows
    next(trainer.model.parameters()).register_hook(lambda gradient: gradient * next(calls))
    windows = trainer.global_batches.windows(0)[0].tolist()
    with pytest.raises(NonFiniteError, match="gradient norm") as error:
        trainer.train()
    assert f" on {', '.join(dataset.describe(window) for window in windows)};" in str(error.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(trainer).items())


def test_with_several_processes_a_message_names_the_process(make_trainer, dataset, monkeypatch):
    trainer = make_trainer()
    monkeypatch.setattr(TrainingArguments, "world_size", 2)
    with pytest.raises(NonFiniteError, match=f"on the windows of process 0 of 2: {dataset.describe(3)};"):
        trainer._require_finite("gradient norm", math.nan, [3])


def test_a_student_with_another_vocabulary_is_refused_naming_both(make_trainer, tokenizer_info):
    with pytest.raises(FingerprintMismatchError, match=f"{'b' * 32}.*{'a' * 32}"):
        make_trainer(tokenizer=tokenizer_info(vocabulary="b" * 32))


def test_a_student_with_another_tokenizer_is_refused(make_trainer, tokenizer_info):
    with pytest.raises(FingerprintMismatchError, match="tokenizer"):
        make_trainer(tokenizer=tokenizer_info(fingerprint="0" * 32))


def test_a_student_with_fewer_ids_than_the_teacher_is_refused(make_trainer, tiny_student):
    with pytest.raises(VocabularyError, match="predicts 47 ids, the shards' teacher 48"):
        make_trainer(model=tiny_student(47))


def test_a_student_with_a_padded_vocabulary_trains(make_trainer, tiny_student):
    model = tiny_student(64)
    padding = model.get_output_embeddings().weight[48:].detach().clone()
    trainer = make_trainer(model=model, max_steps=2)
    trainer.train()
    assert torch.equal(trainer.model.get_output_embeddings().weight[48:], padding)


@pytest.mark.parametrize("alpha", [-0.1, 1.1])
def test_an_alpha_outside_zero_to_one_is_refused(make_trainer, alpha):
    with pytest.raises(UsageError, match="alpha"):
        make_trainer(alpha=alpha)


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_weights(make_trainer):
    losses = []
    for bf16 in (False, True):
        trainer = make_trainer(f"bf16-{bf16}", bf16=bf16, max_steps=1, per_device_train_batch_size=4)
        trainer.train()
        losses.append(metrics(trainer)[0]["loss"])
        assert all(parameter.dtype == torch.float32 for parameter in trainer.model.parameters())
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_activation_checkpointing_computes_twice_and_changes_no_gradient(make_trainer):
    found, runs = [], Counter()
    for name, checkpointing in (("plain", False), ("checkpointed", True)):
        trainer = make_trainer(name, max_steps=1, activation_checkpointing=checkpointing)
        mlp = trainer.model.get_submodule("model.layers.0.mlp")
        mlp.register_forward_pre_hook(lambda *_, name=name: runs.update([name]))
        trainer.train()
        found.append(weights(trainer))
    assert runs == {"plain": 1, "checkpointed": 2}
    for name, tensor in found[0].items():
        torch.testing.assert_close(tensor, found[1][name])


def test_evaluation_during_training_is_logged(make_trainer, dataset_url):
    trainer = make_trainer(max_steps=2)
    trainer.eval_dataset = SoftTargetDataset(dataset_url, "held-out")
    found = trainer.evaluate()
    assert found["eval_num_windows"] == 3
    assert found["eval_kl_nats"] > 0
