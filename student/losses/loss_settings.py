"""Which loss a run minimizes, as settings, and the check that the shards hold what it needs."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from logitcask.schemas.errors import UsageError
from logitcask.schemas.format.targets import TargetRows
from logitcask.student.losses import tail_treatments
from logitcask.student.losses.divergences import (
    Divergence,
    HeadTemperedKL,
    JensenShannon,
    SampledCrossEntropy,
    forward_kl,
    raw_head,
    reverse_kl,
)
from logitcask.student.losses.targets import RaggedTargets
from logitcask.student.settings import DivergenceName, LossFields, Tail, current_tail

# The divergences that are defined for each tail treatment. A reverse KL is infinite where the teacher's probability is
# 0, so it needs a real tail; raw and sampled targets are not distributions.
_DIVERGENCES: dict[Tail, tuple[DivergenceName, ...]] = {
    "other": ("forward", "reverse", "jsd"),
    "label": ("forward", "reverse", "jsd"),
    "renormalize": ("forward", "jsd"),
    "residual": ("forward", "jsd"),
    "raw": ("forward",),
    "sample": ("forward",),
    "blend": ("forward",),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LossSettings(LossFields):
    """The loss between the teacher's stored targets and the student; `LossFields` explains the fields.

    Raises:
        UsageError: Values out of range, or an undefined combination.
    """

    def __post_init__(self) -> None:
        object.__setattr__(self, "tail", current_tail(self.tail))
        if not self.temperature > 0:
            raise UsageError(f"the temperature must be above 0; found {self.temperature}")
        for name in ("jsd_beta", "sample_share"):
            if not 0 < getattr(self, name) < 1:
                raise UsageError(f"{name} must be between 0 and 1; found {getattr(self, name)}")
        if self.divergence not in _DIVERGENCES[self.tail]:
            raise UsageError(
                f"the {self.divergence} divergence is not defined with tail {self.tail!r}; "
                f"choose {' or '.join(_DIVERGENCES[self.tail])}, or tail 'other'"
            )
        if self.temperature != 1 and self.needs_sample:
            raise UsageError(
                f"the tail's ids were drawn at temperature 1 and do not fit temperature {self.temperature:g}; "
                "use temperature 1, or tail 'other'"
            )
        if self.tempers_head_only and (self.divergence != "forward" or self.tail == "raw"):
            raise UsageError(
                "tempering 'head' is defined only inside the head of a whole distribution, for the forward divergence; "
                f"found divergence {self.divergence!r} with tail {self.tail!r}; use tempering 'exact'"
            )

    @property
    def needs_sample(self) -> bool:
        """Whether the loss reads a tail sample."""
        return self.tail in ("sample", "blend")

    @property
    def tempers_head_only(self) -> bool:
        """Whether a temperature other than one applies inside the head only."""
        return self.temperature != 1 and self.tempering == "head"

    @property
    def logits_temperature(self) -> float:
        """The divisor of the student's logits: 1 where only the head is tempered."""
        return 1.0 if self.tempering == "head" else self.temperature

    @property
    def metric(self) -> str:
        """The name of the mean loss in logs."""
        if self.needs_sample:
            return "teacher_cross_entropy_nats"
        names = {"forward": "kl_nats", "reverse": "reverse_kl_nats", "jsd": "jsd_nats"}
        return "raw_kl_nats" if self.tail == "raw" else names[self.divergence]

    def check_shards(self, example: TargetRows) -> None:
        """Refuses shards that lack what the loss needs.

        Args:
            example: The targets of any window, since a dataset has one scheme.

        Raises:
            UsageError: No samples, no tempered tails, or no heads.
        """
        if self.needs_sample and not example.tail_samples:
            raise UsageError(
                f"tail {self.tail!r} needs ids sampled from the tail, and these shards hold none; annotate with "
                "--head threshold-sampling, or train with tail 'other'"
            )
        if example.has_target().any() and not len(example.head_ids) and self.tail != "sample":
            raise UsageError(
                f"tail {self.tail!r} needs heads, and these shards hold sampled ids only; train with tail 'sample'"
            )
        exact = self.temperature != 1 and not self.tempers_head_only
        if exact and self.temperature not in example.tempered_log_tails:
            stored = ", ".join(f"{t:g}" for t in sorted(example.tempered_log_tails)) or "none"
            raise UsageError(
                f"temperature {self.temperature:g} needs the tail's mass at that temperature (stored: {stored}); "
                f"annotate with --temperatures {self.temperature:g}, or train with tempering 'head'"
            )

    def prepare_targets(self, targets: RaggedTargets, labels_T: Tensor) -> RaggedTargets:
        """The targets that the divergence reads: tempered, and with the tail treated.

        Args:
            targets: As the shards store them, T rows.
            labels_T: int64, the actual next token, −100 where there is none.
        """
        if self.logits_temperature != 1:
            targets = tail_treatments.at_temperature(targets, self.temperature)
        treatment: dict[Tail, Callable[[], RaggedTargets]] = {
            "renormalize": lambda: tail_treatments.renormalized(targets),
            "residual": lambda: tail_treatments.residual_to_label(targets, labels_T),
            "label": lambda: tail_treatments.with_label_bucket(targets, labels_T),
            "sample": lambda: targets,
            "blend": lambda: targets,
        }
        return treatment.get(self.tail, lambda: tail_treatments.without_sample(targets))()

    def divergence_function(self) -> Divergence:
        """The divergence between the buckets of teacher and student."""
        if self.needs_sample:
            return SampledCrossEntropy(share=1.0 if self.tail == "sample" else self.sample_share)
        if self.tail == "raw":
            return raw_head
        if self.tempers_head_only:
            return HeadTemperedKL(temperature=self.temperature)
        functions: dict[DivergenceName, Divergence] = {
            "forward": forward_kl,
            "reverse": reverse_kl,
            "jsd": JensenShannon(beta=self.jsd_beta),
        }
        return functions[self.divergence]
