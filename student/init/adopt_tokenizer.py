"""The tokenizer of the shards for a student whose ids mean the same, but whose chat template or rules are others."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from logitcask.schemas.errors import FingerprintMismatchError
from logitcask.schemas.format.metadata import TokenizerInfo
from logitcask.student.model.vocabulary_check import tokenizer_difference
from logitcask.teacher.text.tokenizers import load_tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class AdoptedTokenizer:
    """A directory with the files of the shards' tokenizer, and what it is."""

    directory: Path
    info: TokenizerInfo


def named_tokenizer(reference: str, own: TokenizerInfo, directory: Path) -> AdoptedTokenizer:
    """The tokenizer that `train --tokenizer` names, saved in a directory.

    Raises:
        TeacherError, TokenizerError: There is none, or it cannot be read.
        FingerprintMismatchError: Its ids mean something else than the student's own.
    """
    tokenizer = load_tokenizer(reference)
    if tokenizer.info.vocabulary_fingerprint != own.vocabulary_fingerprint:
        difference = tokenizer_difference(tokenizer.info, own, ("--tokenizer", "the student"))
        raise FingerprintMismatchError(
            f"{difference}; the ids of a student cannot change: name a tokenizer with its ids"
        )
    tokenizer.save(directory)
    return AdoptedTokenizer(directory=directory, info=tokenizer.info)


def with_template_of_shards(
    student: Path, own: TokenizerInfo, shards: TokenizerInfo, directory: Path
) -> AdoptedTokenizer | None:
    """The student's tokenizer with the chat template of the shards, saved in a directory.

    Returns:
        None if the two are equal already, or differ in more than the template.
    """
    different = tokenizer_difference(own, shards, ("the student", "the shards")) is not None
    if not different or own.vocabulary_fingerprint != shards.vocabulary_fingerprint or not shards.chat_template:
        return None
    load_tokenizer(student).save(directory)
    shutil.rmtree(directory / "additional_chat_templates", ignore_errors=True)
    (directory / "chat_template.jinja").write_text(shards.chat_template)
    path = directory / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings.pop("chat_template", None)
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False))
    info = load_tokenizer(directory).info
    return AdoptedTokenizer(directory=directory, info=shards) if info.fingerprint == shards.fingerprint else None
