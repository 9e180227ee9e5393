"""The teacher's distributions for windows of tokens.

A scorer is a protocol, so that other engines can follow; this one runs a Hugging Face causal model in this process.
Parts share a window without seeing each other: position ids restart at each part, no attention mask is given, and
`transformers` derives a block-diagonal causal mask from that. Both this and the projection are tried once, on a dozen
tokens, before a model is trusted with a corpus; where parts would see each other (Bloom, OPT, state-space models), each
runs alone.
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from logitcask.schemas.errors import NonFiniteError, UsageError, VocabularyError
from logitcask.schemas.format.draws import window_uniforms
from logitcask.schemas.format.ragged import offsets_from_lengths
from logitcask.schemas.format.scheme import Scheme, further_temperatures
from logitcask.schemas.format.targets import TailSample, Targets, Windows
from logitcask.schemas.stats.vocabulary_statistics import VocabularyStatistics
from logitcask.teacher.model.environment import numeric_environment
from logitcask.teacher.scoring.block_sums import Kernel, choose_kernel
from logitcask.teacher.scoring.head_entries import block_size
from logitcask.teacher.scoring.heads import Heads, select_heads
from logitcask.teacher.scoring.projection import LinearHead, linear_head, rows_of_chunk
from logitcask.teacher.scoring.sequences import Sequences, sequence_offsets
from logitcask.teacher.scoring.transfers import to_device
from logitcask.teacher.scoring.vocabulary_statistics import measure_vocabulary
from logitcask.teacher.text.packing import batches

_logger = logging.getLogger(__name__)


# Relative error of centred logits at which two ways of computing them count as different; a leak between parts or a
# missing scale is of order 1.
_TRIAL_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.03}


class HuggingFaceScorer:
    """Any causal language model of `transformers`, in this process.

    Args:
        model: In evaluation mode, on its device (`teacher.model.loading.load_model`).
        scheme: How heads are chosen.
        batch_tokens: Most positions of a forward pass, padding included; a longer window goes alone.
        row_chunk: Rows whose logits exist at a time; None for as many as `teacher.scoring.projection.rows_of_chunk`
            says.
        temperatures: Further temperatures at which the tail is wanted.
        num_ids: Ids from here on are padding of the vocabulary and get no probability; None if there are none.
        kernel: "plain", "compiled", or "auto" for what is faster here (`teacher.scoring.block_sums`).

    Raises:
        UsageError: The temperatures do not go with the scheme, or there is no such kernel.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        scheme: Scheme,
        *,
        batch_tokens: int = 4096,
        row_chunk: int | None = None,
        temperatures: Sequence[float] = (),
        num_ids: int | None = None,
        kernel: str = "auto",
    ) -> None:
        self.model = model
        self.scheme = scheme
        self.temperatures = further_temperatures(temperatures, scheme)
        self.batch_tokens = batch_tokens
        self.num_halvings = 0
        self._max_part = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        embeddings: Any = model.get_input_embeddings()
        self._num_inputs = int(embeddings.weight.shape[0])
        self._head: LinearHead | None = linear_head(model)
        self._packs = True
        self._vocab_size = self._try_model()
        self.row_chunk = row_chunk or rows_of_chunk(self._vocab_size)
        self._num_ids = min(num_ids or self._vocab_size, self._vocab_size)
        self._block_ids = block_size(self._vocab_size, scheme.max_entries)
        self._kept_TV = torch.empty(0)
        kind = choose_kernel(kernel, self._vocab_size, model.device)
        self._kernel = Kernel(kind, block_ids=self._block_ids, device=model.device)

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    @property
    def environment(self) -> dict[str, Any]:
        return numeric_environment(
            device=str(self.model.device),
            dtype=str(self.model.dtype).removeprefix("torch."),
            attention=str(self.model.config._attn_implementation),
            batch_tokens=self.batch_tokens,
            row_chunk=self.row_chunk,
            kernel=self._kernel.kind,
            device_map=_device_map(self.model),
        )

    def score(self, windows: Windows) -> Targets:
        return self.score_and_measure(windows, np.zeros(windows.num_positions, dtype=bool))[0]

    def score_and_measure(self, windows: Windows, measured_T: np.ndarray) -> tuple[Targets, VocabularyStatistics]:
        self._check(windows)
        pieces, vocabulary = [], VocabularyStatistics()
        with torch.inference_mode():
            for start, stop in batches(windows.window_offsets, self.batch_tokens):
                batch = slice(windows.window_offsets[start], windows.window_offsets[stop])
                targets, measured = self._score_batch(windows.select(start, stop), measured_T[batch])
                pieces.append(targets)
                vocabulary += measured
        return (Targets.concatenate(pieces) if pieces else self._silent(0)), vocabulary

    def _score_batch(self, windows: Windows, measured_T: np.ndarray) -> tuple[Targets, VocabularyStatistics]:
        rows = np.flatnonzero(windows.has_target())
        if not len(rows):
            return self._silent(windows.num_positions), VocabularyStatistics()
        states_TD = self._states(windows, rows)
        next_ids = to_device(windows.next_token()[rows], states_TD.device)
        uniforms = to_device(window_uniforms(windows, self.scheme)[rows], states_TD.device)
        heads, vocabulary = self._heads(states_TD, next_ids, uniforms, torch.from_numpy(measured_T[rows]))
        heads = heads.to_host()
        _check_finite(heads, windows, rows)
        return self._assemble(rows, heads, windows.num_positions), vocabulary

    def _states(self, windows: Windows, rows: np.ndarray) -> torch.Tensor:
        """What `_logits` turns into logits, of some rows: hidden states, or the logits themselves."""
        offsets = sequence_offsets(windows, packs=self._packs, num_halvings=self.num_halvings)
        pieces = []
        for start, stop in batches(offsets, max(1, self.batch_tokens >> self.num_halvings)):
            run = Sequences(windows, offsets[start : stop + 1])
            states_TD = self._forward(run.token_BS, run.position_BS)
            pieces.append(states_TD[to_device(run.places(rows), states_TD.device)])
        return torch.cat(pieces) if len(pieces) > 1 else pieces[0]

    def _forward(self, token_BS: np.ndarray, position_BS: np.ndarray) -> torch.Tensor:
        inputs: dict[str, Any] = {
            "input_ids": to_device(token_BS, self.model.device),
            "use_cache": False,
        }
        if self._packs:
            inputs["position_ids"] = to_device(position_BS, self.model.device)
        if self._head is None:
            return self.model(**inputs).logits.flatten(0, 1)
        states_TD = self.model.get_decoder()(**inputs).last_hidden_state.flatten(0, 1)
        # A device map may put the last layer and the head on different devices.
        return states_TD.to(self._head.weight.device)

    def _heads(
        self, states_TD: torch.Tensor, next_ids: torch.Tensor, uniforms_TRN: torch.Tensor, measured_T: torch.Tensor
    ) -> tuple[Heads, VocabularyStatistics]:
        row_chunk = max(1, self.row_chunk >> self.num_halvings)
        buffer_TV = self._logits_buffer(min(row_chunk, len(states_TD)), states_TD.device)
        compiled = self._kernel.kind == "compiled"
        blocks, vocabulary = [], VocabularyStatistics()
        for start in range(0, len(states_TD), row_chunk):
            chunk = slice(start, start + row_chunk)
            logits_TV = buffer_TV[: len(states_TD[chunk])]
            self._logits(states_TD[chunk], logits_TV[:, : self._vocab_size], compiled=compiled)
            logits_TV[:, self._num_ids :] = -torch.inf
            measured = measured_T[chunk].nonzero()[:, 0]
            if len(measured):
                vocabulary += measure_vocabulary(logits_TV, measured)
            heads = select_heads(
                logits_TV,
                self.scheme,
                next_ids[chunk],
                uniforms_TRN=uniforms_TRN[chunk],
                temperatures=self.temperatures,
                kernel=self._kernel,
            )
            blocks.append(heads)
        return Heads.concatenate(blocks), vocabulary

    def _logits_buffer(self, num_rows: int, device: torch.device) -> torch.Tensor:
        """Where the logits of a chunk go: select_heads uses them up, the next chunk overwrites them.

        Whole blocks, so that nothing is copied there. A CPU's stays from batch to batch: fresh pages cost time.
        """
        width = self._vocab_size + -self._vocab_size % self._block_ids
        if device.type != "cpu":
            return torch.empty(num_rows, width, device=device)
        if len(self._kept_TV) < num_rows:
            self._kept_TV = torch.empty(num_rows, width)
        return self._kept_TV[:num_rows]

    def _logits(self, states_TD: torch.Tensor, out_TV: torch.Tensor, *, compiled: bool = False) -> torch.Tensor:
        if self._head is None:
            return out_TV.copy_(states_TD)
        return self._head.logits(states_TD, out_TV, compiled=compiled)

    def _assemble(self, rows: np.ndarray, heads: Heads, num_positions: int) -> Targets:
        """Targets of all rows from the heads of some, in the host's memory."""

        def column(values: torch.Tensor, fill: float) -> np.ndarray:
            filled = np.full(num_positions, fill, dtype=values[:0].numpy().dtype)
            filled[rows] = values.numpy()
            return filled

        sample_offsets = offsets_from_lengths(column(heads.sample_widths, 0))
        return Targets(
            head_ids=heads.ids.numpy(),
            head_log_probs=heads.log_probs.numpy(),
            head_offsets=offsets_from_lengths(column(heads.widths, 0)),
            log_tail=column(heads.log_tail, np.nan),
            log_next=column(heads.log_next, np.nan),
            entropy=column(heads.entropy, np.nan),
            top1_ids=column(heads.top1_ids, -1),
            tail_samples=tuple(
                TailSample(ids=ids.contiguous().numpy(), offsets=sample_offsets) for ids in heads.sample_ids.unbind(1)
            ),
            tempered_log_tails={
                temperature: column(log_tail, np.nan)
                for temperature, log_tail in zip(self.temperatures, heads.tempered_log_tails.unbind(1), strict=True)
            },
        )

    def _silent(self, num_positions: int) -> Targets:
        """Rows of which none has a target."""
        num_temperatures, num_samples = len(self.temperatures), self.scheme.num_tail_samples
        return self._assemble(np.zeros(0, dtype=np.int64), Heads.empty(num_samples, num_temperatures), num_positions)

    def _check(self, windows: Windows) -> None:
        if not windows.num_positions:
            return
        if int(windows.token.max()) >= self._num_inputs or int(windows.token.min()) < 0:
            raise VocabularyError(
                f"windows hold token ids {windows.token.min()} to {windows.token.max()}, the teacher knows 0 to "
                f"{self._num_inputs - 1}; they were made with another tokenizer"
            )
        longest = int(windows.position_ids().max()) + 1
        if self._max_part is not None and longest > self._max_part:
            raise UsageError(
                f"a part of {longest} tokens exceeds the {self._max_part} that the teacher can attend to; use "
                f"--window {self._max_part} or less"
            )

    def _try_model(self) -> int:
        """Compares with the model's own logits: first our projection, then a part that is second in its window.

        Returns:
            The vocabulary size.
        """
        token_BS = (np.arange(12, dtype=np.int64)[None] * 7919 + 11) % self._num_inputs
        position_BS = np.concatenate([np.arange(5), np.arange(7)])[None]
        name = type(self.model).__name__
        with torch.inference_mode():
            alone = self.model(input_ids=torch.from_numpy(token_BS[:, 5:]).to(self.model.device), use_cache=False)
            expected_TV = alone.logits[0].float()
            self._vocab_size = expected_TV.shape[1]
            if not self._gives(expected_TV, self._forward(token_BS[:, 5:], position_BS[:, 5:])):
                self._head = None
            if self._head is None:
                _logger.warning(
                    "%s does not project hidden states by one matrix here: its own logits are used, with more memory",
                    name,
                )
            if not self._gives(expected_TV, self._forward(token_BS, position_BS)[5:]):
                self._packs = False
                _logger.warning(
                    "%s lets attention cross from one document of a window to the next: each runs alone, slower", name
                )
        return self._vocab_size

    def _gives(self, expected_TV: torch.Tensor, states_TD: torch.Tensor) -> bool:
        """Whether hidden states become the expected logits."""
        if self._head is not None and self._head.vocab_size != self._vocab_size:
            return False
        expected_TV = expected_TV.to(states_TD.device)
        actual_TV = self._logits(states_TD, torch.empty_like(expected_TV))
        centred_TV = expected_TV - expected_TV.mean(dim=-1, keepdim=True)
        error = (actual_TV - expected_TV).norm() / centred_TV.norm().clamp(min=1e-6)
        return bool(error < _TRIAL_TOLERANCE.get(self.model.dtype, 0.1))


def _device_map(model: PreTrainedModel) -> dict[str, str]:
    """Module to device, where there are several devices."""
    places = {name: str(device) for name, device in getattr(model, "hf_device_map", {}).items()}
    return places if len(set(places.values())) > 1 else {}


def _check_finite(heads: Heads, windows: Windows, rows: np.ndarray) -> None:
    if bool(heads.is_finite.all()):
        return
    bad = rows[(~heads.is_finite).numpy()]
    part = windows.parts[windows.part[bad[0]]]
    where = f"row {int(windows.position_ids()[bad[0]])} of document {part.id!r} ({part.source})"
    raise NonFiniteError(
        f"the teacher's logits are not finite at {len(bad)} of {len(rows)} rows, first at {where} from token "
        f"{part.offset} on; try float32, or leave the document out"
    )
