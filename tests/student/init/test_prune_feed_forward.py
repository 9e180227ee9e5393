"""Width pruning: the least important neurons go first."""

import pytest
import torch
from model_logits import logits_of
from transformers import AutoModelForCausalLM

from logitcask.schemas.errors import UsageError
from logitcask.student.init import make_student
from logitcask.student.init.prune_feed_forward import prune_feed_forward
from logitcask.student.model.student_card import StudentCard
from logitcask.teacher.model.loading import load_model


def test_neurons_without_effect_are_removed_first(tiny_teacher, tmp_path):
    model = load_model(tiny_teacher, "float32", "cpu")
    generator = torch.Generator().manual_seed(0)
    for layer in model.model.layers:
        layer.mlp.down_proj.weight[:, torch.randperm(128, generator=generator)[:28]] = 0
    before = logits_of(model)
    prune_feed_forward(model, 100)
    torch.testing.assert_close(logits_of(model), before)


def test_a_student_pruned_in_depth_and_width_has_the_expected_size(tiny_teacher, tmp_path):
    teacher = load_model(tiny_teacher, "float32", "cpu")
    made = make_student.prune_teacher(str(tiny_teacher), tmp_path / "student", keep_layers=[0, 1], mlp_width=96)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    torch.testing.assert_close(logits_of(loaded), logits_of(made))
    dropped = [parameter.numel() for layer in teacher.model.layers[2:] for parameter in layer.parameters()]
    expected = teacher.num_parameters() - sum(dropped) - 2 * 3 * 64 * (128 - 96)
    assert loaded.num_parameters() == expected
    assert loaded.config.intermediate_size == 96
    assert StudentCard.read(tmp_path / "student").initialisation["of_mlp_width"] == 128


@pytest.mark.parametrize("num_kept", [0, 129])
def test_neurons_that_do_not_exist_cannot_be_kept(tiny_teacher, num_kept):
    with pytest.raises(UsageError, match=f"cannot keep {num_kept} of 128 neurons"):
        prune_feed_forward(load_model(tiny_teacher, "float32", "cpu"), num_kept)
