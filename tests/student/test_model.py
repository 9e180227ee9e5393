"""Trunk and projection: what the loss may assume of a model, tried on it."""

import pytest
import torch
from transformers import CohereConfig, CohereForCausalLM, GPT2Config, GPT2LMHeadModel, GPT2Model, PreTrainedModel

from schemas.errors import UsageError
from student.model import check_projection, hidden_states, output_projection

SMALL_GPT2 = GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2, n_positions=32, bos_token_id=1, eos_token_id=2)


@pytest.fixture
def gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(SMALL_GPT2)


def test_trunk_and_projection_give_the_models_own_logits(gpt2, tiny_student):
    for model in (gpt2.eval(), tiny_student().eval()):
        ids = torch.arange(20).unsqueeze(0)
        ours = output_projection(model).logits(hidden_states(model, ids, ids)[0])
        torch.testing.assert_close(ours, model(input_ids=ids, use_cache=False).logits[0], atol=1e-5, rtol=1e-5)


def test_a_supported_model_passes_and_stays_in_its_mode(gpt2):
    check_projection(gpt2.train())
    assert gpt2.training


def test_a_model_that_scales_its_logits_is_refused():
    config = CohereConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, logit_scale=0.5, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    with pytest.raises(UsageError, match="not supported as a student"):
        check_projection(CohereForCausalLM(config))


def test_a_model_without_output_embeddings_is_refused():
    with pytest.raises(UsageError, match="no output embeddings"):
        output_projection(GPT2Model(SMALL_GPT2))
