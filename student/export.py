"""A trained student as a directory that plain `transformers` loads: weights, tokenizer, provenance."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from schemas.shard import ShardMetadata
from student.identity import IDENTITY_NAME, StudentIdentity

# What `save_pretrained` writes itself, and what no longer holds after training.
_NOT_COPIED = {"config.json", "generation_config.json", IDENTITY_NAME, "README.md"}
_WEIGHT_SUFFIXES = (".safetensors", ".safetensors.index.json", ".bin", ".gguf")


def export_student(
    model: PreTrainedModel,
    source: Path,
    directory: Path,
    *,
    dataset: ShardMetadata,
    training: dict[str, Any],
) -> None:
    """Writes a student's directory.

    Args:
        model: The trained student.
        source: The directory it was made in; tokenizer files are copied from there.
        directory: Made if need be; an older export in it is replaced.
        dataset: Of the shards it learned from: teacher and licences travel with the weights.
        training: Dataset, snapshot and settings, for the record.
    """
    directory.mkdir(parents=True, exist_ok=True)
    model.config.use_cache = True  # the trainer switches it off; generation wants it
    model.save_pretrained(directory)
    for file in _tokenizer_files(source):
        shutil.copyfile(file, directory / file.name)
    identity = StudentIdentity.read(source)
    teacher = dataset.teacher
    replace(
        identity,
        training={**training, "teacher": asdict(teacher) if teacher else None},
        licences={
            **identity.licences,
            "teacher": teacher.licence if teacher else None,
            "corpus": dataset.corpus_licence,
        },
    ).write(directory)


def _tokenizer_files(source: Path) -> list[Path]:
    return [
        file
        for file in sorted(source.iterdir())
        if file.is_file() and file.name not in _NOT_COPIED and not file.name.endswith(_WEIGHT_SUFFIXES)
    ]
