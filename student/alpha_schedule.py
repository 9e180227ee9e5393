"""The weight of the teacher's loss over a run: a pure function of the step.

The loss is α · KL + (1 − α) · cross-entropy. Peng et al. ("Pre-training Distillation for Large Language Models", 2024)
found 0.9 the best constant α, and an even better result with a warm-up–stable–decay α and a learning rate of the same
shape.
"""

from dataclasses import dataclass
from typing import Literal

from logitcask.schemas.errors import UsageError

AlphaShape = Literal["constant", "linear", "wsd"]


@dataclass(frozen=True, kw_only=True, slots=True)
class AlphaSchedule:
    """α of each step.

    Attributes:
        shape: "constant": `alpha`. "linear": from `alpha` at the first step to `end` at the last. "wsd": from `end` up
            to `alpha` over the first `warmup_steps`, constant, then down to `end` over the last `decay_steps`.
        alpha: The weight of the KL, 0 to 1.
        end: Last value of "linear", first and last value of "wsd".
        warmup_steps, decay_steps: For "wsd" only.

    Raises:
        UsageError: A weight outside 0 to 1, or steps that the shape does not use.
    """

    shape: AlphaShape = "constant"
    alpha: float = 1.0
    end: float = 0.0
    warmup_steps: int = 0
    decay_steps: int = 0

    def __post_init__(self) -> None:
        for name in ("alpha", "end"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(
                    f"alpha is the weight of the KL and must be from 0 to 1; found {name} {getattr(self, name)}"
                )
        steps = (self.warmup_steps, self.decay_steps)
        if min(steps) < 0 or (self.shape != "wsd" and any(steps)):
            raise UsageError(
                "warm-up and decay steps of alpha must not be negative, and only the shape wsd uses them; "
                f"found {steps} with {self.shape}"
            )
        if self.shape == "wsd" and not any(steps):
            raise UsageError("alpha of shape wsd needs warm-up or decay steps; without them use the shape constant")

    def at(self, step: int, num_steps: int) -> float:
        """α of step `step`, counted from 0, in a run of `num_steps`."""
        if self.shape == "constant":
            return self.alpha
        if self.shape == "linear":
            return self.alpha + (self.end - self.alpha) * min(1.0, step / max(1, num_steps - 1))
        # The step before the first and the step after the last are at `end`.
        rise = (step + 1) / (self.warmup_steps + 1)
        fall = (num_steps - step) / (self.decay_steps + 1)
        return self.end + (self.alpha - self.end) * max(0.0, min(1.0, rise, fall))

    @property
    def uses_cross_entropy(self) -> bool:
        """Whether α is below one at any step."""
        return self.alpha < 1 or (self.shape != "constant" and self.end < 1)

    @property
    def depends_on_length(self) -> bool:
        """Whether α of a step depends on the number of steps in the run."""
        return self.shape == "linear" or self.decay_steps > 0
