"""The auxiliary loss of a mixture of experts, which keeps the router from preferring a few of them.

`transformers` adds it to a model's own loss where the configuration says `output_router_logits`. It is computed here by
the architecture's own function, from what the trunk's routers gave in the same forward pass.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from logitcask.schemas.errors import UsageError
from logitcask.schemas.trial_window import trial_window
from logitcask.student.model.projection import causal_model


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ExpertBalance:
    """The auxiliary loss of a student.

    Attributes:
        trunk: The module whose routers are read.
        coefficient: The weight of the loss (`router_aux_loss_coef`).
        balance_loss: The router logits of all layers to the loss.
    """

    trunk: torch.nn.Module
    coefficient: float
    balance_loss: Callable[[Any], Tensor]

    @contextmanager
    def recording(self) -> Iterator[list[Any]]:
        """A list to which each forward pass of the trunk adds its router logits."""
        found: list[Any] = []
        hook = self.trunk.register_forward_hook(lambda module, args, output: found.append(output.router_logits))
        try:
            yield found
        finally:
            hook.remove()

    def loss(self, recorded: list[Any]) -> Tensor:
        """The weighted loss of the recorded forward pass."""
        (router_logits,) = recorded
        return self.coefficient * self.balance_loss(router_logits)


def expert_balance(student: PreTrainedModel) -> ExpertBalance | None:
    """The auxiliary loss of a student; None if its configuration asks for none.

    Raises:
        UsageError: It asks for one that cannot be added.
    """
    model: Any = causal_model(student)
    config = model.config.get_text_config()
    if not getattr(config, "output_router_logits", False):
        return None
    function = getattr(sys.modules[type(model).__module__], "load_balancing_loss_func", None)
    settings: list[Any] = [
        getattr(model, name, None) for name in ("router_aux_loss_coef", "num_experts", "num_experts_per_tok")
    ]
    if function is None or None in settings:
        raise _unsupported(model)
    coefficient, num_experts, per_token = settings
    balance = ExpertBalance(
        trunk=model.base_model,
        coefficient=coefficient,
        balance_loss=lambda router_logits: function(router_logits, num_experts, per_token, None),
    )
    _compare_with_the_models_own(model, balance)
    return balance


@torch.no_grad()
def _compare_with_the_models_own(model: Any, balance: ExpertBalance) -> None:
    was_training = model.training
    model.eval()
    ids = torch.from_numpy(trial_window(model.get_input_embeddings().weight.shape[0])[0]).to(model.device)
    with balance.recording() as recorded:
        own = getattr(model(input_ids=ids, use_cache=False, output_router_logits=True), "aux_loss", None)
    model.train(was_training)
    if own is None or not torch.allclose(balance.coefficient * own, balance.loss(recorded), rtol=1e-3):
        raise _unsupported(model)


def _unsupported(model: Any) -> UsageError:
    return UsageError(
        f"{type(model).__name__}: the configuration asks for an auxiliary loss of the experts (output_router_logits), "
        "which cannot be added for this architecture; set output_router_logits to false to train without it"
    )
