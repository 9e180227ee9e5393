"""The description in a student's directory (`logitcask.json`).

It records what the student's ids mean, where its weights came from, and their license terms.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from logitcask.schemas.checked_json import Label, convert, read_object, require_version
from logitcask.schemas.errors import UsageError
from logitcask.schemas.format.metadata import TokenizerInfo

STUDENT_VERSION = 1
CARD_NAME = "logitcask.json"
_ADVICE = "make a student with `logitcask student init --teacher TEACHER --out STUDENT` or `--from CHECKPOINT`"


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentCard:
    """The contents of a student's `logitcask.json`.

    Attributes:
        tokenizer: Which ids the student reads and predicts.
        initialisation: Where its first weights came from.
        training: What it was trained on (dataset, snapshot, teacher, settings); None before training.
        licences: License terms by role ("initial_weights", "teacher", "corpus"); None if unknown.
    """

    tokenizer: TokenizerInfo
    initialisation: dict[str, Any]
    training: dict[str, Any] | None = None
    licences: dict[str, Label | None] = field(default_factory=dict)

    def write(self, directory: Path) -> None:
        """Writes the file into a student's directory."""
        text = json.dumps({"student_version": STUDENT_VERSION, **asdict(self)}, indent=1, ensure_ascii=False)
        (directory / CARD_NAME).write_text(text + "\n")

    @classmethod
    def read(cls, directory: Path) -> "StudentCard":
        """Reads a student's directory.

        Raises:
            UsageError: It is not the directory of a student.
            UnknownFormatVersionError: A release with another student version wrote it.
        """
        path = directory / CARD_NAME
        try:
            return read_object(
                str(path), cls._from_json, what="a student's description", advice=_ADVICE, error=UsageError
            )
        except OSError as error:
            raise UsageError(f"{path}: no student's description ({error.strerror}); {_ADVICE}") from error

    @classmethod
    def _from_json(cls, value: dict[str, Any]) -> "StudentCard":
        require_version(value, "student_version", STUDENT_VERSION)
        return convert(value, cls)
