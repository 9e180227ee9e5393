"""Lengths in a configuration at which a model starts to compute something else."""

from types import SimpleNamespace

import pytest

from logitcask.schemas.length_thresholds import length_thresholds, max_sequence_tokens, selects_tokens, trial_tokens

CONFIG = {
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "max_window_layers": 28,
    "vocab_size": 400,
    "head_dim": 64,
    "eos_token_id": 255,
    "max_position_embeddings": 8192,
    "use_sliding_window": True,
    "sliding_window": 512,
    "rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 4096, "factor": 32.0},
}


def test_thresholds_are_found_by_name_also_in_nested_settings():
    assert length_thresholds(CONFIG, 8192) == (512, 4096)
    assert length_thresholds(CONFIG, 4096) == (512,)
    assert length_thresholds(CONFIG, 512) == ()


def test_a_trial_reaches_past_all_thresholds_below_the_window():
    assert trial_tokens(CONFIG, 8192) == 4096 + 512
    assert trial_tokens(CONFIG, 1024) == 512 + 64
    assert trial_tokens(CONFIG, 520) == 520
    assert trial_tokens(CONFIG, 512) == 0


def test_chosen_blocks_take_effect_at_a_multiple_of_their_size():
    assert trial_tokens({"index_block_size": 64, "index_topk_blocks": 16}, 4096) == 17 * 64


@pytest.mark.parametrize(
    "name",
    [
        *("attention_chunk_size", "attention_window_size", "context_length", "floor_scale", "index_topk"),
        *("keep_window_size", "local_attention", "local_attn_chunk_length", "log_scaling_n_floor", "mem_len"),
        *("n_ctx", "original_max_position_embeddings", "rel_extent", "relative_max_distance", "sliding_window_size"),
    ],
)
def test_the_names_that_models_use_are_known(name):
    assert length_thresholds({name: 48}, 100) == (48,)


def test_the_longest_sequence_has_many_names():
    assert max_sequence_tokens(SimpleNamespace(max_position_embeddings=2048)) == 2048
    assert max_sequence_tokens(SimpleNamespace(max_seq_len=77)) == 77
    assert max_sequence_tokens(SimpleNamespace(max_position_embeddings=-1)) is None
    assert max_sequence_tokens(SimpleNamespace()) is None


def test_models_that_choose_tokens_are_known():
    assert selects_tokens({"index_topk": 8}, 9)
    assert not selects_tokens({"index_topk": 8}, 8)
    assert not selects_tokens({"topk_group": 4, "moe_topk": 2, "sliding_window": 4}, 100)
