"""The auxiliary loss of a mixture of experts: the model's own value, added to the loss of a step."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MixtralConfig,
    PreTrainedModel,
    Qwen3MoeConfig,
)

from logitcask.schemas.errors import UsageError
from logitcask.student.model import expert_balance as module
from logitcask.student.model.expert_balance import expert_balance
from logitcask.student.model.projection import hidden_states

SIZES = {
    "vocab_size": 48, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "initializer_range": 0.3, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip


def mixture(kind=MixtralConfig, **changes) -> PreTrainedModel:
    experts = {"num_local_experts": 4} if kind is MixtralConfig else {"num_experts": 4, "moe_intermediate_size": 8}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(
            kind(**SIZES, **experts, num_experts_per_tok=2, output_router_logits=True, **changes)
        )


@pytest.mark.parametrize("kind", [MixtralConfig, Qwen3MoeConfig])
def test_value_and_gradient_are_those_of_the_model(kind):
    model = mixture(kind, router_aux_loss_coef=0.7)
    balance = expert_balance(model)
    ids = torch.arange(20)[None]
    own = model(input_ids=ids, labels=ids, use_cache=False)
    without = torch.nn.functional.cross_entropy(own.logits[0, :-1], ids[0, 1:])
    (own.loss - without).backward()
    expected = [None if weight.grad is None else weight.grad.clone() for weight in model.parameters()]
    model.zero_grad()
    with balance.recording() as recorded:
        hidden_states(model, ids, ids)
    ours = balance.loss(recorded)
    assert ours.item() == pytest.approx(own.loss.item() - without.item(), rel=1e-4)
    ours.backward()
    for weight, gradient in zip(model.parameters(), expected, strict=True):
        found = torch.zeros_like(weight) if weight.grad is None else weight.grad
        torch.testing.assert_close(
            found, torch.zeros_like(weight) if gradient is None else gradient, atol=1e-5, rtol=1e-3
        )


def test_a_student_that_asks_for_no_auxiliary_loss_gets_none():
    assert expert_balance(AutoModelForCausalLM.from_config(LlamaConfig(**SIZES))) is None
    model = mixture()
    model.config.output_router_logits = False
    assert expert_balance(model) is None


def test_an_auxiliary_loss_that_cannot_be_added_is_refused(monkeypatch):
    model = mixture()
    own = module.sys.modules[type(model).__module__]
    monkeypatch.setattr(own, "load_balancing_loss_func", None)
    with pytest.raises(UsageError, match="set output_router_logits to false"):
        expert_balance(model)
