"""Trunk and projection: the assumptions of the loss, tested on a model."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    PreTrainedConfig,
    PreTrainedModel,
)

from logitcask.schemas.errors import UsageError
from logitcask.student.model.projection import hidden_states, output_projection

SMALL_GPT2 = GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2, n_positions=32, bos_token_id=1, eos_token_id=2)
DECODER = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "initializer_range": 0.3, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip


def random_model(config: PreTrainedConfig) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config)


@pytest.fixture
def gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(SMALL_GPT2)


def test_trunk_and_projection_give_the_models_own_logits(gpt2, tiny_student):
    for model in (gpt2.eval(), tiny_student().eval()):
        ids = torch.arange(20).unsqueeze(0)
        ours = output_projection(model).logits(hidden_states(model, ids, ids)[0])
        torch.testing.assert_close(ours, model(input_ids=ids, use_cache=False).logits[0], atol=1e-5, rtol=1e-5)


def test_a_model_without_output_embeddings_is_refused():
    with pytest.raises(UsageError, match="no output embeddings"):
        output_projection(GPT2Model(SMALL_GPT2))
