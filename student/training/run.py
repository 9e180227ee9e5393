"""One training run: `logitcask train` without the command line.

RUN/train.json        the resolved settings
RUN/metrics.jsonl     one line a step
RUN/checkpoint-N/     to resume from
RUN/student/          the trained student, for `transformers`
RUN/results.json      held-out evaluation before and after
RUN/tensorboard/      the metrics once more, where they are asked for
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from logitcask.schemas.dataset.split_summary import SplitSummary
from logitcask.schemas.errors import ForeignOutputError, UsageError
from logitcask.schemas.format.metadata import Split
from logitcask.student.data.dataset import SoftTargetDataset
from logitcask.student.data.local_copies import LocalCopies
from logitcask.student.data.mixture import MixedDataset, WindowDataset, datasets_of
from logitcask.student.evaluation.evaluate import Evaluation
from logitcask.student.losses.loss_settings import LossSettings
from logitcask.student.model.load import load_student
from logitcask.student.model.student_card import StudentCard
from logitcask.student.settings import GIB, LossFields, TrainSettings
from logitcask.student.training import resume
from logitcask.student.training.callbacks import ProgressBar, tensorboard_callback
from logitcask.student.training.export import export_student
from logitcask.student.training.trainer import SoftTargetTrainer

SETTINGS_NAME = "train.json"


RESULTS_NAME = "results.json"


# What `transformers` calls them; its "constant" has no warm-up.
_SCHEDULES = {"constant": "constant_with_warmup", "wsd": "warmup_stable_decay"}


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """What a run ends with. Evaluations are None where the dataset has no held-out windows."""

    before: Evaluation | None
    after: Evaluation | None
    student: Path
    steps: int


ChooseTrainer = Callable[[TrainSettings, WindowDataset], Callable[..., SoftTargetTrainer]]
"""(settings, training windows) → what is called to make the trainer."""


def train(settings: TrainSettings, *, choose_trainer: ChooseTrainer | None = None) -> TrainResult:
    """Trains a student from a dataset's shards, evaluates it before and after, and exports it.

    Args:
        settings: What to train on, and how.
        choose_trainer: Makes the trainer, if not from the stored targets (`student.online`).

    Raises:
        UsageError, ForeignOutputError: Settings or directories that cannot be meant.
        FingerprintMismatchError, VocabularyError: Student and shards do not belong together.
        ConfigurationMismatchError: A run is resumed with other settings.
        NonFiniteError: Training diverged.
        And what `SoftTargetDataset` raises.
    """
    source, run = Path(settings.student), Path(settings.out)
    identity = StudentCard.read(source)
    dataset = open_datasets(settings, "train")
    # Named once: the whole run, and its resumption, use these snapshots.
    settings = replace(settings, snapshot=tuple(one.snapshot.number for one in datasets_of(dataset)))
    held_out = _held_out(settings, dataset)
    _check_directory(run, settings)
    make_trainer = choose_trainer(settings, dataset) if choose_trainer else SoftTargetTrainer
    trainer = make_trainer(
        load_student(source),
        training_arguments(settings, run),
        train_dataset=dataset,
        eval_dataset=held_out,
        alpha=settings.alpha_by_step,
        loss=loss_settings(settings),
        tokenizer=identity.tokenizer,
        eval_windows=settings.eval_windows,
        shuffle_windows=settings.shuffle_windows,
    )
    if settings.resume and (checkpoint := resume.last_checkpoint(run)):
        trainer.check_resumable(checkpoint)  # before settings that are refused are written down
    if trainer.is_world_process_zero():
        run.mkdir(parents=True, exist_ok=True)
        if settings.tensorboard:
            trainer.add_callback(tensorboard_callback(run / "tensorboard"))
        _write_json(run / SETTINGS_NAME, {**asdict(settings), "datasets": [one.url for one in datasets_of(dataset)]})
    before = trainer.evaluate_on(held_out) if held_out else None
    with _bar_closed(trainer):
        trainer.train(resume_from_checkpoint=settings.resume)
    after = trainer.evaluate_on(held_out) if held_out else None
    result = TrainResult(before=before, after=after, student=run / "student", steps=trainer.state.global_step)
    state = trainer.full_state_dict()
    if trainer.is_world_process_zero():
        _finish(trainer, settings, result, dataset, state)
    return result


def open_datasets(settings: TrainSettings, split: Split) -> WindowDataset:
    """One split of the run's datasets."""
    copies = LocalCopies(settings.copies, int(settings.copies_gib * GIB)) if settings.copies else None
    snapshots = settings.snapshot or [None] * len(settings.datasets)
    parts = [
        SoftTargetDataset(url, split, snapshot=snapshot, copies=copies)
        for url, snapshot in zip(settings.datasets, snapshots, strict=True)
    ]
    return parts[0] if len(parts) == 1 else MixedDataset(parts, settings.weights or None)


def loss_settings(settings: TrainSettings) -> LossSettings:
    """The settings that name the loss."""
    return LossSettings(**{field.name: getattr(settings, field.name) for field in fields(LossFields)})


def training_arguments(settings: TrainSettings, run: Path) -> TrainingArguments:
    """The run's `TrainingArguments`."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))  # set by torchrun
    per_step = settings.micro_batch_windows * ranks
    if settings.batch_windows % per_step:
        raise UsageError(
            f"batch_windows {settings.batch_windows} must be a multiple of micro_batch_windows × processes = {per_step}"
        )
    return TrainingArguments(
        output_dir=str(run),
        max_steps=settings.steps or -1,
        num_train_epochs=1,
        per_device_train_batch_size=settings.micro_batch_windows,
        per_device_eval_batch_size=settings.micro_batch_windows,
        gradient_accumulation_steps=settings.batch_windows // per_step,
        learning_rate=settings.lr,
        warmup_steps=settings.warmup_steps,
        lr_scheduler_type=_SCHEDULES.get(settings.schedule, settings.schedule),
        lr_scheduler_kwargs={"num_decay_steps": settings.decay_steps} if settings.schedule == "wsd" else {},
        weight_decay=0.1,
        adam_beta2=0.95,
        seed=settings.seed,
        bf16=settings.dtype == "bfloat16",
        use_cpu=settings.device == "cpu" or not torch.cuda.is_available(),
        activation_checkpointing=settings.gradient_checkpointing,
        logging_steps=1,
        save_strategy="steps" if settings.save_every else "no",
        save_steps=settings.save_every or 500,
        save_total_limit=2,
        eval_strategy="no",
        report_to="none",
        dataloader_num_workers=settings.workers,
        disable_tqdm=False,
        **_sharding(settings, ranks),
    )


def _sharding(settings: TrainSettings, ranks: int) -> dict[str, Any]:
    if not settings.fsdp:
        return {}
    if ranks < 2:
        raise UsageError("--fsdp shards over processes; start several: `torchrun --nproc-per-node N --no-python ...`")
    return {"fsdp": True, "fsdp_config": {"version": 2}}


def _held_out(settings: TrainSettings, dataset: WindowDataset) -> WindowDataset | None:
    """The held-out windows of all datasets that have any."""
    with_any = [
        number
        for number, one in enumerate(datasets_of(dataset))
        if one.snapshot.splits.get("held-out", SplitSummary()).num_windows
    ]
    if not with_any:
        named = ", ".join(one.url for one in datasets_of(dataset))
        print(f"{named}: no held-out windows, nothing to evaluate on", file=sys.stderr)
        return None
    chosen = {name: tuple(getattr(settings, name)[number] for number in with_any) for name in ("datasets", "snapshot")}
    return open_datasets(replace(settings, weights=(), **chosen), "held-out")


def _check_directory(run: Path, settings: TrainSettings) -> None:
    """Refuses a directory that holds something else or another run."""
    begun = (run / SETTINGS_NAME).exists()
    if run.exists() and not begun and any(run.iterdir()):
        raise ForeignOutputError(f"{run}: holds something that is not a training run; choose another --out")
    if begun and not settings.resume:
        raise ForeignOutputError(f"{run}: a run was begun here; continue it with --resume, or choose another --out")
    if settings.resume and resume.last_checkpoint(run) is None:
        print(f"{run}: no checkpoint to resume from; starting from the beginning", file=sys.stderr)


@contextmanager
def _bar_closed(trainer: SoftTargetTrainer) -> Iterator[None]:
    """Takes the progress bar down however training ends, so that an error stands on a line of its own."""
    try:
        yield
    finally:
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, ProgressBar):
                callback.close()


def _finish(
    trainer: SoftTargetTrainer,
    settings: TrainSettings,
    result: TrainResult,
    dataset: WindowDataset,
    state: dict[str, torch.Tensor] | None,
) -> None:
    training = {
        "datasets": [one.url for one in datasets_of(dataset)],
        **trainer.identity(),
        "steps": result.steps,
        "lr": settings.lr,
        "schedule": settings.schedule,
        "online": settings.online,
    }
    metadata = [one.metadata for one in datasets_of(dataset)]
    model = trainer.accelerator.unwrap_model(trainer.model)
    export_student(model, Path(settings.student), result.student, datasets=metadata, training=training, state=state)
    held_out = {"before": _json_or_none(result.before), "after": _json_or_none(result.after)}
    _write_json(result.student.parent / RESULTS_NAME, {**training, "held_out": held_out})


def _json_or_none(evaluation: Evaluation | None) -> dict[str, Any] | None:
    return evaluation.to_json() if evaluation else None


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
