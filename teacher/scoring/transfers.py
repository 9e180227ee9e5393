"""Copies between the host and a CUDA device that do not wait for what the device is still doing.

Only page-locked memory can be copied while both sides work on. A copy to the device is ordered before what uses it
there by the stream; one to the host is only there once the stream has been waited for.
"""

import numpy as np
import torch


def to_device(values: np.ndarray, device: torch.device) -> torch.Tensor:
    """The values on a device; on the CPU they share memory."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def to_host(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """All of them in the host's memory, after one wait for all."""
    on_cuda = {tensor.device for tensor in tensors.values() if tensor.device.type == "cuda"}
    if not on_cuda:
        return {name: tensor.cpu() for name, tensor in tensors.items()}
    copies = {name: _copy_to_host(tensor) for name, tensor in tensors.items()}
    for device in on_cuda:
        torch.cuda.current_stream(device).synchronize()
    # Results are kept for long, and page-locked memory is scarce.
    return {name: copy.clone() for name, copy in copies.items()}


def _copy_to_host(tensor: torch.Tensor) -> torch.Tensor:
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return pinned.copy_(tensor, non_blocking=True)
