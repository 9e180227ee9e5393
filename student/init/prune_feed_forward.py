"""A narrower student from a teacher: the neurons of each feed-forward layer with the largest weights.

A neuron j adds down_j · act(gate_j · x) (up_j · x) to the residual stream. Without data, its importance is the product
of the norms of its two or three vectors. Embeddings, attention and norms do not change.
"""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from logitcask.schemas.errors import UsageError


def prune_feed_forward(model: PreTrainedModel, num_kept: int) -> PreTrainedModel:
    """Keeps `num_kept` neurons of each feed-forward layer, in place and in their order.

    Args:
        model: A decoder whose layers have `up_proj` and `down_proj`, and `gate_proj` if they are gated.
        num_kept: The new `intermediate_size`.

    Raises:
        UsageError: `num_kept` is below 1 or above the width, or the feed-forward layers have another structure.
    """
    config = model.config.get_text_config()
    layers: list[Any] = [module for module in model.modules() if _is_feed_forward(module)]
    widths: set[int] = {layer.up_proj.out_features for layer in layers}
    if len(layers) != config.num_hidden_layers or widths != {config.intermediate_size}:
        raise UsageError(
            f"{type(model).__name__}: {len(layers)} feed-forward layers of widths {sorted(widths)} in "
            f"{config.num_hidden_layers} layers; pruning needs one up_proj and one down_proj in each layer, all of "
            f"width {config.intermediate_size}"
        )
    if not 1 <= num_kept <= config.intermediate_size:
        raise UsageError(
            f"cannot keep {num_kept} of {config.intermediate_size} neurons of a feed-forward layer; keep 1 to "
            f"{config.intermediate_size}"
        )
    for layer in layers:
        _keep(layer, _most_important(layer, num_kept))
    config.intermediate_size = num_kept
    return model


def _is_feed_forward(module: nn.Module) -> bool:
    return all(isinstance(getattr(module, name, None), nn.Linear) for name in ("up_proj", "down_proj"))


def _most_important(layer: Any, num_kept: int) -> torch.Tensor:
    """Indices of the neurons to keep, ascending."""
    weight = layer.up_proj.weight.float().norm(dim=1) * layer.down_proj.weight.float().norm(dim=0)
    if hasattr(layer, "gate_proj"):
        weight = weight * layer.gate_proj.weight.float().norm(dim=1)
    return weight.topk(num_kept).indices.sort().values


@torch.no_grad()
def _keep(layer: Any, neurons: torch.Tensor) -> None:
    for name in ("gate_proj", "up_proj"):
        projection = getattr(layer, name, None)
        if projection is None:
            continue
        projection.weight = nn.Parameter(projection.weight[neurons], requires_grad=projection.weight.requires_grad)
        if projection.bias is not None:
            projection.bias = nn.Parameter(projection.bias[neurons], requires_grad=projection.bias.requires_grad)
        projection.out_features = len(neurons)
    down = layer.down_proj
    down.weight = nn.Parameter(down.weight[:, neurons], requires_grad=down.weight.requires_grad)
    down.in_features = len(neurons)
    if hasattr(layer, "intermediate_size"):
        layer.intermediate_size = len(neurons)
