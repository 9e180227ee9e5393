"""What a snapshot leaves out of its shards, as data: rules that are applied whenever a shard is read.

Shards never change. `select` and `forget` write a snapshot whose shards carry one rule more;
`dataset.row_filter` defines what a rule does to rows, `dataset.shard_view` applies it. Light: reading a snapshot costs
no import.
"""

import fnmatch
import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from logitcask.schemas.checked_json import Label, Number, convert
from logitcask.schemas.errors import UnknownFormatVersionError, UsageError

# Of the kinds of positions, those that have a target.
TargetKind = Literal["train", "generated"]

# A document's place in its file, as `Part.source` states it: row or byte offset.
_PLACE = re.compile(r"[#@]\d+$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One `select` or `forget`. What it does not speak of stays.

    Of documents (all their rows are left out, in every window):

    Attributes:
        sources: Shell patterns (`*` also matches `/`). One must match the document's source, with or without its
            place in the file (`#row`, `@offset`); None: all sources.
        forgotten: Ids of documents that are left out.

    Of positions (the row remains as context for later ones, without a target); all bounds are inclusive:

    Attributes:
        min_entropy, max_entropy: Of the teacher's full distribution, nats.
        min_loss, max_loss: −log p of the actual next token, nats. A position without one (the last of a cut part) has
            no loss, so it lies in no range.
        kinds: Kinds whose targets stay; None: all.
    """

    sources: tuple[Label, ...] | None = None
    forgotten: tuple[str, ...] = ()
    min_entropy: Number | None = None
    max_entropy: Number | None = None
    min_loss: Number | None = None
    max_loss: Number | None = None
    kinds: tuple[TargetKind, ...] | None = None

    def __post_init__(self) -> None:
        for name, low, high in (
            ("entropy", self.min_entropy, self.max_entropy),
            ("loss", self.min_loss, self.max_loss),
        ):
            if any(bound is not None and not 0 <= bound < float("inf") for bound in (low, high)):
                raise UsageError(f"bounds of the {name} are in nats, 0 or more; found {low} to {high}")
            if low is not None and high is not None and low > high:
                raise UsageError(f"no {name} lies between {low} and {high} nats: give the smaller one as --min-{name}")
        unknown = sorted(set(self.kinds or ()) - set(get_args(TargetKind)))
        if unknown:
            raise UsageError(f"no targets of kind {unknown[0]!r}; choose of {', '.join(get_args(TargetKind))}")

    @property
    def bounds_entropy(self) -> bool:
        return self.min_entropy is not None or self.max_entropy is not None

    @property
    def bounds_loss(self) -> bool:
        return self.min_loss is not None or self.max_loss is not None

    @property
    def concerns_positions(self) -> bool:
        """Whether it takes targets away from rows that stay."""
        return self.bounds_entropy or self.bounds_loss or self.kinds is not None

    @property
    def concerns_documents(self) -> bool:
        """Whether it leaves documents out."""
        return self.sources is not None or bool(self.forgotten)

    def takes_source(self, source: str) -> bool:
        """Whether documents of this `Part.source` stay."""
        if self.sources is None:
            return True
        names = (source, _PLACE.sub("", source))
        return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in self.sources)

    def to_json(self) -> dict[str, Any]:
        """Only what the rule speaks of."""
        return {name: value for name, value in asdict(self).items() if value not in (None, ())}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Rule":
        """Parses a rule.

        Raises:
            UnknownFormatVersionError: It has a condition this release does not know: reading on would return what
                was left out.
            InvalidValueError: A condition is not what it must be.
        """
        unknown = sorted(value.keys() - cls.__dataclass_fields__.keys())
        if unknown:
            raise UnknownFormatVersionError(
                f"the snapshot selects by {reprlib.repr(unknown[0])}, which this release does not know"
            )
        return convert(value, cls, at="selections")


# All of them hold; their order does not matter.
Rules = tuple[Rule, ...]


def rules_to_json(rules: Sequence[Rule]) -> list[dict[str, Any]]:
    return [rule.to_json() for rule in rules]


def selections_from_json(value: Any) -> tuple[Rules, ...]:
    """The selections of a snapshot.

    Raises:
        InvalidValueError, UnknownFormatVersionError: As `Rule.from_json`.
    """
    stored = convert(value, list[list[dict[str, Any]]], at="selections")
    return tuple(tuple(map(Rule.from_json, rules)) for rules in stored)
