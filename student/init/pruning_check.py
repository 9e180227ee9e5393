"""Whether a pruned model computes what the original computes without the other layers.

A layer may depend on its number: experts in every second layer, a scale by depth, tables for all layers. So the model
that plain `transformers` makes of the pruned configuration is compared with the original, whose other layers are
skipped: by the settings of its modules, and by its logits. Windows of attention are made short for that, so that a few
tokens reach past them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import PreTrainedModel

from logitcask.schemas.errors import UsageError

_TRIAL_TOKENS = 24
_SHORT_WINDOW = 5
_WINDOWS = ("sliding_window", "attention_chunk_size")
_TOLERANCE = 1e-4
# What differs between a layer and the same layer at another place.
_OF_A_PLACE = {"layer_idx", "layer_id", "layer_number", "layer_index"}


@torch.no_grad()
def logits_without(model: PreTrainedModel, layers: Sequence[nn.Module], keep: Sequence[int]) -> Tensor:
    """Logits of the trial tokens, with the layers that are not in `keep` skipped."""
    skipped = [layer for index, layer in enumerate(layers) if index not in set(keep)]
    hooks = [layer.register_forward_hook(_input_as_output, with_kwargs=True) for layer in skipped]
    try:
        return _trial_logits(model)
    finally:
        for hook in hooks:
            hook.remove()


def settings_of(layers: Sequence[nn.Module], keep: Sequence[int]) -> list[dict[str, Any]]:
    """The class and the simple attributes of each module of the layers `keep`."""
    return [{name: _settings(module) for name, module in layers[index].named_modules()} for index in keep]


@torch.no_grad()
def check_pruned(
    model: PreTrainedModel, layers: Sequence[nn.Module], settings: list[dict[str, Any]], expected: Tensor
) -> None:
    """Refuses a pruned model that is another one than it was.

    Args:
        model: Pruned: its modules and its configuration.
        layers: Its layers.
        settings: Those of the layers before, by `settings_of`.
        expected: Logits before, by `logits_without`.

    Raises:
        UsageError: Says what differs.
    """
    again, error = _made_again(model)
    if error is None and again is not None:
        name = next(name for name, module in model.named_modules() if module is layers[0]).rpartition(".")[0]
        found = settings_of(list(again.get_submodule(name).children()), range(len(layers)))
        error = _first_difference(settings, found)
        if error is None:
            logits = _trial_logits(again)
            difference = ((logits - expected).norm() / expected.norm().clamp(min=1e-6)).item()
            error = None if difference < _TOLERANCE else f"its logits differ by {difference:.2g} (relative)"
    if error is not None:
        raise UsageError(
            f"{type(model).__name__}: with these layers it would be another model: {error}. What a layer is depends on "
            "its number in this architecture; keep other layers, or all of them"
        )


def _made_again(model: PreTrainedModel) -> tuple[PreTrainedModel | None, str | None]:
    """The model that `transformers` makes of the configuration, with the same weights; or why there is none."""
    config: Any = type(model.config).from_dict(model.config.to_dict())
    config.dtype = model.dtype
    config._attn_implementation = model.config._attn_implementation
    try:
        with init_empty_weights(include_buffers=False):
            again = type(model)(config)
        again.load_state_dict(model.state_dict(), assign=True)
        again.tie_weights()
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        return None, f"its weights do not fit its configuration ({' '.join(str(error).split())[:300]})"
    return again.eval(), None


def _trial_logits(model: PreTrainedModel) -> Tensor:
    embeddings: Any = model.get_input_embeddings()
    ids = (torch.arange(_TRIAL_TOKENS) * 7919 + 11) % embeddings.weight.shape[0]
    with _short_windows(model.config.get_text_config()):
        return model(input_ids=ids[None].to(model.device), use_cache=False).logits.float()


@contextmanager
def _short_windows(config: Any) -> Iterator[None]:
    before = {name: getattr(config, name, None) for name in _WINDOWS}
    shortened = {name: value for name, value in before.items() if isinstance(value, int) and value > _SHORT_WINDOW}
    for name in shortened:
        setattr(config, name, _SHORT_WINDOW)
    try:
        yield
    finally:
        for name, value in shortened.items():
            setattr(config, name, value)


def _input_as_output(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    hidden = args[0] if args else kwargs["hidden_states"]
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


def _settings(module: nn.Module) -> tuple[str, dict[str, Any]]:
    simple = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, bool | int | float | str | None) and not name.startswith("_") and name not in _OF_A_PLACE
    }
    return type(module).__name__, simple


def _first_difference(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> str | None:
    for index, (one, other) in enumerate(zip(before, after, strict=True)):
        for name in sorted(one.keys() | other.keys()):
            if one.get(name) != other.get(name):
                return (
                    f"its layer {index} would have {other.get(name)} instead of {one.get(name)} as {name or 'module'}"
                )
    return None
