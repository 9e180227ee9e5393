"""Statistics of a shard's targets that merge exactly.

They are counts, sums of integer steps, and histograms with fixed bins. So the sum of two shards' statistics equals, to
the last bit, the statistics of both shards, in any order. Quantiles come from the histograms and are exact to one bin.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from logitcask.schemas.checked_json import Count, Sum
from logitcask.schemas.stats.sum_by_key import sum_by_key
from logitcask.schemas.stats.vocabulary_statistics import VocabularyStatistics

if TYPE_CHECKING:
    # Only `of` computes with arrays; code that only reads statistics must not pay for the import.
    import numpy as np

    from logitcask.schemas.format.targets import TargetRows, Windows

# Names of `format.targets.Kind`, which needs numpy.
_KINDS = ("train", "context", "prompt", "generated")
NUM_KINDS = len(_KINDS)
BINS_PER_NAT = 16
NUM_BINS = 32 * BINS_PER_NAT
# Resolution of the integer sums: fractions of a nat, and of the unit mass.
STEPS_PER_NAT = 1 << 20
STEPS_PER_MASS = 1 << 32
_QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9, "p99": 0.99}


@dataclass(frozen=True, kw_only=True, slots=True)
class Histogram:
    """Counts of a non-negative quantity in nats.

    Attributes:
        count: Number of values, infinite ones included.
        sum_steps: Sum of the finite values, in 1/STEPS_PER_NAT nat.
        bins: Bin index to count of finite values. Bin i covers [i, i + 1) / BINS_PER_NAT; the last bin also holds all
            larger values.
        infinite: Number of infinite values.
    """

    count: Count = 0
    sum_steps: Sum = 0
    bins: dict[Annotated[int, Meta(ge=0, lt=NUM_BINS)], Count] = field(default_factory=dict)
    infinite: Count = 0

    @classmethod
    def of(cls, values_nats: "np.ndarray") -> "Histogram":
        import numpy as np

        finite = values_nats[np.isfinite(values_nats)].astype(np.float64)
        indices = np.clip(finite * BINS_PER_NAT, 0, NUM_BINS - 1).astype(np.int64)
        return cls(
            count=len(values_nats),
            sum_steps=int(np.rint(finite * STEPS_PER_NAT).astype(np.int64).sum()),
            bins=_counts(indices),
            infinite=len(values_nats) - len(finite),
        )

    def __add__(self, other: "Histogram") -> "Histogram":
        return Histogram(
            count=self.count + other.count,
            sum_steps=self.sum_steps + other.sum_steps,
            bins=sum_by_key([self.bins, other.bins]),
            infinite=self.infinite + other.infinite,
        )

    def mean(self) -> float | None:
        """Mean of the finite values in nats; None if there are none."""
        finite = self.count - self.infinite
        return self.sum_steps / STEPS_PER_NAT / finite if finite else None

    def quantile(self, share: float) -> float | None:
        """The value in nats below which `share` of all values are, interpolated within a bin; None without values."""
        if self.count == 0:
            return None
        remaining = share * self.count
        for index in sorted(self.bins):
            if remaining <= self.bins[index]:
                return (index + remaining / self.bins[index]) / BINS_PER_NAT
            remaining -= self.bins[index]
        return float("inf") if self.infinite else NUM_BINS / BINS_PER_NAT


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistics:
    """Statistics of windows and targets.

    Attributes:
        positions_by_kind: `Kind` value to number of rows.
        targets: Rows with a target.
        head_entries: Stored head entries of all rows.
        head_widths: Head width to number of rows.
        sample_entries: Distinct drawn ids, summed over all rows and replicas.
        sample_draws: Draws of all rows and replicas.
        tail_mass_steps: Sum of tail masses, in 1/STEPS_PER_MASS.
        entropy: Entropy of the full distribution.
        tail: −log of the tail mass; infinite where the tail is empty.
        loss: −log p of the actual next token, over rows with a label: the teacher's loss on the corpus.
        top1_known: Rows with a label for which the teacher's most probable id is known.
        top1_hits: Rows of `top1_known` where that id is the actual next token.
        wide: Vocabulary statistics of a share of the windows; empty where they were not measured. (The field has the
            name of its stored key.)
    """

    positions_by_kind: dict[Annotated[int, Meta(ge=0, lt=NUM_KINDS)], Count] = field(default_factory=dict)
    targets: Count = 0
    head_entries: Count = 0
    head_widths: dict[Count, Count] = field(default_factory=dict)
    sample_entries: Count = 0
    sample_draws: Count = 0
    tail_mass_steps: Sum = 0
    entropy: Histogram = field(default_factory=Histogram)
    tail: Histogram = field(default_factory=Histogram)
    loss: Histogram = field(default_factory=Histogram)
    top1_known: Count = 0
    top1_hits: Count = 0
    wide: VocabularyStatistics = field(default_factory=VocabularyStatistics)

    @classmethod
    def of(
        cls,
        windows: "Windows",
        targets: "TargetRows",
        *,
        rows: "np.ndarray | None" = None,
        vocabulary: VocabularyStatistics | None = None,
    ) -> "Statistics":
        """Statistics of exact targets (from the scorer) or of decoded ones (from a shard; top-1 is then unknown).

        Args:
            windows, targets: T rows.
            rows: Which rows to count, bool [T]; all by default.
            vocabulary: What the scorer measured over the full vocabulary.
        """
        found = cls.of_rows(windows.kind, targets, rows=rows)
        if targets.top1_ids is not None:
            labeled = targets.has_label() if rows is None else rows & targets.has_label()
            hits = (targets.top1_ids == windows.next_token())[labeled]
            found = replace(found, top1_known=len(hits), top1_hits=int(hits.sum()))
        return found if vocabulary is None else replace(found, wide=vocabulary)

    @classmethod
    def of_rows(cls, kind: "np.ndarray", targets: "TargetRows", *, rows: "np.ndarray | None" = None) -> "Statistics":
        """Statistics that need no tokens: all except top-1 and vocabulary statistics.

        Args:
            kind: `Kind` of each row, uint8 [T].
            targets: T rows. The values of head entries are not used.
            rows: Which rows to count, bool [T]; all by default.
        """
        import numpy as np

        counted = np.ones(targets.num_positions, dtype=bool) if rows is None else rows
        with_target, labeled = counted & targets.has_target(), counted & targets.has_label()
        widths = targets.head_widths()[with_target]
        log_tail = targets.log_tail[with_target].astype(np.float64)
        drawn = [np.repeat(counted, np.diff(sample.offsets)) for sample in targets.tail_samples]
        return cls(
            positions_by_kind=_counts(kind[counted]),
            targets=int(with_target.sum()),
            head_entries=int(widths.sum()),
            head_widths=_counts(widths),
            sample_entries=sum(
                int((sample.first_draws() & kept).sum())
                for sample, kept in zip(targets.tail_samples, drawn, strict=True)
            ),
            sample_draws=sum(int(kept.sum()) for kept in drawn),
            tail_mass_steps=int(np.rint(np.exp(log_tail) * STEPS_PER_MASS).astype(np.int64).sum()),
            entropy=Histogram() if targets.entropy is None else Histogram.of(targets.entropy[with_target]),
            tail=Histogram.of(-log_tail),
            loss=Histogram.of(-targets.log_next[labeled]),
        )

    def __add__(self, other: "Statistics") -> "Statistics":
        pairs = {one.name: (getattr(self, one.name), getattr(other, one.name)) for one in fields(self)}
        return Statistics(**{name: _sum(*pair) for name, pair in pairs.items()})

    @classmethod
    def merge(cls, parts: Iterable["Statistics"]) -> "Statistics":
        """The sum of all parts."""
        total = cls()
        for part in parts:
            total += part
        return total

    def summary(self) -> dict[str, Any]:
        """Human-readable means and quantiles, in nats unless the name says otherwise; None where unknown."""
        per_target = (lambda value: value / self.targets) if self.targets else (lambda _value: None)
        return {
            "positions_by_kind": {_kind_name(kind): n for kind, n in sorted(self.positions_by_kind.items())},
            "targets": self.targets,
            "labels": self.loss.count,
            "teacher_loss_nats": self.loss.mean(),
            "loss_nats": _mean_and_quantiles(self.loss),
            "top1_agreement": self.top1_hits / self.top1_known if self.top1_known else None,
            "entropy_nats": _mean_and_quantiles(self.entropy),
            "head_width": {"mean": per_target(self.head_entries), **self._head_width_quantiles()},
            "tail_sample": {"draws": per_target(self.sample_draws), "different_ids": per_target(self.sample_entries)},
            "tail_mass": {
                "mean": per_target(self.tail_mass_steps / STEPS_PER_MASS),
                **self._tail_quantiles(),
            },
            "wide": self.wide.summary(),
        }

    def _head_width_quantiles(self) -> dict[str, int | None]:
        return {name: _count_quantile(self.head_widths, share) for name, share in _QUANTILES.items()}

    def _tail_quantiles(self) -> dict[str, float | None]:
        # −log mass falls as mass rises, so the p90 of the mass is the p10 of −log mass.
        quantiles = {name: self.tail.quantile(1 - share) for name, share in _QUANTILES.items()}
        return {name: None if nats is None else 2.718281828459045**-nats for name, nats in quantiles.items()}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _mean_and_quantiles(histogram: Histogram) -> dict[str, float | None]:
    return {
        "mean": histogram.mean(),
        **{name: histogram.quantile(share) for name, share in _QUANTILES.items()},
    }


def _count_quantile(counts: dict[int, int], share: float) -> int | None:
    remaining = share * sum(counts.values())
    for value in sorted(counts):
        remaining -= counts[value]
        if remaining <= 0:
            return value
    return None


def _kind_name(kind: int) -> str:
    return _KINDS[kind]


def _counts(values: "np.ndarray") -> dict[int, int]:
    """How often each of the small non-negative integers occurs."""
    import numpy as np

    counts = np.bincount(values)
    found = np.flatnonzero(counts)
    return dict(zip(found.tolist(), counts[found].tolist(), strict=True))


def _sum(a: Any, b: Any) -> Any:
    return sum_by_key([a, b]) if isinstance(a, dict) else a + b
