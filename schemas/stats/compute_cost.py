"""What an annotation really cost: seconds of the workers' phases by device, as their records say, added up exactly."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from logitcask.schemas.stats.sum_by_key import sum_by_key

_SUFFIX = "_seconds"
_CONSECUTIVE = ("read", "load", "score", "finish")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningCost:
    """What units cost on one model of device.

    Attributes:
        num_units: Units whose timings are known.
        num_positions: Rows of their shards.
        milliseconds: Phase to the workers' time in it, added up over workers. "read", "load", "score" and "finish"
            follow one another; "forward" and "encode" run within "score", at the same time.
    """

    num_units: int = 0
    num_positions: int = 0
    milliseconds: dict[str, int] = field(default_factory=dict)

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
        """What the workers were busy with these units, waiting for another phase included."""
        return sum(self.seconds(phase) for phase in _CONSECUTIVE)


def cost_of_unit(
    num_positions: int, environment: Mapping[str, Any], timings: Mapping[str, Any]
) -> dict[str, RunningCost]:
    """A unit's cost by the model of its device; empty where its record was rebuilt and the timings are lost."""
    milliseconds = {
        name.removesuffix(_SUFFIX): round(1000 * value)
        for name, value in timings.items()
        if name.endswith(_SUFFIX) and isinstance(value, int | float)
    }
    if "forward" not in milliseconds and "score" in milliseconds:
        # The first release scored a unit and then encoded it, and called the forward pass by the name of the phase.
        milliseconds |= {"forward": milliseconds["score"], "finish": milliseconds.get("encode", 0)}
    device = environment.get("device")
    if not milliseconds or not isinstance(device, Mapping):
        return {}
    cost = RunningCost(num_units=1, num_positions=num_positions, milliseconds=milliseconds)
    return {str(device.get("model", "unknown device")): cost}


def costs_from_json(value: Mapping[str, Any]) -> dict[str, RunningCost]:
    """What `dataclasses.asdict` made of costs by device."""
    return {device: RunningCost(**cost) for device, cost in value.items()}
