"""What each setting and tensor of a GGUF file does: honored, or refused by name; never dropped.

`transformers` reads the settings that it has a name for and silently drops the rest: rotary scaling, soft-caps, sizes
of experts. So its configuration is made here, from a table of all settings that llama.cpp reads for these
architectures. A setting or tensor that is in no row is refused. Every row was compared with llama.cpp's own logits
(`tests/teacher/model/test_gguf_settings.py`).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from logitcask.schemas.errors import TeacherError
from logitcask.teacher.model.gguf_header import GgufHeader

# Increased when the same file would give another model, so that models converted before are not used.
SETTINGS_VERSION = 1

# What settings and tensors no row may name: provenance, and the layout of the file.
_IGNORED = re.compile(
    r"general\.(?!architecture$|type$)|quantize\.|imatrix\.|GGUF\.|tokenizer\.|split\.(no|tensors\.count)$"
)

# To names in the configuration of `transformers`.
_SIZES = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
}
_RMS = {"attention.layer_norm_rms_epsilon": "rms_norm_eps"}
_EXPERTS = {
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
}
_ROPE = frozenset(
    {
        *("rope.freq_base", "rope.dimension_count", "rope.scale_linear", "rope.scaling.type", "rope.scaling.factor"),
        *("rope.scaling.original_context_length", "rope.scaling.attn_factor"),
    }
)
_HEAD_WIDTHS = frozenset({"attention.key_length", "attention.value_length"})
_SLIDING = frozenset({"attention.sliding_window", "attention.sliding_window_pattern"})
# Settings of all architectures that have one value that changes nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attention.scale": (0.0,),
    "attention.temperature_scale": (0.0,),
    "attn_logit_softcapping": (0.0,),
    "final_logit_softcapping": (0.0,),
    "embedding_scale": (0.0, 1.0),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "expert_group_count": (0, 1),
    "expert_group_used_count": (0, 1),
    "expert_shared_count": (0,),
    "expert_weights_scale": (0.0, 1.0),
    "leading_dense_block_count": (0,),
    "logit_scale": (0.0, 1.0),
    "nextn_predict_layers": (0,),
    "pooling_type": (0,),
    "residual_scale": (0.0, 1.0),
    "rope.scaling.alpha": (0.0,),
    "rope.scaling.finetuned": (True, False),  # llama.cpp only prints it
    "rope.scaling.yarn_attn_factor": (1.0,),
    "rope.scaling.yarn_beta_fast": (32.0,),
    "rope.scaling.yarn_beta_slow": (1.0,),
    "rope.scaling.yarn_ext_factor": (-1.0,),
    "rope.scaling.yarn_log_multiplier": (0.0,),
    "tensor_data_layout": ("Meta AI original pth",),
    "use_parallel_residual": (False,),
}

_ATTENTION = r"blk\.\d+\.(attn_norm|attn_q|attn_k|attn_v|attn_output)\.weight"
_FEED_FORWARD = r"blk\.\d+\.(ffn_norm|ffn_gate|ffn_up|ffn_down)\.weight"
_EXPERT_TENSORS = r"blk\.\d+\.(ffn_norm|ffn_gate_inp|ffn_gate_exps|ffn_up_exps|ffn_down_exps)\.weight"
_ENDS = r"(token_embd|output_norm|output)\.weight"
_QK_NORMS = r"blk\.\d+\.attn_[qk]_norm\.weight"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Architecture:
    """One architecture of GGUF.

    Attributes:
        model_type: Of `transformers`.
        names: Settings that are copied, to their names in the configuration.
        settings: Further settings that `configure` and the rotary embeddings honor.
        tensors: A pattern of the names of all its tensors.
        configure: From the header to further values of the configuration.
        has_rope: Whether it has rotary embeddings.
        scalings: The kinds of rotary scaling that it can have.
    """

    model_type: str
    names: Mapping[str, str]
    settings: frozenset[str] = frozenset()
    tensors: tuple[str, ...]
    configure: Callable[[GgufHeader], dict[str, Any]] = field(default=lambda header: {})
    has_rope: bool = True
    scalings: tuple[str, ...] = ("default", "linear", "yarn")


def _head_width(header: GgufHeader) -> int:
    stated = header.setting("attention.key_length")
    return stated or header.setting("embedding_length") // header.setting("attention.head_count")


def _with_head_width(header: GgufHeader) -> dict[str, Any]:
    return {"head_dim": _head_width(header)}


def _qwen3_moe(header: GgufHeader) -> dict[str, Any]:
    return _with_head_width(header) | {"norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []}


def _gemma(header: GgufHeader, *, period: int, window: int, blocks_of_27b: int) -> dict[str, Any]:
    """What Gemma 2 and 3 share. llama.cpp tells the 27B models, which scale queries otherwise, by their layers."""
    width, count = _head_width(header), header.setting("block_count")
    scalar = header.setting("embedding_length") // header.setting("attention.head_count")
    return {
        "head_dim": width,
        "query_pre_attn_scalar": scalar if count == blocks_of_27b else width,
        "sliding_window": header.setting("attention.sliding_window") or window,
        "layer_types": ["sliding_attention" if slides else "full_attention" for slides in _slides(header, period)],
    }


def _gemma2(header: GgufHeader) -> dict[str, Any]:
    softcaps = header.setting("attn_logit_softcapping"), header.setting("final_logit_softcapping")
    return _gemma(header, period=2, window=4096, blocks_of_27b=46) | {
        "attn_logit_softcapping": 50.0 if softcaps[0] is None else softcaps[0] or None,
        "final_logit_softcapping": 30.0 if softcaps[1] is None else softcaps[1] or None,
    }


def _gemma3(header: GgufHeader) -> dict[str, Any]:
    count = header.setting("block_count")
    has_window = bool(header.setting("attention.sliding_window"))
    configured = _gemma(header, period=6, window=4096, blocks_of_27b=62)
    return configured | {
        "final_logit_softcapping": header.setting("final_logit_softcapping") or None,
        **({} if has_window else {"layer_types": ["full_attention"] * count}),
    }


def _phi3(header: GgufHeader) -> dict[str, Any]:
    original = header.setting("rope.scaling.original_context_length") or header.setting("context_length")
    # llama.cpp ignores the window of Phi-3; the model was trained with it.
    return {
        "original_max_position_embeddings": original,
        "sliding_window": header.setting("attention.sliding_window") or None,
    }


def _qwen2(header: GgufHeader) -> dict[str, Any]:
    return _with_head_width(header) | {"use_sliding_window": False}


def _starcoder2(header: GgufHeader) -> dict[str, Any]:
    return {"sliding_window": None, "use_bias": True}


_ARCHITECTURES: dict[str, _Architecture] = {
    "llama": _Architecture(
        model_type="llama",
        names=_SIZES | _RMS,
        settings=_HEAD_WIDTHS,
        tensors=(_ENDS, _ATTENTION, _FEED_FORWARD, r"rope_freqs\.weight"),
        configure=_with_head_width,
    ),
    "qwen2": _Architecture(
        model_type="qwen2",
        names=_SIZES | _RMS,
        settings=_HEAD_WIDTHS,
        tensors=(_ENDS, _ATTENTION, _FEED_FORWARD, r"blk\.\d+\.attn_[qkv]\.bias"),
        configure=_qwen2,
    ),
    "qwen3": _Architecture(
        model_type="qwen3",
        names=_SIZES | _RMS,
        settings=_HEAD_WIDTHS,
        tensors=(_ENDS, _ATTENTION, _FEED_FORWARD, _QK_NORMS),
        configure=lambda header: _with_head_width(header) | {"use_sliding_window": False},
    ),
    "qwen2moe": _Architecture(
        model_type="qwen2_moe",
        names=_SIZES | _RMS | _EXPERTS | {"expert_shared_feed_forward_length": "shared_expert_intermediate_size"},
        tensors=(
            *(_ENDS, _ATTENTION, _EXPERT_TENSORS, r"blk\.\d+\.attn_[qkv]\.bias"),
            r"blk\.\d+\.ffn_(gate_inp|gate|up|down)_shexp\.weight",
        ),
        configure=lambda header: {"norm_topk_prob": False, "decoder_sparse_step": 1, "mlp_only_layers": []},
    ),
    "qwen3moe": _Architecture(
        model_type="qwen3_moe",
        names=_SIZES | _RMS | _EXPERTS,
        settings=_HEAD_WIDTHS,
        tensors=(_ENDS, _ATTENTION, _EXPERT_TENSORS, _QK_NORMS),
        configure=_qwen3_moe,
    ),
    "gemma2": _Architecture(
        model_type="gemma2",
        names=_SIZES | _RMS,
        settings=_HEAD_WIDTHS | _SLIDING | {"attn_logit_softcapping", "final_logit_softcapping"},
        tensors=(_ENDS, _ATTENTION, _FEED_FORWARD, r"blk\.\d+\.(post_attention_norm|post_ffw_norm)\.weight"),
        configure=_gemma2,
        scalings=("default",),
    ),
    "gemma3": _Architecture(
        model_type="gemma3_text",
        names=_SIZES | _RMS,
        settings=_HEAD_WIDTHS | _SLIDING | {"final_logit_softcapping", "rope.freq_base_swa"},
        tensors=(
            *(_ENDS, _ATTENTION, _FEED_FORWARD, _QK_NORMS),
            r"blk\.\d+\.(post_attention_norm|post_ffw_norm)\.weight",
        ),
        configure=_gemma3,
        scalings=("default", "linear"),
    ),
    "phi3": _Architecture(
        model_type="phi3",
        names=_SIZES | _RMS,
        settings=frozenset({"attention.sliding_window"}),
        tensors=(_ENDS, r"blk\.\d+\.(attn_norm|attn_qkv|attn_output|ffn_norm|ffn_up|ffn_down)\.weight"),
        configure=_phi3,
        scalings=("default",),
    ),
    "gpt2": _Architecture(
        model_type="gpt2",
        names={
            "context_length": "n_positions",
            "embedding_length": "n_embd",
            "block_count": "n_layer",
            "feed_forward_length": "n_inner",
            "attention.head_count": "n_head",
            "attention.layer_norm_epsilon": "layer_norm_epsilon",
        },
        tensors=(
            r"(token_embd|position_embd|output)\.weight",
            r"output_norm\.(weight|bias)",
            r"blk\.\d+\.(attn_norm|attn_qkv|attn_output|ffn_norm|ffn_up|ffn_down)\.(weight|bias)",
        ),
        has_rope=False,
    ),
    "starcoder2": _Architecture(
        model_type="starcoder2",
        names=_SIZES | {"attention.layer_norm_epsilon": "norm_epsilon"},
        tensors=(
            r"(token_embd|output)\.weight",
            r"output_norm\.(weight|bias)",
            r"blk\.\d+\.(attn_norm|attn_q|attn_k|attn_v|attn_output|ffn_norm|ffn_up|ffn_down)\.(weight|bias)",
        ),
        configure=_starcoder2,
    ),
}


def check_gguf(header: GgufHeader, path: Path) -> None:
    """Checks that every setting and every tensor has a row, that values are supported, and that no size is missing.

    Raises:
        TeacherError: A setting or tensor is not supported, or missing; names it.
    """
    rows = _architecture(header, path)
    for key in rows.names:
        if header.setting(key) is None:
            raise TeacherError(
                f"{path} does not state {header.architecture}.{key} as one number; use the model's original directory "
                "of safetensors"
            )
    known = {*rows.names, *rows.settings, *(_ROPE if rows.has_rope else ()), "vocab_size"}
    for key in (*header.settings, *header.array_lengths):
        prefix, _, name = key.partition(".")
        if key == "general.architecture" or _IGNORED.match(key):
            continue
        value = header.settings.get(key, header.arrays.get(key))
        is_neutral = name in _NEUTRAL and value in _NEUTRAL[name]
        is_known = prefix == header.architecture and (name in known or is_neutral)
        if not (is_known or (key, value) in (("general.type", "model"), ("split.count", 0), ("split.count", 1))):
            raise _refusal(path, f"the setting {key} = {value!r}")
    for name in header.shapes:
        if not any(re.fullmatch(pattern, name) for pattern in rows.tensors):
            raise _refusal(path, f"the tensor {name}")
    _check_widths(header, rows, path)


def gguf_configuration(header: GgufHeader, path: Path) -> Any:
    """The configuration of `transformers` for a file.

    Raises:
        TeacherError: As `check_gguf`.
    """
    from transformers import AutoConfig

    check_gguf(header, path)
    rows = _architecture(header, path)
    values = {name: header.setting(key) for key, name in rows.names.items()}
    control = {name: header.settings.get(f"tokenizer.ggml.{key}_token_id") for name, key in _CONTROL_IDS.items()}
    return AutoConfig.for_model(
        rows.model_type,
        **values,
        **rows.configure(header),
        **({"rope_parameters": _rope(header, rows, path)} if rows.has_rope else {}),
        **control,
        vocab_size=header.shapes["token_embd.weight"][0],
        tie_word_embeddings="output.weight" not in header.shapes,
    )


_CONTROL_IDS = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}


def _architecture(header: GgufHeader, path: Path) -> _Architecture:
    rows = _ARCHITECTURES.get(header.architecture)
    if rows is None:
        raise TeacherError(
            f"{path} holds a model of the architecture {header.architecture!r}. Supported in GGUF are those that were "
            f"compared with llama.cpp: {', '.join(_ARCHITECTURES)}. Use the model's original directory of safetensors"
        )
    return rows


def _check_widths(header: GgufHeader, rows: _Architecture, path: Path) -> None:
    """Checks settings that must agree with each other, or with the tensors."""
    if "token_embd.weight" not in header.shapes:
        raise TeacherError(f"{path} has no token_embd.weight: it is not a language model")
    width, num_ids = _head_width(header), header.shapes["token_embd.weight"][0]
    if header.setting("vocab_size") not in (None, num_ids):
        raise _refusal(path, f"{header.architecture}.vocab_size = {header.setting('vocab_size')} for {num_ids} rows")
    if header.setting("attention.value_length") not in (None, width):
        raise _refusal(path, f"heads whose keys and values have different lengths ({width} and another one)")
    # Of those without a row for it, only Phi-3 rotates a part of a head.
    if rows.has_rope and header.architecture != "phi3" and header.setting("rope.dimension_count") not in (None, width):
        raise _refusal(path, f"{header.architecture}.rope.dimension_count = {header.setting('rope.dimension_count')}")


def _rope(header: GgufHeader, rows: _Architecture, path: Path) -> dict[str, Any]:
    """The rotary embeddings, as llama.cpp computes them."""
    base = {"rope_theta": float(header.setting("rope.freq_base") or 10_000.0)}
    kind, factor = _scaling(header)
    if kind not in rows.scalings:
        raise _refusal(path, f"{header.architecture}.rope.scaling.type = {kind!r}")
    attention_factor = header.setting("rope.scaling.attn_factor")
    if attention_factor not in (None, 1.0) and kind != "yarn":
        raise _refusal(path, f"{header.architecture}.rope.scaling.attn_factor = {attention_factor}")
    rope = base | {"rope_type": kind}
    if kind == "linear":
        rope["factor"] = factor
    if kind == "yarn":
        original = header.setting("rope.scaling.original_context_length") or header.setting("context_length")
        rope |= {
            "factor": factor,
            "original_max_position_embeddings": original,
            "attention_factor": (0.1 * np.log(factor) + 1.0) * (attention_factor or 1.0),
        }
    if "rope_freqs.weight" in header.shapes:
        rope = _with_frequency_factors(header, rope, path)
    if header.architecture == "phi3":
        return rope | {
            "partial_rotary_factor": (header.setting("rope.dimension_count") or _head_width(header))
            / _head_width(header)
        }
    if header.architecture != "gemma3":
        return rope
    local = float(header.setting("rope.freq_base_swa") or 10_000.0)
    return {"full_attention": rope, "sliding_attention": {"rope_type": "default", "rope_theta": local}}


def _scaling(header: GgufHeader) -> tuple[str, float]:
    """Kind and factor. Without a kind, llama.cpp scales linearly by a factor if there is one."""
    kind = header.setting("rope.scaling.type") or "linear"
    factor = header.setting("rope.scaling.factor") or header.setting("rope.scale_linear") or 1.0
    if kind == "none" or (kind == "linear" and factor == 1.0):
        return "default", 1.0
    return kind, float(factor)


def _with_frequency_factors(header: GgufHeader, rope: dict[str, Any], path: Path) -> dict[str, Any]:
    """Rotary embeddings whose frequencies are divided by the numbers in `rope_freqs.weight`, as Llama 3.1's are.

    In `transformers`, longrope divides them by any numbers; here the same for all lengths.
    """
    if rope["rope_type"] == "yarn":
        raise _refusal(path, "yarn together with the tensor rope_freqs.weight")
    factors = (_read_tensor(path, "rope_freqs.weight") * rope.get("factor", 1.0)).tolist()
    return {
        "rope_type": "longrope",
        "rope_theta": rope["rope_theta"],
        "short_factor": factors,
        "long_factor": factors,
        "factor": 1.0,
        "attention_factor": 1.0,
        "original_max_position_embeddings": header.setting("context_length"),
    }


def _read_tensor(path: Path, name: str) -> np.ndarray:
    from gguf import GGUFReader, dequantize

    tensor = next(tensor for tensor in GGUFReader(path).tensors if tensor.name == name)
    return dequantize(tensor.data, tensor.tensor_type).astype(np.float64)


def _slides(header: GgufHeader, period: int) -> list[bool]:
    """Which layers slide. A period of n means that every n-th layer does not."""
    stated = header.arrays.get(f"{header.architecture}.attention.sliding_window_pattern")
    count = header.setting("block_count")
    if stated is not None:
        return [bool(slides) for slides in stated][:count]
    period = header.setting("attention.sliding_window_pattern") or period
    return [layer % period < period - 1 for layer in range(count)]


def _refusal(path: Path, what: str) -> TeacherError:
    return TeacherError(
        f"{path} has {what}, which logitcask does not support, so its logits would be wrong; use the model's original "
        "directory of safetensors"
    )
