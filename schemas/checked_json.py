"""JSON of a dataset, a checkpoint or an output directory becomes a type here, and only here.

The author of a file may be careless or hostile. The text is checked before it is parsed (size, number of values),
then the values (no duplicate keys, no NaN or infinity, depth), and then `msgspec` converts them: the annotations of a
dataclass are the rules. Keys that a dataclass does not have are ignored, so that later releases can add some.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn, TypeVar

import msgspec
from msgspec import Meta

from logitcask.schemas import storage
from logitcask.schemas.errors import CorruptShardError, LogitcaskError, UnknownFormatVersionError

T = TypeVar("T")

# The pieces of a large vocabulary and the ids of a million forgotten documents are smaller.
MAX_BYTES = 64 << 20
MAX_VALUES = 4_000_000
# A merge of merges of merges nests two levels each.
MAX_DEPTH = 64
# Sums of integer steps exceed 64 bits; an integer of more digits than a float can hold would end a division.
_MAX_DIGITS = 100

_FILE_NAME = r"^\w[\w.,+=@~ -]{0,239}\Z"

Count = Annotated[int, Meta(ge=0, le=(1 << 60) - 1)]
"""A number of things that exist: rows, windows, bytes."""
Sum = Annotated[int, Meta(ge=0)]
"""A sum of integer steps over any number of rows."""
TokenId = Annotated[int, Meta(ge=0, lt=1 << 31)]
VocabSize = Annotated[int, Meta(ge=1, le=1 << 31)]
Number = int | float
"""A float that keeps the form in which it was stored: 30 is not 30.0 in a fingerprint."""
Label = Annotated[str, Meta(max_length=10_000)]
"""A human-readable name or sentence."""
Digest = Annotated[str, Meta(max_length=100)]
"""As `fingerprints.digest` makes it; empty where there is no file. It is compared, and names no file."""
FileName = Annotated[str, Meta(pattern=_FILE_NAME)]
"""One component of a path, which names a file in the directory where it is looked for and nothing else."""

_PHRASES = {
    _FILE_NAME: "a file name (a letter, a digit or `_`, then also `.,+=@~ -`; no directory)",
}
_PATTERN = re.compile(r"`str` matching regex '(.*?)'(?= - at|$)", re.DOTALL)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class InvalidValueError(CorruptShardError):
    """A value of JSON is not what it must be. The message names the key; `named` adds the file."""


def is_file_name(name: str) -> bool:
    """Whether a name is a `FileName`."""
    return re.search(_FILE_NAME, name) is not None


def parse_json(text: bytes) -> Any:
    """Any JSON value, if it is one that a dataset may hold.

    Raises:
        InvalidValueError: It is not UTF-8 or not JSON, is too long or too deep, or has a duplicate key, a number that
            is not finite, or a text that is not Unicode.
    """
    if len(text) > MAX_BYTES:
        raise InvalidValueError(f"{len(text):,} bytes of JSON, the maximum is {MAX_BYTES:,}")
    num_values = sum(map(text.count, (b",", b"[", b"{")))
    if num_values > MAX_VALUES:
        raise InvalidValueError(f"about {num_values:,} values in JSON, the maximum is {MAX_VALUES:,}")
    try:
        decoded = text.decode()
        value = json.loads(
            decoded, object_pairs_hook=_object, parse_constant=_not_finite, parse_float=_finite, parse_int=_integer
        )
        _check_depth(value)
        if _SURROGATE.search(decoded):
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise InvalidValueError(f"nested more than {MAX_DEPTH} levels deep") from error
    except UnicodeError as error:
        raise InvalidValueError("not Unicode") from error
    except json.JSONDecodeError as error:
        raise InvalidValueError(f"not JSON ({error})") from error
    return value


def parse_object(text: bytes) -> dict[str, Any]:
    """As `parse_json`, of an object.

    Raises:
        InvalidValueError: It is not a JSON object that a dataset may hold.
    """
    value = parse_json(text)
    if not isinstance(value, dict):
        raise InvalidValueError("not a JSON object")
    return value


def convert(value: Any, kind: type[T], *, at: str = "") -> T:
    """A JSON value as a type: every field has the type, the range and the length that the annotations state.

    Args:
        value: As `parse_json` returns it.
        kind: What it must be.
        at: The key in the file whose value it is, where it is not the whole file.

    Raises:
        InvalidValueError: It is not such a value; the message names the key, and what was expected and found.
        UnknownFormatVersionError: As a dataclass raises it when it is made.
    """
    try:
        return msgspec.convert(value, kind, str_keys=True)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, UnknownFormatVersionError):
            raise error.__cause__ from error
        what = _PATTERN.sub(_phrase, str(error))
        if at:
            what = what.replace("`$", f"`$.{at}") if "`$" in what else f"{what} - at `$.{at}`"
        raise InvalidValueError(what) from error


def require_version(value: Mapping[str, Any], key: str, known: int) -> None:
    """Checks the version of a file, before anything else of it.

    Raises:
        InvalidValueError: It states none.
        UnknownFormatVersionError: Another release wrote it.
    """
    version = value.get(key)
    if type(version) is not int:
        raise InvalidValueError(f"no whole number under the key `{key}`")
    if not 1 <= version <= known:
        raise UnknownFormatVersionError(f"{key.replace('_', ' ')} {version}; this release reads up to {known}")


def read_object(
    url: str,
    parse: Callable[[dict[str, Any]], T],
    *,
    what: str,
    advice: str,
    error: type[LogitcaskError] = CorruptShardError,
) -> T:
    """A JSON file as a type.

    Args:
        url: The file.
        parse: From the object to the type; raises as `convert` and `require_version`.
        what: What the file should be, with its article.
        advice: What to do where it is not.
        error: The class of the error where it is not.

    Raises:
        FileNotFoundError: There is no such file.
        StorageError: The store failed.
        UnknownFormatVersionError: Another release wrote it.
        LogitcaskError: It is not what it should be; of the class `error`.
    """
    data = storage.read_bytes(url, max_bytes=MAX_BYTES)
    with named(url, what=what, advice=advice, error=error):
        return parse(parse_object(data))


@contextmanager
def named(url: str, *, what: str, advice: str, error: type[LogitcaskError] = CorruptShardError) -> Iterator[None]:
    """Adds the file to the errors of this module that its block raises; the arguments are those of `read_object`."""
    try:
        yield
    except UnknownFormatVersionError as found:
        raise type(found)(f"{storage.redact(url)}: {found}; install a newer logitcask") from found
    except InvalidValueError as found:
        raise error(f"{storage.redact(url)}: not {what}: {found}; {advice}") from found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise InvalidValueError(f"the key {twice[:80]!r} occurs twice")
    return found


def _not_finite(name: str) -> NoReturn:
    raise InvalidValueError(f"{name} is not a JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise InvalidValueError(f"{digits[:40]} is too large for a number")
    return number


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise InvalidValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def _check_depth(value: Any) -> None:
    layer, depth = [value], 0
    while layer:
        depth += 1
        if depth > MAX_DEPTH:
            raise InvalidValueError(f"nested more than {MAX_DEPTH} levels deep")
        layer = [
            child
            for one in layer
            if isinstance(one, dict | list)
            for child in (one.values() if isinstance(one, dict) else one)
            if isinstance(child, dict | list)
        ]


def _phrase(match: re.Match[str]) -> str:
    return _PHRASES.get(match[1].encode().decode("unicode_escape"), match[0])
