"""Loading a teacher: any Hugging Face causal language model, from safetensors or GGUF, frozen.

Code that comes with a model is never run, and pickles are never read. A checkpoint that lacks weights is refused:
`transformers` would fill them with random numbers and continue.
"""

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, GgufConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from logitcask.schemas.errors import TeacherError, UsageError
from logitcask.teacher.model.description import read_config, weight_files
from logitcask.teacher.model.gguf_cache import converted
from logitcask.teacher.model.gguf_header import read_gguf_header
from logitcask.teacher.model.gguf_settings import check_gguf, gguf_configuration
from logitcask.teacher.model.references import Resolved, resolve

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Device maps that `accelerate` makes from a rule.
_DEVICE_RULES = ("auto", "balanced", "balanced_low_0", "sequential")


def resolve_device(device: str = "auto") -> str:
    """The device for "auto": the first CUDA device if there is one, else the CPU.

    Raises:
        UsageError: The device is a CUDA device, and there is none.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"device {device!r}: torch finds no CUDA device; use --device cpu")
    return device


def resolve_dtype(dtype: str, device: str) -> str:
    """The dtype for "auto" on a resolved device: bfloat16 on CUDA, float32 on the CPU.

    Raises:
        UsageError: The dtype is unknown.
    """
    if dtype == "auto":
        return "bfloat16" if device.startswith("cuda") else "float32"
    if dtype not in DTYPES:
        raise UsageError(f"dtype {dtype!r} is unknown; choose auto, {', '.join(DTYPES)}")
    return dtype


def load_model(
    reference: str | Path,
    dtype: str = "auto",
    device: str = "auto",
    attention: str = "auto",
    *,
    device_map: str | None = None,
) -> PreTrainedModel:
    """The teacher in evaluation mode, without gradients.

    Args:
        reference: A directory, a `.gguf` file (dequantized once: `teacher.model.gguf_cache`), or a hub id.
        dtype: "auto" or one of `DTYPES`.
        device: "auto", "cpu", "cuda" or "cuda:1".
        attention: An attention implementation of `transformers`, or "auto" for the one it prefers; the choice is
            `model.config._attn_implementation`.
        device_map: For teachers that fit no single device, instead of `device`: a rule of `transformers` ("auto",
            "balanced", ...) or a JSON object of module to device.

    Raises:
        TeacherError: It cannot be found or loaded, is not a causal language model, or lacks weights.
        UsageError: The device, device map or dtype is invalid here.
    """
    device = resolve_device(device)
    dtype = resolve_dtype(dtype, device)
    resolved = resolve(reference)
    if resolved.kind == "gguf":
        check_gguf(read_gguf_header(resolved.path), resolved.path)
        resolved = converted(resolved, dtype, lambda directory: _convert_gguf(resolved, dtype, directory))
    if resolved.kind == "directory":
        read_config(resolved)
        weight_files(resolved.path)
    # Loaded directly onto the device: no copy in host memory. The CPU needs no map.
    places = check_device_map(device_map) if device_map else {"": device} if device != "cpu" else None
    with _no_progress_bars():
        model = _from_pretrained(resolved, dtype, attention, places)
    return model.eval().requires_grad_(False)


def check_device_map(device_map: str) -> str | dict[str, Any]:
    """The device map for `transformers`: the name of a rule, or module to device.

    Raises:
        UsageError: It is neither.
    """
    if device_map in _DEVICE_RULES:
        return device_map
    try:
        places = json.loads(device_map)
    except ValueError:
        places = None
    if not isinstance(places, dict) or not places:
        raise UsageError(
            f"device map {device_map!r} is neither one of {', '.join(_DEVICE_RULES)} nor a JSON object of module to "
            """device, such as '{"": "cuda:0"}'"""
        )
    return places


def export_model(model: PreTrainedModel, directory: str | Path) -> None:
    """Saves a model as safetensors, including a model that was read from GGUF.

    `save_pretrained` refuses a dequantized model because its configuration still states a quantization. So the weights
    are moved, without a copy, into a new model of the same class, whose configuration states none.
    """
    settings = {key: value for key, value in model.config.to_dict().items() if key != "quantization_config"}
    config = type(model.config).from_dict(settings)
    config.dtype = model.dtype
    with torch.device("meta"):
        fresh = type(model)(config)
    # With `assign` both models share their parameters, which are only read for saving.
    fresh.load_state_dict(model.state_dict(), assign=True)
    fresh.tie_weights()
    if model.generation_config is not None:
        fresh.generation_config = model.generation_config
    with _no_progress_bars():
        fresh.save_pretrained(directory)


def _convert_gguf(teacher: Resolved, dtype: str, directory: Path) -> None:
    with _no_progress_bars():
        model = _from_pretrained(teacher, dtype, "auto", None)
    export_model(model, directory)


def _from_pretrained(
    resolved: Resolved, dtype: str, attention: str, places: str | dict[str, Any] | None
) -> PreTrainedModel:
    """Loads the model; raises TeacherError if it cannot be loaded or lacks weights."""
    choices: dict[str, Any] = {} if attention == "auto" else {"attn_implementation": attention}
    if resolved.kind == "gguf":
        # Dense weights: packed ones need kernels that are fetched at run time, and have no [V, D] head.
        choices["quantization_config"] = GgufConfig(dequantize=True)
        choices["config"] = gguf_configuration(read_gguf_header(resolved.path), resolved.path)
    if places is not None:
        choices["device_map"] = places
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            **resolved.load_arguments(),
            dtype=DTYPES[dtype],
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            **choices,
        )
    # A torch without CUDA asserts that CUDA is not used.
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, AssertionError, SafetensorError) as e:
        raise TeacherError(f"transformers cannot load teacher {resolved.name!r}: {e}") from e
    model, report = loaded
    if report["missing_keys"]:
        raise TeacherError(
            f"teacher {resolved.name!r} lacks the weights {', '.join(sorted(report['missing_keys'])[:5])} that its "
            f"architecture {type(model).__name__} needs; the checkpoint is incomplete or of another architecture"
        )
    return model


@contextlib.contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Hides the loader's progress bars, and restores the global switch."""
    was_enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        # The switch does not hide the GGUF reader's bar.
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        if was_enabled:
            transformers_logging.enable_progress_bar()
