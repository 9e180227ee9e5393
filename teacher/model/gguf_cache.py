"""A GGUF teacher is dequantized once and kept as safetensors in the user's cache, from where it loads in seconds.

`transformers` holds a model twice while it dequantizes it, and needs minutes, in every process. So the first process
saves the model into a directory named by the file's content, the dtype of the weights, and the versions of
`transformers` and of `teacher.model.gguf_settings`; all others read it. The teacher's name, fingerprint and numbers
remain those of the GGUF file.
"""

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock
from safetensors import SafetensorError

from logitcask.schemas.fingerprints import file_sha256
from logitcask.teacher.model.gguf_settings import SETTINGS_VERSION
from logitcask.teacher.model.references import Resolved

_logger = logging.getLogger(__name__)


def cache_directory() -> Path:
    """Where converted teachers are kept: `$XDG_CACHE_HOME/logitcask/teachers`, by default below `~/.cache`."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "logitcask" / "teachers"


def converted(teacher: Resolved, dtype: str, convert: Callable[[Path], None]) -> Resolved:
    """The teacher as a directory of safetensors; unchanged if the cache cannot be written.

    A process that finds another one converting waits for it. A directory that exists is complete.

    Args:
        teacher: A GGUF file.
        dtype: Of the weights.
        convert: Writes the model into a directory.
    """
    digest = file_sha256(teacher.path)[:32]
    versions = f"transformers-{version('transformers')}-settings-{SETTINGS_VERSION}"
    directory = cache_directory() / f"{digest}-{dtype}-{versions}"
    if not directory.is_dir():
        try:
            directory.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{directory}.lock"):
                if not directory.is_dir():
                    _convert_into(directory, teacher, convert)
        except (OSError, SafetensorError) as error:
            _logger.warning("teacher %r is not kept as safetensors, so it loads slowly: %s", teacher.name, error)
            return teacher
    return Resolved(kind="directory", path=directory, name=teacher.name)


def _convert_into(directory: Path, teacher: Resolved, convert: Callable[[Path], None]) -> None:
    _logger.warning("converting teacher %r to safetensors, once: %s", teacher.name, directory)
    unfinished = Path(tempfile.mkdtemp(prefix=".converting-", dir=directory.parent))
    try:
        convert(unfinished)
        unfinished.replace(directory)
    finally:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(unfinished)
