"""The numeric environment: everything except weights, tokens and scheme that can move the low bits of a target.

Target bytes are identical within one environment; across two, `verify --recompute` compares within a tolerance. So the
environment is recorded with every unit, and contains nothing else: no time, host or path.
"""

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

# Instruction sets for which the CPU kernels of torch and oneDNN have separate code paths.
_RELEVANT_CPU_FLAGS = frozenset(
    {"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "sve", "sve2", "bf16"}
)
_CPU_INFO = Path("/proc/cpuinfo")


def numeric_environment(
    *,
    device: str,
    dtype: str,
    attention: str,
    batch_tokens: int,
    row_chunk: int,
    kernel: str = "plain",
    device_map: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """The environment that computes a teacher's numbers, as JSON values.

    Args:
        device: Resolved device, "cpu" or "cuda:0".
        dtype: Of weights and forward pass.
        attention: The attention implementation that `transformers` chose.
        batch_tokens: Maximum positions of a forward pass, padding included.
        row_chunk: Rows whose logits exist at a time.
        kernel: What passes over the logits (`teacher.scoring.block_sums`).
        device_map: Module to device, for a model on several devices.
    """
    on_cuda = torch.device(device).type == "cuda"
    return {
        "device": _cuda_device(device) if on_cuda else _cpu(),
        "dtype": dtype,
        "attention": attention,
        "batch_tokens": batch_tokens,
        "row_chunk": row_chunk,
        "kernel": kernel,
        **({"device_map": dict(device_map)} if device_map else {}),
        "num_threads": torch.get_num_threads(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers", "numpy")},
            **({"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()} if on_cuda else {}),
        },
    }


def _cuda_device(device: str) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(torch.device(device))
    return {"kind": "cuda", "model": properties.name, "capability": f"{properties.major}.{properties.minor}"}


def _cpu() -> dict[str, Any]:
    model, flags = platform.machine(), set[str]()
    if _CPU_INFO.is_file():
        fields = dict(_first_processor(_CPU_INFO.read_text()))
        model = fields.get("model name", model)
        flags = set(fields.get("flags", fields.get("Features", "")).split())
    return {
        "kind": "cpu",
        "model": model,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "instruction_sets": sorted(flags & _RELEVANT_CPU_FLAGS),
        "num_cores": os.cpu_count(),
    }


def _first_processor(text: str) -> list[tuple[str, str]]:
    lines = text.split("\n\n", 1)[0].splitlines()
    pairs = (line.partition(":") for line in lines)
    return [(name.strip(), value.strip()) for name, _, value in pairs]
