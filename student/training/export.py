"""A trained student as a directory that plain `transformers` loads: weights, tokenizer, provenance."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from logitcask.schemas.dataset.identity import joined_licenses
from logitcask.schemas.format.metadata import ShardMetadata
from logitcask.student.model.adapters import CONFIG_NAME, is_adapted, save_adapters
from logitcask.student.model.exact_vocabulary import save_student
from logitcask.student.model.student_card import CARD_NAME, StudentCard

# Files that `save_pretrained` writes itself, or that are no longer true after training.
_NOT_COPIED = {"config.json", "generation_config.json", CONFIG_NAME, CARD_NAME, "README.md"}
_WEIGHT_SUFFIXES = (".safetensors", ".safetensors.index.json", ".bin", ".gguf")


def export_student(
    model: PreTrainedModel,
    source: Path,
    directory: Path,
    *,
    datasets: Sequence[ShardMetadata],
    training: dict[str, Any],
    state: dict[str, Tensor] | None = None,
) -> None:
    """Writes a student's directory.

    Args:
        model: The trained student; of one with adapters, only they are written.
        source: The directory it was loaded from; tokenizer files are copied from there.
        directory: Created if it does not exist; an older export in it is replaced.
        datasets: Metadata of the training shards: their teachers and licenses are recorded with the weights. Ids that
            their teachers do not predict are left out.
        training: Datasets, snapshots and settings, for the record.
        state: The full weights, if the model holds only a shard of them.
    """
    directory.mkdir(parents=True, exist_ok=True)
    model.config.use_cache = True  # the trainer switches it off; generation needs it
    if is_adapted(model):
        save_adapters(model, source, directory)
    else:
        save_student(model, directory, datasets[0].vocab_size, state)
    for file in _tokenizer_files(source):
        shutil.copyfile(file, directory / file.name)
    card = StudentCard.read(source)
    teachers = {one.teacher.fingerprint: one.teacher for one in datasets if one.teacher}
    replace(
        card,
        training={**training, "teachers": [asdict(teacher) for teacher in teachers.values()]},
        licences={
            **card.licences,
            "teacher": joined_licenses([teacher.licence for teacher in teachers.values()]),
            "corpus": joined_licenses([one.corpus_licence for one in datasets]),
        },
    ).write(directory)


def _tokenizer_files(source: Path) -> list[Path]:
    return [
        file
        for file in sorted(source.iterdir())
        if file.is_file() and file.name not in _NOT_COPIED and not file.name.endswith(_WEIGHT_SUFFIXES)
    ]
