"""Where a teacher's files are: in a directory, on the Hugging Face hub, or in a `.gguf` file.

References are resolved in one place, so that describing, loading and tokenizing use the same files.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from logitcask.schemas.errors import TeacherError

# Weights, configuration and tokenizer; no pickles, no code, no copy for another framework.
_HUB_FILES = ["*.safetensors", "*.json", "*.model", "*.jinja", "*.txt", "README.md"]
_HUB_FILES_IGNORED = ["*/*", "consolidated*"]
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?(@[\w./-]+)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """A teacher's files on this machine.

    Attributes:
        kind: "directory" in the Hugging Face layout, or one "gguf" file.
        path: The directory, or the file.
        name: Human-readable: the hub id, or the last component of the path. Never a whole path, which differs from
            machine to machine and may be private.
    """

    kind: Literal["directory", "gguf"]
    path: Path
    name: str

    def load_arguments(self) -> dict[str, str]:
        """Arguments of `from_pretrained`."""
        if self.kind == "gguf":
            return {"pretrained_model_name_or_path": str(self.path.parent), "gguf_file": self.path.name}
        return {"pretrained_model_name_or_path": str(self.path)}


def resolve(reference: str | Path) -> Resolved:
    """Finds the files of a teacher, fetching them from the hub if the reference is a hub id.

    Args:
        reference: A directory, a `.gguf` file, or a hub id `owner/name`, optionally with `@revision`.

    Raises:
        TeacherError: There is no such directory or file, and the hub lacks it or cannot be reached.
    """
    path = Path(reference).expanduser()
    if path.is_dir():
        return Resolved(kind="directory", path=path, name=path.resolve().name)
    if path.is_file():
        return _resolve_file(path)
    if path.suffix == ".gguf" or not _HUB_ID.fullmatch(str(reference)):
        raise TeacherError(
            f"teacher {str(reference)!r} does not exist on this machine and is not a hub id (owner/name); "
            "give a directory with config.json and safetensors, a .gguf file, or a hub id"
        )
    return Resolved(kind="directory", path=_fetch(str(reference)), name=str(reference))


def _resolve_file(path: Path) -> Resolved:
    if path.suffix != ".gguf":
        raise TeacherError(
            f"teacher {str(path)!r} is a file but not a .gguf file; give the directory that contains config.json"
        )
    return Resolved(kind="gguf", path=path, name=path.stem)


def _fetch(reference: str) -> Path:
    from huggingface_hub import snapshot_download

    repository, _, revision = reference.partition("@")
    try:
        # Without a network this returns an earlier download.
        directory = snapshot_download(
            repository,
            revision=revision or None,
            allow_patterns=_HUB_FILES,
            ignore_patterns=_HUB_FILES_IGNORED,
        )
    except (OSError, ValueError) as e:
        reason = next(iter(str(e).splitlines()), "")
        raise TeacherError(
            f"teacher {reference!r} is not a local directory, and fetching it from the Hugging Face hub failed "
            f"({type(e).__name__}: {reason}). Check the spelling and the network, log in if the model is gated, or "
            "give a local directory or a .gguf file."
        ) from e
    return Path(directory)
