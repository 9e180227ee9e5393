"""A student with random weights: Gemma-2- or Llama-style by a few sizes, or any configuration of `transformers`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    ArceeConfig,
    AutoConfig,
    AutoModelForCausalLM,
    Gemma2Config,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from logitcask.schemas.errors import UsageError
from logitcask.schemas.format.metadata import TokenizerInfo
from logitcask.student.settings import DecoderSizes

# The activation of each kind of feed-forward layer; gated kinds apply it only to the gate.
_GATED = {"geglu": "gelu_pytorch_tanh", "swiglu": "silu", "reglu": "relu"}
_UNGATED = {"gelu": "gelu_pytorch_tanh", "relu": "relu"}


@dataclass(frozen=True, kw_only=True, slots=True)
class ScratchSizes(DecoderSizes):
    """A decoder from scratch; see `DecoderSizes`.

    Attributes:
        layers: The depth; in Gemma 2 even layers attend locally, odd layers globally.
        sliding_window_tokens: Reach of Gemma 2's local layers, including the token itself.

    Raises:
        UsageError: A feed-forward layer that the family does not have, or an odd width of a layer without a gate.
    """

    layers: int = 8
    sliding_window_tokens: int = 4096

    def __post_init__(self) -> None:
        if self.family == "gemma2" and self.feed_forward not in _GATED:
            raise UsageError(
                f"Gemma 2's feed-forward layers have a gate, and {self.feed_forward} has none; use --family llama, "
                "where the gated and ungated variants differ in nothing else"
            )
        if self.feed_forward in _UNGATED and self.mlp_width % 2:
            raise UsageError(
                f"a feed-forward layer without a gate is 3/2 as wide, and 3/2 of {self.mlp_width} is not an integer; "
                "use an even --mlp-width"
            )

    def config(self, vocab_size: int, tokenizer: TokenizerInfo) -> PreTrainedConfig:
        """The configuration of a model that plain `transformers` loads; embeddings are tied."""
        sizes = {
            "vocab_size": vocab_size,
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_width,
            "bos_token_id": tokenizer.bos_id,
            "eos_token_id": tokenizer.eos_id,
            "pad_token_id": None,
            "tie_word_embeddings": True,
        }
        if self.family == "gemma2":
            return self._gemma2(sizes)
        if self.feed_forward in _UNGATED:
            # Arcee is Llama with two matrices instead of three; at 3/2 of the width it has equally many parameters.
            activation = _UNGATED[self.feed_forward]
            return ArceeConfig(**sizes, intermediate_size=self.mlp_width * 3 // 2, hidden_act=activation)
        return LlamaConfig(**sizes, intermediate_size=self.mlp_width, hidden_act=_GATED[self.feed_forward])

    def _gemma2(self, sizes: dict[str, Any]) -> PreTrainedConfig:
        """Soft-caps 50 and 30, pre- and post-norms, and queries scaled by head_width^−½, as in Gemma 2."""
        return Gemma2Config(
            **sizes,
            intermediate_size=self.mlp_width,
            query_pre_attn_scalar=self.head_width,
            sliding_window=self.sliding_window_tokens,
            hidden_activation=_GATED[self.feed_forward],
        )


def read_config(path: Path, vocab_size: int) -> PreTrainedConfig:
    """A configuration of `transformers` from a JSON file, with the teacher's vocabulary size if its own is smaller.

    Raises:
        UsageError: It cannot be read.
    """
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{path}: not a configuration of transformers ({error})") from error
    config.vocab_size = max(config.vocab_size, vocab_size)
    return config


def random_student(config: PreTrainedConfig, seed: int) -> PreTrainedModel:
    """A float32 model with the architecture's random initialization; equal seeds give equal weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
