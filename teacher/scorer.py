"""The teacher's distributions for windows of tokens.

A scorer is a protocol, so that other engines can follow; this one runs a Hugging Face causal model in this process.
Parts share a window without seeing each other: position ids restart at each part, no attention mask is given, and
`transformers` derives a block-diagonal causal mask from that. Both this and the projection are tried once, on a dozen
tokens, before a model is trusted with a corpus; where parts would see each other (Bloom, OPT, state-space models), each
runs alone.
"""

import logging
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from transformers import PreTrainedModel

from schemas.draws import window_uniforms
from schemas.errors import NonFiniteError, UsageError, VocabularyError
from schemas.scheme import Scheme, further_temperatures
from schemas.targets import TailSample, Targets, Windows
from teacher.environment import numeric_environment
from teacher.heads import Heads, select_heads
from teacher.packing import batches
from teacher.projection import LinearHead, linear_head

_logger = logging.getLogger(__name__)

# Relative error of centred logits at which two ways of computing them count as different; a leak between parts or a
# missing scale is of order 1.
_TRIAL_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.03}


class Scorer(Protocol):
    """Tokens of windows → head, tail, next-token log-probability and entropy of each row with a target."""

    @property
    def vocab_size(self) -> int:
        """Width of the distribution."""
        ...

    @property
    def environment(self) -> dict[str, Any]:
        """What moves the low bits of targets (`teacher.environment`)."""
        ...

    def score(self, windows: Windows) -> Targets:
        """Targets of all rows, in order; rows without a target have empty heads and samples, and NaN.

        Raises:
            NonFiniteError: The teacher gave NaN or infinity; names the row.
            VocabularyError: A token is not in the teacher's vocabulary.
        """
        ...


class HuggingFaceScorer:
    """Any causal language model of `transformers`, in this process.

    Args:
        model: In evaluation mode, on its device (`teacher.loading.load_model`).
        scheme: How heads are chosen.
        batch_tokens: Most positions of a forward pass, padding included; a longer window goes alone.
        row_chunk: Rows whose logits exist at a time; [256, 262144] in float32 is 268 MB.
        temperatures: Further temperatures at which the tail is wanted.

    Raises:
        UsageError: The temperatures do not go with the scheme.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        scheme: Scheme,
        *,
        batch_tokens: int = 4096,
        row_chunk: int = 256,
        temperatures: Sequence[float] = (),
    ) -> None:
        self.model = model
        self.scheme = scheme
        self.temperatures = further_temperatures(temperatures, scheme)
        self.batch_tokens = batch_tokens
        self.row_chunk = row_chunk
        self._max_part = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        embeddings: Any = model.get_input_embeddings()
        self._num_inputs = int(embeddings.weight.shape[0])
        self._head: LinearHead | None = linear_head(model)
        self._packs = True
        self._vocab_size = self._try_model()

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
        )

    def score(self, windows: Windows) -> Targets:
        self._check(windows)
        with torch.inference_mode():
            runs = batches(windows.window_offsets, self.batch_tokens)
            pieces = [self._score_batch(windows.select(*run)) for run in runs]
        return Targets.concatenate(pieces) if pieces else self._silent(0)

    def _score_batch(self, windows: Windows) -> Targets:
        rows = np.flatnonzero(windows.has_target())
        if not len(rows):
            return self._silent(windows.num_positions)
        padded = _Padded(windows, windows.window_offsets if self._packs else _part_offsets(windows))
        states_TD = self._states(padded.token_BS, padded.position_BS)
        wanted = torch.from_numpy(padded.row[rows]).to(states_TD.device)
        next_ids = torch.from_numpy(windows.next_token()[rows]).to(states_TD.device)
        uniforms = torch.from_numpy(window_uniforms(windows, self.scheme)[rows]).to(states_TD.device)
        heads = self._heads(states_TD, wanted, next_ids, uniforms)
        _check_finite(heads, windows, rows)
        return self._assemble(rows, heads, windows.num_positions)

    def _states(self, token_BS: np.ndarray, position_BS: np.ndarray) -> torch.Tensor:
        """What `_logits` turns into logits, of all B·S rows: hidden states, or the logits themselves."""
        num_rows = max(1, self.batch_tokens // token_BS.shape[1])
        groups = [slice(start, start + num_rows) for start in range(0, len(token_BS), num_rows)]
        return torch.cat([self._forward(token_BS[group], position_BS[group]) for group in groups])

    def _forward(self, token_BS: np.ndarray, position_BS: np.ndarray) -> torch.Tensor:
        inputs: dict[str, Any] = {
            "input_ids": torch.from_numpy(token_BS).to(self.model.device),
            "use_cache": False,
        }
        if self._packs:
            inputs["position_ids"] = torch.from_numpy(position_BS).to(self.model.device)
        if self._head is None:
            return self.model(**inputs).logits.flatten(0, 1)
        return self.model.get_decoder()(**inputs).last_hidden_state.flatten(0, 1)

    def _heads(
        self, states_TD: torch.Tensor, wanted: torch.Tensor, next_ids: torch.Tensor, uniforms_TRN: torch.Tensor
    ) -> Heads:
        # One buffer for all chunks: select_heads uses it up, the next chunk overwrites it.
        buffer_TV = torch.empty(
            min(self.row_chunk, len(wanted)), self.vocab_size, dtype=torch.float32, device=states_TD.device
        )
        blocks = []
        for start in range(0, len(wanted), self.row_chunk):
            chunk = slice(start, start + self.row_chunk)
            logits_TV = self._logits(states_TD[wanted[chunk]], buffer_TV)
            heads = select_heads(
                logits_TV,
                self.scheme,
                next_ids[chunk],
                uniforms_TRN=uniforms_TRN[chunk],
                temperatures=self.temperatures,
            )
            blocks.append(heads)
        return Heads.concatenate(blocks)

    def _logits(self, states_TD: torch.Tensor, buffer_TV: torch.Tensor) -> torch.Tensor:
        out_TV = buffer_TV[: len(states_TD)]
        return out_TV.copy_(states_TD) if self._head is None else self._head.logits(states_TD, out_TV)

    def _assemble(self, rows: np.ndarray, heads: Heads, num_positions: int) -> Targets:
        """Targets of all rows from the heads of some."""

        def column(values: torch.Tensor, fill: float) -> np.ndarray:
            filled = np.full(num_positions, fill, dtype=_numpy(values[:0]).dtype)
            filled[rows] = _numpy(values)
            return filled

        sample_offsets = _offsets(column(heads.sample_widths, 0))
        return Targets(
            head_ids=_numpy(heads.ids),
            head_log_probs=_numpy(heads.log_probs),
            head_offsets=_offsets(column(heads.widths, 0)),
            log_tail=column(heads.log_tail, np.nan),
            log_next=column(heads.log_next, np.nan),
            entropy=column(heads.entropy, np.nan),
            top1_ids=column(heads.top1_ids, -1),
            tail_samples=tuple(
                TailSample(ids=_numpy(ids.contiguous()), offsets=sample_offsets) for ids in heads.sample_ids.unbind(1)
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
            if not self._gives(expected_TV, self._states(token_BS[:, 5:], position_BS[:, 5:])):
                self._head = None
                _logger.warning(
                    "%s does not project hidden states by one matrix: its own logits are used, with more memory", name
                )
            if not self._gives(expected_TV, self._states(token_BS, position_BS)[5:]):
                self._packs = False
                _logger.warning(
                    "%s lets attention cross from one document of a window to the next: each runs alone, slower", name
                )
        return self._vocab_size

    def _gives(self, expected_TV: torch.Tensor, states_TD: torch.Tensor) -> bool:
        """Whether hidden states become the expected logits."""
        if self._head is not None and self._head.vocab_size != self._vocab_size:
            return False
        actual_TV = self._logits(states_TD, torch.empty_like(expected_TV))
        centred_TV = expected_TV - expected_TV.mean(dim=-1, keepdim=True)
        error = (actual_TV - expected_TV).norm() / centred_TV.norm().clamp(min=1e-6)
        return bool(error < _TRIAL_TOLERANCE.get(self.model.dtype, 0.1))


def _part_offsets(windows: Windows) -> np.ndarray:
    return np.append(np.flatnonzero(windows.part_starts()), windows.num_positions)


class _Padded:
    """Windows, or parts, as a rectangle. What fills it up is a part of its own, which nobody sees.

    Args:
        windows: T rows.
        offsets: First row of each of the B sequences, and T; [B + 1].

    Attributes:
        token_BS, position_BS: int64 [B, S].
        row: Where each of the T rows lies in the flattened rectangle, int64 [T].
    """

    def __init__(self, windows: Windows, offsets: np.ndarray) -> None:
        lengths = np.diff(offsets)
        longest = int(lengths.max())
        sequence = np.repeat(np.arange(len(lengths)), lengths)
        self.row = sequence * longest + np.arange(windows.num_positions) - offsets[sequence]
        self.token_BS = np.zeros((len(lengths), longest), dtype=np.int64)
        self.token_BS.flat[self.row] = windows.token
        self.position_BS = np.maximum(0, np.arange(longest) - lengths[:, None]).astype(np.int64)
        self.position_BS.flat[self.row] = windows.position_ids()


def _check_finite(heads: Heads, windows: Windows, rows: np.ndarray) -> None:
    if bool(heads.is_finite.all()):
        return
    bad = rows[(~heads.is_finite).cpu().numpy()]
    part = windows.parts[windows.part[bad[0]]]
    where = f"row {int(windows.position_ids()[bad[0]])} of document {part.id!r} ({part.source})"
    raise NonFiniteError(
        f"the teacher's logits are not finite at {len(bad)} of {len(rows)} rows, first at {where} from token "
        f"{part.offset} on; try float32, or leave the document out"
    )


def _numpy(values: torch.Tensor) -> np.ndarray:
    return values.cpu().numpy()


def _offsets(widths: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(widths)])
