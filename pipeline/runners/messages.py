"""What reaches the user's terminal: our own messages on stderr, and no library's chatter."""

import logging
import os
import sys

from logitcask.schemas.redaction import printable, scrub


class _Formatter(logging.Formatter):
    """Messages quote names and URLs that somebody else wrote."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(scrub(super().format(record)))


class _StderrHandler(logging.Handler):
    """Writes to what `sys.stderr` is at the time: it may be another stream by then."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def log_to_stderr() -> None:
    """Shows this project's warnings on stderr and silences the libraries; call before they are imported."""
    silence_libraries()
    handler = _StderrHandler()
    handler.setFormatter(_Formatter("logitcask: %(message)s"))
    logger = logging.getLogger("logitcask")
    logger.handlers[:] = [handler]
    logger.propagate = False


def silence_libraries() -> None:
    """Keeps what libraries log off the terminal, for processes where only errors that are raised matter."""
    # Beam warns through the root logger, while it is imported, of optional packages that are not there; a handler that
    # drops it also keeps `logging` from installing one of its own.
    logging.getLogger().addHandler(logging.NullHandler())
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
