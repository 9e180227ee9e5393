"""Loading a teacher: any Hugging Face causal language model, from safetensors or GGUF, frozen.

Code that comes with a model is never run, and pickles are never read. A checkpoint that lacks weights is refused:
`transformers` would fill them with random numbers and continue.
"""

import contextlib
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, GgufConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from logitcask.schemas.errors import TeacherError, UsageError
from logitcask.teacher.model.description import read_config
from logitcask.teacher.model.gguf_cache import converted
from logitcask.teacher.model.gguf_header import read_gguf_header
from logitcask.teacher.model.gguf_settings import check_gguf, gguf_configuration
from logitcask.teacher.model.references import Resolved, resolve
from logitcask.teacher.model.weight_files import check_weights, tensor_headers

_logger = logging.getLogger(__name__)

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
        check_weights(resolved.path, read_config(resolved))
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
            # Refused below, with their names.
            ignore_mismatched_sizes=True,
            **choices,
        )
    # A torch without CUDA asserts that CUDA is not used.
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, AssertionError, SafetensorError) as e:
        raise TeacherError(f"transformers cannot load teacher {resolved.name!r}: {e}") from e
    model, report = loaded
    _check_report(model, report, resolved.name)
    if resolved.kind == "directory":
        _check_tied(model, set(tensor_headers(resolved.path)), resolved.name)
    return model


def _check_report(model: PreTrainedModel, report: dict[str, Any], name: str) -> None:
    """Refuses what `transformers` only warns of: weights that would be random, or are dropped."""
    architecture = type(model).__name__
    if missing := set(report["missing_keys"]) - {weight for weight, *_ in report["mismatched_keys"]}:
        raise TeacherError(
            f"teacher {name!r} lacks the weights {', '.join(sorted(missing)[:5])} that its "
            f"architecture {architecture} needs; the checkpoint is incomplete or of another architecture"
        )
    if report["mismatched_keys"]:
        weight, stored, expected = min(report["mismatched_keys"])
        raise TeacherError(
            f"teacher {name!r}: {len(report['mismatched_keys'])} weights have other sizes than config.json says, first "
            f"{weight} ({tuple(stored)} instead of {tuple(expected)}); weights and config.json are of different models"
        )
    if report["error_msgs"]:
        raise TeacherError(f"transformers cannot load all weights of teacher {name!r}: {report['error_msgs'][:3]}")
    modules = {path for path, _ in model.named_modules() if path and path != model.base_model_prefix}
    dropped = {key for key in report["unexpected_keys"] if any(parent in modules for parent in _parents(key))}
    if dropped:
        raise TeacherError(
            f"teacher {name!r} has {len(dropped)} weights inside its layers that {architecture} has no place for, "
            f"first {min(dropped)}: config.json is of another model (fewer layers, no biases), or the architecture is"
        )
    if report["unexpected_keys"]:
        unused = sorted(report["unexpected_keys"])
        _logger.warning(
            "teacher %r: %d weights of other parts than %s are not used, first %s",
            name,
            len(unused),
            architecture,
            unused[0],
        )


def _parents(key: str) -> Iterator[str]:
    """Paths of the modules that a weight is in, from the outermost."""
    components = key.split(".")
    for count in range(1, len(components)):
        yield ".".join(components[:count])


def _check_tied(model: PreTrainedModel, names: set[str], teacher: str) -> None:
    """Refuses two different weights where the configuration states one.

    `transformers` then ties neither, other libraries take the first.
    """
    if not getattr(model.config.get_text_config(), "tie_word_embeddings", False):
        return
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    own, other = (getattr(module, "weight", None) for module in (embeddings, head))
    if own is None or other is None or own is other or own.is_meta or other.is_meta or own.shape != other.shape:
        return
    if "lm_head.weight" in names and not torch.equal(own, other):
        raise TeacherError(
            f"teacher {teacher!r} states tie_word_embeddings: true, but its lm_head.weight differs from its input "
            "embeddings, so it is not clear which are meant; set tie_word_embeddings to false in config.json, or "
            "remove lm_head.weight"
        )


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
