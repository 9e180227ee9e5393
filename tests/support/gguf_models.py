"""Tiny random F32 models in GGUF, by architecture, with any setting changed: no two settings give the same logits.

Weights depend on the architecture and the tensor's name only. llama.cpp's logits for the files are kept in
`tests/fixtures/llama_cpp` (`bench/gguf_logits.py` computes them).
"""

import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

VOCAB_SIZE, WIDTH, LAYERS, HEADS, KV_HEADS, HEAD_WIDTH, INNER, EXPERTS, CONTEXT = 64, 32, 2, 4, 2, 8, 48, 4, 128
IDS = np.random.default_rng(5).integers(0, VOCAB_SIZE, 48)

_SIZES: dict[str, Any] = {
    "context_length": CONTEXT,
    "embedding_length": WIDTH,
    "block_count": LAYERS,
    "feed_forward_length": INNER,
    "attention.head_count": HEADS,
    "attention.head_count_kv": KV_HEADS,
    "vocab_size": VOCAB_SIZE,
}
_RMS = {"attention.layer_norm_rms_epsilon": 1e-5}
_HEAD_WIDTHS = {"attention.key_length": HEAD_WIDTH, "attention.value_length": HEAD_WIDTH}
_WINDOW = {"attention.sliding_window": 8}
_EXPERTS = {"expert_count": EXPERTS, "expert_used_count": 2, "expert_feed_forward_length": 16}

# By architecture of GGUF, its settings.
SETTINGS: dict[str, dict[str, Any]] = {
    "llama": _SIZES | _RMS | {"rope.dimension_count": HEAD_WIDTH, "rope.freq_base": 10_000.0},
    "qwen2": _SIZES | _RMS | {"rope.freq_base": 10_000.0},
    "qwen3": _SIZES | _RMS | _HEAD_WIDTHS | {"rope.freq_base": 10_000.0},
    "gemma2": _SIZES | _RMS | _HEAD_WIDTHS | _WINDOW | {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0},
    "gemma3": _SIZES | _RMS | _HEAD_WIDTHS | _WINDOW | {"rope.freq_base": 500_000.0, "block_count": 6},
    "phi3": _SIZES | _RMS | {"rope.dimension_count": HEAD_WIDTH, "rope.freq_base": 10_000.0,
                             "rope.scaling.original_context_length": CONTEXT},
    "qwen2moe": _SIZES | _RMS | _EXPERTS | {"rope.freq_base": 10_000.0, "expert_shared_feed_forward_length": 24},
    "qwen3moe": _SIZES | _RMS | _HEAD_WIDTHS | _EXPERTS | {"rope.freq_base": 10_000.0},
    "gpt2": {key: value for key, value in _SIZES.items() if "kv" not in key} | {"attention.layer_norm_epsilon": 1e-5},
    "starcoder2": _SIZES | {"attention.layer_norm_epsilon": 1e-5, "rope.freq_base": 10_000.0},
}  # fmt: skip

_ROPE = {
    "another base": {"rope.freq_base": 500.0},
    "linear scaling": {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
    "a scaling that is switched off": {"rope.scaling.type": "none", "rope.scaling.factor": 4.0},
}
_YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 16}
# By architecture, and name, the settings that differ from the above; None removes a setting. "+" adds tensors.
VARIANTS: dict[tuple[str, str], dict[str, Any]] = {
    **{(name, "as it is"): {} for name in SETTINGS},
    **{(name, rope): changes for name in ("llama", "qwen2", "qwen3", "starcoder2") for rope, changes in _ROPE.items()},
    **{(name, "yarn"): _YARN for name in ("llama", "qwen2", "qwen3")},
    **{(name, "no base"): {"rope.freq_base": None} for name in ("llama", "gemma3", "starcoder2")},
    ("llama", "the old name of linear scaling"): {"rope.scale_linear": 4.0},
    ("llama", "a factor without a type"): {"rope.scaling.factor": 4.0},
    ("llama", "yarn with an attention factor"): _YARN | {"rope.scaling.attn_factor": 1.5},
    ("llama", "yarn without the original length"): _YARN | {"rope.scaling.original_context_length": None},
    ("llama", "rope_freqs"): {"+": ("rope_freqs",)},
    ("llama", "rope_freqs and linear scaling"): {"+": ("rope_freqs",), "rope.scale_linear": 2.0},
    ("llama", "tied"): {"-": ("output",)},
    ("llama", "another epsilon"): {"attention.layer_norm_rms_epsilon": 0.3},
    ("llama", "wide heads"): {"attention.key_length": 16, "attention.value_length": 16, "rope.dimension_count": 16},
    ("llama", "the name of another architecture"): {"general.name": "mistral"},
    ("gemma2", "other soft-caps"): {"attn_logit_softcapping": 1.0, "final_logit_softcapping": 2.0},
    ("gemma2", "no stated soft-caps"): {"attn_logit_softcapping": None, "final_logit_softcapping": None},
    ("gemma2", "another window"): {"attention.sliding_window": 20},
    ("gemma2", "wide heads"): {"attention.key_length": 16, "attention.value_length": 16},
    ("gemma3", "linear scaling"): {"rope.scaling.type": "linear", "rope.scaling.factor": 8.0},
    ("gemma3", "another local base"): {"rope.freq_base_swa": 300.0},
    ("gemma3", "a final soft-cap"): {"final_logit_softcapping": 2.0},
    ("gemma3", "another window"): {"attention.sliding_window": 20},
    ("gemma3", "another pattern"): {"attention.sliding_window_pattern": 2},
    ("gemma3", "a pattern by layer"): {"attention.sliding_window_pattern": [False, True, True, False, True, True]},
    ("phi3", "half-rotated heads"): {"rope.dimension_count": 4},
    ("qwen2moe", "one expert"): {"expert_used_count": 1},
    ("qwen3moe", "one expert"): {"expert_used_count": 1},
    ("gpt2", "another epsilon"): {"attention.layer_norm_epsilon": 0.3},
}


def write_model(path: Path, architecture: str, changes: Mapping[str, Any] | None = None) -> Path:
    """Writes a file without a tokenizer."""
    settings = {**SETTINGS[architecture], **(changes or {})}
    added, removed = settings.pop("+", ()), settings.pop("-", ())
    settings = {name: value for name, value in settings.items() if value is not None}
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_tokenizer_model("none")
    for name, value in settings.items():
        key = name if name.startswith(("general.", "tokenizer.")) else f"{architecture}.{name}"
        add_value(writer, key, value)
    shapes = {name: shape for name, shape in _shapes(architecture, settings) if name.split(".")[0] not in removed}
    for name in added:
        shapes[f"{name}.weight"] = (settings.get("attention.key_length", HEAD_WIDTH) // 2,)
    for name, shape in shapes.items():
        writer.add_tensor(name, _values(architecture, name, shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_value(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    """Adds a setting with the type that converters give it."""
    kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    kinds.get(type(value), writer.add_array)(key, value)


def _values(architecture: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    values = np.random.default_rng(zlib.crc32(f"{architecture} {name}".encode())).standard_normal(shape)
    if name == "rope_freqs.weight":
        return np.linspace(1.0, 8.0, shape[0]).astype(np.float32)
    if name.endswith("norm.weight"):
        return (1 + 0.2 * values).astype(np.float32)
    return (0.3 * values).astype(np.float32)


def _shapes(architecture: str, settings: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the tensors, slowest dimension first."""
    head_width = settings.get("attention.key_length", WIDTH // HEADS)
    queries, keys = HEADS * head_width, settings.get("attention.head_count_kv", HEADS) * head_width
    has_biases = architecture in ("gpt2", "starcoder2")
    yield "token_embd.weight", (VOCAB_SIZE, WIDTH)
    yield from _with_bias("output_norm", (WIDTH,), has_biases)
    if architecture == "gpt2":
        yield "position_embd.weight", (CONTEXT, WIDTH)
    if not architecture.startswith("gemma"):
        yield "output.weight", (VOCAB_SIZE, WIDTH)
    for layer in range(settings["block_count"]):
        block = f"blk.{layer}."
        yield from _with_bias(f"{block}attn_norm", (WIDTH,), has_biases)
        yield from _with_bias(f"{block}ffn_norm", (WIDTH,), has_biases)
        if architecture in ("gpt2", "phi3"):
            yield from _with_bias(f"{block}attn_qkv", (queries + 2 * keys, WIDTH), has_biases)
        else:
            for name, rows in (("q", queries), ("k", keys), ("v", keys)):
                is_biased = has_biases or architecture.startswith("qwen2")
                yield from _with_bias(f"{block}attn_{name}", (rows, WIDTH), is_biased)
        yield from _with_bias(f"{block}attn_output", (WIDTH, queries), has_biases)
        if architecture in ("qwen3", "qwen3moe", "gemma3"):
            yield f"{block}attn_q_norm.weight", (head_width,)
            yield f"{block}attn_k_norm.weight", (head_width,)
        if architecture.startswith("gemma"):
            yield f"{block}post_attention_norm.weight", (WIDTH,)
            yield f"{block}post_ffw_norm.weight", (WIDTH,)
        yield from _feed_forward(architecture, settings, block)


def _feed_forward(architecture: str, settings: Mapping[str, Any], block: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    if architecture in ("gpt2", "starcoder2"):
        yield from _with_bias(f"{block}ffn_up", (INNER, WIDTH), True)
        yield from _with_bias(f"{block}ffn_down", (WIDTH, INNER), True)
    elif architecture == "phi3":
        yield f"{block}ffn_up.weight", (2 * INNER, WIDTH)
        yield f"{block}ffn_down.weight", (WIDTH, INNER)
    elif "expert_count" in settings:
        inner = settings.get("expert_feed_forward_length", 16)
        yield f"{block}ffn_gate_inp.weight", (EXPERTS, WIDTH)
        yield f"{block}ffn_gate_exps.weight", (EXPERTS, inner, WIDTH)
        yield f"{block}ffn_up_exps.weight", (EXPERTS, inner, WIDTH)
        yield f"{block}ffn_down_exps.weight", (EXPERTS, WIDTH, inner)
        if shared := settings.get("expert_shared_feed_forward_length"):
            yield f"{block}ffn_gate_inp_shexp.weight", (WIDTH,)
            yield f"{block}ffn_gate_shexp.weight", (shared, WIDTH)
            yield f"{block}ffn_up_shexp.weight", (shared, WIDTH)
            yield f"{block}ffn_down_shexp.weight", (WIDTH, shared)
    else:
        yield f"{block}ffn_gate.weight", (INNER, WIDTH)
        yield f"{block}ffn_up.weight", (INNER, WIDTH)
        yield f"{block}ffn_down.weight", (WIDTH, INNER)


def _with_bias(name: str, shape: tuple[int, ...], is_biased: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    if is_biased:
        yield f"{name}.bias", shape[:1]
