"""Loading a student."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    pass
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from logitcask.schemas.errors import UsageError


def find_student(directory: Path) -> Path:
    """The student of a run's directory; the directory itself where it is a student's."""
    return directory / "student" if (directory / "student").is_dir() else directory


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
