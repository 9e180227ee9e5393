"""A teacher that runs together with the student: hidden states of a batch, then logits of some rows at a time.

Like the student's, its output projection is separated from its trunk, so the logits of a whole batch never exist. Ids
that only pad the vocabulary get no probability, as in the shards.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from logitcask.schemas.errors import UsageError
from logitcask.schemas.trial_window import SECOND_PART, trial_tolerance, trial_window
from logitcask.student.data.collator import Batch
from logitcask.student.losses.full_kl import TeacherLogits
from logitcask.student.model.projection import hidden_states
from logitcask.teacher.model.loading import load_model
from logitcask.teacher.scoring.projection import linear_head, relative_error


class LiveTeacher:
    """A frozen causal language model whose distributions a student learns from directly.

    Args:
        model: In evaluation mode, on its device.
        num_ids: Ids from this one on pad the vocabulary and get no probability; None: no padding.

    Raises:
        UsageError: Its logits are not one matrix times its hidden states, or its parts see each other.
    """

    def __init__(self, model: PreTrainedModel, num_ids: int | None = None) -> None:
        head = linear_head(model)
        if head is None:
            raise UsageError(
                f"{type(model).__name__}: its output is not one matrix, so it cannot be a live teacher; annotate with "
                "it, and train from shards"
            )
        self.model, self._head = model, head
        self._num_ids = head.vocab_size if num_ids is None else num_ids
        self._check_model()

    @classmethod
    def load(
        cls, reference: str | Path, dtype: str = "auto", device: str = "auto", num_ids: int | None = None
    ) -> "LiveTeacher":
        """Loads a teacher as `logitcask annotate` does.

        Raises:
            TeacherError: It cannot be loaded.
            UsageError: Its architecture is not supported.
        """
        return cls(load_model(reference, dtype, device), num_ids)

    @property
    def vocab_size(self) -> int:
        """V."""
        return self._head.vocab_size

    def logits_of(self, batch: Batch) -> TeacherLogits:
        """Runs the trunk on a collated batch; the logits of its scored rows are computed later, by ranges of rows."""
        hidden_BSD = self.hidden_states(batch["input_ids"], batch["position_ids"])
        hidden_TD = hidden_BSD.flatten(0, 1)[batch["scored_rows"]]
        return lambda start, stop: self.logits(hidden_TD[start:stop])

    @torch.no_grad()
    def hidden_states(self, input_ids_BS: Tensor, position_ids_BS: Tensor) -> Tensor:
        """The trunk's output after its final norm, [B, S, D]; attention stays inside parts."""
        return hidden_states(self.model, input_ids_BS, position_ids_BS)

    @torch.no_grad()
    def logits(self, hidden_TD: Tensor) -> Tensor:
        """Final logits of some rows, accumulated in float32, [T, V]; −∞ where ids are padding."""
        logits_TV = self._project(hidden_TD)
        logits_TV[:, self._num_ids :] = -torch.inf
        return logits_TV

    def _project(self, hidden_TD: Tensor) -> Tensor:
        empty = torch.empty(len(hidden_TD), self.vocab_size, dtype=torch.float32, device=hidden_TD.device)
        with torch.autocast(hidden_TD.device.type, enabled=False):
            return self._head.logits(hidden_TD, empty)

    @torch.no_grad()
    def _check_model(self) -> None:
        """Compares the logits of a window's second part with the model's own logits of that part alone."""
        embeddings: Any = self.model.get_input_embeddings()
        window = trial_window(embeddings.weight.shape[0])
        ids, positions = (torch.from_numpy(values).to(self.model.device) for values in window)
        alone_TV = self.model(input_ids=ids[:, SECOND_PART], use_cache=False).logits[0].float()
        packed_TV = self._project(self.hidden_states(ids, positions)[0, SECOND_PART])
        if not relative_error(packed_TV, alone_TV) < trial_tolerance(self.model.dtype):
            raise UsageError(
                f"{type(self.model).__name__}: its logits are not its output matrix times its hidden states, or its "
                "attention crosses from one document of a window to the next; annotate with it, and train from shards"
            )
