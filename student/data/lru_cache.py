"""A cache that keeps the most recently used values up to a total weight."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LruCache(Generic[K, V]):
    """Removes the least recently used values first; the newest is kept even if it alone exceeds the capacity.

    Args:
        capacity: The maximum total weight.
        weigh: Returns a value's weight; called once per value.
        discard: Called with each value that is removed.
    """

    def __init__(
        self, capacity: int, weigh: Callable[[V], int], discard: Callable[[V], object] = lambda value: None
    ) -> None:
        self._capacity, self._weigh, self._discard = capacity, weigh, discard
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._total = 0

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The value of `key`; calls `make` if it is not cached."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key][0]
        value = make()
        weight = self._weigh(value)
        self._values[key] = (value, weight)
        self._total += weight
        while self._total > self._capacity and len(self._values) > 1:
            self._drop_oldest()
        return value

    def _drop_oldest(self) -> None:
        _, (value, weight) = self._values.popitem(last=False)
        self._total -= weight
        self._discard(value)
