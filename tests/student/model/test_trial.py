"""A student's trial: the assumptions of the loss, tested on a model."""

import math

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BloomConfig,
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    GPT2Config,
    Lfm2Config,
    LlamaConfig,
    MambaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
    RobertaConfig,
)

from logitcask.schemas.errors import StudentError, UsageError
from logitcask.student.model.trial import try_student

SMALL_GPT2 = GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2, n_positions=32, bos_token_id=1, eos_token_id=2)
DECODER = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "initializer_range": 0.3, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip


def random_model(config: PreTrainedConfig) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config)


def test_a_supported_model_passes_and_keeps_its_mode():
    model = random_model(SMALL_GPT2).train()
    try_student(model)
    assert model.training


def test_a_model_that_scales_its_logits_is_refused():
    config = CohereConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, logit_scale=0.5, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    with pytest.raises(UsageError, match="not supported as a student"):
        try_student(CohereForCausalLM(config))


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
    try_student(random_model(config).to(dtype))


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
        try_student(model)
    assert model.training


@pytest.mark.parametrize("config", [BertConfig, RobertaConfig])
def test_a_student_that_sees_later_tokens_is_refused(config):
    model = random_model(
        config(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
               initializer_range=0.5, max_position_embeddings=32, pad_token_id=0)
    )  # fmt: skip
    with pytest.raises(UsageError, match="sees the tokens that it is to predict"):
        try_student(model)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_named(value):
    model = random_model(LlamaConfig(**DECODER))
    with torch.no_grad():
        model.get_submodule("model.layers.1.mlp.down_proj").weight[3, 4] = value
    with pytest.raises(StudentError, match=r"model\.layers\.1\.mlp\.down_proj\.weight \(1 in all\) hold NaN or inf"):
        try_student(model)


def long_rope(original: int) -> PreTrainedModel:
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [8.0] * 4}
    rope["original_max_position_embeddings"] = original
    return random_model(LlamaConfig(**DECODER, max_position_embeddings=256, rope_parameters=rope))


def test_a_student_whose_longest_part_decides_for_all_is_refused():
    try_student(long_rope(32))
    try_student(long_rope(32), window_tokens=24)
    with pytest.raises(UsageError, match="documents of a window see each other"):
        try_student(long_rope(32), window_tokens=128)


def test_a_student_with_a_sliding_window_passes_behind_a_long_part():
    config = Gemma2Config(**DECODER, head_dim=8, query_pre_attn_scalar=8, sliding_window=8)
    try_student(random_model(config), window_tokens=64)
