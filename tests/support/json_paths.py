"""Paths of the keys of a JSON value, as the pages in `docs` write them."""

from typing import Any


def leaves(value: Any, path: str = "") -> set[str]:
    """Paths to all values that are no object or list, or an empty one: "splits.train.tokens", "windows[].token[]"."""
    if isinstance(value, dict) and value:
        return {leaf for key, one in value.items() for leaf in leaves(one, f"{path}.{key}".lstrip("."))}
    if isinstance(value, list) and value:
        return {leaf for one in value for leaf in leaves(one, f"{path}[]")}
    return {path}
