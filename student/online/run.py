"""`logitcask train --online TEACHER` and `logitcask eval --online TEACHER`: a teacher for the run's device."""

from collections.abc import Callable
from functools import partial

import torch

from schemas.errors import FingerprintMismatchError, UsageError
from student.mixture import TrainingWindows, datasets_of
from student.online.teacher import LiveTeacher
from student.online.trainer import FullDistillationTrainer, LiveTargetsTrainer, check_size
from student.settings import TrainSettings
from student.trainer import SoftTargetTrainer
from teacher.loading import describe_teacher, load_model
from teacher.scorer import HuggingFaceScorer
from teacher.tokenizers import load_tokenizer


def online_trainer(settings: TrainSettings, windows: TrainingWindows) -> Callable[..., SoftTargetTrainer]:
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
    temperatures = tuple(windows[0].targets.tempered_log_tails)
    model = load_model(settings.online, settings.dtype, device)
    scorer = HuggingFaceScorer(model, scheme, temperatures=temperatures)
    return partial(LiveTargetsTrainer, scorer=scorer, fingerprint=fingerprint)


def live_teacher(reference: str, windows: TrainingWindows, dtype: str, device: str) -> LiveTeacher:
    """A teacher whose ids and output size are those of the shards.

    Raises:
        FingerprintMismatchError, VocabularyError: They are not.
        TeacherError, UsageError: It cannot be loaded, or cannot teach live.
    """
    check_tokenizer(reference, windows)
    teacher = LiveTeacher.load(reference, dtype, device)
    check_size(teacher, windows)
    return teacher


def check_tokenizer(reference: str, windows: TrainingWindows) -> None:
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
