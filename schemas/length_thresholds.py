"""Lengths in a model's configuration at which the model starts to compute something else.

Sliding windows, chunked attention, the length from which rotary embeddings are rescaled: below such a length a trial
shows nothing. `transformers` has no list of these settings, so they are found by their names.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

_NAMES = re.compile(
    r"window|chunk|block|context|position|extent|distance|topk|floor|local|compress|length|(^|_)(seq|ctx|mem|cache)(_|$)"
)
_OTHER_NAMES = re.compile(r"num_|layers|heads|multiple|_dim$|vocab|prompt_length|_ids?$|group|moe|expert")
# Blocks and compressed blocks are skipped or chosen among, so the length that matters is a multiple of the number.
_BLOCKS = re.compile(r"block|topk|compress")
_BLOCK_MULTIPLE = 17
# The longest sequence that a model can attend to has many names.
_LIMITS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_target_positions", "max_sequence_length")


def max_sequence_tokens(config: Any) -> int | None:
    """The longest sequence that a model can attend to, from the configuration of its text part; None if not stated."""
    stated = (getattr(config, name, None) for name in _LIMITS)
    return next((int(value) for value in stated if isinstance(value, int) and value > 0), None)


def length_thresholds(config: Mapping[str, Any], max_tokens: int) -> tuple[int, ...]:
    """The thresholds below `max_tokens`, ascending.

    Args:
        config: A configuration of `transformers`, as a dictionary.
        max_tokens: The longest sequence that the model is given.
    """
    return tuple(sorted({value for _, value in _lengths(config) if 1 < value < max_tokens}))


def trial_tokens(config: Mapping[str, Any], max_tokens: int) -> int:
    """The length of a sequence that reaches past all thresholds, at most `max_tokens`; 0 if there are none."""
    longest = 0
    for name, value in _lengths(config):
        if 1 < value < max_tokens:
            past = value + max(8, value // 8)
            longest = max(longest, _BLOCK_MULTIPLE * value if _BLOCKS.search(name) else past)
    return min(longest, max_tokens)


def selects_tokens(config: Mapping[str, Any], max_tokens: int) -> bool:
    """Whether rows attend to a fixed number of tokens, which they choose by scores.

    Scores can be equal, and rounding, which differs between batches, then decides.
    """
    return any("topk" in name and 0 < value < max_tokens for name, value in _lengths(config))


def _lengths(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _lengths(value)
        elif _NAMES.search(str(name)) and not _OTHER_NAMES.search(str(name)):
            values = value if isinstance(value, list | tuple) else [value]
            yield from ((str(name), one) for one in values if isinstance(one, int) and not isinstance(one, bool))
