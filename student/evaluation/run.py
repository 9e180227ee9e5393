"""One student on one split: `logitcask eval` without the command line."""

from collections.abc import Callable
from pathlib import Path

import torch

from logitcask.student.data.dataset import SoftTargetDataset
from logitcask.student.evaluation.evaluate import Evaluation, FullTeacher, evaluate
from logitcask.student.model.load import find_student, load_student
from logitcask.student.model.projection import check_projection, output_projection
from logitcask.student.model.student_card import StudentCard, check_fits, check_vocabulary_size
from logitcask.student.settings import EvalSettings

LoadTeacher = Callable[[EvalSettings, SoftTargetDataset, str], FullTeacher]
"""(settings, dataset, device) → the live teacher that the settings name."""


def measure(settings: EvalSettings, load_teacher: LoadTeacher | None = None) -> Evaluation:
    """Evaluates a student as the settings say.

    Args:
        settings: What to evaluate.
        load_teacher: Loads a live teacher for the exact KL; None: only the KL over the stored buckets.

    Raises:
        UsageError: There is no student, or the split is empty.
        FingerprintMismatchError, VocabularyError: Student, teacher and shards do not belong together.
        And what `SoftTargetDataset` raises.
    """
    directory = find_student(Path(settings.student))
    identity = StudentCard.read(directory)
    dataset = SoftTargetDataset(settings.shards, settings.split, snapshot=settings.snapshot)
    check_fits(identity.tokenizer, dataset.metadata)
    use_cuda = settings.device != "cpu" and torch.cuda.is_available()
    model = load_student(directory).to("cuda" if use_cuda else "cpu")  # pyright: ignore[reportArgumentType]
    check_vocabulary_size(output_projection(model).weight.shape[0], dataset.metadata)
    check_projection(model)
    return evaluate(
        model,
        dataset,
        num_windows=settings.windows,
        batch_windows=settings.batch_windows,
        precision=torch.autocast(model.device.type, torch.bfloat16, enabled=settings.dtype == "bfloat16"),
        teacher=load_teacher(settings, dataset, str(model.device)) if load_teacher else None,
    )
