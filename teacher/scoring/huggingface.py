"""A Hugging Face causal model in this process as a scorer.

Parts share a window without seeing each other: position ids restart at each part, no attention mask is given, and
`transformers` derives a block-diagonal causal mask from that. Not every model allows this, nor projects its hidden
states by one matrix. So each model is tried (`teacher.scoring.trial`) before it is trusted with a corpus, and what it
does not allow is done in a slower way, or the model is refused.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from logitcask.schemas.errors import TeacherError
from logitcask.schemas.format.targets import Windows
from logitcask.schemas.length_thresholds import (
    length_thresholds,
    max_sequence_tokens,
    selects_tokens,
    trial_tokens,
)
from logitcask.teacher.model.loading import load_model
from logitcask.teacher.scoring.finite_weights import check_weights, refuse_non_finite_logits
from logitcask.teacher.scoring.projection import LinearHead, linear_head, project, relative_error
from logitcask.teacher.scoring.protocol import ScorerSpec
from logitcask.teacher.scoring.sequences import ALONE, Grouping, Sequences, forward_offsets
from logitcask.teacher.scoring.transfers import to_device
from logitcask.teacher.scoring.trial import FORWARD_ERRORS, check_causality, choose_grouping, tolerance, trial_ids
from logitcask.teacher.scoring.trunk_scorer import TrunkScorer

# The first trial's parts are not longer. A longer part needs another trial if a threshold lies between.
_SHORT_TOKENS = 12

_logger = logging.getLogger(__name__)


def load(spec: ScorerSpec) -> TrunkScorer:
    """Loads the teacher as the spec says.

    Raises:
        TeacherError, UsageError: As `teacher.model.loading.load_model`, `HuggingFaceTrunk` and `TrunkScorer`.
    """
    if spec.num_threads is not None:
        # Before the kernel is compiled, which fixes the number in its code.
        torch.set_num_threads(spec.num_threads)
    model = load_model(spec.reference, spec.dtype, spec.device, spec.attention, device_map=spec.device_map)
    trunk = HuggingFaceTrunk(model, window_tokens=spec.window_tokens, each_part_alone=spec.each_part_alone)
    return TrunkScorer(trunk, spec)


class HuggingFaceTrunk:
    """Any causal language model of `transformers`; the attributes of `teacher.scoring.trunk_scorer.Trunk`, and:

    Args:
        model: In evaluation mode, on its device (`teacher.model.loading.load_model`).
        window_tokens: The longest part that will come; None: the trial is repeated when longer ones come.
        each_part_alone: Runs every part by itself, as a plain forward does, whatever the model allows.

    Attributes:
        model: As given.
        grouping: Which parts share a forward pass.

    Raises:
        TeacherError: The model is not causal, has NaN or infinity in its weights or logits, needs other inputs than
            tokens, or gives other numbers when it is asked again.
    """

    def __init__(
        self, model: PreTrainedModel, *, window_tokens: int | None = None, each_part_alone: bool = False
    ) -> None:
        self.model = model
        self.max_part_tokens: int | None = max_sequence_tokens(model.config.get_text_config())
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
        self.grouping = ALONE
        self._config = model.config.get_text_config().to_dict()
        self._each_part_alone = each_part_alone
        check_weights(model)
        self.vocab_size = self._find_trunk()
        self._try_parts(max(_SHORT_TOKENS, window_tokens or 0))

    def states(self, windows: Windows, rows: np.ndarray, *, batch_tokens: int, num_halvings: int) -> torch.Tensor:
        longest = int(windows.position_ids().max()) + 1
        if longest > self._tried_tokens:
            self._try_parts(longest)
        return self._states(windows, rows, self.grouping, batch_tokens=batch_tokens, num_halvings=num_halvings)

    def _states(
        self, windows: Windows, rows: np.ndarray, grouping: Grouping, *, batch_tokens: int, num_halvings: int = 0
    ) -> torch.Tensor:
        pieces = []
        for offsets in forward_offsets(windows, grouping, batch_tokens=batch_tokens, num_halvings=num_halvings):
            run = Sequences(windows, offsets)
            states_TD = self._forward(run.token_BS, run.position_BS if grouping.parts == "packed" else None)
            pieces.append(states_TD[to_device(run.places(rows), states_TD.device)])
        return torch.cat(pieces) if len(pieces) > 1 else pieces[0]

    def _forward(self, token_BS: np.ndarray, position_BS: np.ndarray | None = None) -> torch.Tensor:
        inputs = self._inputs(token_BS)
        if position_BS is not None:
            inputs["position_ids"] = to_device(position_BS, self.model.device)
        if self.head is None:
            return self.model(**inputs).logits.flatten(0, 1)
        states_TD = self._trunk(**inputs).last_hidden_state.flatten(0, 1)
        # A device map may put the last layer and the head on different devices.
        return states_TD.to(self.head.weight.device)

    def _inputs(self, token_BS: np.ndarray) -> dict[str, Any]:
        return {"input_ids": to_device(token_BS, self.model.device), "use_cache": False}

    @torch.inference_mode()
    def _find_trunk(self) -> int:
        """Finds the module whose states our projection turns into the model's own logits.

        Returns:
            The vocabulary size.
        """
        name = type(self.model).__name__
        inputs = self._inputs(trial_ids(self.num_inputs, self._config, _SHORT_TOKENS, seed=0)[None])
        try:
            expected_TV = self.model(**inputs).logits[0].float()
        except torch.OutOfMemoryError:
            raise
        except FORWARD_ERRORS as error:
            raise TeacherError(
                f"teacher {name} cannot run on tokens alone ({type(error).__name__}: {error}); use a causal language "
                "model, which needs nothing else"
            ) from error
        if not bool(expected_TV.isfinite().all()):
            refuse_non_finite_logits(self.model, inputs)
        for trunk in _trunks(self.model) if self.head is not None else ():
            self._trunk = trunk
            if self._gives(expected_TV, inputs):
                return expected_TV.shape[1]
        self.head = None
        _logger.warning(
            "%s does not project hidden states by one matrix here: its own logits are used, with more memory", name
        )
        return expected_TV.shape[1]

    def _gives(self, expected_TV: torch.Tensor, inputs: dict[str, Any]) -> bool:
        """Whether the trunk's states become the expected logits."""
        head = self.head
        if head is None or head.vocab_size != expected_TV.shape[1]:
            return False
        try:
            states_TD = self._trunk(**inputs).last_hidden_state[0].to(head.weight.device)
            actual_TV = project(head, states_TD, torch.empty(expected_TV.shape, device=states_TD.device))
        except torch.OutOfMemoryError:
            raise
        except FORWARD_ERRORS:
            return False
        return relative_error(actual_TV, expected_TV.to(actual_TV.device)) <= tolerance(self.model.dtype)

    @torch.inference_mode()
    def _try_parts(self, max_tokens: int) -> None:
        """Finds out which parts of at most `max_tokens` may share a forward pass."""
        name, dtype = f"teacher {type(self.model).__name__}", self.model.dtype
        max_tokens = min(max_tokens, self.max_part_tokens or max_tokens)
        long_tokens = trial_tokens(self._config, max_tokens)
        check_causality(self._plain_logits, self._ids(_SHORT_TOKENS, 1), name, dtype)
        if not self._each_part_alone:
            self.grouping = choose_grouping(
                self._plain_logits,
                self._logits,
                self._ids,
                length_thresholds(self._config, max_tokens),
                long_tokens,
                is_alone=selects_tokens(self._config, max_tokens),
                tolerated=tolerance(dtype),
                name=name,
            )
        if long_tokens:
            check_causality(self._plain_logits, self._ids(long_tokens, 1), name, dtype)
        self._tried_tokens = max_tokens
        if self.grouping != Grouping() and not self._each_part_alone:
            _logger.warning("%s: %s", type(self.model).__name__, self.grouping.text())

    def _ids(self, length: int, seed: int) -> np.ndarray:
        return trial_ids(self.num_inputs, self._config, length, seed)

    def _plain_logits(self, ids_S: np.ndarray, rows: np.ndarray) -> torch.Tensor:
        return self._project(self._forward(ids_S[None])[torch.from_numpy(rows)])

    def _logits(self, windows: Windows, rows: np.ndarray, grouping: Grouping) -> torch.Tensor:
        return self._project(self._states(windows, rows, grouping, batch_tokens=2 * windows.num_positions**2))

    def _project(self, states_TD: torch.Tensor) -> torch.Tensor:
        return project(self.head, states_TD, torch.empty(len(states_TD), self.vocab_size, device=states_TD.device))


def _trunks(model: PreTrainedModel) -> Iterator[Callable[..., Any]]:
    """The modules that may give the states, each once: some models name themselves as their decoder."""
    found: list[nn.Module] = []
    get_decoder: Any = getattr(model, "get_decoder", lambda: None)
    for module in (get_decoder(), model.base_model, getattr(model, "model", None)):
        if isinstance(module, nn.Module) and module is not model and not any(module is one for one in found):
            found.append(module)
            yield module


def _device_map(model: PreTrainedModel) -> dict[str, str]:
    """Module to device, where there are several devices."""
    places = {name: str(device) for name, device in getattr(model, "hf_device_map", {}).items()}
    return places if len(set(places.values())) > 1 else {}
