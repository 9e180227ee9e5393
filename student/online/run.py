"""`logitcask train --online TEACHER` and `logitcask eval --online TEACHER`: a teacher for the run's device."""

from collections.abc import Callable
from functools import partial

import torch

from logitcask.schemas.errors import FingerprintMismatchError, UsageError
from logitcask.student.data.mixture import WindowDataset, datasets_of
from logitcask.student.online.teacher import LiveTeacher
from logitcask.student.online.trainer import FullDistillationTrainer, LiveTargetsTrainer, check_size
from logitcask.student.settings import EvalSettings, TrainSettings
from logitcask.student.training.trainer import SoftTargetTrainer
from logitcask.teacher.model.description import describe_teacher
from logitcask.teacher.scoring.protocol import ScorerSpec
from logitcask.teacher.scoring.registry import load_scorer
from logitcask.teacher.text.tokenizers import load_tokenizer


def online_trainer(settings: TrainSettings, windows: WindowDataset) -> Callable[..., SoftTargetTrainer]:
    """What makes the trainer of a run with a live teacher.

    Raises:
        FingerprintMismatchError: The teacher's tokenizer is not the shards'.
        TeacherError, UsageError: The teacher cannot be loaded, or cannot give what is asked for.
    """
    assert settings.online is not None, "asked for"
    device = "cuda" if settings.device != "cpu" and torch.cuda.is_available() else "cpu"
    fingerprint = describe_teacher(settings.online, settings.dtype).fingerprint
    if settings.online_targets == "full":
        teacher = live_teacher(settings.online, windows, settings.dtype, device)
        return partial(FullDistillationTrainer, teacher=teacher, fingerprint=fingerprint)
    check_tokenizer(settings.online, windows)
    schemes = {dataset.metadata.scheme for dataset in datasets_of(windows)}
    if len(schemes) != 1:
        raise UsageError("--online-targets stored needs datasets of one scheme; use --online-targets full")
    (scheme,) = schemes
    assert scheme is not None, "target shards have one"
    temperatures, num_ids = tuple(windows[0].targets.tempered_log_tails), num_ids_of(windows)
    spec = ScorerSpec(
        reference=settings.online,
        device=device,
        dtype=settings.dtype,
        scheme=scheme,
        temperatures=temperatures,
        num_ids=num_ids,
    )
    return partial(LiveTargetsTrainer, scorer=load_scorer(spec), fingerprint=fingerprint)


def evaluation_teacher(settings: EvalSettings, windows: WindowDataset, device: str) -> LiveTeacher:
    """The live teacher of an evaluation.

    Raises:
        As `live_teacher`.
    """
    assert settings.online is not None, "asked for"
    return live_teacher(settings.online, windows, settings.dtype, device)


def live_teacher(reference: str, windows: WindowDataset, dtype: str, device: str) -> LiveTeacher:
    """A teacher whose ids, output size and padding are those of the shards.

    Raises:
        FingerprintMismatchError, VocabularyError: Ids or output size are not.
        TeacherError, UsageError: It cannot be loaded, cannot teach live, or the shards' padding differs.
    """
    check_tokenizer(reference, windows)
    teacher = LiveTeacher.load(reference, dtype, device, num_ids_of(windows))
    check_size(teacher, windows)
    return teacher


def num_ids_of(windows: WindowDataset) -> int | None:
    """From which id on the shards' teacher gave no probability, because only padding follows; None if nowhere.

    Raises:
        UsageError: Several datasets say different things; names them.
    """
    stated = {dataset.url: dataset.snapshot.identity.num_ids for dataset in datasets_of(windows)}
    if len(set(stated.values())) > 1:
        found = ", ".join(
            f"{url}: {'all ids' if number is None else f'{number} ids'}" for url, number in stated.items()
        )
        raise UsageError(
            f"a live teacher cannot stand for datasets whose teachers gave probability to different ids ({found}); use "
            "--online with datasets that were annotated alike, or train from the stored targets"
        )
    return next(iter(stated.values()))


def check_tokenizer(reference: str, windows: WindowDataset) -> None:
    """Refuses a teacher whose ids mean something else.

    Raises:
        FingerprintMismatchError: Names both.
    """
    ours, shards = load_tokenizer(reference).info, windows.metadata.tokenizer
    if ours.fingerprint != shards.fingerprint:
        raise FingerprintMismatchError(
            f"the live teacher's tokenizer ({ours.name}, fingerprint {ours.fingerprint}) is not the shards' "
            f"({shards.name}, fingerprint {shards.fingerprint}); use a teacher that reads the same ids"
        )
