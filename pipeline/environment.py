"""The numeric environment of a job: everything that changes low bits of its targets, resolved once and kept."""

import logging
from typing import Any

from logitcask.pipeline.config import AnnotateConfig
from logitcask.pipeline.runners.local_workers import check_devices, visible_devices
from logitcask.schemas.format.metadata import TeacherInfo
from logitcask.teacher.model.loading import check_device_map, resolve_device, resolve_dtype
from logitcask.teacher.scoring.block_sums import choose_kernel
from logitcask.teacher.scoring.projection import rows_of_chunk

# Compiling the pass over the logits takes 5 s to a minute, which does not pay off for less text than this.
_MIN_COMPILED_CORPUS_BYTES = 1 << 20
_logger = logging.getLogger(__name__)


def resolve_environment(config: AnnotateConfig, begun: dict[str, Any]) -> dict[str, Any]:
    """The user's settings, else those of the begun dataset, else the best for this machine.

    `batch_tokens` may remain "auto": its resolution needs the teacher.

    Raises:
        UsageError: A device is not available, or workers would share one.
    """
    device = _choose("device", config.device, begun, "auto")
    if config.runner == "local":  # a cluster's workers have devices that this machine lacks
        device = resolve_device(device)
        check_devices(device, config.workers, visible_devices())
    device_map = _choose("device_map", config.device_map, begun, None)
    if device_map is not None:
        check_device_map(device_map)
    dtype = resolve_dtype(config.dtype if config.dtype != "auto" else begun.get("dtype", "auto"), device)
    return {
        "device": device,
        "dtype": dtype,
        "threads": _choose("threads", config.threads, begun, default_threads(config.workers)),
        "attention": begun.get("attention", "auto"),
        "batch_tokens": _choose("batch_tokens", config.batch_tokens, begun, "auto"),
        **{name: begun[name] for name in ("row_chunk", "kernel") if name in begun},
        **({"device_map": device_map} if device_map is not None else {}),
    }


def resolve_projection(
    config: AnnotateConfig, environment: dict[str, Any], teacher: TeacherInfo, corpus_bytes: int
) -> dict[str, Any]:
    """Adds `row_chunk` and `kernel`: those of the begun dataset, else the fastest here.

    On a cluster each worker chooses its kernel and records it with its units.
    """
    kernel = environment.get("kernel", "auto" if corpus_bytes >= _MIN_COMPILED_CORPUS_BYTES else "plain")
    if config.runner == "local":
        kernel = choose_kernel(kernel, teacher.vocab_size, environment["device"])
    row_chunk = environment.get("row_chunk", rows_of_chunk(teacher.vocab_size))
    return environment | {"row_chunk": row_chunk, "kernel": kernel}


def default_threads(num_workers: int) -> int:
    """The cores of this machine divided among its workers, at least one for each."""
    import torch

    return max(1, torch.get_num_threads() // num_workers)


def _choose(name: str, setting: Any, begun: dict[str, Any], default: Any) -> Any:
    if setting in (None, "auto"):
        return begun.get(name, default)
    if name in begun and begun[name] != setting:
        _logger.warning(
            "%s: the dataset was begun with %s, continuing with %s; targets may differ in their low bits",
            name,
            begun[name],
            setting,
        )
    return setting
