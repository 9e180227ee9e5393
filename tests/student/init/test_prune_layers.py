"""Depth pruning: kept layers do not change."""

import pytest
import torch
from model_logits import logits_of
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

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
