"""A saved student has only the teacher's ids, and the same distribution over them, in plain `transformers`."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    GPTJConfig,
    LlamaConfig,
    PhiConfig,
    PreTrainedConfig,
)

from logitcask.student.model.exact_vocabulary import num_surplus_ids, save_student

DECODER = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "initializer_range": 0.3, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 60,
}  # fmt: skip
SMALL = {
    "vocab_size": 64,
    "n_embd": 16,
    "n_layer": 1,
    "n_head": 2,
    "n_positions": 32,
    "bos_token_id": 1,
    "eos_token_id": 63,
}


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**DECODER),
        LlamaConfig(**DECODER, tie_word_embeddings=True),
        Gemma2Config(**DECODER, head_dim=8, query_pre_attn_scalar=8),
        PhiConfig(**DECODER),  # with a bias
        GPT2Config(**SMALL),
        GPTJConfig(**SMALL, rotary_dim=4),
    ],
    ids=lambda config: f"{config.model_type}-{config.tie_word_embeddings}",
)
def test_surplus_ids_are_cut_and_the_others_keep_their_logits(tmp_path, config: PreTrainedConfig):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    assert num_surplus_ids(model, 48) == 16
    save_student(model, tmp_path, 48)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    ids = torch.arange(20)[None]
    with torch.no_grad():
        expected, found = model(input_ids=ids).logits, saved(input_ids=ids).logits
    assert expected.shape[-1] == 64
    torch.testing.assert_close(found, expected[..., :48])
    assert saved.generation_config.pad_token_id is None


def test_a_student_without_surplus_ids_is_saved_as_it_is(tmp_path, tiny_student):
    model = tiny_student()
    assert num_surplus_ids(model, 48) == 0
    save_student(model, tmp_path, 48)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in saved.state_dict().items())
