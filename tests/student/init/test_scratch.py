"""Random students: their architecture, and equal seeds give equal weights."""

import json

import pytest
import torch
from model_logits import logits_of
from transformers import AutoModelForCausalLM, Gemma2ForCausalLM, LlamaForCausalLM

from logitcask.schemas.errors import UsageError
from logitcask.student.init import make_student
from logitcask.student.init.scratch import ScratchSizes


def test_a_random_student_has_the_teachers_vocabulary_and_is_equal_by_seed(tiny_teacher, tmp_path):
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


def test_a_configuration_file_sets_the_architecture(tiny_teacher, tmp_path):
    config = {
        "model_type": "llama", "vocab_size": 512, "hidden_size": 16, "intermediate_size": 32,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
    }  # fmt: skip
    (tmp_path / "llama.json").write_text(json.dumps(config))
    model = make_student.from_scratch(str(tiny_teacher), tmp_path / "out", config_file=tmp_path / "llama.json")
    assert isinstance(model, LlamaForCausalLM)
    assert model.config.vocab_size == 1000


def test_feed_forward_variants_have_equal_parameters_and_load(tiny_teacher, tmp_path):
    sizes = {"layers": 2, "width": 32, "heads": 2, "kv_heads": 1, "head_width": 16, "mlp_width": 48}
    counts = set()
    for feed_forward in ("geglu", "swiglu", "reglu", "gelu", "relu"):
        out = tmp_path / feed_forward
        chosen = ScratchSizes(**sizes, family="llama", feed_forward=feed_forward)
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
def test_an_impossible_layer_without_a_gate_is_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        ScratchSizes(feed_forward="relu", **changes)


def test_an_unreadable_configuration_file_is_refused(tiny_teacher, tmp_path):
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UsageError, match="not a configuration"):
        make_student.from_scratch(str(tiny_teacher), tmp_path / "out", config_file=tmp_path / "broken.json")
