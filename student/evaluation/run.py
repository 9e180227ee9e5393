"""One student on one split: `logitcask eval` without the command line."""

from collections.abc import Callable

import torch

from logitcask.student.data.dataset import SoftTargetDataset
from logitcask.student.evaluation.evaluate import Evaluation, FullTeacher, evaluate
from logitcask.student.model.load import load_student_for
from logitcask.student.settings import EvalSettings

LoadTeacher = Callable[[SoftTargetDataset, str], FullTeacher]
"""(dataset, device) → a live teacher."""


def measure(settings: EvalSettings, load_teacher: LoadTeacher | None = None) -> Evaluation:
    """Evaluates a student as the settings say.

    Args:
        settings: What to evaluate.
        load_teacher: Loads a live teacher for the exact KL; None: only the KL over the stored buckets.

    Raises:
        UsageError: There is no student, it cannot be loaded, or the split is empty.
        FingerprintMismatchError, VocabularyError: Student, teacher and shards have different vocabularies.
        And the errors of `SoftTargetDataset`.
    """
    dataset = SoftTargetDataset(
        settings.shards, settings.split, snapshot=settings.snapshot, allow_partial=settings.allow_partial
    )
    device = "cuda" if settings.device != "cpu" and torch.cuda.is_available() else "cpu"
    model = load_student_for(settings.student, dataset.metadata, device)
    return evaluate(
        model,
        dataset,
        num_windows=settings.windows,
        batch_windows=settings.batch_windows,
        precision=torch.autocast(model.device.type, torch.bfloat16, enabled=settings.dtype == "bfloat16"),
        teacher=load_teacher(dataset, str(model.device)) if load_teacher else None,
    )
