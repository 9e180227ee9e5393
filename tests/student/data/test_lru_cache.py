"""The cache: what is removed first, and what is kept."""

import pytest

from logitcask.student.data.lru_cache import LruCache


def test_the_least_recently_used_value_is_removed_first():
    dropped = []
    cache = LruCache[str, int](10, lambda value: value, dropped.append)
    cache.get("a", lambda: 4)
    cache.get("b", lambda: 5)
    cache.get("a", lambda: pytest.fail("a is held"))
    cache.get("c", lambda: 3)
    assert dropped == [5]


def test_the_newest_value_is_kept_even_above_the_capacity():
    cache = LruCache[str, int](10, lambda value: value)
    cache.get("a", lambda: 99)
    assert cache.get("a", lambda: pytest.fail("a is held")) == 99
