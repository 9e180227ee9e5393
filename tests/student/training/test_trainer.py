"""The trainer: denominators, masks, order, resumption, refusals."""

import json
import math
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import TrainerCallback, TrainingArguments

from logitcask.schemas.errors import (
    ConfigurationMismatchError,
    CorruptShardError,
    FingerprintMismatchError,
    NonFiniteError,
    UsageError,
    VocabularyError,
)
from logitcask.student.alpha_schedule import AlphaSchedule
from logitcask.student.data.collator import collate, targets_of
from logitcask.student.data.dataset import SoftTargetDataset
from logitcask.student.data.mixture import MixedDataset
from logitcask.student.losses.loss_settings import LossSettings
from logitcask.student.losses.truncated_kl import truncated_kl
from logitcask.student.model.projection import hidden_states
from logitcask.student.training import resume
from logitcask.student.training.batch_loss import soft_target_loss
from logitcask.student.training.trainer import SoftTargetTrainer


@pytest.fixture
def dataset(dataset_url) -> SoftTargetDataset:
    return SoftTargetDataset(dataset_url)


@pytest.fixture
def make_trainer(dataset, tiny_student, tokenizer_info, tmp_path):
    """`make_trainer(name, alpha=…, model=…, **training_arguments)`: a trainer in a directory of its own."""

    def make(
        name="run", *, alpha=0.7, loss=None, shuffle_windows=None, model=None, train_dataset=None, tokenizer=None,
        **arguments,
    ):  # fmt: skip
        settings = {
            "max_steps": 2,
            "save_strategy": "no",
            "logging_steps": 1,
            "learning_rate": 1e-2,
            "weight_decay": 0.0,
        }
        return SoftTargetTrainer(
            model or tiny_student(),
            TrainingArguments(
                output_dir=str(tmp_path / name), report_to="none", disable_tqdm=True, use_cpu=True,
                **{**settings, **arguments},
            ),
            train_dataset=train_dataset or dataset,
            alpha=alpha,
            loss=loss,
            shuffle_windows=shuffle_windows,
            tokenizer=tokenizer or tokenizer_info(),
        )  # fmt: skip

    return make


def weights(trainer: SoftTargetTrainer) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in trainer.model.state_dict().items()}


def metrics(trainer: SoftTargetTrainer) -> list[dict]:
    return [json.loads(line) for line in (Path(trainer.args.output_dir) / "metrics.jsonl").read_text().splitlines()]


class Recorder(TrainerCallback):
    """Keeps the gradients of each step."""

    def __init__(self):
        self.gradients = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))


def test_parts_of_a_window_give_the_hidden_states_they_give_alone(dataset, tiny_student):
    model = tiny_student().eval()
    batch = collate([dataset[0], dataset[2]])
    whole = hidden_states(model, batch["input_ids"], batch["position_ids"])
    for row, index in enumerate((0, 2)):
        starts = dataset[index].windows.part_starts().nonzero()[0].tolist()
        edges = [*starts, dataset[index].windows.num_positions]
        for start, stop in pairwise(edges):
            ids = batch["input_ids"][row : row + 1, start:stop]
            alone = hidden_states(model, ids, torch.arange(stop - start).unsqueeze(0))
            torch.testing.assert_close(whole[row, start:stop], alone[0], atol=1e-5, rtol=1e-5)


def test_the_loss_equals_the_plain_losses_of_the_models_own_logits(dataset, tiny_student):
    model, batch = tiny_student(), collate([dataset[0], dataset[3]])
    ours = soft_target_loss(model, batch, vocab_size=dataset.vocab_size, kl_weight=0.3, cross_entropy_weight=0.7).loss
    logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
    scored = logits.flatten(0, 1)[batch["scored_rows"]]
    kl = truncated_kl(scored, targets_of(batch, dataset.vocab_size)).sum()
    ce = cross_entropy(scored, batch["labels"], reduction="sum")
    torch.testing.assert_close(ours, 0.3 * kl + 0.7 * ce)
    parameters = list(model.parameters())
    plain = torch.autograd.grad(0.3 * kl + 0.7 * ce, parameters)
    for got, want in zip(torch.autograd.grad(ours, parameters), plain, strict=True):
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


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


def test_resuming_gives_bitwise_the_weights_of_an_uninterrupted_run(make_trainer):
    settings = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "per_device_train_batch_size": 2}
    whole = make_trainer("whole", **settings)
    whole.train()
    resumed = make_trainer("resumed", model=None, **settings)
    resumed.train(resume_from_checkpoint=str(Path(whole.args.output_dir) / "checkpoint-3"))
    assert resumed.state.global_step == 6
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(resumed)[name]), name
    tail = [(line["step"], line["loss"]) for line in metrics(whole) if line["step"] > 3 and "loss" in line]
    assert [(line["step"], line["loss"]) for line in metrics(resumed) if "loss" in line] == tail


def test_a_resumed_run_drops_the_metrics_of_steps_it_takes_again(make_trainer):
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    make_trainer("run", **settings).train()
    trainer = make_trainer("run", **settings)
    with (Path(trainer.args.output_dir) / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # a kill in the middle of a line
    (Path(trainer.args.output_dir) / "checkpoint-4" / resume.STATE_NAME).unlink()
    trainer.train(resume_from_checkpoint=True)
    assert [line["step"] for line in metrics(trainer) if "loss" in line] == [1, 2, 3, 4]


def test_a_checkpoint_that_was_cut_short_is_passed_over(make_trainer):
    trainer = make_trainer(max_steps=4, save_strategy="steps", save_steps=2)
    trainer.train()
    run = Path(trainer.args.output_dir)
    assert resume.last_checkpoint(run) == str(run / "checkpoint-4")
    (run / "checkpoint-4" / resume.STATE_NAME).unlink()
    assert resume.last_checkpoint(run) == str(run / "checkpoint-2")
    with pytest.raises(CorruptShardError, match="incomplete checkpoint"):
        trainer.train(resume_from_checkpoint=str(run / "checkpoint-4"))


@pytest.fixture(scope="module")
def begun(dataset_url, tiny_student, tokenizer_info, tmp_path_factory) -> Path:
    """The directory of a run with a checkpoint after its first step."""
    directory = tmp_path_factory.mktemp("begun")
    arguments = TrainingArguments(
        output_dir=str(directory), max_steps=2, save_strategy="steps", save_steps=1, save_total_limit=1,
        learning_rate=1e-2, lr_scheduler_type="constant", report_to="none", disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    SoftTargetTrainer(
        tiny_student(), arguments, train_dataset=SoftTargetDataset(dataset_url), alpha=0.7, tokenizer=tokenizer_info()
    ).train()
    return directory


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 9}, r"seed \(was 42, now 9\)"),
        ({"per_device_train_batch_size": 4}, r"batch_size_windows \(was 8, now 4\)"),
        ({"alpha": 0.9}, r"alpha \(was .*0\.7.*0\.9"),
        ({"alpha": AlphaSchedule(shape="linear", alpha=0.7)}, r"alpha \(was .*constant.*linear"),
        ({"loss": LossSettings(tail="renormalize")}, r"loss \(was .*other.*renormalize"),
        ({"shuffle_windows": 8}, r"shuffle_windows \(was None, now 8\)"),
        # The optimiser's state would bring the old ones back.
        ({"learning_rate": 0.5}, r"settings: learning_rate \(was 0.01, now 0.5\);"),
        ({"weight_decay": 0.3}, r"settings: weight_decay \(was 0.0, now 0.3\);"),
        ({"warmup_steps": 2}, r"settings: warmup_steps \(was 0, now 2\);"),
        ({"lr_scheduler_type": "linear"}, r"lr_scheduler_type \(was constant, now linear\);"),
        (
            {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 1}},
            r"lr_scheduler_kwargs \(was {}, now {'num_decay_steps': 1}\)",
        ),
    ],
)
def test_resuming_with_another_order_loss_or_optimiser_is_refused(make_trainer, begun, changes, message):
    other = make_trainer(**{"per_device_train_batch_size": 8, "lr_scheduler_type": "constant", **changes})
    with pytest.raises(ConfigurationMismatchError, match=message):
        other.train(resume_from_checkpoint=str(begun / "checkpoint-2"))


def test_a_constant_alpha_and_learning_rate_let_a_run_go_on_for_longer(make_trainer, begun):
    longer = make_trainer(max_steps=3, per_device_train_batch_size=8, lr_scheduler_type="constant")
    longer.train(resume_from_checkpoint=str(begun / "checkpoint-2"))
    assert longer.state.global_step == 3


FALLS_AT_THE_END = {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 1}}


@pytest.mark.parametrize(
    "course", [{"lr_scheduler_type": "cosine"}, FALLS_AT_THE_END, {"alpha": AlphaSchedule(shape="linear")}]
)
def test_a_run_whose_steps_knew_its_end_does_not_go_on_for_longer(make_trainer, course):
    settings = {"save_strategy": "steps", "save_steps": 1, "lr_scheduler_type": "constant", **course}
    make_trainer(max_steps=1, **settings).train()
    with pytest.raises(ConfigurationMismatchError, match=r"settings: num_steps \(was 1, now 2\);"):
        make_trainer(max_steps=2, **settings).train(resume_from_checkpoint=True)


def test_a_run_goes_on_for_longer_from_before_its_learning_rate_fell(make_trainer):
    settings = {"save_strategy": "steps", "save_steps": 1, **FALLS_AT_THE_END}
    short, whole = make_trainer("short", max_steps=2, **settings), make_trainer("whole", max_steps=3, **settings)
    short.train()
    whole.train()
    resumed = make_trainer("resumed", max_steps=3, **settings)
    resumed.train(resume_from_checkpoint=str(short.run_directory / "checkpoint-1"))
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(resumed)[name]), name


def test_alpha_follows_its_schedule(make_trainer):
    trainer = make_trainer(max_steps=3, alpha=AlphaSchedule(shape="linear", alpha=1.0, end=0.0))
    trainer.train()
    lines = [line for line in metrics(trainer) if "loss" in line]
    assert [line["alpha"] for line in lines] == [1.0, 0.5, 0.0]
    for line in lines:
        mixed = line["alpha"] * line["kl_nats"] + (1 - line["alpha"]) * line["cross_entropy_nats"]
        assert line["loss"] == pytest.approx(mixed, rel=1e-5)


def test_a_mixture_trains_and_resumes_like_a_single_dataset(make_trainer, dataset_url, write_dataset, tmp_path):
    parts = [dataset_url, write_dataset(tmp_path / "other", {"train": [3]}, seed=5)]
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "per_device_train_batch_size": 2}

    def mixed(name: str) -> SoftTargetTrainer:
        datasets = MixedDataset([SoftTargetDataset(url) for url in parts], [2.0, 1.0])
        return make_trainer(name, train_dataset=datasets, **settings)

    whole, resumed = mixed("whole"), mixed("resumed")
    whole.train()
    resumed.train(resume_from_checkpoint=str(Path(whole.args.output_dir) / "checkpoint-2"))
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(resumed)[name]), name


def test_a_loss_that_is_not_finite_stops_before_the_step_and_names_the_windows(make_trainer, dataset):
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


def test_a_run_that_stopped_keeps_its_last_checkpoint_good(make_trainer):
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    stopped = make_trainer("stopped", **settings)

    class Poison(TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **kwargs):
            if state.global_step == 2:
                with torch.no_grad():
                    next(model.parameters())[5] = math.nan

    stopped.add_callback(Poison())
    with pytest.raises(NonFiniteError, match=r"step 3: .* the last checkpoint is good \(.*stopped/checkpoint-2\);"):
        stopped.train()
    assert [path.name for path in stopped.run_directory.glob("checkpoint-*")] == ["checkpoint-2"]
    whole, resumed = make_trainer("whole", **settings), make_trainer("stopped", **settings)
    whole.train()
    resumed.train(resume_from_checkpoint=True)
    assert all(torch.equal(tensor, weights(resumed)[name]) for name, tensor in weights(whole).items())


def test_a_gradient_that_is_not_finite_stops_before_the_step_and_names_all_windows_of_the_step(make_trainer, dataset):
    trainer = make_trainer(per_device_train_batch_size=1, gradient_accumulation_steps=4)
    before = weights(trainer)
    calls = iter([math.inf, 1, 1, 1])  # the first of four micro-batches overflows
    next(trainer.model.parameters()).register_hook(lambda gradient: gradient * next(calls))
    windows = trainer.global_batches.windows(0)[0].tolist()
    with pytest.raises(NonFiniteError, match="gradient norm") as error:
        trainer.train()
    assert f" on {', '.join(dataset.describe(window) for window in windows)};" in str(error.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(trainer).items())


def test_beside_other_processes_a_message_says_whose_windows_it_names(make_trainer, dataset, monkeypatch):
    trainer = make_trainer()
    monkeypatch.setattr(TrainingArguments, "world_size", 2)
    with pytest.raises(NonFiniteError, match=f"on the windows of process 0 of 2: {dataset.describe(3)};"):
        trainer._require_finite("gradient norm", math.nan, [3])


def test_a_student_with_another_vocabulary_is_refused_and_both_are_named(make_trainer, tokenizer_info):
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


@pytest.mark.parametrize("setting", [{"label_smoothing_factor": 0.1}, {"auto_find_batch_size": True}])
def test_training_arguments_that_cannot_hold_are_refused(make_trainer, setting):
    with pytest.raises(UsageError, match=next(iter(setting))):
        make_trainer(**setting)


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_weights(make_trainer):
    losses = []
    for bf16 in (False, True):
        trainer = make_trainer(f"bf16-{bf16}", bf16=bf16, max_steps=1, per_device_train_batch_size=4)
        trainer.train()
        losses.append(metrics(trainer)[0]["loss"])
        assert all(parameter.dtype == torch.float32 for parameter in trainer.model.parameters())
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_without_max_steps_the_epochs_set_them(make_trainer):
    trainer = make_trainer(max_steps=-1, num_train_epochs=2, per_device_train_batch_size=5)
    assert trainer.args.max_steps == 5  # 24 windows in batches of 5


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
