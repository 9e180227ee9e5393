"""Human-readable numbers and settings."""

from collections.abc import Mapping
from typing import Any

from logitcask.schemas.errors import UnknownSchemeError
from logitcask.schemas.format.scheme import Scheme
from logitcask.schemas.redaction import printable_line

_BYTE_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")


def number(value: float | None, digits: int = 1) -> str:
    """A number with thousands separators; a dash if unknown."""
    return "–" if value is None else f"{value:,.{digits}f}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share in percent; a dash if unknown."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def byte_size(size_bytes: float | None) -> str:
    """A size in the decimal unit that leaves one to three digits before the point; a dash if unknown."""
    if size_bytes is None:
        return "–"
    for unit in _BYTE_UNITS:
        if size_bytes < 999.5 or unit == _BYTE_UNITS[-1]:
            break
        size_bytes /= 1000
    return f"{size_bytes:.0f} {unit}" if unit == "bytes" else f"{size_bytes:.3g} {unit}"


def duration(seconds: float) -> str:
    """A time in seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def scheme_words(scheme: Mapping[str, Any] | None) -> str:
    """What a scheme (`Scheme.to_json`) stores; "unknown" for no scheme and for one of a later release."""
    try:
        return Scheme.from_json(scheme or {}).describe()
    except UnknownSchemeError:
        return "unknown"


def visible_piece(text: str) -> str:
    """A piece of a vocabulary on one line, with visible spaces at its ends."""
    shown = printable_line(text)
    inner = shown.strip(" ")
    if not inner:
        return "·" * len(shown)
    return "·" * (len(shown) - len(shown.lstrip(" "))) + inner + "·" * (len(shown) - len(shown.rstrip(" ")))
