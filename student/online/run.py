"""`logitcask train --online TEACHER` and `logitcask eval --online TEACHER`: loads the live teacher."""

from collections.abc import Callable
from functools import partial

import torch

from logitcask.schemas.errors import FingerprintMismatchError, UsageError
from logitcask.student.data.mixture import WindowDataset, datasets_of
from logitcask.student.model.vocabulary_check import tokenizer_difference
from logitcask.student.online.teacher import LiveTeacher
from logitcask.student.online.trainer import FullDistillationTrainer, LiveTargetsTrainer, check_size
from logitcask.student.settings import TrainSettings
from logitcask.student.training.trainer import SoftTargetTrainer
from logitcask.teacher.model.description import describe_teacher
from logitcask.teacher.scoring.protocol import ScorerSpec
from logitcask.teacher.scoring.registry import load_scorer
from logitcask.teacher.text.tokenizers import load_tokenizer


def online_trainer(settings: TrainSettings, windows: WindowDataset) -> Callable[..., SoftTargetTrainer]:
    """The trainer of a run with a live teacher, as `train(choose_trainer=...)` expects.

    Raises:
        FingerprintMismatchError: The teacher and the shards have different tokenizers.
        TeacherError, UsageError: The teacher cannot be loaded, or cannot give such targets.
    """
    assert settings.online is not None, "only called with --online"
    device = "cuda" if settings.device != "cpu" and torch.cuda.is_available() else "cpu"
    fingerprint = describe_teacher(settings.online, settings.dtype).fingerprint
    if settings.online_targets == "full":
        teacher = live_teacher(settings.online, settings.dtype, windows, device)
        return partial(FullDistillationTrainer, teacher=teacher, fingerprint=fingerprint)
    check_tokenizer(settings.online, windows)
    schemes = {dataset.metadata.scheme for dataset in datasets_of(windows)}
    if len(schemes) != 1:
        raise UsageError(
            f"--online-targets stored needs datasets of one scheme; found {len(schemes)}; use --online-targets full"
        )
    (scheme,) = schemes
    assert scheme is not None, "target shards have a scheme"
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


def live_teacher(reference: str, dtype: str, windows: WindowDataset, device: str) -> LiveTeacher:
    """A live teacher, checked to have the ids and the output size of the shards.

    With the first two arguments bound, it is what `measure(load_teacher=...)` expects.

    Raises:
        FingerprintMismatchError, VocabularyError: Ids or output size differ.
        TeacherError, UsageError: It cannot be loaded, its architecture is not supported, or the datasets differ in
            their padding.
    """
    check_tokenizer(reference, windows)
    teacher = LiveTeacher.load(reference, dtype, device, num_ids_of(windows))
    check_size(teacher, windows)
    return teacher


def num_ids_of(windows: WindowDataset) -> int | None:
    """The number of ids before the padding of the vocabulary, which got no probability; None without padding.

    Raises:
        UsageError: The datasets differ; names them.
    """
    stated = {dataset.url: dataset.snapshot.identity.num_ids for dataset in datasets_of(windows)}
    if len(set(stated.values())) > 1:
        found = ", ".join(
            f"{url}: {'all ids' if number is None else f'{number} ids'}" for url, number in stated.items()
        )
        raise UsageError(
            f"one live teacher cannot replace teachers that gave probability to different ids ({found}); use --online "
            "with datasets that were annotated with the same ids, or train from the stored targets"
        )
    return next(iter(stated.values()))


def check_tokenizer(reference: str, windows: WindowDataset) -> None:
    """Refuses a teacher whose ids mean something else than the shards' ids.

    Raises:
        FingerprintMismatchError: Vocabulary or tokenizer differ; names both.
    """
    tokenizers = (load_tokenizer(reference).info, windows.metadata.tokenizer)
    if difference := tokenizer_difference(*tokenizers, names=("the live teacher", "the shards")):
        raise FingerprintMismatchError(f"{difference}; use a teacher with the tokenizer of the shards")
