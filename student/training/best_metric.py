"""The metric by which `transformers` chooses the best checkpoint and stops early, under the names that its users type.

`TrainingArguments` takes every metric whose name does not end in "loss" as better if greater. Of an evaluation's
values, only the agreements are.
"""

from dataclasses import fields

from transformers import TrainingArguments

from logitcask.schemas.errors import UsageError
from logitcask.student.evaluation.evaluate import Evaluation

_COUNTS = {"num_windows", "num_targets", "num_labels"}
_GREATER_IS_BETTER = {"top1_agreement", "teacher_agreement"}


def settle_best_metric(args: TrainingArguments, metric: str) -> None:
    """Checks `metric_for_best_model` and sets `greater_is_better` accordingly.

    Args:
        args: Changed in place.
        metric: The name of the run's own divergence in logs.

    Raises:
        UsageError: An evaluation has no such value.
    """
    if args.metric_for_best_model is None:
        return
    name = args.metric_for_best_model.removeprefix("eval_")
    known = {"loss", metric, *(field.name for field in fields(Evaluation))} - _COUNTS
    if name not in known:
        raise UsageError(
            f"metric_for_best_model {args.metric_for_best_model!r} is not a value of an evaluation; choose one of "
            f"{', '.join(sorted(known))}"
        )
    args.greater_is_better = name in _GREATER_IS_BETTER
