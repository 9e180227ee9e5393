"""Which entries of the teacher's distribution become the head."""

from dataclasses import dataclass
from typing import Literal, get_args

from schemas.errors import UsageError

SchemeKind = Literal["threshold", "topk", "topp"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheme:
    """How the head is chosen; ties go to the lowest id, as in a stable sort by falling probability.

    Attributes:
        kind: "threshold" (adaptive): every id with p ≥ tau, at least k_min and at most the k largest. "topk": the k
            largest. "topp": the smallest set of largest ids with mass ≥ p, at most k.
        tau: Probability threshold of "threshold".
        k: Most entries a head may have.
        k_min: Fewest entries of a head ("threshold" only); at least 1, so that no trained row is empty.
        p: Mass to reach ("topp" only).
    """

    kind: SchemeKind = "threshold"
    tau: float = 1e-3
    k: int = 128
    k_min: int = 1
    p: float = 0.95

    def __post_init__(self) -> None:
        if self.kind not in get_args(SchemeKind):
            raise UsageError(f"head scheme {self.kind!r} is unknown; choose one of {', '.join(get_args(SchemeKind))}")
        if not 1 <= self.k_min <= self.k:
            raise UsageError(f"heads need 1 ≤ k_min ≤ k, got k_min={self.k_min}, k={self.k}")
        if not 0 < self.tau <= 1:
            raise UsageError(f"tau is a probability in (0, 1], got {self.tau}")
        if not 0 < self.p <= 1:
            raise UsageError(f"p is a probability mass in (0, 1], got {self.p}")

    def to_json(self) -> dict:
        """Only the parameters that this kind uses, so that an unused one never changes a fingerprint."""
        used = {
            "threshold": {"tau": self.tau, "k": self.k, "k_min": self.k_min},
            "topk": {"k": self.k},
            "topp": {"p": self.p, "k": self.k},
        }
        return {"kind": self.kind, **used[self.kind]}

    @classmethod
    def from_json(cls, fields: dict) -> "Scheme":
        return cls(**fields)
