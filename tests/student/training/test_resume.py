"""Resumption: equal steps, complete checkpoints, and the settings that must not change."""

import json
import math
from pathlib import Path

import peft
import pytest
import torch
from trainers import metrics, weights
from transformers import TrainerCallback, TrainingArguments

from logitcask.schemas.errors import (
    ConfigurationMismatchError,
    NonFiniteError,
)
from logitcask.student.alpha_schedule import AlphaSchedule
from logitcask.student.data.dataset import SoftTargetDataset
from logitcask.student.data.mixture import MixedDataset
from logitcask.student.losses.loss_settings import LossSettings
from logitcask.student.training.checkpoint_files import STATE_NAME
from logitcask.student.training.trainer import SoftTargetTrainer


def test_resuming_gives_bit_equal_weights(make_trainer):
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
        # The optimizer's state would restore the old values.
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
def test_resuming_with_another_order_loss_or_optimizer_is_refused(make_trainer, begun, changes, message):
    other = make_trainer(**{"per_device_train_batch_size": 8, "lr_scheduler_type": "constant", **changes})
    with pytest.raises(ConfigurationMismatchError, match=message):
        other.train(resume_from_checkpoint=str(begun / "checkpoint-2"))


def test_a_checkpoint_with_an_old_option_value_resumes(make_trainer):
    settings = {"save_strategy": "steps", "save_steps": 1, "lr_scheduler_type": "constant"}
    make_trainer(max_steps=1, loss=LossSettings(tail="renormalize"), **settings).train()
    trainer = make_trainer(max_steps=2, loss=LossSettings(tail="renormalize"), **settings)
    path = trainer.run_directory / "checkpoint-1" / STATE_NAME
    state = json.loads(path.read_text())
    state = {name: value for name, value in state.items() if name not in ("files", "digest")}
    path.write_text(json.dumps({**state, "loss": {**state["loss"], "tail": "renormalise"}}))
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 2


def test_a_constant_alpha_and_learning_rate_allow_a_longer_run(make_trainer, begun):
    longer = make_trainer(max_steps=3, per_device_train_batch_size=8, lr_scheduler_type="constant")
    longer.train(resume_from_checkpoint=str(begun / "checkpoint-2"))
    assert longer.state.global_step == 3


FALLS_AT_THE_END = {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 1}}


@pytest.mark.parametrize(
    "course", [{"lr_scheduler_type": "cosine"}, FALLS_AT_THE_END, {"alpha": AlphaSchedule(shape="linear")}]
)
def test_a_run_whose_steps_depend_on_its_length_is_not_extended(make_trainer, course):
    settings = {"save_strategy": "steps", "save_steps": 1, "lr_scheduler_type": "constant", **course}
    make_trainer(max_steps=1, **settings).train()
    with pytest.raises(ConfigurationMismatchError, match=r"begun with 1 steps; with 2, its schedule has another shape"):
        make_trainer(max_steps=2, **settings).train(resume_from_checkpoint=True)


def test_a_run_can_be_extended_before_its_learning_rate_decays(make_trainer):
    settings = {"save_strategy": "steps", "save_steps": 1, **FALLS_AT_THE_END}
    short, whole = make_trainer("short", max_steps=2, **settings), make_trainer("whole", max_steps=3, **settings)
    short.train()
    whole.train()
    resumed = make_trainer("resumed", max_steps=3, **settings)
    resumed.train(resume_from_checkpoint=str(short.run_directory / "checkpoint-1"))
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(resumed)[name]), name


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


def test_a_run_stopped_by_a_nan_resumes_from_its_last_checkpoint(make_trainer):
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    stopped = make_trainer("stopped", **settings)

    class NanWeights(TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **kwargs):
            if state.global_step == 2:
                with torch.no_grad():
                    next(model.parameters())[5] = math.nan

    stopped.add_callback(NanWeights())
    with pytest.raises(NonFiniteError, match=r"step 3: .* the last checkpoint is good \(.*stopped/checkpoint-2\);"):
        stopped.train()
    assert [path.name for path in stopped.run_directory.glob("checkpoint-*")] == ["checkpoint-2"]
    whole, resumed = make_trainer("whole", **settings), make_trainer("stopped", **settings)
    whole.train()
    resumed.train(resume_from_checkpoint=True)
    assert all(torch.equal(tensor, weights(resumed)[name]) for name, tensor in weights(whole).items())


def test_adapters_with_dropout_resume_to_the_same_weights_on_the_same_base(make_trainer, tiny_student):
    def trainer(name: str, seed: int = 0, rank: int = 3) -> SoftTargetTrainer:
        config = peft.LoraConfig(r=rank, lora_dropout=0.3, target_modules="all-linear", task_type="CAUSAL_LM")
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = peft.get_peft_model(tiny_student(seed=seed), config)
        return make_trainer(name, model=model, max_steps=4, save_strategy="steps", save_steps=2)

    whole = trainer("whole")
    whole.train()
    resumed = trainer("whole")
    checkpoint = whole.run_directory / "checkpoint-2"
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert all(torch.equal(tensor, weights(resumed)[name]) for name, tensor in weights(whole).items())
    assert (checkpoint / "adapter_model.safetensors").is_file()
    assert not (checkpoint / "model.safetensors").exists()
    with pytest.raises(ConfigurationMismatchError, match=r"base \(was sha256:.*, now sha256:"):
        trainer("whole", seed=1).train(resume_from_checkpoint=True)
    with pytest.raises(ConfigurationMismatchError, match=r"adapters \(was .*'r': 3.*'r': 4"):
        trainer("whole", rank=4).train(resume_from_checkpoint=True)
