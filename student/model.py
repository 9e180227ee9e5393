"""The two halves of a causal language model: the trunk (tokens to hidden states) and the output projection.

The loss needs them apart, so that logits of all positions never exist at once. Whether a model's logits really are
`softcap · tanh(hidden · weightᵀ / softcap)` is tried on it once (some architectures scale them as well).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from schemas.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OutputProjection:
    """weight [V, D], bias [V] or None, and the final soft-cap of a model's logits."""

    weight: Tensor
    bias: Tensor | None
    softcap: float | None

    def logits(self, hidden_TD: Tensor) -> Tensor:
        """[T, V]; for a few rows at a time."""
        bias = None if self.bias is None else self.bias.to(hidden_TD.dtype)
        logits_TV = torch.nn.functional.linear(hidden_TD, self.weight.to(hidden_TD.dtype), bias)
        return logits_TV if self.softcap is None else self.softcap * torch.tanh(logits_TV / self.softcap)


def output_projection(model: PreTrainedModel) -> OutputProjection:
    """How a model makes logits of its last hidden states.

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
    # With a mask or a cache, `transformers` would not look for restarting positions.
    return trunk(input_ids=input_ids_BS, position_ids=position_ids_BS, use_cache=False).last_hidden_state


@torch.no_grad()
def check_projection(model: PreTrainedModel) -> None:
    """Compares trunk and projection with the model's own logits on a few tokens.

    Raises:
        UsageError: They differ: the architecture does something else to its logits.
    """
    was_training = model.training
    model.eval()
    ids = torch.arange(8, device=model.device).unsqueeze(0)
    positions = ids.clone()
    whole = model(input_ids=ids, position_ids=positions, use_cache=False).logits.float()
    ours = output_projection(model).logits(hidden_states(model, ids, positions)).float()
    model.train(was_training)
    if not torch.allclose(whole, ours, atol=1e-2 * whole.abs().max().item(), rtol=1e-2):
        raise UsageError(
            f"{type(model).__name__}: its logits are not its output embeddings times its hidden states (largest "
            f"difference {(whole - ours).abs().max().item():.3g}); this architecture is not supported as a student"
        )
