"""A student with random weights: Gemma-2-style from a few sizes, or any architecture from a configuration file."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, Gemma2Config, PreTrainedConfig, PreTrainedModel

from schemas.errors import UsageError
from schemas.shard import TokenizerInfo


@dataclass(frozen=True, kw_only=True, slots=True)
class Gemma2Sizes:
    """The sizes of a Gemma-2-style decoder; defaults are a model of about 10M parameters beside its embeddings.

    Attributes:
        layers: Even ones attend locally, odd ones globally.
        width: D of the residual stream.
        heads, kv_heads, head_width: Attention; the query is scaled by head_width^−½.
        mlp_width: Of the gate (and of the up projection).
        sliding_window_tokens: Reach of the local layers, the token itself counted.
    """

    layers: int = 8
    width: int = 320
    heads: int = 5
    kv_heads: int = 1
    head_width: int = 64
    mlp_width: int = 960
    sliding_window_tokens: int = 4096

    def config(self, vocab_size: int, tokenizer: TokenizerInfo) -> Gemma2Config:
        """The configuration: soft-caps 50 and 30, GeGLU, pre- and post-norms, tied embeddings, as Gemma 2 has them."""
        return Gemma2Config(
            vocab_size=vocab_size,
            hidden_size=self.width,
            intermediate_size=self.mlp_width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            head_dim=self.head_width,
            query_pre_attn_scalar=self.head_width,
            sliding_window=self.sliding_window_tokens,
            bos_token_id=tokenizer.bos_id,
            eos_token_id=tokenizer.eos_id,
            pad_token_id=None,
            tie_word_embeddings=True,
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
