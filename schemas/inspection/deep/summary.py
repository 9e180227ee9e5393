"""Statistics that require every row of a dataset, and a check of the figures in its snapshot."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from logitcask.schemas.dataset.snapshot import Snapshot
from logitcask.schemas.dataset.vocabulary import Vocabulary
from logitcask.schemas.inspection.deep.row_sums import NUM_BUCKETS, DeepSums
from logitcask.schemas.inspection.deep.shard_sums import sum_shards
from logitcask.schemas.stats.target_statistics import Statistics
from logitcask.schemas.stats.vocabulary_statistics import WIDTHS

_NUM_HARDEST = 12
# Maximum difference between a mean over stored values and the mean over the teacher's values. Nats: half a step of
# 1/2048 nat, and saturation at 32 nats. Mass: decoding divides a tail by the sum of head and tail.
_NATS_TOLERANCE, _MASS_TOLERANCE = 2e-3, 1e-2


def describe_rows(
    snapshot: Snapshot, vocabulary: Vocabulary | None = None, *, progress: Callable[[int], None] = lambda _rows: None
) -> dict[str, Any]:
    """Reads all targets of a snapshot except the ids of heads; the value of `deep` in `inspect --deep --json`.

    Args:
        snapshot: The snapshot to read.
        vocabulary: The text of ids, if it is known.
        progress: Called with the number of rows of each finished shard.

    Raises:
        CorruptShardError, MissingShardError: A shard is missing, or a column that is read is damaged.
    """
    started_seconds = time.perf_counter()
    sums = sum_shards(snapshot, progress)
    seconds = time.perf_counter() - started_seconds
    num_rows = sum(sums.statistics.positions_by_kind.values())
    return {
        "rows": num_rows,
        "seconds": seconds,
        "tokens_per_second": num_rows / seconds,
        **_describe_heads(sums),
        "entropy_loss_correlation": _correlation(sums.moments),
        **_describe_calibration(sums.buckets),
        "hardest_ids": _describe_hardest(sums, vocabulary),
        "checks": list(_checks(sums.statistics, snapshot.total().statistics)),
    }


def _describe_heads(sums: DeepSums) -> dict[str, Any]:
    """Mean mass of the k largest stored entries (a lower bound where heads are narrower); share of heads with k."""
    targets = max(sums.statistics.targets, 1)
    widths = sums.statistics.head_widths
    masses = zip(WIDTHS, sums.mass_of_top_k.tolist(), strict=True) if sums.statistics.head_entries else ()
    return {
        "mass_of_top_k_stored": {str(k): mass / targets for k, mass in masses},
        "share_of_heads_with_k": {
            str(k): sum(n for width, n in widths.items() if width >= k) / targets for k in WIDTHS
        },
    }


def _correlation(moments: np.ndarray) -> float | None:
    """Pearson's correlation of entropy and loss; None where either is constant."""
    n, e, l, ee, ll, el = moments.tolist()  # noqa: E741
    variance = (n * ee - e * e) * (n * ll - l * l)
    return (n * el - e * l) / variance**0.5 if variance > 0 else None


def _describe_calibration(buckets: np.ndarray) -> dict[str, Any]:
    """Hit rate of the most probable id by its probability, and the expected calibration error over ten buckets."""
    rows = buckets[:, 0]
    described = [
        {
            "from": index / NUM_BUCKETS,
            "to": (index + 1) / NUM_BUCKETS,
            "rows": int(count),
            "mean_p": float(p / count),
            "hit_rate": float(hits / count),
        }
        for index, (count, p, hits) in enumerate(buckets)
        if count
    ]
    error = float(np.abs(buckets[:, 1] - buckets[:, 2]).sum() / rows.sum()) if rows.any() else None
    return {"calibration": described, "expected_calibration_error": error}


def _describe_hardest(sums: DeepSums, vocabulary: Vocabulary | None) -> list[dict[str, Any]]:
    """The label ids with the largest share of the teacher's loss."""
    total = float(sums.by_label[:, 2].sum())
    order = np.argsort(-sums.by_label[:, 2], kind="stable")[:_NUM_HARDEST]
    return [
        {
            "id": token_id,
            "piece": None if vocabulary is None else vocabulary.piece(token_id).decode(errors="replace"),
            "labels": int(labels),
            "misses": int(misses) if sums.statistics.head_entries else None,
            "mean_loss_nats": loss / labels,
            "share_of_loss": loss / total if total else 0.0,
        }
        for token_id, (labels, misses, loss) in zip(
            sums.label_ids[order].tolist(), sums.by_label[order].tolist(), strict=True
        )
    ]


def _checks(found: Statistics, stated: Statistics) -> Iterator[dict[str, Any]]:
    """Compares the figures of the snapshot with those of the shards."""
    per_target = max(stated.targets, 1) * 2**32
    for what, ours, theirs, tolerance in [
        ("targets", found.targets, stated.targets, 0),
        ("labels", found.loss.count, stated.loss.count, 0),
        ("head entries", found.head_entries, stated.head_entries, 0),
        ("drawn ids", found.sample_draws, stated.sample_draws, 0),
        ("mean teacher loss", found.loss.mean(), stated.loss.mean(), _NATS_TOLERANCE),
        ("mean entropy", found.entropy.mean(), stated.entropy.mean(), _NATS_TOLERANCE),
        ("mean tail mass", found.tail_mass_steps / per_target, stated.tail_mass_steps / per_target, _MASS_TOLERANCE),
    ]:
        # Older snapshots do not count draws; shards without the entropy column have no mean entropy.
        if ours is None or theirs is None or (what == "drawn ids" and not theirs):
            continue
        yield {
            "what": what,
            "shards": ours,
            "snapshot": theirs,
            "tolerance": tolerance,
            "holds": abs(ours - theirs) <= tolerance,
        }
