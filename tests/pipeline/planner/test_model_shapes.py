"""Shapes of models: the Gemma 2 report, config.json files, and unknown models."""

import pytest

from logitcask.pipeline.planner.model_shapes import KNOWN, ModelShape, find_shape, shape_of_config
from logitcask.schemas.errors import UsageError

SMALL, MEDIUM, LARGE = (KNOWN[f"google/gemma-2-{size}"] for size in ("2b", "9b", "27b"))


@pytest.mark.parametrize(
    ("shape", "parameters"), [(SMALL, 2_024_517_888), (MEDIUM, 8_324_201_984), (LARGE, 26_047_480_320)]
)
def test_non_embedding_parameters_are_those_of_the_report(shape, parameters):
    assert shape.non_embedding_parameters == parameters


def test_the_shape_of_a_config_is_that_of_the_known_model():
    config = {
        "model_type": "gemma2",
        "num_hidden_layers": 26,
        "hidden_size": 2304,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "intermediate_size": 9216,
        "vocab_size": 256_000,
        "sliding_window": 4096,
        "layer_types": ["sliding_attention", "full_attention"] * 13,
    }
    found = shape_of_config(config, SMALL.name)
    assert found == SMALL


@pytest.mark.slow
def test_the_parameters_of_a_tiny_model_are_counted(tiny_teacher):
    from transformers import AutoModelForCausalLM

    shape = find_shape(str(tiny_teacher))
    assert isinstance(shape, ModelShape)
    assert shape.parameters == sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(tiny_teacher).parameters())


def test_an_unknown_model_names_the_required_options(tmp_path):
    with pytest.raises(UsageError, match="--parameters"):
        find_shape("unknown/model")
    (tmp_path / "config.json").write_text('{"hidden_size": 3}')
    with pytest.raises(UsageError, match="num_hidden_layers"):
        find_shape(str(tmp_path))
