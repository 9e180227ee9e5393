"""A kind of scheme that is not registered and that no step has rules for."""

from dataclasses import dataclass

from logitcask.schemas.format.scheme import Scheme


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeUpScheme(Scheme):
    num_samples: int = 0

    @property
    def max_head_width(self) -> int:
        return 4

    @property
    def num_tail_samples(self) -> int:
        return self.num_samples

    def describe(self) -> str:
        return "made up"

    def label(self) -> str:
        return "made up"
