"""What rules do to windows: which documents, rows and targets stay. Pure functions of arrays.

Shapes: P parts, T rows before, T' rows after.

1. A part stays if every rule takes its document: no rule forgets its id, and its source matches. Of a part that does
   not stay all rows go. What the other parts' targets say stays true, because attention never leaves a part.
2. A row that stays keeps its target if every rule takes it (entropy, loss, kind). A row that loses its target becomes
   `Kind.CONTEXT`: later rows of its part still need to see its token.
3. A window without rows goes; the others keep their order. Parts that went leave the table of parts.

Labels follow by themselves: the next row of a part is still there, so `log_next` of a row that keeps its target stays.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from logitcask.schemas.dataset.rules import Rule, Rules
from logitcask.schemas.format.ragged import offsets_from_lengths
from logitcask.schemas.format.targets import Kind, Part, TargetRows, Windows

AnyTargets = TypeVar("AnyTargets", bound=TargetRows)

_KINDS = {"train": Kind.TRAIN, "generated": Kind.GENERATED}


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """What rules decide of T rows.

    Attributes:
        parts: Whether a part stays, bool [P].
        rows: Whether a row stays, bool [T].
        silenced: Whether a row stays but loses its target, bool [T].
    """

    parts: np.ndarray
    rows: np.ndarray
    silenced: np.ndarray

    @property
    def takes_all(self) -> bool:
        """Whether nothing changes."""
        return bool(self.parts.all() and not self.silenced.any())


def choose(windows: Windows, targets: TargetRows, rules: Rules) -> Choice:
    """What stays of windows and their targets."""
    parts = parts_taken(windows.parts, rules)
    rows = parts[windows.part] if len(parts) else np.zeros(0, dtype=bool)
    taken = np.ones(windows.num_positions, dtype=bool)
    for rule in rules:
        taken &= _targets_taken(windows, targets, rule)
    return Choice(parts=parts, rows=rows, silenced=rows & windows.has_target() & ~taken)


def columns_of(rules: Rules) -> tuple[str, ...]:
    """The optional columns that rules need."""
    return ("entropy",) if any(rule.bounds_entropy for rule in rules) else ()


def parts_taken(parts: tuple[Part, ...], rules: Rules) -> np.ndarray:
    """Whether each part's document stays, bool [P]."""
    taken = np.ones(len(parts), dtype=bool)
    for rule in rules:
        if rule.concerns_documents:
            forgotten = frozenset(rule.forgotten)
            stays = [part.id not in forgotten and rule.takes_source(part.source) for part in parts]
            taken &= np.array(stays, dtype=bool)
    return taken


def _targets_taken(windows: Windows, targets: TargetRows, rule: Rule) -> np.ndarray:
    """Whether a rule takes a row's target, if it has one, bool [T]."""
    taken = np.ones(windows.num_positions, dtype=bool)
    if rule.bounds_entropy:
        assert targets.entropy is not None, "checked before a snapshot is made"
        taken &= _inside(targets.entropy, rule.min_entropy, rule.max_entropy)
    if rule.bounds_loss:
        taken &= _inside(-targets.log_next, rule.min_loss, rule.max_loss)
    if rule.kinds is not None:
        taken &= np.isin(windows.kind, [_KINDS[kind] for kind in rule.kinds])
    return taken


def _inside(nats: np.ndarray, low: float | None, high: float | None) -> np.ndarray:
    """Whether low ≤ nats ≤ high; never for NaN."""
    return (nats >= (0.0 if low is None else low)) & (nats <= (np.inf if high is None else high))


def select(windows: Windows, targets: AnyTargets, rules: Rules) -> tuple[Windows, AnyTargets]:
    """What the rules leave of windows and their targets; the arguments themselves where they take all."""
    choice = choose(windows, targets, rules)
    if choice.takes_all:
        return windows, targets
    return keep_windows(windows, choice), targets.filter_rows(choice.rows, choice.silenced)


def keep_windows(windows: Windows, choice: Choice) -> Windows:
    """The rows that stay, T' of them, in the windows that still have any."""
    kind = np.where(choice.silenced, np.uint8(Kind.CONTEXT), windows.kind)
    place_of_part = np.cumsum(choice.parts, dtype=np.int32) - np.int32(1)
    lengths = np.bincount(windows.window_index()[choice.rows], minlength=windows.num_windows)
    return Windows(
        token=windows.token[choice.rows],
        kind=kind[choice.rows],
        part=place_of_part[windows.part[choice.rows]],
        window_offsets=offsets_from_lengths(lengths[lengths > 0]),
        parts=tuple(part for part, stays in zip(windows.parts, choice.parts.tolist(), strict=True) if stays),
    )
