"""The trainer: denominators, alpha, precision, evaluation, refusals."""

import dataclasses
import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from random_shards import random_targets, random_windows
from trainers import metrics, weights
from transformers import AutoModelForCausalLM, MixtralConfig, TrainerCallback, TrainingArguments

from logitcask.schemas.dataset.dataset_writer import DatasetWriter
from logitcask.schemas.errors import (
    FingerprintMismatchError,
    NonFiniteError,
    UsageError,
    VocabularyError,
)
from logitcask.schemas.format.targets import Kind
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


@pytest.fixture
def mostly_prompts(dataset, tmp_path):
    """`mostly_prompts(num)`: the URL of a dataset of six windows; `num` of them are prompts alone."""

    def write(num: int) -> str:
        rng = np.random.default_rng(0)
        windows = random_windows(rng, [24] * 6, ids=range(46), longest_part=12)
        kind = windows.kind.copy()
        kind[: 24 * num] = Kind.PROMPT
        windows = dataclasses.replace(windows, kind=kind)
        writer = DatasetWriter(str(tmp_path / f"prompts-{num}"), dataset.snapshot.identity)
        writer.write(windows, random_targets(rng, windows, 48, widths=range(5, 6)), split="train")
        return writer.finish().url

    return write


def test_windows_without_target_take_no_step_and_are_counted(make_trainer, mostly_prompts, capsys):
    trainer = make_trainer(
        train_dataset=SoftTargetDataset(mostly_prompts(4)), max_steps=-1, num_train_epochs=2,
        per_device_train_batch_size=1,
    )  # fmt: skip
    assert "4 of 6 windows have no target and are left out of training" in capsys.readouterr().err
    trainer.train()
    losses = [line["loss"] for line in metrics(trainer) if "loss" in line]
    assert len(losses) == 4  # two epochs of two windows
    assert all(loss > 0 for loss in losses)
    assert trainer.identity()["num_windows"] == [2]


def test_a_dataset_without_any_target_is_refused(make_trainer, mostly_prompts):
    with pytest.raises(UsageError, match="none of the 6 windows of the split 'train' has a target"):
        make_trainer(train_dataset=SoftTargetDataset(mostly_prompts(6)))


def test_a_saved_student_has_no_probability_on_ids_the_teacher_lacks(make_trainer, tiny_student, tmp_path, capsys):
    trainer = make_trainer(model=tiny_student(64), max_steps=2, save_strategy="steps", save_steps=1)
    assert "the student predicts 16 ids more than the teacher's 48" in capsys.readouterr().err
    trainer.train()
    trainer.save_model(str(tmp_path / "student"))
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "student").eval()
    evaluation = trainer.evaluate_on(trainer.train_dataset)
    loss, count = 0.0, 0
    for index in range(len(trainer.train_dataset)):
        windows = trainer.train_dataset[index].windows
        starts = [*np.flatnonzero(windows.part_starts()).tolist(), windows.num_positions]
        for start, stop in itertools.pairwise(starts):
            ids = torch.from_numpy(windows.token[start:stop].astype(np.int64))
            with torch.no_grad():
                log_probs = saved(input_ids=ids[None]).logits[0].log_softmax(-1)
            rows = np.flatnonzero(windows.has_label()[start:stop])
            loss -= log_probs[rows, ids[rows + 1]].sum().item()
            count += len(rows)
    assert loss / count == pytest.approx(evaluation.loss_nats, rel=1e-4)
    with_padding = AutoModelForCausalLM.from_pretrained(trainer.run_directory / "checkpoint-2")
    assert with_padding.config.vocab_size == 64


def test_experts_get_their_auxiliary_loss_as_a_mean_over_micro_batches(make_trainer):
    def first_loss(coefficient: float, accumulation: int) -> float:
        config = MixtralConfig(
            vocab_size=48, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, num_local_experts=4, num_experts_per_tok=1, output_router_logits=True,
            router_aux_loss_coef=coefficient, pad_token_id=0, bos_token_id=2, eos_token_id=1,
        )  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(config)
        trainer = make_trainer(
            f"experts-{coefficient}-{accumulation}", model=model, max_steps=1, gradient_accumulation_steps=accumulation,
            per_device_train_batch_size=4 // accumulation,
        )  # fmt: skip
        trainer.train()
        return metrics(trainer)[0]["loss"]

    added = {steps: first_loss(1.0, steps) - first_loss(0.0, steps) for steps in (1, 4)}
    assert 1 <= added[1] < 4  # between perfect balance and one expert for all
    assert added[4] == pytest.approx(added[1], rel=0.3)
