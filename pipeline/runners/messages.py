"""Messages on the user's terminal: those of this project on stderr, none of the libraries."""

import logging
import os
import sys

from logitcask.schemas.redaction import printable, scrub


class _Formatter(logging.Formatter):
    """Escapes control characters and removes credentials: messages quote names and URLs from the input."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(scrub(super().format(record)))


class _StderrHandler(logging.Handler):
    """Writes to the current `sys.stderr`, which may have been replaced since the handler was created."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def log_to_stderr() -> None:
    """Shows this project's warnings on stderr and silences the libraries; call before importing them."""
    silence_libraries()
    handler = _StderrHandler()
    handler.setFormatter(_Formatter("logitcask: %(message)s"))
    logger = logging.getLogger("logitcask")
    logger.handlers[:] = [handler]
    logger.propagate = False


def silence_libraries() -> None:
    """Keeps the libraries' log messages off the terminal; errors that they raise still arrive."""
    # While it is imported, Beam warns about missing optional packages through the root logger. A handler that drops
    # these warnings also stops `logging` from installing its default handler.
    logging.getLogger().addHandler(logging.NullHandler())
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
