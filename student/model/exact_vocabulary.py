"""Saves a student without the ids that its training left out.

A student may be wider than its teacher's vocabulary. The loss excludes the surplus ids, so they get no gradient, and a
plain softmax over all ids would give them much of the probability. A saved student has only the teacher's ids.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from logitcask.schemas.errors import UsageError
from logitcask.student.model.projection import output_projection


def num_surplus_ids(model: PreTrainedModel, vocab_size: int) -> int:
    """How many ids the student predicts beyond the first `vocab_size`."""
    return max(0, output_projection(model).weight.shape[0] - vocab_size)


def save_student(
    model: PreTrainedModel, directory: Path, vocab_size: int, state: dict[str, Tensor] | None = None
) -> None:
    """Writes weights and configuration of a student that predicts `vocab_size` ids; the model does not change.

    Args:
        model: The student.
        directory: Created if it does not exist.
        vocab_size: The number of ids of the teacher's distribution.
        state: The full weights, if the model holds only a shard of them.

    Raises:
        UsageError: The architecture's weights do not fit a smaller vocabulary.
    """
    surplus = num_surplus_ids(model, vocab_size)
    if not surplus:
        model.save_pretrained(directory, state_dict=state)
        return
    smaller = _smaller_model(model, vocab_size)
    rows = {name: len(tensor) for name, tensor in smaller.state_dict().items() if tensor.ndim}
    whole = model.state_dict() if state is None else state
    cut = {name: tensor[: rows[name]] if name in rows else tensor for name, tensor in whole.items()}
    try:
        smaller.load_state_dict(cut, assign=True)
    except RuntimeError as error:
        raise UsageError(
            f"{type(model).__name__}: the student predicts {vocab_size + surplus} ids, its teacher {vocab_size}, and "
            f"the student cannot be cut to them ({error}); make a student with vocab_size {vocab_size} in its "
            "configuration"
        ) from error
    smaller.tie_weights()
    smaller.save_pretrained(directory)


def _smaller_model(model: PreTrainedModel, vocab_size: int) -> PreTrainedModel:
    """A model of the same class with fewer ids, without memory for its weights."""
    config: Any = type(model.config).from_dict(model.config.to_dict())
    config.get_text_config().vocab_size = vocab_size
    config.dtype = model.dtype
    _drop_surplus_ids(config.get_text_config(), vocab_size)
    with torch.device("meta"):
        smaller = type(model)(config)
    if model.generation_config is not None:
        smaller.generation_config = copy.deepcopy(model.generation_config)
        _drop_surplus_ids(smaller.generation_config, vocab_size)
    return smaller


def _drop_surplus_ids(config: Any, vocab_size: int) -> None:
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        number = getattr(config, name, None)
        if isinstance(number, int) and number >= vocab_size:
            setattr(config, name, None)
