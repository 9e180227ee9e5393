"""Vocabulary statistics: figures over the teacher's full distributions, which no shard can reproduce.

They are computed from all logits while the teacher runs, on a fixed share of the windows: the mass that the k largest
probabilities hold, and the expected number of distinct ids in N independent draws, Σ_v 1 − (1 − p_v)^N. They answer
"what would another k, or sampling, have kept?" without a second annotation. All sums are integers, so the sum of two
shards' figures equals, to the last bit, the figures of both shards, in any order.
"""

from dataclasses import dataclass, field
from typing import Any

from logitcask.schemas.checked_json import Count, Sum
from logitcask.schemas.stats.sum_by_key import sum_by_key

# The head widths and numbers of draws that are measured.
WIDTHS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
DRAWS = (1, 2, 5, 12, 25, 50, 100, 200)
# Resolution of the integer sums: fractions of the unit mass, and of one id.
STEPS_PER_UNIT = 1 << 32


@dataclass(frozen=True, kw_only=True, slots=True)
class VocabularyStatistics:
    """Sums over rows; all zero if nothing was measured.

    Attributes:
        rows: Number of measured rows.
        mass_steps: Each k of `WIDTHS` to the sum of the masses of the k largest probabilities, in 1/STEPS_PER_UNIT.
        unique_steps: Each N of `DRAWS` to the sum of the expected numbers of distinct ids, in 1/STEPS_PER_UNIT.
    """

    rows: Count = 0
    mass_steps: dict[Count, Sum] = field(default_factory=dict)
    unique_steps: dict[Count, Sum] = field(default_factory=dict)

    def __add__(self, other: "VocabularyStatistics") -> "VocabularyStatistics":
        return VocabularyStatistics(
            rows=self.rows + other.rows,
            mass_steps=sum_by_key([self.mass_steps, other.mass_steps]),
            unique_steps=sum_by_key([self.unique_steps, other.unique_steps]),
        )

    def summary(self) -> dict[str, Any]:
        """Human-readable means over rows; empty if nothing was measured."""
        return {
            "rows": self.rows,
            "mass_of_top_k": self._means(self.mass_steps),
            "unique_ids_of_n_draws": self._means(self.unique_steps),
        }

    def _means(self, steps: dict[int, int]) -> dict[int, float]:
        return {key: steps[key] / STEPS_PER_UNIT / self.rows for key in sorted(steps)} if self.rows else {}

    def to_json(self) -> dict[str, Any]:
        return {"rows": self.rows, "mass_steps": self.mass_steps, "unique_steps": self.unique_steps}
