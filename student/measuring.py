"""One student on one split: `logitcask eval` without the command line."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from student.dataset import SoftTargetDataset
from student.evaluation import Evaluation, evaluate
from student.identity import StudentIdentity, check_fits, check_vocabulary_size
from student.model import check_projection, output_projection
from student.online.full_kl import BatchTeacher
from student.run import load_student

if TYPE_CHECKING:
    from student.commands import Eval


def measure(settings: "Eval") -> Evaluation:
    """Evaluates a student as the settings say.

    Raises:
        UsageError: There is no student, or the split is empty.
        FingerprintMismatchError, VocabularyError: Student, teacher and shards do not belong together.
        And what `SoftTargetDataset` raises.
    """
    directory = student_of(Path(settings.student))
    identity = StudentIdentity.read(directory)
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
        teacher=_teacher(settings, dataset, str(model.device)),
    )


def student_of(directory: Path) -> Path:
    """The student of a run's directory; the directory itself where it is a student's."""
    return directory / "student" if (directory / "student").is_dir() else directory


def _teacher(settings: "Eval", dataset: SoftTargetDataset, device: str) -> BatchTeacher | None:
    if settings.online is None:
        return None
    from student.online.run import live_teacher

    return live_teacher(settings.online, dataset, settings.dtype, device)
