"""A shallower student from a teacher: some of its layers, and everything else unchanged.

Depth pruning keeps embeddings, norms and output projection, so the student starts with the teacher's vocabulary and the
features of the kept layers. A few hundred steps on soft targets repair the loss of the other layers.
"""

import re
from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from logitcask.schemas.errors import UsageError
from logitcask.student.init.pruning_check import check_pruned, logits_without, settings_of

# Lists of a configuration that have one entry for each layer, and lists of layer numbers, whose lengths say nothing.
_PER_LAYER = re.compile(r"layer|block|pattern|attention_types|sparsity|intermediate_size")
_NUMBERS = ("mlp_only_layers", "moe_layers", "cross_attention_layers", "full_attn_idxs")


def evenly_spaced(num_layers: int, num_kept: int) -> list[int]:
    """`num_kept` layer indices from first to last, spaced as evenly as possible.

    Raises:
        UsageError: `num_kept` is below 1 or above `num_layers`.
    """
    if not 1 <= num_kept <= num_layers:
        raise UsageError(f"cannot keep {num_kept} of {num_layers} layers; keep 1 to {num_layers}")
    if num_kept == 1:
        return [0]
    return [round(index * (num_layers - 1) / (num_kept - 1)) for index in range(num_kept)]


def prune_layers(model: PreTrainedModel, keep: Sequence[int]) -> PreTrainedModel:
    """Keeps the given layers, in place, and renumbers them in modules and configuration.

    The result computes what the original computes with the other layers skipped, also after saving and loading.

    Args:
        model: Any decoder of `transformers`.
        keep: Layer indices, ascending, without repeats.

    Raises:
        UsageError: Indices that do not exist or do not ascend; a model without exactly one list of layers, or one that
            would be another model with these layers.
    """
    config = model.config.get_text_config()
    name, layers = _layer_list(model, config.num_hidden_layers)
    _check_indices(keep, len(layers))
    all_layers = list(layers)
    settings, expected = settings_of(all_layers, keep), logits_without(model, all_layers, keep)
    kept = nn.ModuleList(layers[index] for index in keep)
    for new_index, layer in enumerate(kept):
        for module in layer.modules():
            if isinstance(getattr(module, "layer_idx", None), int):
                module.layer_idx = new_index  # type: ignore[assignment]
    model.base_model.set_submodule(name, kept)
    _cut_config(config, keep)
    check_pruned(model, list(kept), settings, expected)
    return model


def num_layers(model: PreTrainedModel) -> int:
    """The decoder's depth."""
    return model.config.get_text_config().num_hidden_layers


def _layer_list(model: PreTrainedModel, depth: int) -> tuple[str, nn.ModuleList]:
    lists = [
        (name, child)
        for name, child in model.base_model.named_modules()
        if isinstance(child, nn.ModuleList) and len(child) == depth
    ]
    if len(lists) != 1:
        raise UsageError(
            f"{type(model).__name__}: expected one list of {depth} layers, found {len(lists)}; this architecture "
            "cannot be pruned"
        )
    return lists[0]


def _check_indices(keep: Sequence[int], depth: int) -> None:
    if not keep or list(keep) != sorted(set(keep)) or keep[0] < 0 or keep[-1] >= depth:
        raise UsageError(f"layers to keep must be in ascending order and in 0..{depth - 1}; found {list(keep)}")


def _cut_config(config: PreTrainedConfig, keep: Sequence[int]) -> None:
    """Cuts the lists of a configuration that speak of layers (`layer_types`, `mlp_only_layers`, ...)."""
    depth = config.num_hidden_layers
    for name, value in list(vars(config).items()):
        if not isinstance(value, list | tuple):
            continue
        if name in _NUMBERS:
            setattr(config, name, [new for new, old in enumerate(keep) if old in value])
        elif _PER_LAYER.search(name) and len(value) == depth:
            setattr(config, name, [value[index] for index in keep])
    config.num_hidden_layers = len(keep)
