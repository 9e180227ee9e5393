"""A kind of scheme that is not registered and that no step has rules for."""

from dataclasses import dataclass

from logitcask.schemas.format.scheme import Scheme


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeUpScheme(Scheme):
    replicas: int = 0

    def __post_init__(self) -> None:
        """All settings are valid."""

    @property
    def max_head_width(self) -> int:
        return 4
