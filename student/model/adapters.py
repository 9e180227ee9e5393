"""LoRA adapters of a student, by the library `peft`: added, described, loaded, merged.

The base weights stay as they are; the adapters are trained, saved in checkpoints and exported. An exported directory of
adapters names the directory of its base, so plain `transformers` loads both.
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedModel

from logitcask.schemas.errors import StudentError, UsageError
from logitcask.student.settings import TrainSettings

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
# The fields of an adapter's configuration that determine what is trained.
_DETERMINING = (
    "r", "lora_alpha", "lora_dropout", "target_modules", "modules_to_save", "bias", "use_dora", "use_rslora",
    "rank_pattern", "alpha_pattern", "layers_to_transform",
)  # fmt: skip


def require_peft() -> None:
    """Raises UsageError if `peft` is not installed."""
    if find_spec("peft") is None:
        raise UsageError("LoRA needs the package peft: pip install 'logitcask[lora]'")


def add_adapters(model: PreTrainedModel, settings: TrainSettings) -> PreTrainedModel:
    """The student with new LoRA adapters; only they are trained.

    Raises:
        UsageError: `peft` is not installed, or the student has no such modules.
    """
    require_peft()
    import peft

    config = peft.LoraConfig(
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha or 2 * settings.lora_r,
        lora_dropout=settings.lora_dropout,
        target_modules=list(settings.lora_targets) or "all-linear",
        task_type="CAUSAL_LM",
    )
    try:
        if settings.lora_4bit:
            model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        return peft.get_peft_model(model, config)  # pyright: ignore[reportReturnType]
    except ValueError as error:
        raise UsageError(f"--lora-targets {' '.join(settings.lora_targets)}: {error}") from error


def is_adapted(student: PreTrainedModel) -> bool:
    """Whether a student has adapters (a `PeftModel`)."""
    return hasattr(student, "get_base_model")


def check_adapters(student: Any) -> None:
    """Refuses adapters that the loss cannot read through.

    Raises:
        UsageError: Virtual tokens; adapters of embeddings that are also the output projection.
    """
    if student.active_peft_config.is_prompt_learning:
        raise UsageError(
            f"adapters of the kind {student.active_peft_config.peft_type} put virtual tokens before a text, which "
            "packed documents have no place for; use LoRA or another kind that changes weights"
        )
    base = student.get_base_model()
    if hasattr(base.get_input_embeddings(), "base_layer") and base.config.get_text_config().tie_word_embeddings:
        raise UsageError(
            "an adapter of embeddings that are also the output projection would change only one of them; choose other "
            "target modules"
        )


def adapter_identity(student: Any) -> dict[str, Any]:
    """What determines the steps of a student with adapters, as JSON: their settings, and the base's weights."""
    settings = student.active_peft_config.to_dict()
    found = {name: settings[name] for name in _DETERMINING if settings.get(name)}
    as_json = {name: sorted(value) if isinstance(value, set) else value for name, value in found.items()}
    sha = hashlib.sha256()
    for name, weight in student.named_parameters():
        if not weight.requires_grad:
            sha.update(name.encode())
            sha.update(weight.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return {"adapters": {**as_json, "peft_type": str(settings["peft_type"].value)}, "base": f"sha256:{sha.hexdigest()}"}


def save_adapters(student: Any, base: Path, directory: Path) -> None:
    """Writes the adapters; their configuration names the base's directory by its absolute path."""
    for config in student.peft_config.values():
        config.base_model_name_or_path = str(base.resolve())
    student.save_pretrained(directory)


def base_of(directory: Path) -> Path:
    """The directory of the base that a directory of adapters names.

    Raises:
        StudentError: There is none; or the directory also holds whole weights.
    """
    require_peft()
    import peft

    if any(directory.glob("model*.safetensors")):
        raise StudentError(
            f"{directory}: holds whole weights and an adapter ({CONFIG_NAME}); whether it is applied cannot be known: "
            "move one of them away"
        )
    try:
        base = peft.PeftConfig.from_pretrained(str(directory)).base_model_name_or_path
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StudentError(f"{directory / CONFIG_NAME}: not the configuration of an adapter ({error})") from error
    if not base or not Path(base).is_dir():
        raise StudentError(
            f"{directory / CONFIG_NAME}: the student {base!r} on which the adapter was trained is not there; put it "
            "back, or change base_model_name_or_path"
        )
    return Path(base)


def merged(base: PreTrainedModel, directory: Path) -> PreTrainedModel:
    """A base with the adapters of a directory added to its weights.

    Raises:
        StudentError: The adapters are missing, damaged or those of another base.
    """
    import peft

    try:
        student = peft.get_peft_model(base, peft.PeftConfig.from_pretrained(str(directory)))
        weights = load_file(directory / WEIGHTS_NAME)
        expected = {name: tensor.shape for name, tensor in peft.get_peft_model_state_dict(student).items()}
        found = {name: tensor.shape for name, tensor in weights.items()}
        if found != expected:
            differing = sorted(name for name, _ in found.items() ^ expected.items())
            raise StudentError(
                f"{directory / WEIGHTS_NAME}: its weights are not those of the adapter's configuration and base "
                f"({', '.join(differing[:3])}); use an undamaged copy"
            )
        peft.set_peft_model_state_dict(student, weights)
    except (OSError, SafetensorError, TypeError, KeyError) as error:
        raise StudentError(f"{directory}: the adapter's weights are damaged or missing ({error})") from error
    return student.merge_and_unload()  # pyright: ignore[reportCallIssue, reportReturnType]
