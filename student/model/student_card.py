"""The description in a student's directory (`logitcask.json`).

It records what the student's ids mean, where its weights came from, and their license terms.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from logitcask.schemas.errors import UnknownFormatVersionError, UsageError
from logitcask.schemas.format.metadata import TokenizerInfo

STUDENT_VERSION = 1
CARD_NAME = "logitcask.json"


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
    licences: dict[str, str | None] = field(default_factory=dict)

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
            value = json.loads(path.read_text())
            version = value.pop("student_version")
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise UsageError(
                f"{path}: not a student's description ({error or type(error).__name__}); make a student with "
                "`logitcask student init --teacher TEACHER --out STUDENT` or `--from CHECKPOINT`"
            ) from error
        if version != STUDENT_VERSION:
            raise UnknownFormatVersionError(
                f"{path}: student version {version}; this release reads {STUDENT_VERSION}; install a newer logitcask"
            )
        return cls(**{**value, "tokenizer": TokenizerInfo(**value["tokenizer"])})
