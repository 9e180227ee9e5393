"""How far the stored targets of some windows are from those that the teacher gives now.

Both sides are compared as shards hold them: the new targets are quantized too, and neither side is divided by its sum,
which would spread one entry's difference over its row. Where no bit of the teacher differs, every difference is zero.
Otherwise a log-probability that moved by δ crosses into the next step with a probability of δ/step, and is then a whole
step away: on average the stored difference is the teacher's, but a single one can be as large as a step. So there are
two tolerances: one for means, and one for what single entries differ beyond a step.
"""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from logitcask.schemas.format import quantizer
from logitcask.schemas.format.targets import StoredTargets, TargetRows, Targets, Windows

# Nats: of the mean, and of single entries beyond a step. A log-probability is a difference of logits of about ten nats.
# Their rounding errors add up like a random walk over about a hundred operations, to about 10 · 10 · u: 6e-6 in float32
# (u = 6e-8), 0.4 at worst and less on average in bfloat16 (u = 4e-3). Float32 is allowed a hundred times more, which is
# still a tenth of the head's smallest step. Bfloat16 is allowed a quarter of the 0.4 on average, as environments share
# most of their rounding; float16 (u = 5e-4) an eighth of what bfloat16 is.
TOLERANCES_NATS = {"float32": (1e-3, 1e-2), "bfloat16": (0.1, 1.0), "float16": (0.0125, 0.125)}
# Ids with a probability near the threshold, or near that of another id, enter and leave the head.
ID_TOLERANCES = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.0125}
_NOTHING = np.zeros(0, np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Absolute differences between stored and new numbers.

    Attributes:
        count: Numbers compared.
        mean_nats, max_nats: Of the differences.
        beyond_step_nats: The largest difference less the quantizer's step there.
    """

    count: int
    mean_nats: float
    max_nats: float
    beyond_step_nats: float

    @classmethod
    def of(cls, stored: np.ndarray, new: np.ndarray, step: np.ndarray | float) -> "Difference":
        """Compares two columns of equal length; `step` is the quantizer's step around each number."""
        if not len(stored):
            return cls(count=0, mean_nats=0.0, max_nats=0.0, beyond_step_nats=0.0)
        # Equal infinities (no tail on both sides) do not differ; an infinity on one side differs without bound.
        with np.errstate(invalid="ignore"):
            distance = np.where(stored == new, 0.0, np.abs(stored.astype(np.float64) - new))
        return cls(
            count=len(distance),
            mean_nats=float(distance.mean()),
            max_nats=float(distance.max()),
            beyond_step_nats=float(np.maximum(distance - step, 0.0).max()),
        )

    def is_within(self, mean_nats: float, single_nats: float) -> bool:
        """Whether the mean and the largest difference beyond a step are tolerated."""
        return self.mean_nats <= mean_nats and self.beyond_step_nats <= single_nats


@dataclass(frozen=True, kw_only=True, slots=True)
class Recomputation:
    """The differences of windows that were annotated again.

    Attributes:
        seed: Chose the windows.
        num_windows, num_positions: What was annotated again.
        dtype: Of the forward pass, as recorded; it decides the tolerances.
        head: Log-probabilities of ids that both heads have.
        tail: Log tail mass of rows whose heads have the same ids.
        next_token: Log-probability of the actual next token.
        entropy: Of the full distribution, where it is stored.
        id_difference_rate: Ids (draws, where the tail is sampled) that only one side has, as a share of all.
        mean_tolerance_nats, single_tolerance_nats, id_tolerance: The limits.
    """

    seed: int
    num_windows: int
    num_positions: int
    dtype: str
    head: Difference
    tail: Difference
    next_token: Difference
    entropy: Difference
    id_difference_rate: float
    mean_tolerance_nats: float
    single_tolerance_nats: float
    id_tolerance: float

    @property
    def is_within_tolerance(self) -> bool:
        differences = (self.head, self.tail, self.next_token, self.entropy)
        within = (one.is_within(self.mean_tolerance_nats, self.single_tolerance_nats) for one in differences)
        return all(within) and self.id_difference_rate <= self.id_tolerance

    def to_json(self) -> dict[str, Any]:
        return {**_finite(asdict(self)), "is_within_tolerance": self.is_within_tolerance}

    def text(self) -> str:
        """A human-readable report."""
        verdict = "within tolerance" if self.is_within_tolerance else "BEYOND TOLERANCE"
        what = f"{self.num_windows:,} windows, {self.num_positions:,} positions, {self.dtype}, seed {self.seed}"
        rows = (("head", self.head), ("tail", self.tail), ("next token", self.next_token), ("entropy", self.entropy))
        allowed = f"mean {self.mean_tolerance_nats:g}, max {self.single_tolerance_nats:g} nats beyond a step"
        return "\n".join(
            [
                f"annotated again: {what}: {verdict}",
                *(f"{name:<11} mean {d.mean_nats:.2e}  max {d.max_nats:.2e} nats  ({d.count:,})" for name, d in rows),
                f"ids         {100 * self.id_difference_rate:.3f} % differ",
                f"allowed     {allowed}, ids {100 * self.id_tolerance:g} %",
            ]
        )


class TargetComparison:
    """Gathers pairs of stored and new numbers."""

    def __init__(self) -> None:
        self._pairs = {name: [(_NOTHING, _NOTHING)] for name in ("head", "tail", "next_token", "entropy")}
        self._num_windows = self._num_positions = self._num_ids = self._num_different = 0

    def add(self, windows: Windows, stored: StoredTargets, exact: Targets, *, with_draws: bool) -> None:
        """Adds some windows.

        Args:
            windows: T rows.
            stored: Their targets in the shard.
            exact: Their targets now.
            with_draws: Whether the tail samples are comparable.
        """
        new = _as_stored(exact)
        stored_keys, new_keys = _keys(stored.head_ids, stored.head_offsets), _keys(new.head_ids, new.head_offsets)
        _, in_stored, in_new = np.intersect1d(stored_keys, new_keys, assume_unique=True, return_indices=True)
        different = np.setxor1d(stored_keys, new_keys, assume_unique=True)
        self._count(len(different), len(in_stored) + len(different))
        has_target, has_label = stored.has_target(), stored.has_label()
        same_ids = has_target & ~np.isin(np.arange(windows.num_positions), different >> 32)
        head_q = (stored.head_q[in_stored], new.head_q[in_new])
        self._pairs["head"].append((quantizer.dequantize_head(head_q[0]), quantizer.dequantize_head(head_q[1])))
        self._pairs["tail"].append((stored.log_tail[same_ids], new.log_tail[same_ids]))
        self._pairs["next_token"].append((stored.log_next[has_label], new.log_next[has_label]))
        if stored.entropy is not None and new.entropy is not None:
            self._pairs["entropy"].append((stored.entropy[has_target], new.entropy[has_target]))
        if with_draws:
            for sample, other in zip(stored.tail_samples, new.tail_samples, strict=True):
                self._count_draws(_keys(sample.ids, sample.offsets), _keys(other.ids, other.offsets))
        self._num_windows += windows.num_windows
        self._num_positions += windows.num_positions

    def _count(self, num_different: int, num_ids: int) -> None:
        self._num_different += num_different
        self._num_ids += num_ids

    def _count_draws(self, stored: np.ndarray, new: np.ndarray) -> None:
        """Compares how often each id was drawn: draws repeat."""
        ids, index = np.unique(np.concatenate([stored, new]), return_inverse=True)
        in_stored, in_new = (np.bincount(part, minlength=len(ids)) for part in np.split(index, [len(stored)]))
        self._count(int(np.abs(in_stored - in_new).sum()), int(np.maximum(in_stored, in_new).sum()))

    def result(self, seed: int, dtype: str) -> Recomputation:
        """All differences, with the tolerances of the dtype."""
        mean_nats, single_nats = TOLERANCES_NATS[dtype]
        columns = {name: list(map(np.concatenate, zip(*pairs, strict=True))) for name, pairs in self._pairs.items()}
        nat_step = 1 / quantizer.STEPS_PER_NAT + 1e-6
        return Recomputation(
            seed=seed,
            num_windows=self._num_windows,
            num_positions=self._num_positions,
            dtype=dtype,
            head=Difference.of(*columns["head"], step=_head_step(columns["head"][0])),
            tail=Difference.of(*columns["tail"], step=nat_step),
            next_token=Difference.of(*columns["next_token"], step=nat_step),
            entropy=Difference.of(*columns["entropy"], step=nat_step),
            id_difference_rate=self._num_different / max(1, self._num_ids),
            mean_tolerance_nats=mean_nats,
            single_tolerance_nats=single_nats,
            id_tolerance=ID_TOLERANCES[dtype],
        )


def _as_stored(exact: Targets) -> StoredTargets:
    """Exact targets as a shard would hold them."""
    shared = {one.name: getattr(exact, one.name) for one in fields(TargetRows)}
    tail = quantizer.dequantize_tail(quantizer.quantize_tail(np.nan_to_num(exact.log_tail, nan=0.0, neginf=-np.inf)))
    changed = {
        "log_tail": np.where(np.isnan(exact.log_tail), np.float32(np.nan), tail),
        "log_next": -_as_stored_nats(-exact.log_next),
        "entropy": None if exact.entropy is None else _as_stored_nats(exact.entropy),
    }
    return StoredTargets(**{**shared, **changed}, head_q=quantizer.quantize_head(exact.head_log_probs))


def _as_stored_nats(values: np.ndarray) -> np.ndarray:
    stored = quantizer.dequantize_nats(quantizer.quantize_nats(values))
    return np.where(np.isnan(values), np.float32(np.nan), stored)


def _head_step(log_probs: np.ndarray) -> np.ndarray:
    """The larger of the quantizer's two steps around h = −u(1 + u), u = q/64: (1 + 2u)/64 + 1/64²; and rounding."""
    u = (np.sqrt(1 - 4 * log_probs.astype(np.float64)) - 1) / 2
    return (1 + 2 * u) / 64 + 1 / 64**2 + 1e-6


def _keys(ids: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Row and id of each entry, as one number."""
    return (np.repeat(np.arange(len(offsets) - 1, dtype=np.int64), np.diff(offsets)) << 32) + ids


def _finite(value: Any) -> Any:
    """None for infinities, which JSON lacks."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
