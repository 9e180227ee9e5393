"""A student with random weights: Gemma-2- or Llama-style from a few sizes, or any configuration of `transformers`."""

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

# Activation of each feed-forward layer; the gated ones apply it to the gate alone.
_GATED = {"geglu": "gelu_pytorch_tanh", "swiglu": "silu", "reglu": "relu"}
_UNGATED = {"gelu": "gelu_pytorch_tanh", "relu": "relu"}


@dataclass(frozen=True, kw_only=True, slots=True)
class ScratchSizes(DecoderSizes):
    """A decoder from scratch; see `DecoderSizes`.

    Attributes:
        layers: The depth; in Gemma 2 even layers attend locally, odd ones globally.
        sliding_window_tokens: Reach of Gemma 2's local layers, the token itself counted.

    Raises:
        UsageError: A feed-forward layer that the family does not have, or a width that cannot be matched.
    """

    layers: int = 8
    sliding_window_tokens: int = 4096

    def __post_init__(self) -> None:
        if self.family == "gemma2" and self.feed_forward not in _GATED:
            raise UsageError(
                f"Gemma 2's feed-forward layer has a gate; for {self.feed_forward} without one use --family llama, "
                "where nothing else differs from the gated variants"
            )
        if self.feed_forward in _UNGATED and self.mlp_width % 2:
            raise UsageError(
                f"without a gate the layer is 3/2 as wide, and 3/2 of {self.mlp_width} is no whole number; give an "
                "even --mlp-width"
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
            # Arcee is Llama with two matrices in place of three; as wide again by half, it has as many parameters.
            activation = _UNGATED[self.feed_forward]
            return ArceeConfig(**sizes, intermediate_size=self.mlp_width * 3 // 2, hidden_act=activation)
        return LlamaConfig(**sizes, intermediate_size=self.mlp_width, hidden_act=_GATED[self.feed_forward])

    def _gemma2(self, sizes: dict[str, Any]) -> PreTrainedConfig:
        """Soft-caps 50 and 30, pre- and post-norms, the query scaled by head_width^−½, as Gemma 2 has them."""
        return Gemma2Config(
            **sizes,
            intermediate_size=self.mlp_width,
            query_pre_attn_scalar=self.head_width,
            sliding_window=self.sliding_window_tokens,
            hidden_activation=_GATED[self.feed_forward],
        )


def read_config(path: Path, vocab_size: int) -> PreTrainedConfig:
    """A configuration of `transformers` from a JSON file, with the teacher's vocabulary if it names a smaller one.

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
    """A float32 model with the architecture's own random initialisation, the same for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
