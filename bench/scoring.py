"""One forward pass of the teacher over windows, and several selections from the same logits.

The scorer of the product selects once; here all schemes must select from the same distributions.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from logitcask.schemas.format.draws import window_uniforms
from logitcask.schemas.format.scheme import Scheme
from logitcask.schemas.format.targets import Windows
from logitcask.teacher.model.loading import load_model
from logitcask.teacher.scoring.heads import DeviceTargets, select_heads
from logitcask.teacher.scoring.projection import LinearHead, linear_head

# Number of rows with logits in memory at a time: 128 rows of 262,144 ids are 134 MB in float32.
ROW_CHUNK = 128


class Teacher:
    """A causal model in float32 that computes logits from hidden states with one matrix product."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        head = linear_head(model)
        assert head is not None, "the teacher must compute logits from hidden states with one matrix product"
        self.head: LinearHead = head

    def hidden(self, window: Windows) -> torch.Tensor:
        """The hidden states of one window, float32 [S, D]."""
        token_1S, position_1S = (
            torch.from_numpy(x.astype(np.int64))[None] for x in (window.token, window.position_ids())
        )
        decoder = self.model.get_decoder()
        with torch.inference_mode():
            return decoder(input_ids=token_1S, position_ids=position_1S, use_cache=False).last_hidden_state[0]

    def logits(self, hidden_TD: torch.Tensor) -> torch.Tensor:
        """Final logits, float32 [T, V]."""
        with torch.inference_mode():
            return self.head.logits(hidden_TD, torch.empty(len(hidden_TD), self.head.vocab_size))

    def selections(self, window: Windows, hidden_SD: torch.Tensor, schemes: Sequence[Scheme]) -> list[DeviceTargets]:
        """The targets of each scheme for the rows of one window."""
        chunks = [list(self._chunk(window, hidden_SD, schemes, start)) for start in range(0, len(hidden_SD), ROW_CHUNK)]
        return [DeviceTargets.concatenate(blocks) for blocks in zip(*chunks, strict=True)]

    def _chunk(
        self, window: Windows, hidden_SD: torch.Tensor, schemes: Sequence[Scheme], start: int
    ) -> Iterator[DeviceTargets]:
        rows = slice(start, start + ROW_CHUNK)
        logits_TV = self.logits(hidden_SD[rows])
        next_ids_T = torch.from_numpy(window.next_token()[rows])
        for scheme in schemes:
            uniforms_TRN = torch.from_numpy(window_uniforms(window, scheme)[rows])
            # `select_heads` overwrites its logits.
            yield select_heads(logits_TV.clone(), scheme, next_ids_T, uniforms_TRN=uniforms_TRN)


def load_teacher(reference: str) -> Teacher:
    """Loads the teacher that `--teacher` names on the CPU."""
    return Teacher(load_model(reference, "float32", "cpu"))
