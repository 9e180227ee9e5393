"""Finds NaN and infinity in a model's weights, and in what the model computes from finite weights."""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from logitcask.schemas.errors import TeacherError


@torch.inference_mode()
def check_weights(model: PreTrainedModel) -> None:
    """Reads each weight once, at the speed of memory.

    Raises:
        TeacherError: A weight holds NaN or infinity; names it.
    """
    # Tied weights come once. Buffers may hold infinite limits.
    bad = [name for name, weight in model.named_parameters() if not _is_finite(weight)]
    bad += [name for name, buffer in model.named_buffers() if not _is_finite(buffer) and bool(buffer.isnan().any())]
    if bad:
        more = f" and {len(bad) - 3:,} more" if len(bad) > 3 else ""
        raise TeacherError(
            f"teacher {type(model).__name__}: the weights {', '.join(bad[:3])}{more} hold NaN or infinity, in "
            f"{str(model.dtype).removeprefix('torch.')}. If they do in the files too, the checkpoint is damaged: copy "
            "it again; if not, they are too large for this dtype: use --dtype bfloat16 or float32"
        )


@torch.inference_mode()
def refuse_non_finite_logits(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    """Runs the model once more to find the first module that gives NaN or infinity.

    Raises:
        TeacherError: Always; names that module.
    """
    found: list[str] = []

    def watch(name: str, module: nn.Module) -> Any:
        def look(_module: nn.Module, _inputs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) and output else output
            if not found and isinstance(first, torch.Tensor) and not _is_finite(first):
                found.append(f"{name} ({type(module).__name__})")

        return module.register_forward_hook(look)

    hooks = [watch(name, module) for name, module in model.named_modules() if name and not any(module.children())]
    try:
        model(**inputs)
    finally:
        for hook in hooks:
            hook.remove()
    where = f"first in the output of {found[0]}" if found else "although the outputs of all its modules are finite"
    raise TeacherError(
        f"teacher {type(model).__name__} gives NaN or infinity for a few ordinary tokens, {where}, in "
        f"{str(model.dtype).removeprefix('torch.')}, and its weights are finite. Numbers may be too large for this "
        "dtype: use --dtype bfloat16 or float32"
    )


def _is_finite(values: torch.Tensor) -> bool:
    if values.is_meta or not values.numel() or not (values.is_floating_point() or values.is_complex()):
        return True
    if values.dtype.itemsize == 1:  # float8 has no extrema
        values = values.float()
    # The extrema are NaN if any value is, and need no mask of the tensor's size.
    low, high = values.detach().aminmax()
    return bool(torch.isfinite(low) & torch.isfinite(high))
