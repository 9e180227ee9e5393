"""A trial of a causal model before it is trusted with a corpus: what it computes, and which parts may run together.

The reference is a plain forward of each part alone. The trial shows that a later token changes no earlier row, that the
numbers are finite, and for which `Grouping` the real batches give the reference's numbers. Some settings take effect
only beyond a certain length, so a long part is among the parts if the configuration states such a length
(`schemas.length_thresholds`).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from logitcask.schemas.errors import TeacherError
from logitcask.schemas.format.targets import Kind, Part, Windows
from logitcask.teacher.scoring.projection import relative_error
from logitcask.teacher.scoring.sequences import ALONE, Grouping

# Parts in windows: shorter than most thresholds, of different lengths, and one of a single token.
_SHORT = ((7, 5), (1, 9))
# The part that shares a window with the long one.
_NEIGHBOR_TOKENS = 5
# Rows of a long part that are compared: the last ones, which lie past all thresholds, and some before them.
_LAST_ROWS, _SPREAD_ROWS = 16, 16

# By dtype, the relative error at which two ways to compute the same logits count as different. Rounding stays far
# below. Parts that see each other differ by a tenth and more in trained models, by a thousandth in untrained ones.
_TOLERANCES = {"float32": 1e-4, "float16": 0.03, "bfloat16": 0.1}
# The same for two forward passes of equal shapes, where rounding is equal, except in mixtures of experts.
_CAUSAL_TOLERANCES = {"float32": 1e-5, "float16": 0.01, "bfloat16": 0.03}
# Ids that control a model: padding, pictures, the end of a text.
_CONTROL_IDS = re.compile(r"(token|pad|bos|eos|sep|cls|mask)_(id|index|idx)s?$")

# What a model can raise on inputs that it does not support.
FORWARD_ERRORS = (
    TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError, AssertionError, NotImplementedError
)  # fmt: skip

Logits = Callable[[np.ndarray, np.ndarray], torch.Tensor]
"""Ids [S] of one part and indices of some of its rows, to the model's float32 logits of these rows."""

Scored = Callable[[Windows, np.ndarray, Grouping], torch.Tensor]
"""Windows, some of their rows and a grouping, to the float32 logits that a job would store."""


def tolerance(dtype: torch.dtype) -> float:
    """The tolerated relative error between two ways to compute the same logits."""
    if dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest":
        return _TOLERANCES["float16"]
    return _TOLERANCES.get(str(dtype).removeprefix("torch."), 0.1)


def trial_ids(num_ids: int, config: Mapping[str, Any], length: int, seed: int) -> np.ndarray:
    """Different ids below `num_ids` that control nothing, int64 [length]; they repeat if there are too few."""
    allowed = np.setdiff1d(np.arange(num_ids), list(_control_ids(config)))
    order = np.random.default_rng(seed).permutation(allowed if len(allowed) else np.arange(num_ids))
    return np.resize(order, length).astype(np.int64)


def check_causality(logits: Logits, ids_S: np.ndarray, name: str, dtype: torch.dtype) -> None:
    """Changes the last token, and in a short part one in the middle too; no earlier row may move.

    Raises:
        TeacherError: One does; or logits of the part are not finite.
    """
    length = len(ids_S)
    rows = compared_rows(length)
    expected_TV = logits(ids_S, rows)
    for changed in [length - 1] if length > len(rows) else [length // 2, length - 1]:
        other_S = ids_S.copy()
        other_S[changed] = ids_S[0]
        earlier = torch.from_numpy(rows < changed)
        error = relative_error(logits(other_S, rows)[earlier], expected_TV[earlier])
        if not error <= _CAUSAL_TOLERANCES.get(str(dtype).removeprefix("torch."), 0.03):
            raise TeacherError(
                f"{name} is not causal: another token at position {changed} of {length} changes the logits of earlier "
                f"positions (relative change {error:.2g}), so its distributions would have seen the tokens they "
                "predict. Use a model that was trained to predict the next token; an encoder such as BERT needs "
                '"is_decoder": true in config.json, and weights trained that way'
            )


def choose_grouping(
    logits: Logits,
    scored: Scored,
    ids: Callable[[int, int], np.ndarray],
    thresholds: tuple[int, ...],
    long_tokens: int,
    *,
    is_alone: bool,
    tolerated: float,
    name: str,
) -> Grouping:
    """The first grouping, from fast to slow, that gives the logits of a plain forward of each part alone.

    Args:
        logits: A plain forward.
        scored: The way of a job.
        ids: Length and seed to ids.
        thresholds: Lengths at which the model may start to compute something else.
        long_tokens: A length past all of them; 0 if there are none.
        is_alone: Whether every part must have a forward pass of its own, whatever the trial shows.
        tolerated: Relative error.
        name: Of the model, for messages.

    Raises:
        TeacherError: None does: the model gives other numbers for the same part when it is asked again.
    """
    # First: a model that remembers the long part must not do so yet.
    short = _Expected(_SHORT, ids, logits)
    long = _Expected(_long_parts(thresholds, long_tokens), ids, logits) if long_tokens else None
    errors: list[str] = []
    for grouping in [ALONE] if is_alone else _groupings(thresholds):
        # The short ones again, because the long one may have changed the model's state.
        if all(
            trial.is_met(scored, grouping, tolerated, errors) for trial in ([short, long, short] if long else [short])
        ):
            return grouping
    raise TeacherError(
        f"{name} gives other logits for the same tokens when it is asked again, even for each document by itself "
        f"({errors[-1]}); it keeps a state or draws random numbers, so it cannot be annotated with"
    )


def _long_parts(thresholds: tuple[int, ...], long_tokens: int) -> tuple[tuple[int, ...]]:
    """A window of a short part and two that are past all thresholds, of different lengths if possible."""
    return ((_NEIGHBOR_TOKENS, long_tokens, max(thresholds[-1] + 1, long_tokens - 3)),)


def compared_rows(length: int) -> np.ndarray:
    """The rows of a part of this length that are compared: all of a short one, some of a long one."""
    if length <= _LAST_ROWS + _SPREAD_ROWS:
        return np.arange(length)
    spread = np.linspace(0, length - _LAST_ROWS - 1, _SPREAD_ROWS).astype(np.int64)
    return np.concatenate([spread, np.arange(length - _LAST_ROWS, length)])


class _Expected:
    """Windows of parts, and their logits by a plain forward of each part alone."""

    def __init__(self, lengths: tuple[tuple[int, ...], ...], ids: Callable[[int, int], np.ndarray], logits: Logits):
        parts = [length for window in lengths for length in window]
        tokens = [ids(length, seed) for seed, length in enumerate(parts)]
        starts = np.cumsum([0, *parts])
        self.windows = Windows(
            token=np.concatenate(tokens).astype(np.int32),
            kind=np.full(starts[-1], Kind.TRAIN, np.uint8),
            part=np.repeat(np.arange(len(parts), dtype=np.int32), parts),
            window_offsets=np.cumsum([0, *(sum(window) for window in lengths)]).astype(np.int64),
            parts=tuple(Part(id=str(number), source="", offset=0) for number in range(len(parts))),
        )
        rows = [compared_rows(length) for length in parts]
        self.rows = np.concatenate([start + one for start, one in zip(starts, rows, strict=False)])
        self._logits = [logits(part_tokens, one) for part_tokens, one in zip(tokens, rows, strict=True)]

    def is_met(self, scored: Scored, grouping: Grouping, tolerated: float, errors: list[str]) -> bool:
        """Whether the way of a job gives these logits; if not, adds what it gives instead to `errors`."""
        try:
            actual_TV = scored(self.windows, self.rows, grouping)
        except torch.OutOfMemoryError:
            raise
        except FORWARD_ERRORS as error:
            errors.append(f"{type(error).__name__}: {error}")
            return False
        pieces = actual_TV.split([len(expected) for expected in self._logits])
        error = max(relative_error(piece, one) for piece, one in zip(pieces, self._logits, strict=True))
        # A comparison with NaN is false.
        if error <= tolerated:
            return True
        errors.append(f"relative error {error:.2g}")
        return False


def _groupings(thresholds: tuple[int, ...]) -> Iterator[Grouping]:
    for parts in ("packed", "batched"):
        yield Grouping(parts=parts)
        if thresholds:
            yield Grouping(parts=parts, thresholds=thresholds)
    yield ALONE


def _control_ids(config: Mapping[str, Any]) -> Iterator[int]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _control_ids(value)
        elif _CONTROL_IDS.search(str(name)):
            yield from (one for one in (value if isinstance(value, list | tuple) else [value]) if isinstance(one, int))
