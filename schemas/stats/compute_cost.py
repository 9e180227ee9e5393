"""The measured cost of an annotation: exact sums, by device, of the seconds that unit records state for each phase."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from logitcask.schemas.checked_json import Count, Sum
from logitcask.schemas.stats.sum_by_key import sum_by_key

_SUFFIX = "_seconds"
_MAX_SECONDS = 1e12
_CONSECUTIVE = ("read", "load", "score", "finish")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningCost:
    """The cost of units on one device model.

    Attributes:
        num_units: Units with known timings.
        num_positions: Rows of their shards.
        milliseconds: Phase to time, summed over workers. The phases "read", "load", "score" and "finish" are
            consecutive; "forward" and "encode" run inside "score", concurrently.
    """

    num_units: Count = 0
    num_positions: Count = 0
    milliseconds: dict[str, Sum] = field(default_factory=dict)

    def __add__(self, other: "RunningCost") -> "RunningCost":
        return RunningCost(
            num_units=self.num_units + other.num_units,
            num_positions=self.num_positions + other.num_positions,
            milliseconds=sum_by_key([self.milliseconds, other.milliseconds]),
        )

    def seconds(self, phase: str) -> float:
        return self.milliseconds.get(phase, 0) / 1000

    @property
    def worker_seconds(self) -> float:
        """Time that workers spent on these units, including waits for another phase."""
        return sum(self.seconds(phase) for phase in _CONSECUTIVE)


def cost_of_unit(
    num_positions: int, environment: Mapping[str, Any], timings: Mapping[str, Any]
) -> dict[str, RunningCost]:
    """A unit's cost by device model; empty if its record was rebuilt, which loses the timings."""
    milliseconds = {
        name.removesuffix(_SUFFIX): round(1000 * value)
        for name, value in timings.items()
        # A clock that was set back gives no time.
        if name.endswith(_SUFFIX) and isinstance(value, int | float) and 0 <= value < _MAX_SECONDS
    }
    if "forward" not in milliseconds and "score" in milliseconds:
        # The first release encoded a unit after scoring it, and recorded the forward pass as "score".
        milliseconds |= {"forward": milliseconds["score"], "finish": milliseconds.get("encode", 0)}
    device = environment.get("device")
    if not milliseconds or not isinstance(device, Mapping):
        return {}
    cost = RunningCost(num_units=1, num_positions=num_positions, milliseconds=milliseconds)
    return {str(device.get("model", "unknown device")): cost}
