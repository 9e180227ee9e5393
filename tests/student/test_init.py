"""Making students: layers of a teacher, random weights, whole checkpoints."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from schemas.errors import ForeignOutputError, UsageError
from student.identity import StudentIdentity
from student.init import making
from student.init.pruning import evenly_spaced, prune_layers
from student.init.scratch import Gemma2Sizes
from teacher.loading import load_model
from teacher.tokenizers import load_tokenizer


def logits_of(model) -> torch.Tensor:
    ids = torch.arange(5, 45).unsqueeze(0)  # longer than the teacher's sliding window
    with torch.no_grad():
        return model.eval()(input_ids=ids, use_cache=False).logits


def test_evenly_spaced_layers_hold_the_first_and_the_last():
    assert evenly_spaced(30, 6) == [0, 6, 12, 17, 23, 29]
    assert evenly_spaced(4, 4) == [0, 1, 2, 3]
    assert evenly_spaced(4, 1) == [0]


@pytest.mark.parametrize("num_kept", [0, 5])
def test_more_layers_than_there_are_is_refused(num_kept):
    with pytest.raises(UsageError, match=f"cannot keep {num_kept} of 4"):
        evenly_spaced(4, num_kept)


def test_keeping_every_layer_changes_nothing(tiny_teacher):
    model = load_model(tiny_teacher, "float32", "cpu")
    before = logits_of(model)
    torch.testing.assert_close(logits_of(prune_layers(model, [0, 1, 2, 3])), before)


@pytest.mark.parametrize("keep", [[1, 2], [0, 2], [1, 3], [3]])
def test_kept_layers_stay_local_or_global_and_read_the_same_after_saving(tiny_teacher, tmp_path, keep):
    teacher = load_model(tiny_teacher, "float32", "cpu")
    types = [teacher.config.layer_types[index] for index in keep]
    student = making.prune_teacher(str(tiny_teacher), tmp_path / "student", keep_layers=keep)
    assert student.config.num_hidden_layers == len(student.model.layers) == len(keep)
    assert student.config.layer_types == types
    assert [layer.self_attn.layer_idx for layer in student.model.layers] == list(range(len(keep)))
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    torch.testing.assert_close(logits_of(reloaded), logits_of(student))
    for index, layer in zip(keep, reloaded.model.layers, strict=True):
        torch.testing.assert_close(layer.mlp.up_proj.weight, teacher.model.layers[index].mlp.up_proj.weight)


def test_a_student_generates_with_its_cache_after_pruning(tiny_teacher, tmp_path):
    student = making.prune_teacher(str(tiny_teacher), tmp_path / "student", keep_layers=[1, 2])
    ids = torch.arange(5, 15).unsqueeze(0)
    cached, plain = (
        student.generate(ids, max_new_tokens=8, do_sample=False, use_cache=use_cache) for use_cache in (True, False)
    )
    assert cached.tolist() == plain.tolist()


@pytest.mark.parametrize("keep", [[], [2, 1], [0, 0], [0, 4], [-1, 0]])
def test_layers_that_do_not_exist_or_do_not_rise_are_refused(keep):
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=4,
            num_attention_heads=2, num_key_value_heads=1,
        )
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"lie in 0\.\.3"):
        prune_layers(model, keep)


def test_the_students_tokenizer_and_provenance_are_its_teachers(tiny_teacher, tmp_path):
    making.prune_teacher(str(tiny_teacher), tmp_path / "student", layers=2)
    identity = StudentIdentity.read(tmp_path / "student")
    assert identity.tokenizer == load_tokenizer(tiny_teacher).info
    assert identity.initialisation["kept_layers"] == [0, 3]
    assert identity.initialisation["of_layers"] == 4
    copied = load_tokenizer(tmp_path / "student")
    assert copied.encode("The student reads as its teacher.") == load_tokenizer(tiny_teacher).encode(
        "The student reads as its teacher."
    )


def test_a_student_from_scratch_has_the_teachers_vocabulary_and_is_reproducible(tiny_teacher, tmp_path):
    sizes = Gemma2Sizes(layers=3, width=32, heads=2, kv_heads=1, head_width=16, mlp_width=64)
    one, same, other = (
        making.from_scratch(str(tiny_teacher), tmp_path / name, sizes=sizes, seed=seed)
        for name, seed in (("one", 0), ("same", 0), ("other", 1))
    )
    assert isinstance(one, Gemma2ForCausalLM)
    assert one.config.vocab_size == 1000
    assert one.config.layer_types == ["sliding_attention", "full_attention", "sliding_attention"]
    torch.testing.assert_close(logits_of(one), logits_of(same), rtol=0, atol=0)
    assert not torch.equal(logits_of(one), logits_of(other))


def test_a_student_from_a_configuration_file_is_of_that_architecture(tiny_teacher, tmp_path):
    config = {
        "model_type": "llama", "vocab_size": 512, "hidden_size": 16, "intermediate_size": 32,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
    }  # fmt: skip
    (tmp_path / "llama.json").write_text(json.dumps(config))
    model = making.from_scratch(str(tiny_teacher), tmp_path / "out", config_file=tmp_path / "llama.json")
    assert isinstance(model, LlamaForCausalLM)
    assert model.config.vocab_size == 1000


def test_an_unreadable_configuration_file_is_refused(tiny_teacher, tmp_path):
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UsageError, match="not a configuration"):
        making.from_scratch(str(tiny_teacher), tmp_path / "out", config_file=tmp_path / "broken.json")


def test_a_checkpoint_is_taken_whole(tiny_teacher, tmp_path):
    making.from_checkpoint(str(tiny_teacher), tmp_path / "student")
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    torch.testing.assert_close(logits_of(reloaded), logits_of(load_model(tiny_teacher, "float32", "cpu")))


def test_a_directory_that_holds_something_is_left_alone(tiny_teacher, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ForeignOutputError, match="not an empty directory"):
        making.prune_teacher(str(tiny_teacher), tmp_path, layers=2)
    assert [file.name for file in Path(tmp_path).iterdir()] == ["precious.txt"]
