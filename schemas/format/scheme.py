"""Schemes: which part of the teacher's distribution is stored as the head, and what is sampled from the tail.

One frozen dataclass per kind. Its fields are exactly the parameters of that kind, so an unused setting never changes a
fingerprint. Equal probabilities are ordered by id, lowest first, as in a stable sort.

A new kind is one class here and one row of `SCHEMES`, its rules of selection (`head_entries` and `num_draws` in
`teacher.scoring`), its expected size (`schemas.stats.expected_bytes`), and FORMAT.md.
"""

import math
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, get_args

from logitcask.schemas.checked_json import InvalidValueError, Number, VocabSize, convert
from logitcask.schemas.errors import UnknownSchemeError, UsageError

SchemeKind = Literal["threshold", "topk", "topp", "random-sampling", "threshold-sampling"]

# How head ids are stored: as they are, or as gaps (`schemas.format.id_gaps`), an eighth smaller and slower to read.
Layout = Literal["plain", "compact"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

# More draws per row would not fit into memory next to the logits.
_MAX_DRAWS = 10_000
# Each replica is a column.
_MAX_REPLICAS = 10_000
# Bounds of a temperature other than 1: its column's name must be a short decimal number.
_MIN_TEMPERATURE, _MAX_TEMPERATURE = 0.01, 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheme(ABC):
    """A scheme of any kind. Its parameters are the dataclass fields.

    Raises:
        UsageError: A parameter is outside its range.
    """

    kind: ClassVar[SchemeKind]
    _description: ClassVar[str]
    _label: ClassVar[str]

    def __post_init__(self) -> None:
        _check_parameters(asdict(self))

    @property
    @abstractmethod
    def max_head_width(self) -> int:
        """Maximum number of head entries per row."""

    @property
    def num_tail_samples(self) -> int:
        """Tail samples per row: the number of replicas, or 0 if the kind does not sample."""
        return getattr(self, "replicas", 0)

    @property
    def num_uniforms(self) -> int:
        """Uniform random numbers that one tail sample of a row uses."""
        return 0

    def describe(self) -> str:
        """What is stored, in one human-readable phrase."""
        replicas = f", {self.num_tail_samples} replicas" if self.num_tail_samples > 1 else ""
        return self._description.format(**asdict(self)) + replicas

    def label(self) -> str:
        """A short name for tables."""
        return self._label.format(**asdict(self))

    def draw_parameters(self) -> dict[str, Any]:
        """The parameters that a draw depends on: all except `replicas`, so that more replicas keep the first ones."""
        return {"kind": self.kind, **{name: value for name, value in asdict(self).items() if name != "replicas"}}

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Scheme":
        """The scheme that `to_json` wrote.

        Raises:
            UnknownSchemeError: This release does not know the kind.
            InvalidValueError: The parameters are not those of the kind, or one is outside its range.
        """
        parameters = convert(value, dict[str, Any], at="scheme")
        kind = parameters.pop("kind", None)
        scheme = SCHEMES.get(kind) if isinstance(kind, str) else None
        if scheme is None:
            raise UnknownSchemeError(f"head scheme {reprlib.repr(kind)}; this release knows {', '.join(SCHEMES)}")
        unknown = sorted(parameters.keys() - scheme.__dataclass_fields__.keys())
        if unknown:
            raise InvalidValueError(f"head scheme {kind!r} is invalid: it has no {reprlib.repr(unknown[0])}")
        try:
            return convert(parameters, scheme, at="scheme")
        except InvalidValueError as error:
            raise InvalidValueError(f"head scheme {kind!r} is invalid: {error}") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class ThresholdScheme(Scheme):
    """Adaptive: every id with p ≥ tau, at least the k_min and at most the k most probable ids.

    Attributes:
        tau: Probability threshold.
        k: Maximum number of head entries.
        k_min: Minimum number of head entries; at least 1, so that no trained row is empty.
    """

    kind = "threshold"
    _description = "adaptive: p ≥ {tau:g}, {k_min} to {k} entries, and the exact tail"
    _label = "adaptive, p ≥ {tau:g}"
    tau: Number = 1e-3
    k: VocabSize = 128
    k_min: int = 1

    @property
    def max_head_width(self) -> int:
        return self.k


@dataclass(frozen=True, kw_only=True, slots=True)
class TopKScheme(Scheme):
    """The k most probable ids.

    Attributes:
        k: Number of head entries.
    """

    kind = "topk"
    _description = "the {k} largest, and the exact tail"
    _label = "{k} largest + other"
    k: VocabSize = 128

    @property
    def max_head_width(self) -> int:
        return self.k


@dataclass(frozen=True, kw_only=True, slots=True)
class TopPScheme(Scheme):
    """The smallest set of most probable ids with mass ≥ p, at most k.

    Attributes:
        p: Mass to reach.
        k: Maximum number of head entries.
    """

    kind = "topp"
    _description = "mass ≥ {p:g}, at most {k} entries, and the exact tail"
    _label = "mass ≥ {p:g}"
    p: Number = 0.95
    k: VocabSize = 128

    @property
    def max_head_width(self) -> int:
        return self.k


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomSamplingScheme(Scheme):
    """RS-KD (Anshumann et al., ACL 2025): no head, independent draws from the whole distribution.

    Attributes:
        draws: Draws per row and replica.
        replicas: Independent tail samples per row.
    """

    kind = "random-sampling"
    _description = "none: {draws} random draws a position"
    _label = "{draws} random draws"
    draws: int = 50
    replicas: int = 1

    @property
    def max_head_width(self) -> int:
        return 0

    @property
    def num_uniforms(self) -> int:
        return self.draws


@dataclass(frozen=True, kw_only=True, slots=True)
class ThresholdSamplingScheme(Scheme):
    """Every id with p ≥ theta, and m = max(1, ⌈tail/theta⌉) systematic draws from the tail, none if it is zero.

    An id is drawn as often as expected, rounded up or down.

    Attributes:
        theta: Probability threshold; bounds head and draws by about 1/theta entries each.
        replicas: Independent tail samples per row.
    """

    kind = "threshold-sampling"
    _description = (
        "p ≥ {theta:.3g}, the exact tail, and one systematic draw for each {theta:.3g} of the tail, at least one"
    )
    _label = "p ≥ {theta:.3g} + draws"
    theta: Number = 1 / 36
    replicas: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "theta", float(self.theta))
        Scheme.__post_init__(self)

    @property
    def max_head_width(self) -> int:
        return math.ceil(1 / self.theta)

    @property
    def num_uniforms(self) -> int:
        return 1


SCHEMES: Mapping[str, type[Scheme]] = {
    scheme.kind: scheme
    for scheme in (ThresholdScheme, TopKScheme, TopPScheme, RandomSamplingScheme, ThresholdSamplingScheme)
}
"""Kind to class."""


def choose_scheme(kind: str, parameters: Mapping[str, Any]) -> Scheme:
    """The scheme of a kind, with the parameters that the kind uses.

    Args:
        kind: A key of `SCHEMES`.
        parameters: Name to value, of any kinds. Those that `kind` does not use must be valid too.

    Raises:
        UsageError: The kind is unknown, or a parameter is outside its range.
    """
    if kind not in SCHEMES:
        raise UsageError(f"head scheme {kind!r} is unknown; choose one of {', '.join(SCHEMES)}")
    _check_parameters(parameters)
    scheme = SCHEMES[kind]
    return scheme(**{field.name: parameters[field.name] for field in fields(scheme) if field.name in parameters})


def _check_parameters(parameters: Mapping[str, Any]) -> None:
    """Checks the range of each parameter; a name has one meaning and one range in all kinds."""
    k = parameters.get("k", math.inf)
    if not 1 <= parameters.get("k_min", 1) <= k:
        raise UsageError(f"heads need 1 ≤ k_min ≤ k, got k_min={parameters.get('k_min', 1)}, k={k}")
    if not 0 < parameters.get("tau", 1) <= 1:
        raise UsageError(f"tau is a probability in (0, 1], got {parameters['tau']}")
    if not 0 < parameters.get("p", 1) <= 1:
        raise UsageError(f"p is a probability mass in (0, 1], got {parameters['p']}")
    if not 1 <= parameters.get("draws", 1) <= _MAX_DRAWS:
        raise UsageError(f"draws must be between 1 and {_MAX_DRAWS:,}, got {parameters['draws']}")
    if not 1 / _MAX_DRAWS <= parameters.get("theta", 1) <= 1:
        raise UsageError(f"theta is a probability in [{1 / _MAX_DRAWS:g}, 1], got {parameters['theta']}")
    if not 1 <= parameters.get("replicas", 1) <= _MAX_REPLICAS:
        raise UsageError(f"replicas must be between 1 and {_MAX_REPLICAS:,}, got {parameters['replicas']}")


def extra_temperatures(temperatures: Iterable[float], scheme: Scheme) -> tuple[float, ...]:
    """The temperatures other than 1 whose tails are stored: each once, ascending.

    Raises:
        UsageError: A temperature is invalid, or the scheme samples.
    """
    extra = tuple(sorted({float(temperature) for temperature in temperatures} - {1.0}))
    for temperature in extra:
        if not _MIN_TEMPERATURE <= temperature <= _MAX_TEMPERATURE or float(f"{temperature:g}") != temperature:
            raise UsageError(
                f"temperatures must be between {_MIN_TEMPERATURE} and {_MAX_TEMPERATURE} and have at most six digits, "
                f"got {temperature!r}"
            )
    if extra and scheme.num_tail_samples:
        raise UsageError(
            f"temperature {extra[0]:g} with {scheme.kind}: ids are drawn by their probability at temperature 1, and a "
            "sample says nothing exact about another temperature; omit --temperatures, or choose another --head"
        )
    return extra
