"""Directories of weights: read only if it is clear which weights are meant, and all are there."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from logitcask.schemas.errors import TeacherError
from logitcask.teacher.model.description import describe_teacher
from logitcask.teacher.model.loading import load_model
from logitcask.teacher.model.weight_files import tensor_headers, weight_files

WEIGHTS = "model.safetensors"


@pytest.fixture
def sharded(untied_teacher: Path, tmp_path: Path) -> Path:
    directory = shutil.copytree(untied_teacher, tmp_path / "sharded")
    (directory / WEIGHTS).unlink()
    AutoModelForCausalLM.from_pretrained(untied_teacher).save_pretrained(directory, max_shard_size="40KB")
    return directory


@pytest.fixture
def whole(untied_teacher: Path, tmp_path: Path) -> Path:
    return shutil.copytree(untied_teacher, tmp_path / "whole")


def refused(directory: Path, message: str) -> None:
    """By the description and by the loader."""
    for use in (lambda: describe_teacher(directory, "float32"), lambda: load_model(directory, "float32", "cpu")):
        with pytest.raises(TeacherError, match=message):
            use()


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_weights(directory: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    weights = load_file(directory / WEIGHTS)
    change(weights)
    save_file(weights, directory / WEIGHTS, metadata={"format": "pt"})


def test_shards_and_one_file_hold_the_same_tensors(sharded, whole):
    assert len(weight_files(sharded)) > 2
    assert tensor_headers(sharded) == tensor_headers(whole)
    described = [describe_teacher(directory, "float32") for directory in (sharded, whole)]
    assert described[0].num_parameters == described[1].num_parameters
    model = load_model(whole, "float32", "cpu")
    assert sum(weight.numel() for weight in model.parameters()) == described[1].num_parameters


def test_a_missing_shard_is_named(sharded):
    path = weight_files(sharded)[1]
    path.unlink()
    refused(sharded, f"lacks {path.name}")


def test_shards_without_an_index_are_refused(sharded):
    (sharded / "model.safetensors.index.json").unlink()
    refused(sharded, r"but no model\.safetensors\.index\.json")


def test_one_file_next_to_shards_is_refused(sharded, untied_teacher):
    shutil.copy(untied_teacher / WEIGHTS, sharded)
    refused(sharded, r"has model\.safetensors that .* does not name")


def test_a_shard_that_the_index_does_not_name_is_refused(sharded):
    shutil.copy(weight_files(sharded)[0], sharded / "model-00009-of-00009.safetensors")
    refused(sharded, r"has model-00009-of-00009\.safetensors that")


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": "../elsewhere/model.safetensors"}}']
)
def test_an_invalid_index_is_refused(sharded, text):
    (sharded / "model.safetensors.index.json").write_text(text)
    refused(sharded, "is not an index of safetensors files")


def test_an_index_of_other_shards_is_refused(sharded):
    index = sharded / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    for name in ("model.layers.0.mlp.up_proj.weight", "model.norm.weight"):
        less = {tensor: file for tensor, file in weight_map.items() if tensor != name}
        assert set(less.values()) == set(weight_map.values())
        change_json(index, weight_map=less)
        refused(sharded, rf"do not belong together: 1 tensors differ, first {name} \(the index does not place it")
    change_json(index, weight_map=weight_map | {"a.weight": next(iter(weight_map.values()))})
    refused(sharded, r"1 tensors differ, first a\.weight \(it lacks it\)")


@pytest.mark.parametrize("kept", [4, 100, -1])
def test_a_file_that_is_cut_short_is_named(whole, kept):
    path = whole / WEIGHTS
    path.write_bytes(path.read_bytes()[:kept])
    refused(whole, r"model\.safetensors is not a readable safetensors file")


def test_integers_without_a_quantization_are_refused(whole):
    name = "model.layers.0.mlp.up_proj.weight"
    change_weights(whole, lambda weights: weights.update({name: (weights[name] * 100).to(torch.int8)}))
    refused(whole, rf"first {name} \(I8\), but config.json states no quantization_config")


def test_other_weights_by_the_configuration_are_refused(whole):
    change_json(whole / "config.json", transformers_weights="other.safetensors")
    refused(whole, "transformers_weights")


@pytest.mark.parametrize("has_base", [True, False])
def test_an_adapter_is_never_ignored(whole, has_base):
    (whole / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "x", "peft_type": "LORA"}))
    if not has_base:
        (whole / "config.json").unlink()
        (whole / WEIGHTS).unlink()
    refused(whole, r"holds a PEFT adapter .*merge_and_unload")


@pytest.mark.parametrize(
    "name", ["model.layers.2.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.bias", "lm_head.lora_A.weight"]
)
def test_weights_inside_layers_that_have_no_place_are_refused(whole, name):
    change_weights(whole, lambda weights: weights.update({name: torch.ones(3)}))
    with pytest.raises(TeacherError, match=rf"1 weights inside its layers .* first {name}"):
        load_model(whole, "float32", "cpu")


def test_weights_of_other_parts_are_listed(whole, caplog):
    change_weights(whole, lambda weights: weights.update({"vision_tower.layers.0.weight": torch.ones(3)}))
    with caplog.at_level(logging.WARNING):
        load_model(whole, "float32", "cpu")
    assert "1 weights of other parts than LlamaForCausalLM are not used, first vision_tower.layers.0" in caplog.text


def test_weights_of_another_size_are_refused(whole):
    change_json(whole / "config.json", intermediate_size=64)
    with pytest.raises(
        TeacherError,
        match=r"6 weights have other sizes .* first model\.layers\.0\.mlp\.down_proj\.weight \(\(32, 32\) instead",
    ):
        load_model(whole, "float32", "cpu")


def test_a_head_that_differs_from_tied_embeddings_is_refused(tmp_path):
    config = LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    embeddings = load_file(tmp_path / WEIGHTS)["model.embed_tokens.weight"]
    change_weights(tmp_path, lambda weights: weights.update({"lm_head.weight": embeddings.clone()}))
    load_model(tmp_path, "float32", "cpu")
    change_weights(tmp_path, lambda weights: weights.update({"lm_head.weight": embeddings + 1}))
    with pytest.raises(TeacherError, match=r"lm_head\.weight differs from its input embeddings"):
        load_model(tmp_path, "float32", "cpu")
