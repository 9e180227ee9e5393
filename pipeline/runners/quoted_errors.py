"""Errors of this project that a runner quotes: runners pass a worker's error on as text."""

import re

from logitcask.schemas import errors
from logitcask.schemas.errors import ClusterError, LogitcaskError

_OUR_ERROR = re.compile(r"schemas\.errors\.(\w+): (.+?)(?: \[while running .*)?$", re.MULTILINE)
_NO_MODULE = re.compile(r"No module named 'logitcask\b")


def quoted_error(text: str) -> LogitcaskError | None:
    """The last error of `schemas.errors` in a runner's text, or a missing logitcask; None if there is neither."""
    found = _OUR_ERROR.findall(text)
    kind = getattr(errors, found[-1][0], None) if found else None
    if isinstance(kind, type) and issubclass(kind, LogitcaskError):
        return kind(found[-1][1])
    missing = _NO_MODULE.search(text)
    if missing:
        return ClusterError(
            f"a worker cannot import logitcask ({missing[0]}); install the same wheel on all workers, or send it "
            "with --runner-option extra_package=dist/logitcask-….whl if the runner supports that"
        )
    return None
