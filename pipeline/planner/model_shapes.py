"""The sizes of a decoder-only transformer that determine its cost: from known models, flags, or a config.json."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from logitcask.schemas.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """Sizes of a model.

    Attributes:
        name: Displayed name.
        non_embedding_parameters: All weights except those of the vocabulary.
        vocab_size: Rows of the vocabulary projection.
        d_model: Width of the residual stream.
        num_layers: Transformer blocks.
        attention_width: Query heads times their dimension.
        local_window: Keys that a local layer attends to; None if all layers are global.
        num_local_layers: Layers with that window.
    """

    name: str
    non_embedding_parameters: int
    vocab_size: int
    d_model: int
    num_layers: int = 0
    attention_width: int = 0
    local_window: int | None = None
    num_local_layers: int = 0

    @property
    def parameters(self) -> int:
        """Includes the vocabulary once: tied embeddings, or only the projection."""
        return self.non_embedding_parameters + self.vocab_size * self.d_model


def non_embedding_parameters(
    *,
    num_layers: int,
    d_model: int,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    ffn_hidden: int,
    norms_per_layer: int,
    ffn_matrices: int = 3,
) -> int:
    """Weights of the blocks and the last norm: L·(d·hd·(2h + 2kv) + m·d·f + n·d) + d, without biases.

    With m = 3 (gate, up, down) and n = 4 (norms before and after both sub-layers) this gives the counts of the Gemma 2
    report (Gemma Team 2024, table 2) exactly.
    """
    attention = d_model * head_dim * (2 * num_heads + 2 * num_kv_heads)
    return num_layers * (attention + ffn_matrices * d_model * ffn_hidden + norms_per_layer * d_model) + d_model


def _gemma2(name: str, layers: int, d_model: int, heads: int, kv_heads: int, head_dim: int, hidden: int) -> ModelShape:
    return ModelShape(
        name=name,
        non_embedding_parameters=non_embedding_parameters(
            num_layers=layers,
            d_model=d_model,
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            ffn_hidden=hidden,
            norms_per_layer=4,
        ),
        vocab_size=256_000,
        d_model=d_model,
        num_layers=layers,
        attention_width=heads * head_dim,
        local_window=4096,
        num_local_layers=layers // 2,
    )


# Gemma 2 report, table 1; the hidden size is that of gate or up alone (the report lists their sum).
KNOWN = {
    shape.name: shape
    for shape in (
        _gemma2("google/gemma-2-2b", 26, 2304, 8, 4, 256, 9216),
        _gemma2("google/gemma-2-9b", 42, 3584, 16, 8, 256, 14336),
        _gemma2("google/gemma-2-27b", 46, 4608, 32, 16, 128, 36864),
    )
}
_NOT_GATED = {"gpt2", "gpt_neox", "opt", "phi", "starcoder2", "falcon"}
_FOUR_NORMS = {"gemma2", "gemma3_text", "gemma3"}


def find_shape(reference: str) -> ModelShape:
    """The shape of a known model, or of a directory with config.json.

    Raises:
        UsageError: It is neither, or its config.json lacks a size.
    """
    known = KNOWN.get(reference.removesuffix("-it"))
    if known is not None:
        return known
    path = Path(reference).expanduser()
    file = path / "config.json" if path.is_dir() else path
    if file.name != "config.json" or not file.is_file():
        raise UsageError(
            f"{reference}: the shape of this model is not known. Known models: {', '.join(KNOWN)}. For others give a "
            "directory with config.json, or --parameters (non-embedding), --d-model, --vocab-size, and --layers for "
            "attention"
        )
    return shape_of_config(json.loads(file.read_text()), name=path.name)


def shape_of_config(config: Mapping[str, Any], name: str) -> ModelShape:
    """The shape that a `transformers` config.json describes; biases and norms inside attention are not counted.

    Raises:
        UsageError: A size is missing.
    """
    text = config.get("text_config", config)
    try:
        num_layers, d_model = text["num_hidden_layers"], text["hidden_size"]
        num_heads, hidden, vocab_size = text["num_attention_heads"], text["intermediate_size"], text["vocab_size"]
    except KeyError as error:
        raise UsageError(f"{name}: config.json lacks {error}; give --parameters, --d-model and --vocab-size") from error
    head_dim = text.get("head_dim") or d_model // num_heads
    family = text.get("model_type", "")
    window, num_local = _local_layers(text)
    return ModelShape(
        name=name,
        non_embedding_parameters=non_embedding_parameters(
            num_layers=num_layers,
            d_model=d_model,
            num_heads=num_heads,
            num_kv_heads=text.get("num_key_value_heads") or num_heads,
            head_dim=head_dim,
            ffn_hidden=hidden,
            norms_per_layer=4 if family in _FOUR_NORMS else 2,
            ffn_matrices=2 if family in _NOT_GATED else 3,
        ),
        vocab_size=vocab_size,
        d_model=d_model,
        num_layers=num_layers,
        attention_width=num_heads * head_dim,
        local_window=window,
        num_local_layers=num_local,
    )


def _local_layers(text: Mapping[str, Any]) -> tuple[int | None, int]:
    """The window of local layers and their number; a window without layer types applies to all layers."""
    window = text.get("sliding_window")
    if not window or text.get("use_sliding_window") is False:
        return None, 0
    kinds = text.get("layer_types")
    if kinds is None:
        return window, text["num_hidden_layers"]
    return window, sum(kind == "sliding_attention" for kind in kinds)
