"""Stores that are away: which failures may pass by themselves, and how long they are waited for.

A store that refuses (no credentials, no permission) will refuse again. Anything else that goes wrong on the way to it,
or inside of it, may be over in a minute, so the request is repeated, with growing pauses. A job waits long, because
waiting costs less than its units; a command that a person started waits a few seconds.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from logitcask.schemas.errors import StoreAwayError

T = TypeVar("T")

# How long a store is waited for, except by jobs.
SHORT_TIMEOUT_SECONDS = 5.0
_FIRST_PAUSE_SECONDS = 0.5
_MAX_PAUSE_SECONDS = 30.0
# Requests of HTTP that may succeed when they are repeated, although the client is said to be at fault.
_PASSING_STATUS = (408, 425, 429)
# Of the libraries of object stores, by name, because none of them is always installed.
_REFUSALS = {
    "ClientAuthenticationError",
    "CredentialRetrievalError",
    "DefaultCredentialsError",
    "NoCredentialsError",
    "NoRegionError",
    "ParamValidationError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "RefreshError",
    "SSOTokenLoadError",
    "TokenRetrievalError",
    "UnauthorizedSSOTokenError",
}
_REFUSAL_TYPES = (PermissionError, IsADirectoryError, NotADirectoryError, ImportError, NotImplementedError)

_logger = logging.getLogger(__name__)
_timeout_seconds = SHORT_TIMEOUT_SECONDS
_lock = threading.Lock()
_is_away = False


@dataclass(frozen=True, kw_only=True, slots=True)
class _Waiting:
    """How a thread waits; `timeout_seconds` None: as long as its process."""

    timeout_seconds: float | None = None
    on_pause: Callable[[], None] = lambda: None


_AS_PROCESS = _Waiting()
_waiting: ContextVar[_Waiting] = ContextVar("_waiting", default=_AS_PROCESS)


@contextmanager
def store_timeout(seconds: float) -> Iterator[None]:
    """How long all threads of this process wait for a store that is away, while the context lasts."""
    global _timeout_seconds
    before_seconds, _timeout_seconds = _timeout_seconds, seconds
    try:
        yield
    finally:
        _timeout_seconds = before_seconds


@contextmanager
def waiting(timeout_seconds: float | None = None, on_pause: Callable[[], None] = lambda: None) -> Iterator[None]:
    """How this thread waits for a store that is away, while the context lasts.

    Args:
        timeout_seconds: How long; 0: not at all; None: as long as its process.
        on_pause: Called at least once a second during a wait; an error that it raises ends the wait.
    """
    token = _waiting.set(_Waiting(timeout_seconds=timeout_seconds, on_pause=on_pause))
    try:
        yield
    finally:
        _waiting.reset(token)


def wait_out(request: Callable[[], T]) -> T:
    """The answer to a request that is repeated while the store is away.

    Raises:
        StoreAwayError: It was not back in time; the message says how long it was waited for.
        Exception: Any other error of the request, at once.
    """
    settings = _waiting.get()
    timeout_seconds = _timeout_seconds if settings.timeout_seconds is None else settings.timeout_seconds
    started_seconds = time.monotonic()
    pause_seconds = _FIRST_PAUSE_SECONDS
    while True:
        try:
            answer = request()
        except StoreAwayError as error:
            waited_seconds = time.monotonic() - started_seconds
            if waited_seconds >= timeout_seconds:
                _set_away(False)
                raise StoreAwayError(f"{error} (waited {waited_seconds:.0f} s)") from error.__cause__
            _note_absence(error, timeout_seconds)
            _pause(min(pause_seconds, timeout_seconds - waited_seconds), settings.on_pause)
            pause_seconds = min(2 * pause_seconds, _MAX_PAUSE_SECONDS)
        else:
            if pause_seconds > _FIRST_PAUSE_SECONDS:
                _note_return(time.monotonic() - started_seconds)
            return answer


def may_pass(error: BaseException) -> bool:
    """Whether a failed request may succeed when it is repeated."""
    # Errors of the caller: an address that is none, an option that does not exist.
    if isinstance(error, ValueError | TypeError | LookupError | AttributeError):
        return False
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, _REFUSAL_TYPES) or type(cause).__name__ in _REFUSALS:
            return False
        status = _http_status(cause)
        if status is not None and 400 <= status < 500 and status not in _PASSING_STATUS:
            return False
        cause = cause.__cause__
    return True


def _http_status(error: BaseException) -> int | None:
    """The status that a store's library reports with an error, each in a way of its own."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        response = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    for status in (response, *(getattr(error, name, None) for name in ("status_code", "status", "code"))):
        if isinstance(status, int):
            return status
    return None


def _pause(seconds: float, on_pause: Callable[[], None]) -> None:
    until_seconds = time.monotonic() + seconds
    while (left_seconds := until_seconds - time.monotonic()) > 0:
        try:
            on_pause()
        except BaseException:
            _set_away(False)
            raise
        time.sleep(min(1.0, left_seconds))


def _note_absence(error: StoreAwayError, timeout_seconds: float) -> None:
    """Warns once in an outage, however many threads wait; not before an error that says it all in a few seconds."""
    if timeout_seconds > SHORT_TIMEOUT_SECONDS and not _set_away(True):
        _logger.warning("%s. Waiting for it, up to %.0f min", str(error).partition(". ")[0], timeout_seconds / 60)


def _note_return(waited_seconds: float) -> None:
    if _set_away(False):
        _logger.warning("the store answers again, after %.0f s", waited_seconds)


def _set_away(is_away: bool) -> bool:
    """Remembers whether the store is away; returns what was known before."""
    global _is_away
    with _lock:
        before, _is_away = _is_away, is_away
    return before
