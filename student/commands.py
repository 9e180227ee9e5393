"""`logitcask train`, `logitcask eval` and `logitcask student init`. Heavy imports wait until a command runs."""

import math
import os
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Annotated

import tyro

from logitcask.schemas.errors import UsageError
from logitcask.schemas.terminal.guard import print_json
from logitcask.student.settings import DecoderSizes, EvalSettings, TrainSettings

if TYPE_CHECKING:
    from logitcask.student.evaluation.evaluate import Evaluation
    from logitcask.student.training.run import TrainResult


_TEACHER_LOSS = "teacher loss (nats)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Train(TrainSettings):
    """Train a student from the stored targets of a dataset; no teacher is loaded.

    The student is evaluated on the held-out shards before and after training. It is written to RUN/student, which plain
    `transformers` can load. With --online, a live teacher replaces the stored targets, for comparison.

    Example:
        logitcask train OUT --student STUDENT --out RUN --steps 200 --batch-windows 8
    """

    def __post_init__(self) -> None:
        # `run` checks the settings: the parser would replace our messages with its own.
        pass

    def run(self) -> int:
        from logitcask.student.training.run import train

        if self.online is None:
            result = train(TrainSettings(**asdict(self)))
        else:
            # Only `online` and `init` may load a teacher, so this is imported only with --online.
            from logitcask.student.online.run import online_trainer

            result = train(TrainSettings(**asdict(self)), choose_trainer=online_trainer)
        if os.environ.get("RANK", "0") == "0":  # under torchrun every process runs this
            _print_result(result)
        return 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Eval(EvalSettings):
    """Evaluate a student on held-out shards: loss, perplexity, KL to the teacher, agreement, calibration.

    The KL is over the stored buckets, a lower bound of the full KL. With --online, a live teacher gives the full KL
    too. Exit status: 0 success, 1 bad data, 2 bad usage.

    Example:
        logitcask eval RUN --shards OUT
    """

    def run(self) -> int:
        from logitcask.student.evaluation.run import measure

        if self.online is None:
            evaluation = measure(self)
        else:
            from logitcask.student.online.run import live_teacher

            evaluation = measure(self, load_teacher=partial(live_teacher, self.online, self.dtype))
        if self.json:
            print_json(evaluation.to_json())
        else:
            for name, value in _labeled(evaluation).items():
                print(f"{name:<32}{_formatted(value):>12}")
            counts = f"{evaluation.num_targets:,} targets and {evaluation.num_labels:,} labels"
            print(f"over {counts} in {evaluation.num_windows:,} windows")
        return 0


def _print_result(result: "TrainResult") -> None:
    """The held-out evaluation before and after, on stdout."""
    if result.before and result.after:
        before, after = _labeled(result.before), _labeled(result.after)
        print(f"{'held-out':<32}{'before':>12}{'after':>12}")
        for name in after:
            first = "" if name == _TEACHER_LOSS else _formatted(before[name])
            print(f"{name:<32}{first:>12}{_formatted(after[name]):>12}")
    print(f"student: {result.student}")


def _formatted(value: float) -> str:
    return f"{value:.4f}" if value < 1000 else f"{value:,.0f}"


def _labeled(evaluation: "Evaluation") -> dict[str, float]:
    """All values that exist, by human-readable name."""
    values = {
        "KL to the teacher (nats)": evaluation.kl_nats,
        "full KL to the teacher (nats)": evaluation.full_kl_nats,
        "next-token loss (nats)": evaluation.loss_nats,
        "perplexity": evaluation.perplexity,
        "top-1 agreement with text": evaluation.top1_agreement,
        "top-1 agreement with teacher": evaluation.teacher_agreement,
        "calibration error (15 bins)": evaluation.calibration_error,
        _TEACHER_LOSS: evaluation.teacher_loss_nats,
    }
    return {name: value for name, value in values.items() if not math.isnan(value)}


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentInit(DecoderSizes):
    """Make a student: layers of the teacher, a checkpoint, or random weights.

    With --teacher and --keep-layers or --layers, the student is pruned from the teacher. With --teacher and --scratch,
    its weights are random, with the teacher's tokenizer and vocabulary. With --from, it is an unchanged checkpoint.

    Example:
        logitcask student init --teacher TEACHER --keep-layers 0,5,10,15,20,25 --out STUDENT
    """

    out: str
    """Directory of the student; must be new or empty."""
    teacher: str | None = None
    """Directory, .gguf file or hub id of the teacher."""
    from_checkpoint: Annotated[str | None, tyro.conf.arg(aliases=["--from"])] = None
    """Directory, .gguf file or hub id of a checkpoint to use unchanged."""
    tokenizer: str | None = None
    """Directory of the student's tokenizer, such as the one of `annotate --tokenizer`; default: the model's own."""
    keep_layers: str | None = None
    """Layers of the teacher to keep: 0,5,10."""
    layers: int | None = None
    """Number of layers to keep, evenly spaced; with --scratch: the depth."""
    keep_mlp_width: int | None = None
    """Number of neurons to keep in each of the teacher's feed-forward layers: those with the largest weights."""
    scratch: bool = False
    """Use random weights, with the sizes below or the architecture of --model-config."""
    model_config: str | None = None
    """With --scratch: a config.json of transformers instead of sizes."""
    seed: int = 0
    """With --scratch: seed of the weights."""

    def run(self) -> int:
        from logitcask.student.init import make_student

        self._check()
        if self.from_checkpoint is not None:
            model = make_student.from_checkpoint(self.from_checkpoint, self.out, tokenizer=self.tokenizer)
        elif self.scratch:
            model = self._from_scratch()
        else:
            assert self.teacher is not None, "checked by _check"
            keep = None if self.keep_layers is None else parse_layers(self.keep_layers)
            model = make_student.prune_teacher(
                self.teacher,
                self.out,
                keep_layers=keep,
                layers=self.layers,
                mlp_width=self.keep_mlp_width,
                tokenizer=self.tokenizer,
            )
        depth = model.config.get_text_config().num_hidden_layers
        print(f"student: {self.out} ({type(model).__name__}, {depth} layers, {model.num_parameters():,} parameters)")
        return 0

    def _check(self) -> None:
        if (self.teacher is None) == (self.from_checkpoint is None):
            raise UsageError("give either --teacher (to prune it, or with --scratch) or --from CHECKPOINT")
        pruning = [self.keep_layers, self.layers, self.keep_mlp_width]
        if self.from_checkpoint is not None and (self.scratch or any(option is not None for option in pruning)):
            raise UsageError("--from uses a checkpoint unchanged; to prune it, use --teacher")
        if self.model_config is not None and not self.scratch:
            raise UsageError("--model-config needs --scratch")
        if self.keep_layers is not None and self.layers is not None:
            raise UsageError("give the layers to keep (--keep-layers 0,5,10) or their number (--layers 6), not both")
        if self.teacher is not None and not self.scratch and all(option is None for option in pruning):
            raise UsageError(
                "give what to keep of the teacher (--keep-layers, --layers, --keep-mlp-width), or --scratch"
            )
        if self.scratch and (self.keep_layers is not None or self.keep_mlp_width is not None):
            raise UsageError(
                "--keep-layers and --keep-mlp-width prune a teacher; with --scratch use --layers and --mlp-width"
            )

    def _from_scratch(self):
        from logitcask.student.init import make_student
        from logitcask.student.init.scratch import ScratchSizes

        assert self.teacher is not None, "checked by _check"
        named = {field.name: getattr(self, field.name) for field in fields(DecoderSizes)}
        sizes = ScratchSizes(**named, layers=self.layers or ScratchSizes().layers)
        return make_student.from_scratch(
            self.teacher,
            self.out,
            sizes=sizes,
            config_file=self.model_config,
            seed=self.seed,
            tokenizer=self.tokenizer,
        )


def parse_layers(text: str) -> list[int]:
    """Layer indices of "0,5,10".

    Raises:
        UsageError: Not a list of numbers.
    """
    try:
        return [int(word) for word in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--keep-layers expects numbers like 0,5,10; found {text!r}") from error
