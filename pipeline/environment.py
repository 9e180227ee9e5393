"""The numeric environment of a job: all that changes the low bits of its targets, resolved once and pinned."""

import logging
from typing import Any

from logitcask.pipeline.config import AnnotateConfig
from logitcask.pipeline.runners.local_workers import check_devices, visible_devices
from logitcask.schemas.dataset.layout import Configuration
from logitcask.schemas.format.metadata import TeacherInfo
from logitcask.teacher.model.loading import check_device_map, resolve_device, resolve_dtype
from logitcask.teacher.scoring.block_sums import choose_kernel
from logitcask.teacher.scoring.projection import rows_of_chunk

_SHARD_TOKENS = {"cpu": 32_768, "cuda": 1_048_576}


# Compiling the pass over the logits takes 5 s to a minute; for less text than this it would not be earned back.
_MIN_COMPILED_CORPUS_BYTES = 1 << 20


_logger = logging.getLogger(__name__)


def resolve_environment(config: AnnotateConfig, begun: dict[str, Any]) -> dict[str, Any]:
    """Asked for, else as begun, else chosen for this machine."""
    device = _choose("device", config.device, begun, "auto")
    if config.runner == "local":  # workers of a cluster have devices that this machine lacks
        device = resolve_device(device)
        check_devices(device, config.workers, visible_devices())
    device_map = _choose("device_map", config.device_map, begun, None)
    if device_map is not None:
        check_device_map(device_map)
    dtype = resolve_dtype(config.dtype if config.dtype != "auto" else begun.get("dtype", "auto"), device)
    return {
        "device": device,
        "dtype": dtype,
        "threads": _choose("threads", config.threads, begun, _default_threads(config.workers)),
        "attention": begun.get("attention", "auto"),
        "batch_tokens": _choose("batch_tokens", config.batch_tokens, begun, "auto"),
        **{name: begun[name] for name in ("row_chunk", "kernel") if name in begun},
        **({"device_map": device_map} if device_map is not None else {}),
    }


def resolve_projection(
    config: AnnotateConfig, environment: dict[str, Any], teacher: TeacherInfo, corpus_bytes: int
) -> dict[str, Any]:
    """As begun, else what is faster here; each worker of a cluster decides for itself, and says so in its records."""
    kernel = environment.get("kernel", "auto" if corpus_bytes >= _MIN_COMPILED_CORPUS_BYTES else "plain")
    if config.runner == "local":
        kernel = choose_kernel(kernel, teacher.vocab_size, environment["device"])
    row_chunk = environment.get("row_chunk", rows_of_chunk(teacher.vocab_size))
    return environment | {"row_chunk": row_chunk, "kernel": kernel}


def runs_in_process(config: AnnotateConfig) -> bool:
    return config.runner == "local" and config.workers == 1


def resolve_shard_tokens(config: AnnotateConfig, begun: Configuration | None, device: str) -> int:
    chosen = max(config.window, _SHARD_TOKENS[_device_kind(device)])
    return config.shard_tokens or (begun and begun.identity.shard_tokens) or chosen


def _device_kind(device: str) -> str:
    return "cuda" if device.startswith("cuda") else "cpu"


def _choose(name: str, asked: Any, begun: dict[str, Any], default: Any) -> Any:
    if asked in (None, "auto"):
        return begun.get(name, default)
    if name in begun and begun[name] != asked:
        _logger.warning(
            "%s: the dataset was begun with %s, continuing with %s; targets may differ in their low bits",
            name,
            begun[name],
            asked,
        )
    return asked


def _default_threads(num_workers: int) -> int:
    import torch

    return max(1, torch.get_num_threads() // num_workers)
