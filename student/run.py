"""One training run: `logitcask train` without the command line.

RUN/train.json        the resolved settings
RUN/metrics.jsonl     one line a step
RUN/checkpoint-N/     to resume from
RUN/student/          the trained student, for `transformers`
RUN/results.json      held-out evaluation before and after
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, TrainingArguments
from transformers.utils import logging as transformers_logging

from schemas import storage
from schemas.dataset import SplitSummary
from schemas.errors import ForeignOutputError, UsageError
from student import resumption
from student.dataset import SoftTargetDataset
from student.evaluation import Evaluation
from student.export import export_student
from student.identity import StudentIdentity
from student.loss_settings import DivergenceName, LossSettings, Tail, Tempering
from student.monitoring import ProgressBar
from student.trainer import SoftTargetTrainer

SETTINGS_NAME = "train.json"
RESULTS_NAME = "results.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSettings:
    """Settings of a run; see `logitcask train --help`. `steps` None means one epoch."""

    dataset: str
    student: str
    out: str
    steps: int | None = None
    batch_windows: int = 8
    micro_batch_windows: int = 1
    lr: float = 5e-4
    warmup_steps: int = 0
    schedule: str = "cosine"
    alpha: float = 1.0
    tail: Tail = "other"
    divergence: DivergenceName = "forward"
    jsd_beta: float = 0.5
    sample_share: float = 0.5
    temperature: float = 1.0
    tempering: Tempering = "exact"
    seed: int = 0
    save_every: int = 0
    resume: bool = False
    eval_windows: int | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    gradient_checkpointing: bool = False
    snapshot: int | None = None

    def __post_init__(self) -> None:
        for name in ("batch_windows", "micro_batch_windows"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1; found {getattr(self, name)}")
        if self.steps is not None and self.steps < 1:
            raise UsageError(f"steps must be at least 1; found {self.steps}")
        if not self.lr > 0:
            raise UsageError(f"lr must be above 0; found {self.lr}")
        self.loss  # noqa: B018 - refuses what cannot be meant

    @property
    def loss(self) -> LossSettings:
        """The settings that name the loss."""
        return LossSettings(**{field.name: getattr(self, field.name) for field in fields(LossSettings)})


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """What a run ends with. Evaluations are None where the dataset has no held-out windows."""

    before: Evaluation | None
    after: Evaluation | None
    student: Path
    steps: int


def train(settings: TrainSettings) -> TrainResult:
    """Trains a student from a dataset's shards, evaluates it before and after, and exports it.

    Raises:
        UsageError, ForeignOutputError: Settings or directories that cannot be meant.
        FingerprintMismatchError, VocabularyError: Student and shards do not belong together.
        NonFiniteError: Training diverged.
        And what `SoftTargetDataset` raises.
    """
    source, run = Path(settings.student), Path(settings.out)
    identity = StudentIdentity.read(source)
    dataset = SoftTargetDataset(settings.dataset, "train", snapshot=settings.snapshot)
    # Named once: the whole run, and its resumption, use this snapshot.
    settings = replace(settings, snapshot=dataset.snapshot.number)
    held_out = _held_out(settings, dataset)
    _check_directory(run, settings)
    trainer = SoftTargetTrainer(
        _load_student(source),
        training_arguments(settings, run),
        train_dataset=dataset,
        eval_dataset=held_out,
        alpha=settings.alpha,
        loss=settings.loss,
        tokenizer=identity.tokenizer,
        eval_windows=settings.eval_windows,
    )
    if trainer.is_world_process_zero():
        run.mkdir(parents=True, exist_ok=True)
        _write_json(run / SETTINGS_NAME, {**asdict(settings), "dataset": storage.redact(settings.dataset)})
    before = trainer.evaluate_on(held_out) if held_out else None
    with _bar_closed(trainer):
        trainer.train(resume_from_checkpoint=settings.resume)
    after = trainer.evaluate_on(held_out) if held_out else None
    result = TrainResult(before=before, after=after, student=run / "student", steps=trainer.state.global_step)
    if trainer.is_world_process_zero():
        _finish(trainer, settings, result, dataset)
    return result


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
        lr_scheduler_type=settings.schedule,
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
        disable_tqdm=False,
    )


def _held_out(settings: TrainSettings, dataset: SoftTargetDataset) -> SoftTargetDataset | None:
    summary = dataset.snapshot.splits.get("held-out", SplitSummary())
    if not summary.num_windows:
        print(f"{storage.redact(settings.dataset)} has no held-out windows: nothing to evaluate on", file=sys.stderr)
        return None
    return SoftTargetDataset(settings.dataset, "held-out", snapshot=settings.snapshot)


def _check_directory(run: Path, settings: TrainSettings) -> None:
    """Refuses a directory that holds something else or another run."""
    begun = (run / SETTINGS_NAME).exists()
    if run.exists() and not begun and any(run.iterdir()):
        raise ForeignOutputError(f"{run}: holds something that is not a training run; choose another --out")
    if begun and not settings.resume:
        raise ForeignOutputError(f"{run}: a run was begun here; continue it with --resume, or choose another --out")
    if settings.resume and resumption.last_checkpoint(run) is None:
        print(f"{run}: no checkpoint to resume from; starting from the beginning", file=sys.stderr)


def _load_student(directory: Path) -> PreTrainedModel:
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        return AutoModelForCausalLM.from_pretrained(
            directory, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, local_files_only=True
        )
    except (OSError, ValueError) as error:
        raise UsageError(f"{directory}: transformers cannot load this student ({error})") from error


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
    trainer: SoftTargetTrainer, settings: TrainSettings, result: TrainResult, dataset: SoftTargetDataset
) -> None:
    model = trainer.accelerator.unwrap_model(trainer.model)
    training = {
        "dataset": storage.redact(settings.dataset),
        "snapshot": dataset.snapshot.number,
        "shards_digest": dataset.snapshot.shards_digest,
        "steps": result.steps,
        "batch_windows": settings.batch_windows,
        "alpha": settings.alpha,
        "loss": asdict(settings.loss),
        "lr": settings.lr,
        "seed": settings.seed,
    }
    export_student(model, Path(settings.student), result.student, dataset=dataset.metadata, training=training)
    held_out = {"before": _json_or_none(result.before), "after": _json_or_none(result.after)}
    _write_json(result.student.parent / RESULTS_NAME, {**training, "held_out": held_out})


def _json_or_none(evaluation: Evaluation | None) -> dict[str, Any] | None:
    return evaluation.to_json() if evaluation else None


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
