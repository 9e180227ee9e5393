"""Makes a student's directory: weights, tokenizer, and the card that records their origin."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from logitcask.schemas.errors import ForeignOutputError, UsageError
from logitcask.schemas.output_place import require_output_directory
from logitcask.schemas.system_errors import naming
from logitcask.student.init.prune_feed_forward import prune_feed_forward
from logitcask.student.init.prune_layers import evenly_spaced, num_layers, prune_layers
from logitcask.student.init.scratch import ScratchSizes, random_student, read_config
from logitcask.student.model.student_card import StudentCard
from logitcask.teacher.model.description import describe_teacher
from logitcask.teacher.model.loading import export_model, load_model
from logitcask.teacher.text.tokenizers import load_tokenizer


def prune_teacher(
    teacher: str,
    out: str | Path,
    *,
    keep_layers: Sequence[int] | None = None,
    layers: int | None = None,
    mlp_width: int | None = None,
    tokenizer: str | None = None,
) -> PreTrainedModel:
    """A student with some of the teacher's layers: the given ones, or a number of evenly spaced ones, or all.

    Args:
        teacher: Directory, hub id or GGUF.
        out: The student's directory.
        keep_layers: Indices of the layers to keep.
        layers: Number of layers to keep, evenly spaced, if `keep_layers` is None; None: all.
        mlp_width: Number of neurons to keep in each feed-forward layer; None: all.
        tokenizer: Directory or hub id of the student's tokenizer; None: the teacher's.

    Raises:
        UsageError: Layers or neurons that the teacher does not have.
        TeacherError, TokenizerError: The teacher cannot be loaded, or has no tokenizer.
        ForeignOutputError: `out` is not empty.
    """
    directory = _new_directory(out)
    model = load_model(teacher, "float32", "cpu")
    depth, width = num_layers(model), getattr(model.config.get_text_config(), "intermediate_size", None)
    kept = list(keep_layers) if keep_layers is not None else evenly_spaced(depth, depth if layers is None else layers)
    prune_layers(model, kept)
    made = {"method": "pruned", "kept_layers": kept, "of_layers": depth}
    if mlp_width is not None:
        prune_feed_forward(model, mlp_width)
        made |= {"mlp_width": mlp_width, "of_mlp_width": width}
    _write(model, teacher, directory, made, tokenizer=tokenizer)
    return model


def from_checkpoint(checkpoint: str, out: str | Path, *, tokenizer: str | None = None) -> PreTrainedModel:
    """A student with all weights of a checkpoint (directory, hub id or GGUF); errors as for `prune_teacher`."""
    directory = _new_directory(out)
    model = load_model(checkpoint, "float32", "cpu")
    _write(model, checkpoint, directory, {"method": "checkpoint"}, tokenizer=tokenizer)
    return model


def from_scratch(
    teacher: str,
    out: str | Path,
    *,
    sizes: ScratchSizes | None = None,
    config_file: str | Path | None = None,
    seed: int = 0,
    tokenizer: str | None = None,
) -> PreTrainedModel:
    """A random student with the teacher's tokenizer and vocabulary size; errors as for `prune_teacher`.

    Args:
        teacher: Gives tokenizer and vocabulary; its weights are only described.
        out: The student's directory.
        sizes: Sizes of a Gemma-2- or Llama-style decoder.
        config_file: A configuration of `transformers`, instead of sizes.
        seed: Seed of the random weights.
        tokenizer: Directory or hub id of the student's tokenizer; None: the teacher's.
    """
    directory = _new_directory(out)
    info, described = describe_teacher(teacher, "float32"), load_tokenizer(tokenizer or teacher).info
    if config_file is not None:
        config = read_config(Path(config_file), info.vocab_size)
    else:
        config = (sizes or ScratchSizes()).config(info.vocab_size, described)
    model = random_student(config, seed)
    origin = {"method": "scratch", "seed": seed}
    _write(model, teacher, directory, origin, weights_from_source=False, tokenizer=tokenizer)
    return model


def _new_directory(out: str | Path) -> Path:
    require_output_directory(out)
    directory = Path(out)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ForeignOutputError(f"{directory}: exists and is not an empty directory; choose another --out")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _write(
    model: PreTrainedModel,
    source: str,
    directory: Path,
    origin: dict[str, Any],
    *,
    weights_from_source: bool = True,
    tokenizer: str | None = None,
) -> None:
    info, loaded = describe_teacher(source, "float32"), load_tokenizer(tokenizer or source)
    if info.vocab_size < loaded.info.vocab_size:
        raise UsageError(
            f"{info.name}: the tokenizer has {loaded.info.vocab_size} ids, the model only {info.vocab_size}; use a "
            "checkpoint whose tokenizer fits its model"
        )
    with naming(directory):
        export_model(model, directory)
        loaded.save(directory)
    named = "initial_weights" if weights_from_source else "tokenizer"
    StudentCard(
        tokenizer=loaded.info,
        initialisation={**origin, "source": info.name, "source_fingerprint": info.fingerprint},
        licences={named: info.licence},
    ).write(directory)
