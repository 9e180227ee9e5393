"""Which logitcask runs here: a cluster's workers need the driver's release, or shards of two releases would mix."""

import hashlib
import importlib.metadata
from functools import cache
from pathlib import Path

from logitcask.schemas.errors import ClusterError

_PACKAGES = ("pipeline", "teacher", "schemas")


@cache
def release() -> str:
    """The version and a digest of the code, because two checkouts can have the same version."""
    home = Path(__file__).resolve().parents[2]
    code = hashlib.sha256()
    for file in sorted(file for package in _PACKAGES for file in (home / package).rglob("*.py")):
        code.update(f"{file.relative_to(home).as_posix()}\0".encode() + file.read_bytes() + b"\0")
    return f"{importlib.metadata.version('logitcask')}+{code.hexdigest()[:12]}"


def require_release(expected: str | None) -> None:
    """Raises ClusterError if this process has another release than `expected`; None accepts any."""
    if expected is not None and release() != expected:
        raise ClusterError(
            f"a worker has logitcask {release()}, the driver {expected}; install the same wheel everywhere "
            "(version and digest of the code must agree)"
        )
