"""A trainer on the small dataset."""

import pytest
from transformers import TrainingArguments

from logitcask.student.data.dataset import SoftTargetDataset
from logitcask.student.training.trainer import SoftTargetTrainer


@pytest.fixture
def dataset(dataset_url) -> SoftTargetDataset:
    return SoftTargetDataset(dataset_url)


@pytest.fixture
def make_trainer(dataset, tiny_student, tokenizer_info, tmp_path):
    """`make_trainer(name, alpha=…, model=…, **training_arguments)`: a trainer with its own directory."""

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
            "disable_tqdm": True,
        }
        return SoftTargetTrainer(
            model or tiny_student(),
            TrainingArguments(
                output_dir=str(tmp_path / name), report_to="none", use_cpu=True,
                **{**settings, **arguments},
            ),
            train_dataset=train_dataset or dataset,
            alpha=alpha,
            loss=loss,
            shuffle_windows=shuffle_windows,
            tokenizer=tokenizer or tokenizer_info(),
        )  # fmt: skip

    return make
