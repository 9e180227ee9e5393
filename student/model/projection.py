"""The two halves of a causal language model: the trunk (tokens to hidden states) and the output projection.

The loss needs them separately, so that the logits of all positions never exist at once. Two assumptions are tested once
on each model: that its logits are `softcap · tanh(hidden · weightᵀ / softcap)` (some architectures also scale them),
and that the parts of a window do not see each other (with ALiBi, convolutions or a recurrent state they do).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from logitcask.schemas.errors import UsageError
from logitcask.schemas.trial_window import SECOND_PART, trial_tolerance, trial_window


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


def output_projection(model: PreTrainedModel) -> OutputProjection:
    """The projection from a model's last hidden states to its logits.

    Raises:
        UsageError: The model has no output embeddings.
    """
    head = model.get_output_embeddings()
    if head is None:
        raise UsageError(f"{type(model).__name__} has no output embeddings: not a causal language model")
    softcap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return OutputProjection(weight=head.weight, bias=getattr(head, "bias", None), softcap=softcap)


def hidden_states(model: PreTrainedModel, input_ids_BS: Tensor, position_ids_BS: Tensor) -> Tensor:
    """The trunk's output after its final norm, [B, S, D]; attention stays inside parts (positions that restart)."""
    trunk = model.base_model
    # With a mask or a cache, `transformers` would ignore restarting positions.
    return trunk(input_ids=input_ids_BS, position_ids=position_ids_BS, use_cache=False).last_hidden_state


def scored_hidden_states(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Tensor:
    """The `hidden_states` of the scored rows of a collated batch, [T, D]."""
    hidden_BSD = hidden_states(model, batch["input_ids"], batch["position_ids"])
    return hidden_BSD.flatten(0, 1)[batch["scored_rows"]]


@torch.no_grad()
def check_projection(model: PreTrainedModel) -> None:
    """Tests on a dozen tokens what the loss assumes about trunk and projection.

    Raises:
        UsageError: Together they do not give the model's own logits, or the second part of a window has other hidden
            states than the same part alone.
    """
    was_training = model.training
    model.eval()
    embeddings: Any = model.get_input_embeddings()
    window = trial_window(embeddings.weight.shape[0])
    ids, positions = (torch.from_numpy(values).to(model.device) for values in window)
    alone = {"input_ids": ids[:, SECOND_PART], "position_ids": positions[:, SECOND_PART]}
    whole = model(**alone, use_cache=False).logits.float()
    alone_BSD = hidden_states(model, alone["input_ids"], alone["position_ids"])
    packed_BSD = hidden_states(model, ids, positions)[:, SECOND_PART]
    model.train(was_training)
    _check_logits(model, whole, output_projection(model).logits(alone_BSD).float())
    _check_parts(model, packed_BSD.float(), alone_BSD.float())


def _check_logits(model: PreTrainedModel, whole: Tensor, ours: Tensor) -> None:
    if not torch.allclose(whole, ours, atol=1e-2 * whole.abs().max().item(), rtol=1e-2):
        raise UsageError(
            f"{type(model).__name__}: its logits are not its output embeddings times its hidden states (largest "
            f"difference {(whole - ours).abs().max().item():.3g}); this architecture is not supported as a student"
        )


def _check_parts(model: PreTrainedModel, packed: Tensor, alone: Tensor) -> None:
    error, allowed = ((packed - alone).norm() / alone.norm().clamp(min=1e-6)).item(), trial_tolerance(model.dtype)
    if not error < allowed:
        raise UsageError(
            f"{type(model).__name__}: the documents of a window see each other (relative error of the second one's "
            f"hidden states, compared with the document alone: {error:.2g}, allowed: {allowed:g}), but the teacher's "
            "targets are for each document alone; this architecture is not supported as a student: choose one whose "
            "attention restarts where position ids restart (Llama, Gemma, Qwen, GPT-2), not one with ALiBi, "
            "convolutions or a recurrent state"
        )
