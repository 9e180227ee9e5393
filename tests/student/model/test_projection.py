"""Trunk and projection: the assumptions of the loss, tested on a model."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    Lfm2Config,
    LlamaConfig,
    MambaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
)

from logitcask.schemas.errors import UsageError
from logitcask.student.model.projection import check_projection, hidden_states, output_projection

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


def test_a_supported_model_passes_and_keeps_its_mode(gpt2):
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


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**DECODER),
        Gemma2Config(**DECODER, head_dim=8, query_pre_attn_scalar=8, sliding_window=8),
        Qwen3Config(**DECODER, head_dim=8),
        SMALL_GPT2,
    ],
    ids=lambda config: config.model_type,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_model_whose_parts_do_not_see_each_other_passes(config, dtype):
    check_projection(random_model(config).to(dtype))


@pytest.mark.parametrize(
    "config",
    [
        BloomConfig(vocab_size=64, hidden_size=16, n_layer=2, n_head=2, initializer_range=0.5),
        Lfm2Config(**DECODER, layer_types=["conv", "full_attention"], block_multiple_of=8),
        MambaConfig(vocab_size=64, hidden_size=16, state_size=4, num_hidden_layers=2, initializer_range=0.3),
    ],
    ids=lambda config: config.model_type,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_model_whose_parts_see_each_other_is_refused(config, dtype):
    model = random_model(config).to(dtype).train()
    with pytest.raises(UsageError, match="documents of a window see each other"):
        check_projection(model)
    assert model.training
