"""What a shard's targets look like, in numbers that merge exactly.

Counts, sums in integer steps, and histograms with fixed bins: adding the statistics of two shards gives, to the last
bit, the statistics of both, in any order. Quantiles come from the histograms, within one bin.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from logitcask.schemas.stats.sum_by_key import sum_by_key
from logitcask.schemas.stats.vocabulary_statistics import WideStatistics

if TYPE_CHECKING:
    # Only `of` computes with arrays; reading statistics must not cost the import.
    import numpy as np

    from logitcask.schemas.format.targets import TargetRows, Windows

BINS_PER_NAT = 16
NUM_BINS = 32 * BINS_PER_NAT
# Sums are kept in these fractions of a nat, and of the unit mass.
STEPS_PER_NAT = 1 << 20
STEPS_PER_MASS = 1 << 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Histogram:
    """Counts of a non-negative quantity in nats.

    Attributes:
        count: Values seen.
        sum_steps: Their sum, in 1/STEPS_PER_NAT nat.
        bins: Bin index to count; bin i covers [i, i + 1) / BINS_PER_NAT; the last also all beyond.
        infinite: Values that were infinite; neither in `sum_steps` nor in `bins`, but in `count`.
    """

    count: int = 0
    sum_steps: int = 0
    bins: dict[int, int] = field(default_factory=dict)
    infinite: int = 0

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
        """Mean of the finite values in nats; None without any."""
        finite = self.count - self.infinite
        return self.sum_steps / STEPS_PER_NAT / finite if finite else None

    def quantile(self, share: float) -> float | None:
        """The value in nats below which `share` of all values lie, interpolated within a bin; None without any."""
        if self.count == 0:
            return None
        wanted = share * self.count
        for index in sorted(self.bins):
            if wanted <= self.bins[index]:
                return (index + wanted / self.bins[index]) / BINS_PER_NAT
            wanted -= self.bins[index]
        return float("inf") if self.infinite else NUM_BINS / BINS_PER_NAT


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistics:
    """Statistics of windows and targets.

    Attributes:
        positions_by_kind: `Kind` value to rows.
        targets: Rows with a target.
        head_entries: Stored entries over all rows.
        head_widths: Width to rows that have it.
        sample_entries: Different drawn ids over all rows and replicas; what repeats is counted once.
        sample_draws: Draws over all rows and replicas.
        tail_mass_steps: Sum of tail masses, in 1/STEPS_PER_MASS.
        entropy: Of the full distribution.
        tail: −log of the tail mass; infinite where the tail is empty.
        loss: −log p of the actual next token, over rows with a label: the teacher's loss on the corpus.
        top1_known: Rows with a label for which the teacher's most probable id is known.
        top1_hits: Those of them where it is the actual next token.
        wide: Of a share of the windows, over the whole vocabulary; empty where nobody measured it.
    """

    positions_by_kind: dict[int, int] = field(default_factory=dict)
    targets: int = 0
    head_entries: int = 0
    head_widths: dict[int, int] = field(default_factory=dict)
    sample_entries: int = 0
    sample_draws: int = 0
    tail_mass_steps: int = 0
    entropy: Histogram = field(default_factory=Histogram)
    tail: Histogram = field(default_factory=Histogram)
    loss: Histogram = field(default_factory=Histogram)
    top1_known: int = 0
    top1_hits: int = 0
    wide: WideStatistics = field(default_factory=WideStatistics)

    @classmethod
    def of(
        cls,
        windows: "Windows",
        targets: "TargetRows",
        *,
        rows: "np.ndarray | None" = None,
        wide: WideStatistics | None = None,
    ) -> "Statistics":
        """Statistics of exact targets (from the scorer) or decoded ones (from a shard; top-1 is then unknown).

        Args:
            windows, targets: T rows.
            rows: Which of them count, bool [T]; all by default.
            wide: Measured by whoever held all logits.
        """
        found = cls.of_rows(windows.kind, targets, rows=rows)
        if targets.top1_ids is not None:
            labelled = targets.has_label() if rows is None else rows & targets.has_label()
            hits = (targets.top1_ids == windows.next_token())[labelled]
            found = replace(found, top1_known=len(hits), top1_hits=int(hits.sum()))
        return found if wide is None else replace(found, wide=wide)

    @classmethod
    def of_rows(cls, kind: "np.ndarray", targets: "TargetRows", *, rows: "np.ndarray | None" = None) -> "Statistics":
        """All that needs no tokens: neither top-1 nor wide statistics.

        Args:
            kind: `Kind` of each row, uint8 [T].
            targets: T rows; the entries of their heads are not looked at.
            rows: Which of them count, bool [T]; all by default.
        """
        import numpy as np

        counted = np.ones(targets.num_positions, dtype=bool) if rows is None else rows
        with_target, labelled = counted & targets.has_target(), counted & targets.has_label()
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
            loss=Histogram.of(-targets.log_next[labelled]),
        )

    def __add__(self, other: "Statistics") -> "Statistics":
        merged = {
            one.name: _ADD.get(type(getattr(self, one.name)), lambda a, b: a + b)(
                getattr(self, one.name), getattr(other, one.name)
            )
            for one in fields(self)
        }
        return Statistics(**merged)

    @classmethod
    def merge(cls, parts: Iterable["Statistics"]) -> "Statistics":
        """The statistics of all parts together."""
        total = cls()
        for part in parts:
            total += part
        return total

    def summary(self) -> dict[str, Any]:
        """Means and quantiles for people: nats, except where the name says otherwise; None where unknown."""
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
        return {name: _count_quantile(self.head_widths, share) for name, share in QUANTILES.items()}

    def _tail_quantiles(self) -> dict[str, float | None]:
        # −log mass falls as mass rises: the p90 of mass is the p10 of its −log.
        quantiles = {name: self.tail.quantile(1 - share) for name, share in QUANTILES.items()}
        return {name: None if nats is None else 2.718281828459045**-nats for name, nats in quantiles.items()}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Statistics":
        histograms = {
            name: Histogram(**{**value[name], "bins": _int_keys(value[name]["bins"])})
            for name in ("entropy", "tail", "loss")
        }
        counts = {name: _int_keys(value[name]) for name in ("positions_by_kind", "head_widths")}
        # Records written before there were wide statistics lack them.
        wide = WideStatistics.from_json(value["wide"]) if "wide" in value else WideStatistics()
        return cls(**{**value, **histograms, **counts, "wide": wide})


QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9, "p99": 0.99}


def _mean_and_quantiles(histogram: Histogram) -> dict[str, float | None]:
    return {
        "mean": histogram.mean(),
        **{name: histogram.quantile(share) for name, share in QUANTILES.items()},
    }


def _count_quantile(counts: dict[int, int], share: float) -> int | None:
    wanted = share * sum(counts.values())
    for value in sorted(counts):
        wanted -= counts[value]
        if wanted <= 0:
            return value
    return None


def _kind_name(kind: int) -> str:
    return ("train", "context", "prompt", "generated")[kind]


def _counts(values: "np.ndarray") -> dict[int, int]:
    """How often each of some small non-negative integers occurs."""
    import numpy as np

    counts = np.bincount(values)
    found = np.flatnonzero(counts)
    return dict(zip(found.tolist(), counts[found].tolist(), strict=True))


def _int_keys(counts: dict[str, int]) -> dict[int, int]:
    return {int(key): count for key, count in counts.items()}


_ADD: dict[type, Callable[[Any, Any], Any]] = {dict: lambda a, b: sum_by_key([a, b])}
