"""Loading a student, alone or for a dataset."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from logitcask.schemas.errors import StudentError, UsageError
from logitcask.schemas.format.metadata import ShardMetadata
from logitcask.student.model import adapters
from logitcask.student.model.projection import output_projection
from logitcask.student.model.student_card import StudentCard
from logitcask.student.model.trial import check_weights, try_student
from logitcask.student.model.vocabulary_check import check_tokenizer, check_vocabulary_size


def load_student(directory: Path, *, four_bit: bool = False) -> PreTrainedModel:
    """A student's weights in float32, with the adapters of the directory merged.

    Args:
        directory: Of the student, or of adapters that name their base.
        four_bit: Keep the weights of linear layers in 4 bits.

    Raises:
        UsageError: There is no student that `transformers` can load, or 4 bits are not possible here.
        StudentError: Its weights are missing, damaged or not finite.
    """
    if (directory / adapters.CONFIG_NAME).is_file():
        if four_bit:
            raise UsageError(f"{directory}: an adapter cannot be loaded in 4 bits; merge it first (--lora-merge)")
        model = adapters.merged(_load(adapters.base_of(directory)), directory)
        model.name_or_path = str(directory)
    else:
        model = _load(directory, **(_four_bits() if four_bit else {}))
    check_weights(model)
    return model


def _load(directory: Path, **options: Any) -> PreTrainedModel:
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported, and refused below by name
            **options,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UsageError(f"{directory}: transformers cannot load this student ({error})") from error
    except (SafetensorError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise StudentError(
            f"{directory}: the student's weights are damaged ({error}); make it again, or use  an undamaged copy"
        ) from error
    model, report = loaded
    lacking = sorted({*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])})
    if lacking:
        raise StudentError(
            f"{directory}: the student lacks the weights {', '.join(lacking[:5])}, or has them in another shape than "
            f"its architecture {type(model).__name__} needs; the directory is incomplete or of another architecture"
        )
    return model


def _four_bits() -> dict[str, Any]:
    """Options that load linear layers in 4 bits (NF4: Dettmers et al. 2023), on the first CUDA device."""
    if not torch.cuda.is_available() or find_spec("bitsandbytes") is None:
        raise UsageError(
            "--lora-4bit needs a CUDA device that torch finds, and the package bitsandbytes (pip install "
            "'logitcask[qlora]'); without them use --lora-r alone"
        )
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": quantization, "device_map": {"": 0}}


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
    try_student(model)
    return model
