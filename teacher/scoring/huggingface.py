"""A Hugging Face causal model in this process as a scorer.

Parts share a window without seeing each other: position ids restart at each part, no attention mask is given, and
`transformers` derives a block-diagonal causal mask from that. Both this and the projection are tried on a dozen tokens
before a model is trusted with a corpus. Models whose parts would see each other (Bloom, OPT, state-space models) run
each part alone.
"""

import logging
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from logitcask.schemas.format.targets import Windows
from logitcask.schemas.trial_window import SECOND_PART, trial_tolerance, trial_window
from logitcask.teacher.model.loading import load_model
from logitcask.teacher.scoring.projection import LinearHead, linear_head, project, relative_error
from logitcask.teacher.scoring.protocol import ScorerSpec
from logitcask.teacher.scoring.sequences import Sequences, sequence_offsets
from logitcask.teacher.scoring.transfers import to_device
from logitcask.teacher.scoring.trunk_scorer import TrunkScorer
from logitcask.teacher.text.packing import batches

_logger = logging.getLogger(__name__)


def load(spec: ScorerSpec) -> TrunkScorer:
    """Loads the teacher as the spec says.

    Raises:
        TeacherError, UsageError: As `teacher.model.loading.load_model` and `TrunkScorer`.
    """
    if spec.num_threads is not None:
        # Before the kernel is compiled, which fixes the number in its code.
        torch.set_num_threads(spec.num_threads)
    model = load_model(spec.reference, spec.dtype, spec.device, spec.attention, device_map=spec.device_map)
    return TrunkScorer(HuggingFaceTrunk(model), spec)


class HuggingFaceTrunk:
    """Any causal language model of `transformers`; the attributes of `teacher.scoring.trunk_scorer.Trunk`, and:

    Args:
        model: In evaluation mode, on its device (`teacher.model.loading.load_model`).

    Attributes:
        model: As given.
        packs: Whether parts of a sequence stay apart.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.max_part_tokens: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        embeddings: Any = model.get_input_embeddings()
        self.num_inputs = int(embeddings.weight.shape[0])
        self.device = model.device
        self.environment = {
            "device": str(model.device),
            "dtype": str(model.dtype).removeprefix("torch."),
            "attention": str(model.config._attn_implementation),
            "device_map": _device_map(model),
        }
        self.head: LinearHead | None = linear_head(model)
        self.packs = True
        self.vocab_size = self._try_model()

    def states(self, windows: Windows, rows: np.ndarray, *, batch_tokens: int, num_halvings: int) -> torch.Tensor:
        offsets = sequence_offsets(windows, packs=self.packs, num_halvings=num_halvings)
        pieces = []
        for start, stop in batches(offsets, max(1, batch_tokens >> num_halvings)):
            run = Sequences(windows, offsets[start : stop + 1])
            states_TD = self._forward(run.token_BS, run.position_BS)
            pieces.append(states_TD[to_device(run.places(rows), states_TD.device)])
        return torch.cat(pieces) if len(pieces) > 1 else pieces[0]

    def _forward(self, token_BS: np.ndarray, position_BS: np.ndarray) -> torch.Tensor:
        inputs: dict[str, Any] = {"input_ids": to_device(token_BS, self.model.device), "use_cache": False}
        if self.packs:
            inputs["position_ids"] = to_device(position_BS, self.model.device)
        if self.head is None:
            return self.model(**inputs).logits.flatten(0, 1)
        states_TD = self.model.get_decoder()(**inputs).last_hidden_state.flatten(0, 1)
        # A device map may put the last layer and the head on different devices.
        return states_TD.to(self.head.weight.device)

    @torch.inference_mode()
    def _try_model(self) -> int:
        """Compares with the model's own logits of a part alone: first our projection, then the part behind another.

        Returns:
            The vocabulary size.
        """
        token_BS, position_BS = trial_window(self.num_inputs)
        alone = (token_BS[:, SECOND_PART], position_BS[:, SECOND_PART])
        expected_TV = self.model(input_ids=to_device(alone[0], self.model.device), use_cache=False).logits[0].float()
        name = type(self.model).__name__
        if not self._gives(expected_TV, self._forward(*alone)):
            self.head = None
        if self.head is None:
            _logger.warning(
                "%s does not project hidden states by one matrix here: its own logits are used, with more memory", name
            )
        if not self._gives(expected_TV, self._forward(token_BS, position_BS)[SECOND_PART]):
            self.packs = False
            _logger.warning(
                "%s lets attention cross from one document of a window to the next: each runs alone, slower", name
            )
        return expected_TV.shape[1]

    def _gives(self, expected_TV: torch.Tensor, states_TD: torch.Tensor) -> bool:
        """Whether hidden states become the expected logits."""
        if self.head is not None and self.head.vocab_size != expected_TV.shape[1]:
            return False
        expected_TV = expected_TV.to(states_TD.device)
        actual_TV = project(self.head, states_TD, torch.empty_like(expected_TV))
        return relative_error(actual_TV, expected_TV) < trial_tolerance(self.model.dtype)


def _device_map(model: PreTrainedModel) -> dict[str, str]:
    """Module to device, where there are several devices."""
    places = {name: str(device) for name, device in getattr(model, "hf_device_map", {}).items()}
    return places if len(set(places.values())) > 1 else {}
