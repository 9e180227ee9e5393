"""The two halves of a causal language model: the trunk (tokens to hidden states) and the output projection.

The loss needs them separately, so that the logits of all positions never exist at once. `student.model.trial` tests on
each model what is assumed here: that its logits are `softcap · tanh(hidden · weightᵀ / softcap)`, and that the parts of
a window do not see each other.

A student with adapters (`peft`) is read through: its trunk applies the adapters, its output projection has none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from logitcask.schemas.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OutputProjection:
    """weight [V, D], bias [V] or None, and the final soft-cap of a model's logits."""

    weight: Tensor
    bias: Tensor | None
    softcap: float | None

    def logits(self, hidden_TD: Tensor) -> Tensor:
        """Final logits [T, V]; for a few rows at a time."""
        bias = None if self.bias is None else self.bias.to(hidden_TD.dtype)
        logits_TV = torch.nn.functional.linear(hidden_TD, self.weight.to(hidden_TD.dtype), bias)
        return logits_TV if self.softcap is None else self.softcap * torch.tanh(logits_TV / self.softcap)


def causal_model(student: PreTrainedModel) -> PreTrainedModel:
    """The causal language model of a student: the student, or what its adapters (`PeftModel`) are applied to."""
    get_base_model = getattr(student, "get_base_model", None)
    return student if get_base_model is None else get_base_model()


def output_projection(model: PreTrainedModel) -> OutputProjection:
    """The projection from a model's last hidden states to its logits.

    Raises:
        UsageError: The model has no output embeddings, or an adapter of them.
    """
    model = causal_model(model)
    head: Any = model.get_output_embeddings()
    if head is None:
        raise UsageError(f"{type(model).__name__} has no output embeddings: not a causal language model")
    if hasattr(head, "base_layer"):
        raise UsageError(
            f"{type(model).__name__}: an adapter of the output projection is not supported, because the loss needs its "
            "one matrix; choose other target modules, or train it whole (modules_to_save of peft)"
        )
    softcap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return OutputProjection(weight=head.weight, bias=getattr(head, "bias", None), softcap=softcap)


def hidden_states(model: PreTrainedModel, input_ids_BS: Tensor, position_ids_BS: Tensor) -> Tensor:
    """The trunk's output after its final norm, [B, S, D]; attention stays inside parts (positions that restart)."""
    trunk = causal_model(model).base_model
    # With a mask or a cache, `transformers` would ignore restarting positions.
    return trunk(input_ids=input_ids_BS, position_ids=position_ids_BS, use_cache=False).last_hidden_state


def scored_hidden_states(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Tensor:
    """The `hidden_states` of the scored rows of a collated batch, [T, D]."""
    hidden_BSD = hidden_states(model, batch["input_ids"], batch["position_ids"])
    return hidden_BSD.flatten(0, 1)[batch["scored_rows"]]
