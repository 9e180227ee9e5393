"""A scorer over any engine that gives hidden states: the projection, heads, tails and checks are here.

An engine is a `Trunk`. Its states are projected in float32, a chunk of rows at a time, so that logits of a whole batch
never exist, and tails are exact whatever the engine.
"""

from typing import Any, Protocol

import numpy as np
import torch

from logitcask.schemas.errors import MemoryExhaustedError, NonFiniteError, UsageError, VocabularyError
from logitcask.schemas.format.draws import window_uniforms
from logitcask.schemas.format.ragged import offsets_from_lengths
from logitcask.schemas.format.scheme import extra_temperatures
from logitcask.schemas.format.targets import TailSample, Targets, Windows
from logitcask.schemas.stats.vocabulary_statistics import VocabularyStatistics
from logitcask.teacher.model.environment import numeric_environment
from logitcask.teacher.scoring.block_sums import Kernel, choose_kernel
from logitcask.teacher.scoring.head_entries import block_size
from logitcask.teacher.scoring.heads import DeviceTargets, select_heads
from logitcask.teacher.scoring.measure_vocabulary import measure_vocabulary
from logitcask.teacher.scoring.projection import LinearHead, project, rows_of_chunk
from logitcask.teacher.scoring.protocol import ScorerSpec
from logitcask.teacher.scoring.transfers import to_device
from logitcask.teacher.text.packing import batches

# The pieces of one window are halved at most this often: from sequences of 4,096 positions and 512 rows of logits to
# 128 and 16.
_MAX_HALVINGS = 5


class Trunk(Protocol):
    """An engine that turns tokens into hidden states after the final norm.

    Attributes:
        head: Turns the states into logits; None if the states are the final logits already.
        vocab_size: Width of the logits.
        num_inputs: Token ids that the engine knows: 0 to `num_inputs` - 1.
        max_part_tokens: The longest part that the engine can attend to; None if there is no limit.
        device: Where logits are computed.
        environment: The trunk's arguments of `teacher.model.environment.numeric_environment`.
    """

    head: LinearHead | None
    vocab_size: int
    num_inputs: int
    max_part_tokens: int | None
    device: torch.device
    environment: dict[str, Any]

    def states(self, windows: Windows, rows: np.ndarray, *, batch_tokens: int, num_halvings: int) -> torch.Tensor:
        """States of some rows, each computed from its part alone, [number of rows, D].

        Args:
            windows: T rows.
            rows: Ascending indices into them.
            batch_tokens: Maximum positions of a forward pass, padding included; a longer window goes alone.
            num_halvings: How often pieces of one window are halved, to save memory.
        """
        ...


class TrunkScorer:
    """The `Scorer` over a trunk.

    Args:
        trunk: The engine.
        spec: Settings of projection and heads; those of the engine are not read.

    Raises:
        UsageError: The scheme does not allow the temperatures, or the kernel is unknown.
    """

    def __init__(self, trunk: Trunk, spec: ScorerSpec) -> None:
        self.trunk = trunk
        self.scheme = spec.scheme
        self.temperatures = extra_temperatures(spec.temperatures, spec.scheme)
        self.batch_tokens = spec.batch_tokens
        self.num_halvings = 0
        self.row_chunk = spec.row_chunk or rows_of_chunk(trunk.vocab_size)
        self._num_ids = min(spec.num_ids or trunk.vocab_size, trunk.vocab_size)
        self._num_threads = spec.num_threads
        self._block_ids = block_size(trunk.vocab_size, spec.scheme.max_head_width)
        self._kept_TV = torch.empty(0)
        kind = choose_kernel(spec.kernel, trunk.vocab_size, trunk.device)
        self._kernel = Kernel(kind, block_ids=self._block_ids, device=trunk.device)

    @property
    def vocab_size(self) -> int:
        return self.trunk.vocab_size

    @property
    def environment(self) -> dict[str, Any]:
        return numeric_environment(
            **self.trunk.environment,
            batch_tokens=self.batch_tokens,
            row_chunk=self.row_chunk,
            kernel=self._kernel.kind,
        )

    def prepare_thread(self) -> None:
        # OpenMP keeps the number for each calling thread.
        if self._num_threads is not None:
            torch.set_num_threads(self._num_threads)

    def score(self, windows: Windows) -> Targets:
        return self.score_and_measure(windows, np.zeros(windows.num_positions, dtype=bool))[0]

    def score_and_measure(self, windows: Windows, measured_T: np.ndarray) -> tuple[Targets, VocabularyStatistics]:
        self._check(windows)
        try:
            with torch.inference_mode():
                return self._score_batches(windows, measured_T)
        except torch.OutOfMemoryError as error:
            reason = str(error)
        # Only now: while the exception was handled, its traceback held the tensors.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        raise MemoryExhaustedError(
            f"the teacher ran out of memory at {windows.num_positions} positions ({windows.num_windows} windows) in "
            f"batches of at most {self.batch_tokens}: {reason}",
            can_halve=self.num_halvings < _MAX_HALVINGS,
        )

    def _score_batches(self, windows: Windows, measured_T: np.ndarray) -> tuple[Targets, VocabularyStatistics]:
        pieces, statistics = [], VocabularyStatistics()
        for start, stop in batches(windows.window_offsets, self.batch_tokens):
            batch = slice(windows.window_offsets[start], windows.window_offsets[stop])
            targets, measured = self._score_batch(windows.select(start, stop), measured_T[batch])
            pieces.append(targets)
            statistics += measured
        return (Targets.concatenate(pieces) if pieces else self._without_targets(0)), statistics

    def _score_batch(self, windows: Windows, measured_T: np.ndarray) -> tuple[Targets, VocabularyStatistics]:
        rows = np.flatnonzero(windows.has_target())
        if not len(rows):
            return self._without_targets(windows.num_positions), VocabularyStatistics()
        states_TD = self.trunk.states(windows, rows, batch_tokens=self.batch_tokens, num_halvings=self.num_halvings)
        next_ids = to_device(windows.next_token()[rows], states_TD.device)
        uniforms = to_device(window_uniforms(windows, self.scheme)[rows], states_TD.device)
        targets, statistics = self._targets(states_TD, next_ids, uniforms, torch.from_numpy(measured_T[rows]))
        targets = targets.to_host()
        _check_finite(targets, windows, rows)
        return self._spread(rows, targets, windows.num_positions), statistics

    def _targets(
        self, states_TD: torch.Tensor, next_ids: torch.Tensor, uniforms_TRN: torch.Tensor, measured_T: torch.Tensor
    ) -> tuple[DeviceTargets, VocabularyStatistics]:
        row_chunk = max(1, self.row_chunk >> self.num_halvings)
        buffer_TV = self._logits_buffer(min(row_chunk, len(states_TD)), states_TD.device)
        compiled = self._kernel.kind == "compiled"
        blocks, statistics = [], VocabularyStatistics()
        for start in range(0, len(states_TD), row_chunk):
            chunk = slice(start, start + row_chunk)
            logits_TV = buffer_TV[: len(states_TD[chunk])]
            project(self.trunk.head, states_TD[chunk], logits_TV[:, : self.vocab_size], compiled=compiled)
            logits_TV[:, self._num_ids :] = -torch.inf
            measured = measured_T[chunk].nonzero()[:, 0]
            if len(measured):
                statistics += measure_vocabulary(logits_TV, measured)
            targets = select_heads(
                logits_TV,
                self.scheme,
                next_ids[chunk],
                uniforms_TRN=uniforms_TRN[chunk],
                temperatures=self.temperatures,
                kernel=self._kernel,
            )
            blocks.append(targets)
        return DeviceTargets.concatenate(blocks), statistics

    def _logits_buffer(self, num_rows: int, device: torch.device) -> torch.Tensor:
        """Where the logits of a chunk go: select_heads uses them up, the next chunk overwrites them.

        It has whole blocks, so that select_heads copies nothing. A CPU's is kept from batch to batch: fresh pages cost
        time.
        """
        width = self.vocab_size + -self.vocab_size % self._block_ids
        if device.type != "cpu":
            return torch.empty(num_rows, width, device=device)
        if len(self._kept_TV) < num_rows:
            self._kept_TV = torch.empty(num_rows, width)
        return self._kept_TV[:num_rows]

    def _spread(self, rows: np.ndarray, targets: DeviceTargets, num_positions: int) -> Targets:
        """Targets of all rows from those of some, in the host's memory."""

        def column(values: torch.Tensor, fill: float) -> np.ndarray:
            filled = np.full(num_positions, fill, dtype=values[:0].numpy().dtype)
            filled[rows] = values.numpy()
            return filled

        sample_offsets = offsets_from_lengths(column(targets.sample_widths, 0))
        return Targets(
            head_ids=targets.ids.numpy(),
            head_log_probs=targets.log_probs.numpy(),
            head_offsets=offsets_from_lengths(column(targets.widths, 0)),
            log_tail=column(targets.log_tail, np.nan),
            log_next=column(targets.log_next, np.nan),
            entropy=column(targets.entropy, np.nan),
            top1_ids=column(targets.top1_ids, -1),
            tail_samples=tuple(
                TailSample(ids=ids.contiguous().numpy(), offsets=sample_offsets) for ids in targets.sample_ids.unbind(1)
            ),
            tempered_log_tails={
                temperature: column(log_tail, np.nan)
                for temperature, log_tail in zip(self.temperatures, targets.tempered_log_tails.unbind(1), strict=True)
            },
        )

    def _without_targets(self, num_positions: int) -> Targets:
        """Targets of rows without any: empty heads and samples, and NaN."""
        nan_T, no_ids = np.full(num_positions, np.nan, np.float32), np.zeros(0, np.int32)
        offsets = np.zeros(num_positions + 1, np.int64)
        return Targets(
            head_ids=no_ids,
            head_log_probs=np.zeros(0, np.float32),
            head_offsets=offsets,
            log_tail=nan_T,
            log_next=nan_T,
            entropy=nan_T,
            top1_ids=np.full(num_positions, -1, np.int32),
            tail_samples=(TailSample(ids=no_ids, offsets=offsets),) * self.scheme.num_tail_samples,
            tempered_log_tails=dict.fromkeys(self.temperatures, nan_T),
        )

    def _check(self, windows: Windows) -> None:
        if not windows.num_positions:
            return
        if int(windows.token.max()) >= self.trunk.num_inputs or int(windows.token.min()) < 0:
            raise VocabularyError(
                f"windows hold token ids {windows.token.min()} to {windows.token.max()}, the teacher knows 0 to "
                f"{self.trunk.num_inputs - 1}; they were made with another tokenizer"
            )
        longest, limit = int(windows.position_ids().max()) + 1, self.trunk.max_part_tokens
        if limit is not None and longest > limit:
            raise UsageError(
                f"a part of {longest} tokens exceeds the {limit} that the teacher can attend to; use "
                f"--window {limit} or less"
            )


def _check_finite(targets: DeviceTargets, windows: Windows, rows: np.ndarray) -> None:
    if bool(targets.is_finite.all()):
        return
    bad = rows[(~targets.is_finite).numpy()]
    part = windows.parts[windows.part[bad[0]]]
    where = f"row {int(windows.position_ids()[bad[0]])} of document {part.id!r} ({part.source})"
    raise NonFiniteError(
        f"the teacher's logits are not finite at {len(bad)} of {len(rows)} rows, first at {where} from token "
        f"{part.offset} on; try float32, or leave the document out"
    )
