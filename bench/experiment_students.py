"""The students of the experiments: the teacher with some of its layers, or a small model from scratch."""

import copy
import functools
from dataclasses import dataclass

from experiment_teacher import RecordedTeacher
from transformers import PreTrainedModel

from logitcask.student.init.prune_layers import evenly_spaced, num_layers, prune_layers
from logitcask.student.init.scratch import ScratchSizes, random_student

SIZES = ScratchSizes(layers=2, width=96, heads=3, kv_heads=1, head_width=32, mlp_width=256)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """First weights, and how they are trained.

    Attributes:
        layers: Number of the teacher's layers to keep, evenly spaced; None: a small model with random weights.
        steps, batch_windows, learning_rate: For AdamW, with warm-up over a tenth of the steps and a cosine decay.
    """

    layers: int | None
    steps: int
    batch_windows: int
    learning_rate: float

    def student(self, teacher: RecordedTeacher, seed: int) -> PreTrainedModel:
        """A student with its first weights."""
        if self.layers is None:
            return random_student(SIZES.config(teacher.teacher.vocab_size, teacher.tokenizer), seed)
        model = copy.deepcopy(_teacher_model(teacher.reference))
        return prune_layers(model, evenly_spaced(num_layers(model), self.layers)).requires_grad_(True)


# Depth pruning like `student init --layers`: four fifths of the layers, and a learning rate for fine-tuning.
PRUNED = Recipe(layers=24, steps=30, batch_windows=2, learning_rate=2e-4)
SCRATCH = Recipe(layers=None, steps=60, batch_windows=4, learning_rate=3e-3)


@functools.cache
def _teacher_model(reference: str) -> PreTrainedModel:
    from logitcask.teacher.model.loading import load_model

    return load_model(reference, "float32", "cpu")
