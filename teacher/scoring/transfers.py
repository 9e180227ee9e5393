"""Copies between the host and a CUDA device that do not wait for the device's queued work.

Only page-locked memory can be copied while both sides continue. The stream orders a copy to the device before the work
that uses it; a copy to the host is complete only after a wait for the stream.
"""

import numpy as np
import torch


def to_device(values: np.ndarray, device: torch.device) -> torch.Tensor:
    """The values on a device; on the CPU the tensor shares their memory."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def to_host(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies of all tensors in the host's memory, after a single wait."""
    on_cuda = {tensor.device for tensor in tensors.values() if tensor.device.type == "cuda"}
    if not on_cuda:
        return {name: tensor.cpu() for name, tensor in tensors.items()}
    copies = {name: _copy_to_host(tensor) for name, tensor in tensors.items()}
    for device in on_cuda:
        torch.cuda.current_stream(device).synchronize()
    # Results are kept long, and page-locked memory is scarce.
    return {name: copy.clone() for name, copy in copies.items()}


def _copy_to_host(tensor: torch.Tensor) -> torch.Tensor:
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return pinned.copy_(tensor, non_blocking=True)
