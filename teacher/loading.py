"""Loading a teacher: any Hugging Face causal language model, from safetensors or GGUF, frozen.

Code that a model brings along is never run and pickles are never read. A checkpoint that lacks weights is refused:
`transformers` would fill them with random numbers and carry on.
"""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, GgufConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from schemas.errors import TeacherError, UsageError
from teacher.description import check_vocabulary, describe_teacher, read_config, weight_files
from teacher.references import Resolved, resolve

__all__ = [
    "DTYPES",
    "check_vocabulary",
    "describe_teacher",
    "export_model",
    "load_model",
    "resolve",
    "resolve_device",
    "resolve_dtype",
]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(device: str = "auto") -> str:
    """The device that `auto` means here: the first CUDA device if there is one, else the CPU.

    Raises:
        UsageError: A CUDA device was asked for and there is none.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"device {device!r} was asked for, but torch sees no CUDA device; use --device cpu")
    return device


def resolve_dtype(dtype: str, device: str) -> str:
    """The dtype that `auto` means on a resolved device: bfloat16 on CUDA, float32 on the CPU.

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
    verbose: bool = False,
) -> PreTrainedModel:
    """The teacher in evaluation mode, without gradients.

    Args:
        reference: A directory, a `.gguf` file (it is dequantised), or a hub id.
        dtype: "auto" or one of `DTYPES`.
        device: "auto", "cpu", "cuda" or "cuda:1".
        attention: An attention implementation of `transformers`, or "auto" for the one it prefers; what was chosen is
            `model.config._attn_implementation`.
        verbose: Show `transformers`' progress bars.

    Raises:
        TeacherError: It cannot be found, is no causal language model, or lacks weights.
        UsageError: The device, dtype or attention implementation cannot be had.
    """
    device = resolve_device(device)
    resolved = resolve(reference)
    if resolved.kind == "directory":
        read_config(resolved)
        weight_files(resolved.path)
    with _progress(verbose):
        model, report = _from_pretrained(resolved, DTYPES[resolve_dtype(dtype, device)], device, attention)
    if report["missing_keys"]:
        raise TeacherError(
            f"teacher {resolved.name!r} lacks the weights {', '.join(sorted(report['missing_keys'])[:5])} that its "
            f"architecture {type(model).__name__} needs; the checkpoint is incomplete or of another architecture"
        )
    model.to(torch.device(device))  # type: ignore[arg-type]
    return model.eval().requires_grad_(False)


def export_model(model: PreTrainedModel, directory: str | Path) -> None:
    """Saves a model as safetensors, also one that was read from GGUF.

    `save_pretrained` refuses a dequantised model because its configuration still says that it is quantised. So the
    weights go, without a copy, into a fresh model of the same class whose configuration does not.
    """
    config = type(model.config).from_dict(_without_quantisation(model.config.to_dict()))
    config.dtype = model.dtype
    with torch.device("meta"):
        fresh = type(model)(config)
    # Keeping parameters (assign) would make the fresh model share them; they are only read for saving.
    fresh.load_state_dict(model.state_dict(), assign=True)
    fresh.tie_weights()
    if model.generation_config is not None:
        fresh.generation_config = model.generation_config
    with _progress(verbose=False):
        fresh.save_pretrained(directory)


def _from_pretrained(
    resolved: Resolved, dtype: torch.dtype, device: str, attention: str
) -> tuple[PreTrainedModel, dict[str, Any]]:
    choices: dict[str, Any] = {} if attention == "auto" else {"attn_implementation": attention}
    if resolved.kind == "gguf":
        # Dense weights: packed ones would need kernels that are fetched at run time, and have no [V, D] head.
        choices["quantization_config"] = GgufConfig(dequantize=True)
    if device != "cpu":
        choices["device_map"] = {"": device}  # straight to the device: no copy in host memory
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            **resolved.load_arguments(),
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            **choices,
        )
        return loaded
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as e:
        raise TeacherError(f"transformers cannot load teacher {resolved.name!r}: {e}") from e


def _without_quantisation(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != "quantization_config"}


@contextlib.contextmanager
def _progress(verbose: bool) -> Iterator[None]:
    """Hides the loader's progress bars unless wanted, and leaves the global switch as it was."""
    if verbose:
        yield
        return
    was_enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        # The bar of the GGUF reader obeys no switch.
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        if was_enabled:
            transformers_logging.enable_progress_bar()
