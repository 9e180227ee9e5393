"""Hidden states to logits, against float64; the compiled soft-cap equals the plain one."""

import shutil
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from logitcask.teacher.scoring.projection import LinearHead, linear_head, project, relative_error, rows_of_chunk


def random_head(dtype: torch.dtype, **settings: Any) -> tuple[LinearHead, torch.Tensor]:
    """A head of 300 ids, and hidden states of seven rows."""
    generator = torch.Generator().manual_seed(0)
    weight_VD, bias_V, hidden_TD = (torch.randn(*size, generator=generator) for size in ((300, 16), (300,), (7, 16)))
    options = {"bias": bias_V.to(dtype), "scale": 1.0, "softcap": None, **settings}
    return LinearHead(weight=weight_VD.to(dtype), **options), hidden_TD.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_equal_their_definition_in_float64(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    monkeypatch.setattr("logitcask.teacher.scoring.projection._CONVERTED_ROWS", 128)
    head, hidden_TD = random_head(dtype, scale=0.25, softcap=2.0)
    assert head.bias is not None
    z_TV = 0.25 * (hidden_TD.double() @ head.weight.double().T + head.bias.double())
    found_TV = head.logits(hidden_TD, torch.empty(7, 300))
    torch.testing.assert_close(found_TV.double(), 2 * torch.tanh(z_TV / 2), rtol=0, atol=1e-5)


def test_without_a_head_states_are_the_logits() -> None:
    states_TV, out_TV = torch.randn(3, 5), torch.empty(3, 5)
    assert project(None, states_TV, out_TV) is out_TV
    assert torch.equal(out_TV, states_TV)


def test_a_relative_error_ignores_a_common_shift_of_the_expected_logits() -> None:
    expected_TV = torch.tensor([[1.0, 3.0]]) + 1000
    assert relative_error(expected_TV, expected_TV) == 0
    assert relative_error(expected_TV + torch.tensor([[0.0, 1.0]]), expected_TV) == pytest.approx(0.5**0.5)


@pytest.mark.parametrize(("vocab_size", "rows"), [(1000, 1024), (256_000, 512), (262_144, 512), (1 << 28, 1)])
def test_a_chunk_of_logits_takes_at_most_half_a_gigabyte(vocab_size: int, rows: int) -> None:
    assert rows_of_chunk(vocab_size) == rows


def test_a_head_without_a_matrix_in_memory_is_none() -> None:
    config = LlamaConfig(vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    model = LlamaForCausalLM(config)
    head = linear_head(model)
    assert head is not None
    assert head.weight is model.lm_head.weight
    model.lm_head.to("meta")
    assert linear_head(model) is None
    model.lm_head = torch.nn.Identity()
    assert linear_head(model) is None


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
# Torch's compiler imports a module of torch that torch itself has deprecated.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_the_compiled_softcap_equals_the_plain_one_after_one_compilation() -> None:
    generator = torch.Generator().manual_seed(0)
    weight_VD = 20 * torch.randn(300, 16, generator=generator)
    head = LinearHead(weight=weight_VD, bias=None, scale=1.0, softcap=30.0)
    with torch.inference_mode():
        for num_rows, stance in ((64, "default"), (2, "fail_on_recompile"), (7, "fail_on_recompile")):
            hidden_TD = torch.randn(num_rows, 16, generator=generator)
            with_padding_TV = torch.full((num_rows, 320), 7.0)
            with torch.compiler.set_stance(stance):
                found_TV = head.logits(hidden_TD, with_padding_TV[:, :300], compiled=True)
            expected_TV = 30 * torch.tanh(hidden_TD.double() @ weight_VD.double().T / 30)
            torch.testing.assert_close(found_TV.double(), expected_TV, rtol=0, atol=5e-5)
            torch.testing.assert_close(found_TV, head.logits(hidden_TD, torch.empty_like(found_TV)), rtol=0, atol=1e-5)
            assert (with_padding_TV[:, 300:] == 7).all()
