"""Sums key by key: counts by reason, bytes by column, summaries by source."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

K = TypeVar("K", int, str)
V = TypeVar("V", bound=Any)


def sum_by_key(pieces: Iterable[Mapping[K, V]]) -> dict[K, V]:
    """The sum (`+`) of the values of each key, in ascending order of the keys."""
    sums: dict[K, V] = {}
    for piece in pieces:
        for key, value in piece.items():
            sums[key] = sums[key] + value if key in sums else value
    return dict(sorted(sums.items()))
