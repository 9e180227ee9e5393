"""One training run: `logitcask train` without the command line.

RUN/train.json        the resolved settings
RUN/metrics.jsonl     one line per step
RUN/checkpoint-N/     to resume from
RUN/student/          the trained student, for `transformers`
RUN/results.json      held-out evaluation before and after
RUN/tensorboard/      the metrics for TensorBoard, with --tensorboard
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from torch import Tensor
from transformers import PreTrainedModel

from logitcask.schemas.dataset.split_summary import SplitSummary
from logitcask.schemas.errors import UsageError
from logitcask.schemas.format.metadata import Split, TokenizerInfo
from logitcask.schemas.output_place import require_output_directory
from logitcask.schemas.system_errors import naming
from logitcask.student.data.dataset import SoftTargetDataset
from logitcask.student.data.local_copies import LocalCopies
from logitcask.student.data.mixture import MixedDataset, WindowDataset, datasets_of
from logitcask.student.evaluation.evaluate import Evaluation
from logitcask.student.losses.loss_settings import LossSettings
from logitcask.student.model import adapters
from logitcask.student.model.load import load_student
from logitcask.student.model.student_card import StudentCard
from logitcask.student.settings import GIB, LossFields, TrainSettings
from logitcask.student.training.arguments import training_arguments
from logitcask.student.training.begun_run import RESULTS_NAME, SETTINGS_NAME, as_begun, check_directory
from logitcask.student.training.callbacks import tensorboard_callback
from logitcask.student.training.export import export_student
from logitcask.student.training.trainer import SoftTargetTrainer

if TYPE_CHECKING:
    from logitcask.student.init.adopt_tokenizer import AdoptedTokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """The result of a run. Evaluations are None if the dataset has no held-out windows."""

    before: Evaluation | None
    after: Evaluation | None
    student: Path
    steps: int


ChooseTrainer = Callable[[TrainSettings, WindowDataset], Callable[..., SoftTargetTrainer]]
"""(settings, training windows) → a trainer class, or a function with the same arguments."""


def train(settings: TrainSettings, *, choose_trainer: ChooseTrainer | None = None) -> TrainResult:
    """Trains a student from a dataset's shards, evaluates it before and after, and exports it.

    Args:
        settings: What to train on, and how.
        choose_trainer: Chooses the trainer; None: `SoftTargetTrainer`, on the stored targets. For a live teacher, see
            `student.online`.

    Raises:
        UsageError, ForeignOutputError: Invalid settings or directories.
        FingerprintMismatchError, VocabularyError: Student and shards have different vocabularies.
        ConfigurationMismatchError: A run is resumed with other settings.
        CorruptShardError: A run is resumed, and none of its checkpoints is whole.
        NonFiniteError: Training diverged.
        And the errors of `SoftTargetDataset`.
    """
    with TemporaryDirectory() as directory:
        return _train(settings, choose_trainer, Path(directory))


def _train(settings: TrainSettings, choose_trainer: ChooseTrainer | None, scratch: Path) -> TrainResult:
    run = Path(settings.out)
    require_output_directory(run)
    check_directory(settings)
    settings = as_begun(settings) if settings.resume else settings
    source = Path(settings.student)
    card = StudentCard.read(source)
    dataset = open_datasets(settings, "train")
    # Resolved once: the whole run uses these snapshots, and so does a resumed run.
    settings = replace(settings, snapshot=tuple(one.snapshot.number for one in datasets_of(dataset)))
    held_out = _held_out(settings, dataset)
    adopted = _adopted_tokenizer(settings, card.tokenizer, dataset.metadata.tokenizer, scratch)
    make_trainer = choose_trainer(settings, dataset) if choose_trainer else SoftTargetTrainer
    trainer = make_trainer(
        _student(settings),
        training_arguments(settings, run),
        train_dataset=dataset,
        eval_dataset=held_out,
        alpha=settings.alpha_by_step,
        loss=loss_settings(settings),
        tokenizer=adopted.info if adopted else card.tokenizer,
        eval_windows=settings.eval_windows,
        shuffle_windows=settings.shuffle_windows,
    )
    trainer.extends, trainer.student_directory = settings.extend, source
    checkpoint = _checkpoint(trainer) if settings.resume else None
    if trainer.is_world_process_zero():
        run.mkdir(parents=True, exist_ok=True)
        if settings.tensorboard:
            trainer.add_callback(tensorboard_callback(run / "tensorboard"))
        _write_json(run / SETTINGS_NAME, {**asdict(settings), "datasets": [one.url for one in datasets_of(dataset)]})
    # A student's directory that is gone cannot be evaluated.
    before = trainer.evaluate_on(held_out) if held_out and source.parent != run else None
    with naming(run):
        trainer.train(resume_from_checkpoint=checkpoint)
    after = trainer.evaluate_on(held_out) if held_out else None
    result = TrainResult(before=before, after=after, student=run / "student", steps=trainer.state.global_step)
    state = trainer.full_state_dict()
    if trainer.is_world_process_zero():
        with naming(run):
            _finish(trainer, settings, result, dataset, state, adopted)
    return result


def _adopted_tokenizer(
    settings: TrainSettings, own: TokenizerInfo, shards: TokenizerInfo, directory: Path
) -> "AdoptedTokenizer | None":
    """The tokenizer that the student gets instead of its own; None: its own."""
    if settings.tokenizer is None and own.fingerprint == shards.fingerprint:
        return None
    # Imported only now: it reads tokenizers with the teacher's code.
    from logitcask.student.init.adopt_tokenizer import named_tokenizer, with_template_of_shards

    if settings.tokenizer is not None:
        return named_tokenizer(settings.tokenizer, own, directory)
    adopted = with_template_of_shards(Path(settings.student), own, shards, directory)
    if adopted and os.environ.get("RANK", "0") == "0":
        print(
            f"{settings.student}: its chat template is not the one with which the shards were made ({shards.name}); "
            "RUN/student gets the one of the shards",
            file=sys.stderr,
        )
    return adopted


def _student(settings: TrainSettings) -> PreTrainedModel:
    """The student to train, with new adapters if the settings ask for them."""
    source = Path(settings.student)
    if not settings.lora_r:
        return load_student(source)
    if (source / adapters.CONFIG_NAME).is_file():
        raise UsageError(
            f"{source}: is itself an adapter; train it without --lora-r, which trains all weights, or merge it before "
            "(--lora-merge in the run that made it)"
        )
    adapters.require_peft()
    return adapters.add_adapters(load_student(source, four_bit=settings.lora_4bit), settings)


def open_datasets(settings: TrainSettings, split: Split) -> WindowDataset:
    """One split of the datasets of a run."""
    copies = LocalCopies(settings.copies, int(settings.copies_gib * GIB)) if settings.copies else None
    snapshots = settings.snapshot or [None] * len(settings.datasets)
    parts = [
        SoftTargetDataset(url, split, snapshot=snapshot, copies=copies, allow_partial=settings.allow_partial)
        for url, snapshot in zip(settings.datasets, snapshots, strict=True)
    ]
    return parts[0] if len(parts) == 1 else MixedDataset(parts, settings.weights or None)


def loss_settings(settings: TrainSettings) -> LossSettings:
    """The loss settings of a run."""
    return LossSettings(**{field.name: getattr(settings, field.name) for field in fields(LossFields)})


def _held_out(settings: TrainSettings, dataset: WindowDataset) -> WindowDataset | None:
    """The held-out windows of all datasets that have some."""
    numbers = [
        number
        for number, one in enumerate(datasets_of(dataset))
        if one.snapshot.splits.get("held-out", SplitSummary()).num_windows
    ]
    if not numbers:
        named = ", ".join(one.url for one in datasets_of(dataset))
        print(f"{named}: no held-out windows; the run is not evaluated", file=sys.stderr)
        return None
    chosen = {name: tuple(getattr(settings, name)[number] for number in numbers) for name in ("datasets", "snapshot")}
    return open_datasets(replace(settings, weights=(), **chosen), "held-out")


def _checkpoint(trainer: SoftTargetTrainer) -> str | None:
    """The checkpoint to resume from, checked before `train.json` is overwritten."""
    newest = trainer.newest_checkpoint()
    if newest is None:
        print(f"{trainer.run_directory}: no checkpoint to resume from; starting from the beginning", file=sys.stderr)
        return None
    trainer.check_resumable(newest)
    return str(newest)


def _finish(
    trainer: SoftTargetTrainer,
    settings: TrainSettings,
    result: TrainResult,
    dataset: WindowDataset,
    state: dict[str, Tensor] | None,
    adopted: "AdoptedTokenizer | None",
) -> None:
    """Exports the student and writes the results."""
    training = {
        "datasets": [one.url for one in datasets_of(dataset)],
        **trainer.identity(),
        "steps": result.steps,
        "lr": settings.lr,
        "schedule": settings.schedule,
        "online": settings.online,
    }
    metadata = [one.metadata for one in datasets_of(dataset)]
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    if settings.lora_merge:
        model = model.merge_and_unload()
    export_student(model, Path(settings.student), result.student, datasets=metadata, training=training, state=state)
    if adopted:
        shutil.copytree(adopted.directory, result.student, dirs_exist_ok=True)
        replace(StudentCard.read(result.student), tokenizer=adopted.info).write(result.student)
    held_out = {"before": _json_or_none(result.before), "after": _json_or_none(result.after)}
    _write_json(result.student.parent / RESULTS_NAME, {**training, "held_out": held_out})


def _json_or_none(evaluation: Evaluation | None) -> dict[str, Any] | None:
    return evaluation.to_json() if evaluation else None


def _write_json(path: Path, value: dict[str, Any]) -> None:
    with naming(path):
        path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
