"""Depth pruning: kept layers do not change."""

import copy

import pytest
import torch
from model_logits import logits_of
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3MoeConfig,
    SmolLM3Config,
)

from logitcask.schemas.errors import UsageError
from logitcask.student.init import make_student
from logitcask.student.init.prune_layers import evenly_spaced, prune_layers
from logitcask.teacher.model.loading import load_model


def test_evenly_spaced_layers_include_the_first_and_the_last():
    assert evenly_spaced(30, 6) == [0, 6, 12, 17, 23, 29]
    assert evenly_spaced(4, 4) == [0, 1, 2, 3]
    assert evenly_spaced(4, 1) == [0]


@pytest.mark.parametrize("num_kept", [0, 5])
def test_an_impossible_number_of_layers_is_refused(num_kept):
    with pytest.raises(UsageError, match=f"cannot keep {num_kept} of 4"):
        evenly_spaced(4, num_kept)


def test_keeping_every_layer_changes_nothing(tiny_teacher):
    model = load_model(tiny_teacher, "float32", "cpu")
    before = logits_of(model)
    torch.testing.assert_close(logits_of(prune_layers(model, [0, 1, 2, 3])), before)


@pytest.mark.parametrize("keep", [[1, 2], [0, 2], [1, 3], [3]])
def test_kept_layers_keep_their_attention_type_after_saving(tiny_teacher, tmp_path, keep):
    teacher = load_model(tiny_teacher, "float32", "cpu")
    types = [teacher.config.layer_types[index] for index in keep]
    student = make_student.prune_teacher(str(tiny_teacher), tmp_path / "student", keep_layers=keep)
    assert student.config.num_hidden_layers == len(student.model.layers) == len(keep)
    assert student.config.layer_types == types
    assert [layer.self_attn.layer_idx for layer in student.model.layers] == list(range(len(keep)))
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    torch.testing.assert_close(logits_of(reloaded), logits_of(student))
    for index, layer in zip(keep, reloaded.model.layers, strict=True):
        torch.testing.assert_close(layer.mlp.up_proj.weight, teacher.model.layers[index].mlp.up_proj.weight)


def test_a_student_generates_with_its_cache_after_pruning(tiny_teacher, tmp_path):
    student = make_student.prune_teacher(str(tiny_teacher), tmp_path / "student", keep_layers=[1, 2])
    ids = torch.arange(5, 15).unsqueeze(0)
    cached, plain = (
        student.generate(ids, max_new_tokens=8, do_sample=False, use_cache=use_cache) for use_cache in (True, False)
    )
    assert cached.tolist() == plain.tolist()


@pytest.mark.parametrize("keep", [[], [2, 1], [0, 0], [0, 4], [-1, 0]])
def test_missing_or_unordered_layers_are_refused(keep):
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=4,
            num_attention_heads=2, num_key_value_heads=1,
        )
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"in ascending order and in 0\.\.3"):
        prune_layers(model, keep)


SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 6, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.3, "pad_token_id": 0,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
GPT2 = {"vocab_size": 64, "n_embd": 32, "n_head": 4, "n_layer": 6, "n_positions": 64, "initializer_range": 0.3}


def random_model(config: PreTrainedConfig) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


def skip_layer(_, args, kwargs, output):
    hidden = args[0] if args else kwargs["hidden_states"]
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


@pytest.mark.parametrize("keep", [[0, 5], [1, 2, 4]])
@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SIZES),
        GPT2Config(**GPT2),
        GPTNeoXConfig(**{**SIZES, "num_key_value_heads": 4}),
        Gemma2Config(**SIZES, head_dim=8, query_pre_attn_scalar=8, sliding_window=4),
        Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=4, max_window_layers=2),
        Qwen3MoeConfig(**SIZES, **EXPERTS, head_dim=8),
        SmolLM3Config(**SIZES, no_rope_layer_interval=3),
    ],
    ids=lambda config: config.model_type,
)
def test_a_pruned_model_computes_what_the_original_does_without_the_others(tmp_path, config, keep):
    original = random_model(config)
    prune_layers(copy.deepcopy(original), keep).save_pretrained(tmp_path)
    pruned = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    ids = torch.arange(20)[None]
    layers = getattr(original.base_model, "layers", None) or original.base_model.h
    for index, layer in enumerate(layers):
        if index not in keep:
            layer.register_forward_hook(skip_layer, with_kwargs=True)
    with torch.no_grad():
        torch.testing.assert_close(pruned(input_ids=ids).logits, original(input_ids=ids, use_cache=False).logits)


@pytest.mark.parametrize(
    ("config", "keep", "message"),
    [
        (Qwen3MoeConfig(**SIZES, **EXPERTS, head_dim=8, decoder_sparse_step=2), [1, 3], "do not fit its configuration"),
        (Qwen3MoeConfig(**SIZES, **EXPERTS, head_dim=8, decoder_sparse_step=2), [1, 2], "do not fit its configuration"),
        (GPT2Config(**GPT2, scale_attn_by_inverse_layer_idx=True), [0, 3], "another model: its "),
    ],
)
def test_layers_that_would_be_others_at_their_new_place_are_refused(config, keep, message):
    with pytest.raises(UsageError, match=f"with these layers it would be .*{message}"):
        prune_layers(random_model(config), keep)


def test_layers_whose_number_says_what_they_are_can_stay_where_they_are():
    config = Qwen3MoeConfig(**SIZES, **EXPERTS, head_dim=8, decoder_sparse_step=2)
    prune_layers(random_model(config), [0, 1, 4, 5])
    listed = Qwen3MoeConfig(**SIZES, **EXPERTS, head_dim=8, mlp_only_layers=[0, 3])
    assert prune_layers(random_model(listed), [1, 3, 5]).config.mlp_only_layers == [1]
