"""Loading a student, alone or for a dataset."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from logitcask.schemas.errors import UsageError
from logitcask.schemas.format.metadata import ShardMetadata
from logitcask.student.model.projection import check_projection, output_projection
from logitcask.student.model.student_card import StudentCard
from logitcask.student.model.vocabulary_check import check_tokenizer, check_vocabulary_size


def load_student(directory: Path) -> PreTrainedModel:
    """A student's weights in float32.

    Raises:
        UsageError: `transformers` cannot load them.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        return AutoModelForCausalLM.from_pretrained(
            directory, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, local_files_only=True
        )
    except (OSError, ValueError) as error:
        raise UsageError(f"{directory}: transformers cannot load this student ({error})") from error


def load_student_for(run: str | Path, dataset: ShardMetadata, device: str = "cpu") -> PreTrainedModel:
    """The student of a finished run, or in a student's own directory, checked against a dataset.

    Raises:
        UsageError: There is no student, it cannot be loaded, or its architecture is not supported.
        FingerprintMismatchError, VocabularyError: Student and shards have different vocabularies.
    """
    directory = Path(run) / "student" if (Path(run) / "student").is_dir() else Path(run)
    check_tokenizer(StudentCard.read(directory).tokenizer, dataset)
    model = load_student(directory).to(device)  # pyright: ignore[reportArgumentType]
    check_vocabulary_size(output_projection(model).weight.shape[0], dataset)
    check_projection(model)
    return model
