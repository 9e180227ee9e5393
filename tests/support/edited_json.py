"""Files of a dataset with other contents: sealed again, or as releases before the seal wrote them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from logitcask.schemas.seals import SEAL_KEY, sealed


def edit_json(path: str | Path, change: Callable[[dict[str, Any]], object] = lambda value: None) -> None:
    """Changes the object of a file in place, and seals it again."""
    Path(path).write_bytes(sealed(_changed(path, change)))


def write_as_first_release(path: str | Path, change: Callable[[dict[str, Any]], object] = lambda value: None) -> None:
    """Changes the object of a file in place, and writes it as version 1, without a seal."""
    value = _changed(path, change)
    ones = {key: 1 for key in value if key.endswith("_version")}
    Path(path).write_text(json.dumps({**value, **ones}))


def _changed(path: str | Path, change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    value = json.loads(Path(path).read_text())
    value.pop(SEAL_KEY, None)
    change(value)
    return value
