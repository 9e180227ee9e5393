"""What a student directory says of itself (`logitcask.json`), and whether a student fits a dataset.

A student learns distributions over ids, so what ids mean must be the same on both sides. The file also carries
where the weights came from and under which terms, and travels with them.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from logitcask.schemas.errors import FingerprintMismatchError, UnknownFormatVersionError, UsageError, VocabularyError
from logitcask.schemas.format.metadata import ShardMetadata, TokenizerInfo

STUDENT_VERSION = 1
CARD_NAME = "logitcask.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentCard:
    """The contents of a student's `logitcask.json`.

    Attributes:
        tokenizer: Which ids the student reads and predicts.
        initialisation: Where its first weights came from.
        training: What it was trained on (dataset, snapshot, teacher, settings); None before training.
        licences: Whose terms apply, by role ("initial_weights", "teacher", "corpus"); None where they are unknown.
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
            UnknownFormatVersionError: Another version wrote it.
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


def check_fits(tokenizer: TokenizerInfo, dataset: ShardMetadata) -> None:
    """Refuses a student that reads other ids than the shards hold.

    Raises:
        FingerprintMismatchError: Vocabulary or tokenizer differ; names both.
    """
    theirs = dataset.tokenizer
    for what, ours, shards in [
        ("vocabulary", tokenizer.vocabulary_fingerprint, theirs.vocabulary_fingerprint),
        ("tokenizer", tokenizer.fingerprint, theirs.fingerprint),
    ]:
        if ours != shards:
            raise FingerprintMismatchError(
                f"the student's {what} ({tokenizer.name}, {tokenizer.vocab_size} ids, fingerprint {ours}) is not "
                f"the shards' ({theirs.name}, {theirs.vocab_size} ids, fingerprint {shards}); make the student with "
                "the tokenizer of the teacher: `logitcask student init --teacher TEACHER --out STUDENT`"
            )


def check_vocabulary_size(num_output_ids: int, dataset: ShardMetadata) -> None:
    """Refuses a student with fewer output ids than the teacher's distribution has.

    Raises:
        VocabularyError: Names both sizes.
    """
    if num_output_ids < dataset.vocab_size:
        raise VocabularyError(
            f"the student predicts {num_output_ids} ids, the shards' teacher {dataset.vocab_size}; a student's "
            "vocabulary may be wider than the teacher's, never narrower: set vocab_size in its configuration"
        )
