"""The safetensors files of a model's directory: exactly those that `transformers` reads, whole and complete.

Only headers are read. `transformers` prefers one file to several and only logs that others are there; it converts
integers to weights; it ties output to input as the configuration says, whatever the files hold. So a directory in which
this is not clear is refused.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from logitcask.schemas.errors import TeacherError

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_SHARD = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
_WEIGHT_DTYPES = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorHeader:
    """What a file's header says of a tensor: shape, and dtype as safetensors spells it."""

    shape: tuple[int, ...]
    dtype: str


def weight_files(directory: Path) -> list[Path]:
    """The model's safetensors files, by name.

    Raises:
        TeacherError: There are none, one that the index names is missing, or there are others.
    """
    present = sorted(file.name for file in directory.iterdir() if _SHARD.fullmatch(file.name))
    index = directory / _INDEX
    named = sorted(set(_weight_map(index).values())) if index.is_file() else present
    if missing := [name for name in named if not (directory / name).is_file()]:
        raise TeacherError(f"teacher directory {directory} lacks {', '.join(missing)}; copy it again")
    if not named:
        raise TeacherError(
            f"teacher directory {directory} has no model.safetensors. Weights are read from safetensors only "
            "(pickled .bin files can run code): load the model elsewhere and save it with save_pretrained."
        )
    if not index.is_file() and named != [_SINGLE]:
        raise TeacherError(f"teacher directory {directory} has {', '.join(named)}, but no {_INDEX}; copy it again")
    if extra := [name for name in present if name not in named]:
        raise TeacherError(
            f"teacher directory {directory} has {', '.join(extra)} that {_INDEX} does not name, so it is not clear "
            "which weights are meant; remove the files that do not belong to the model"
        )
    return [directory / name for name in named]


def tensor_headers(directory: Path) -> dict[str, TensorHeader]:
    """All tensors of the model's files, by name.

    Raises:
        TeacherError: As `weight_files`; or a file is cut short or damaged, or holds other tensors than the index says.
    """
    files = weight_files(directory)
    by_file = {file.name: _headers(file) for file in files}
    index = directory / _INDEX
    if index.is_file():
        _compare(_weight_map(index), by_file, directory)
    return {name: header for headers in by_file.values() for name, header in headers.items()}


def check_weights(directory: Path, config: Mapping[str, Any]) -> dict[str, TensorHeader]:
    """The tensors of a model's directory, by name, checked.

    Args:
        directory: With config.json and safetensors.
        config: The contents of config.json.

    Raises:
        TeacherError: As `tensor_headers`; or weights have a dtype that needs a quantization the configuration does not
            state, or the configuration names other files.
    """
    if config.get("transformers_weights"):
        raise TeacherError(
            f"{directory / 'config.json'} names other weights by transformers_weights "
            f"({config['transformers_weights']!r}), which is not supported; rename that file to model.safetensors, and "
            "remove the setting"
        )
    headers = tensor_headers(directory)
    unusual = {
        name: header.dtype
        for name, header in headers.items()
        if name.endswith("weight") and header.dtype not in _WEIGHT_DTYPES
    }
    if unusual and not config.get("quantization_config"):
        name, dtype = next(iter(unusual.items()))
        raise TeacherError(
            f"teacher directory {directory}: {len(unusual)} weights are stored as integers or in 8 bits, first {name} "
            f"({dtype}), but config.json states no quantization_config, so their scales are unknown; use the original "
            "checkpoint"
        )
    return headers


def _headers(path: Path) -> dict[str, TensorHeader]:
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {
                name: TensorHeader(shape=tuple(one.get_shape()), dtype=str(one.get_dtype()))
                for name, one in slices.items()
            }
    except (OSError, SafetensorError) as e:
        raise TeacherError(f"{path} is not a readable safetensors file: {e}. Copy it again.") from e


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor to file, as the index of a sharded model states it."""
    try:
        found = json.loads(index.read_bytes())["weight_map"]
        # A path could lead out of the directory, whose files are all that the fingerprint knows.
        if not found or not all(isinstance(name, str) and Path(name).name == name for name in found.values()):
            raise TypeError("weight_map names no files of this directory")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise TeacherError(f"{index} is not an index of safetensors files ({e!r}); copy it again") from e
    return found


def _compare(weight_map: Mapping[str, str], by_file: Mapping[str, Mapping[str, TensorHeader]], directory: Path) -> None:
    """Compares the index with what the files hold."""
    stated, found = set(weight_map.items()), {(name, file) for file, headers in by_file.items() for name in headers}
    for difference, what in ((stated - found, "it lacks it"), (found - stated, "the index does not place it there")):
        if difference:
            name, file = min(difference)
            raise TeacherError(
                f"teacher directory {directory}: {file} and {_INDEX} do not belong together: {len(difference)} tensors "
                f"differ, first {name} ({what}); copy the model again"
            )
