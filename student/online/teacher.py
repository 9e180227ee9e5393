"""A teacher that runs beside the student: hidden states of a batch, then logits of some rows at a time.

Its vocabulary projection is split from its trunk, as the student's is, so that logits of a whole batch never exist.
"""

from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from schemas.errors import UsageError
from student.collator import Batch
from student.model import hidden_states
from student.online.full_kl import TeacherRows
from teacher.loading import load_model
from teacher.projection import linear_head

# Relative error of hidden states at which a part that is second in its window counts as different from one alone.
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.03, torch.bfloat16: 0.1}


class LiveTeacher:
    """A frozen causal language model whose distributions a student learns from directly.

    Args:
        model: In evaluation mode, on its device.

    Raises:
        UsageError: Its logits are not one matrix times its hidden states, or its parts see each other.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        head = linear_head(model)
        if head is None:
            raise UsageError(f"{type(model).__name__}: no linear output head: this architecture cannot teach live")
        self.model, self._head = model, head
        self._try()

    @classmethod
    def load(cls, reference: str | Path, dtype: str = "auto", device: str = "auto") -> "LiveTeacher":
        """Loads a teacher as `logitcask annotate` does.

        Raises:
            TeacherError: It cannot be loaded. And what the constructor raises.
        """
        return cls(load_model(reference, dtype, device))

    @property
    def vocab_size(self) -> int:
        """V."""
        return self._head.vocab_size

    def rows_of(self, batch: Batch) -> TeacherRows:
        """Runs the trunk on a collated batch; the logits of its scored rows follow by ranges."""
        hidden_BSD = self.hidden_states(batch["input_ids"], batch["position_ids"])
        hidden_TD = hidden_BSD.flatten(0, 1)[batch["scored_rows"]]
        return lambda start, stop: self.logits(hidden_TD[start:stop])

    @torch.no_grad()
    def hidden_states(self, input_ids_BS: Tensor, position_ids_BS: Tensor) -> Tensor:
        """The trunk's output after its final norm, [B, S, D]; attention stays inside parts."""
        return hidden_states(self.model, input_ids_BS, position_ids_BS)

    @torch.no_grad()
    def logits(self, hidden_TD: Tensor) -> Tensor:
        """Final logits of some rows, accumulated in float32, [T, V]."""
        empty = torch.empty(len(hidden_TD), self.vocab_size, dtype=torch.float32, device=hidden_TD.device)
        with torch.autocast(hidden_TD.device.type, enabled=False):
            return self._head.logits(hidden_TD, empty)

    def _try(self) -> None:
        """Compares with the model's own logits of a part alone, once as it is and once second in a window."""
        ids = (torch.arange(12, device=self.model.device) * 7919 + 11).unsqueeze(0) % self.vocab_size
        positions = torch.cat([torch.arange(5), torch.arange(7)]).to(ids.device).unsqueeze(0)
        with torch.no_grad():
            alone_TV = self.model(input_ids=ids[:, 5:], use_cache=False).logits[0].float()
        packed_TV = self.logits(self.hidden_states(ids, positions)[0, 5:])
        scale = (alone_TV - alone_TV.mean(dim=-1, keepdim=True)).norm().clamp(min=1e-6)
        if not (packed_TV - alone_TV).norm() / scale < _TOLERANCE.get(self.model.dtype, 0.1):
            raise UsageError(
                f"{type(self.model).__name__}: its logits are not its output matrix times its hidden states, or its "
                "attention crosses from one document of a window to the next; annotate with it, and train from shards"
            )
