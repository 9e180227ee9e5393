"""What of the teacher's distribution is stored: which entries are the head, and what is drawn from the tail."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from logitcask.schemas.errors import UsageError

SchemeKind = Literal["threshold", "topk", "topp", "random-sampling", "threshold-sampling"]

# How head ids are stored: as they are, or as gaps (`schemas.format.id_gaps`), an eighth smaller and slower to read.
Layout = Literal["plain", "compact"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

# What a position may cost: rows of more draws would not fit beside the logits.
_MAX_DRAWS = 10_000
# Bounds of a temperature other than 1: its column's name must be a short decimal number.
_LOWEST_TEMPERATURE, _HIGHEST_TEMPERATURE = 0.01, 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheme:
    """How the head is chosen, and the tail sampled; ties go to the lowest id, as in a stable sort by probability.

    Attributes:
        kind: "threshold" (adaptive): every id with p ≥ tau, at least k_min and at most the k largest. "topk": the k
            largest. "topp": the smallest set of largest ids with mass ≥ p, at most k. "random-sampling" (RS-KD,
            Anshumann et al., ACL 2025): no head, `draws` independent draws from the whole distribution.
            "threshold-sampling": every id with p ≥ theta, and m = max(1, ⌈tail/theta⌉) systematic draws from the
            tail, none where it is zero; an id is drawn as often as expected, rounded up or down.
        tau: Probability threshold of "threshold".
        k: Most entries a head may have ("threshold", "topk", "topp").
        k_min: Fewest entries of a head ("threshold" only); at least 1, so that no trained row is empty.
        p: Mass to reach ("topp" only).
        draws: Draws a row ("random-sampling" only).
        theta: Probability threshold of "threshold-sampling"; bounds both head and draws by about 1/theta entries.
        replicas: Independent tail samples of each row (the two sampling kinds).
    """

    kind: SchemeKind = "threshold"
    tau: float = 1e-3
    k: int = 128
    k_min: int = 1
    p: float = 0.95
    draws: int = 50
    theta: float = 1 / 36
    replicas: int = 1

    def __post_init__(self) -> None:
        if self.kind not in get_args(SchemeKind):
            raise UsageError(f"head scheme {self.kind!r} is unknown; choose one of {', '.join(get_args(SchemeKind))}")
        if not 1 <= self.k_min <= self.k:
            raise UsageError(f"heads need 1 ≤ k_min ≤ k, got k_min={self.k_min}, k={self.k}")
        if not 0 < self.tau <= 1:
            raise UsageError(f"tau is a probability in (0, 1], got {self.tau}")
        if not 0 < self.p <= 1:
            raise UsageError(f"p is a probability mass in (0, 1], got {self.p}")
        if not 1 <= self.draws <= _MAX_DRAWS:
            raise UsageError(f"draws must be between 1 and {_MAX_DRAWS:,}, got {self.draws}")
        if not 1 / _MAX_DRAWS <= self.theta <= 1:
            raise UsageError(f"theta is a probability in [{1 / _MAX_DRAWS:g}, 1], got {self.theta}")
        if self.replicas < 1:
            raise UsageError(f"replicas must be at least 1, got {self.replicas}")

    @property
    def num_tail_samples(self) -> int:
        """Tail samples of each row: the replicas of a sampling kind, else none."""
        return self.replicas if self.kind in ("random-sampling", "threshold-sampling") else 0

    @property
    def max_entries(self) -> int:
        """No head has more entries."""
        match self.kind:
            case "random-sampling":
                return 0
            case "threshold-sampling":
                return math.ceil(1 / self.theta)
            case _:
                return self.k

    def to_json(self) -> dict[str, Any]:
        """Only the parameters that this kind uses, so that an unused one never changes a fingerprint."""
        return self.draw_parameters() | ({"replicas": self.replicas} if self.num_tail_samples else {})

    def draw_parameters(self) -> dict[str, Any]:
        """What one draw depends on: not the number of replicas, so that more of them leave the first as it is."""
        used = {
            "threshold": {"tau": self.tau, "k": self.k, "k_min": self.k_min},
            "topk": {"k": self.k},
            "topp": {"p": self.p, "k": self.k},
            "random-sampling": {"draws": self.draws},
            "threshold-sampling": {"theta": float(self.theta)},
        }
        return {"kind": self.kind, **used[self.kind]}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Scheme":
        return cls(**fields)


def further_temperatures(asked: Iterable[float], scheme: Scheme) -> tuple[float, ...]:
    """The temperatures whose tails are stored beside that of 1: each once, rising.

    Raises:
        UsageError: One of them cannot be meant, or the scheme samples.
    """
    temperatures = tuple(sorted({float(temperature) for temperature in asked} - {1.0}))
    for temperature in temperatures:
        if not _LOWEST_TEMPERATURE <= temperature <= _HIGHEST_TEMPERATURE or float(f"{temperature:g}") != temperature:
            raise UsageError(
                f"temperatures lie between {_LOWEST_TEMPERATURE} and {_HIGHEST_TEMPERATURE} and have at most six "
                f"digits, got {temperature!r}"
            )
    if temperatures and scheme.num_tail_samples:
        raise UsageError(
            f"temperature {temperatures[0]:g} with {scheme.kind}: ids are drawn by their probability at temperature "
            "1, and a sample says nothing exact of another; leave --temperatures out, or choose another --head"
        )
    return temperatures
