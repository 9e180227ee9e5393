"""Seals: a JSON file of a dataset holds a digest of itself, so that no flipped bit is taken for what was written.

The second line of a sealed file is its seal: the digest of all bytes after this line.

    {
     "seal": "sha256:9f86d0…",
     "base": 1,
     …

`tail -n +3 FILE | sha256sum` gives it again. A seal shows damage, not forgery. Version 1 of each kind of file has none;
a file of a later version without one is damaged.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from logitcask.schemas import storage
from logitcask.schemas.checked_json import InvalidValueError, named, parse_object
from logitcask.schemas.errors import CorruptShardError, LogitcaskError
from logitcask.schemas.fingerprints import digest

T = TypeVar("T")

SEAL_KEY = "seal"
_SEALED = re.compile(rb'\{\n "seal": "(sha256:[0-9a-f]{64})",\n')
_SEALED_SINCE = 2


def sealed(value: Mapping[str, Any], *, indent: int | None = 1) -> bytes:
    """A JSON object, not empty, as the bytes of a sealed file with sorted keys.

    Args:
        value: The object.
        indent: As for `json.dumps`; None: everything after the seal is one line.
    """
    text = json.dumps(value, indent=indent, sort_keys=True, ensure_ascii=False)
    body = text.removeprefix("{").lstrip("\n").encode() + b"\n"
    return f'{{\n "{SEAL_KEY}": "{digest(body)}",\n'.encode() + body


def create_sealed(url: str, value: Mapping[str, Any]) -> bool:
    """`storage.create` of a sealed file."""
    return storage.create(url, sealed(value))


def read_sealed(
    url: str,
    parse: Callable[[dict[str, Any]], T],
    *,
    version_key: str,
    what: str,
    advice: str,
    error: type[LogitcaskError] = CorruptShardError,
) -> T:
    """As `checked_json.read_object`, of a file that has a seal since its version 2.

    Args:
        url, parse, what, advice, error: As there.
        version_key: The key of the file's version, 1 where it is absent.
    """
    data = storage.read_bytes(url)
    with named(url, what=what, advice=advice, error=error):
        value = parse_object(data)
        check_seal(data, value, version_key)
        return parse(value)


def is_sealed(data: bytes) -> bool:
    """Whether a file begins like a sealed one."""
    return _SEALED.match(data) is not None


def check_seal(data: bytes, value: Mapping[str, Any], version_key: str) -> bool:
    """Checks the seal of a file.

    Args:
        data: The file.
        value: The object that it holds.
        version_key: The key of its version.

    Returns:
        Whether it has a seal; False only for a file of version 1.

    Raises:
        InvalidValueError: Its bytes are not those that were sealed, or the seal is missing.
    """
    match = _SEALED.match(data)
    if match is None:
        if SEAL_KEY in value or value.get(version_key, 1) != _SEALED_SINCE - 1:
            raise InvalidValueError("no seal in its second line, so it is damaged or was edited")
        return False
    found = digest(data[match.end() :])
    if found != match[1].decode():
        raise InvalidValueError(f"damaged or edited: sealed as {match[1].decode()}, found {found}")
    return True
