"""Making students: layers of a teacher, random weights, whole checkpoints."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from logitcask.schemas.errors import ForeignOutputError, UsageError
from logitcask.student.init import make_student
from logitcask.student.init.prune_feed_forward import prune_feed_forward
from logitcask.student.init.prune_layers import evenly_spaced, prune_layers
from logitcask.student.init.scratch import ScratchSizes
from logitcask.student.model.student_card import StudentCard
from logitcask.teacher.model.loading import load_model
from logitcask.teacher.text.tokenizers import load_tokenizer


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
def test_layers_that_do_not_exist_or_do_not_rise_are_refused(keep):
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=4,
            num_attention_heads=2, num_key_value_heads=1,
        )
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"in ascending order and in 0\.\.3"):
        prune_layers(model, keep)


def test_the_students_tokenizer_and_provenance_are_its_teachers(tiny_teacher, tmp_path):
    make_student.prune_teacher(str(tiny_teacher), tmp_path / "student", layers=2)
    identity = StudentCard.read(tmp_path / "student")
    assert identity.tokenizer == load_tokenizer(tiny_teacher).info
    assert identity.initialisation["kept_layers"] == [0, 3]
    assert identity.initialisation["of_layers"] == 4
    copied = load_tokenizer(tmp_path / "student")
    assert copied.encode("The student reads as its teacher.") == load_tokenizer(tiny_teacher).encode(
        "The student reads as its teacher."
    )


def test_a_student_from_scratch_has_the_teachers_vocabulary_and_is_reproducible(tiny_teacher, tmp_path):
    sizes = ScratchSizes(layers=3, width=32, heads=2, kv_heads=1, head_width=16, mlp_width=64)
    one, same, other = (
        make_student.from_scratch(str(tiny_teacher), tmp_path / name, sizes=sizes, seed=seed)
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
    model = make_student.from_scratch(str(tiny_teacher), tmp_path / "out", config_file=tmp_path / "llama.json")
    assert isinstance(model, LlamaForCausalLM)
    assert model.config.vocab_size == 1000


def test_neurons_that_do_nothing_are_the_first_to_go(tiny_teacher, tmp_path):
    model = load_model(tiny_teacher, "float32", "cpu")
    generator = torch.Generator().manual_seed(0)
    for layer in model.model.layers:
        layer.mlp.down_proj.weight[:, torch.randperm(128, generator=generator)[:28]] = 0
    before = logits_of(model)
    prune_feed_forward(model, 100)
    torch.testing.assert_close(logits_of(model), before)


def test_a_student_pruned_in_depth_and_width_loads_and_is_as_small_as_it_says(tiny_teacher, tmp_path):
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


VARIANTS = [("llama", name) for name in ("geglu", "swiglu", "reglu", "gelu", "relu")]


def test_feed_forward_variants_have_equal_parameters_and_load_in_plain_transformers(tiny_teacher, tmp_path):
    sizes = {"layers": 2, "width": 32, "heads": 2, "kv_heads": 1, "head_width": 16, "mlp_width": 48}
    counts = set()
    for family, feed_forward in VARIANTS:
        out = tmp_path / feed_forward
        chosen = ScratchSizes(**sizes, family=family, feed_forward=feed_forward)
        made = make_student.from_scratch(str(tiny_teacher), out, sizes=chosen)
        loaded = AutoModelForCausalLM.from_pretrained(out)
        torch.testing.assert_close(logits_of(loaded), logits_of(made))
        counts.add(sum(parameter.numel() for parameter in loaded.parameters()))
    attention = 2 * 32 * (2 * 16) + 2 * 32 * 16
    assert counts == {1000 * 32 + 2 * (attention + 3 * 32 * 48 + 2 * 32) + 32}


@pytest.mark.parametrize(
    ("family", "feed_forward", "activation"),
    [(family, *pair) for family in ("gemma2", "llama") for pair in
     (("geglu", "gelu"), ("swiglu", "silu"), ("reglu", "relu"))],
)  # fmt: skip
def test_a_gated_layer_is_down_of_activated_gate_times_up(tiny_teacher, tmp_path, family, feed_forward, activation):
    sizes = ScratchSizes(
        layers=1, width=32, heads=2, head_width=16, mlp_width=48, family=family, feed_forward=feed_forward
    )
    mlp = make_student.from_scratch(str(tiny_teacher), tmp_path / "out", sizes=sizes).model.layers[0].mlp
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    functions = {"gelu": lambda z: torch.nn.functional.gelu(z, approximate="tanh"), "silu": torch.nn.functional.silu,
                 "relu": torch.relu}  # fmt: skip
    gate, up, down = mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight
    torch.testing.assert_close(mlp(x), (functions[activation](x @ gate.T) * (x @ up.T)) @ down.T)


def test_a_layer_without_a_gate_is_down_of_activated_up(tiny_teacher, tmp_path):
    sizes = ScratchSizes(layers=1, width=32, heads=2, head_width=16, mlp_width=48, family="llama", feed_forward="relu")
    mlp = make_student.from_scratch(str(tiny_teacher), tmp_path / "out", sizes=sizes).model.layers[0].mlp
    assert mlp.up_proj.weight.shape == (72, 32)
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mlp(x), torch.relu(x @ mlp.up_proj.weight.T) @ mlp.down_proj.weight.T)


@pytest.mark.parametrize(
    ("changes", "message"), [({"family": "gemma2"}, "--family llama"), ({"family": "llama", "mlp_width": 49}, "even")]
)
def test_a_layer_without_a_gate_that_cannot_be_had_is_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        ScratchSizes(feed_forward="relu", **changes)


def test_an_unreadable_configuration_file_is_refused(tiny_teacher, tmp_path):
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UsageError, match="not a configuration"):
        make_student.from_scratch(str(tiny_teacher), tmp_path / "out", config_file=tmp_path / "broken.json")


def test_a_checkpoint_is_taken_whole(tiny_teacher, tmp_path):
    make_student.from_checkpoint(str(tiny_teacher), tmp_path / "student")
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    torch.testing.assert_close(logits_of(reloaded), logits_of(load_model(tiny_teacher, "float32", "cpu")))


def test_a_directory_that_holds_something_is_left_alone(tiny_teacher, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ForeignOutputError, match="not an empty directory"):
        make_student.prune_teacher(str(tiny_teacher), tmp_path, layers=2)
    assert [file.name for file in Path(tmp_path).iterdir()] == ["precious.txt"]
