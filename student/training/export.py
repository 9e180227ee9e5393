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
from logitcask.student.training.checkpoint_files import STATE_NAME

# Files that `save_pretrained` writes itself, or that are no longer true after training.
_NOT_COPIED = {"config.json", "generation_config.json", CONFIG_NAME, CARD_NAME, "README.md"}
# Of a checkpoint, which is the source where a run is resumed without its student's directory.
_OF_CHECKPOINTS = {"trainer_state.json", STATE_NAME}
_OTHER_SUFFIXES = (".safetensors", ".safetensors.index.json", ".bin", ".gguf", ".pt", ".pth")


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
    card = copy_description(source, directory)
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


def copy_description(source: Path, directory: Path) -> StudentCard:
    """Copies a student's tokenizer files and its description, which is returned."""
    for file in sorted(source.iterdir()):
        is_other = file.name in _NOT_COPIED | _OF_CHECKPOINTS or file.name.endswith(_OTHER_SUFFIXES)
        if file.is_file() and not is_other:
            shutil.copyfile(file, directory / file.name)
    card = StudentCard.read(source)
    card.write(directory)
    return card
