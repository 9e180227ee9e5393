"""The KL of two targets is zero for equal ones and a lower bound of the dense KL; windows match by content."""

import dataclasses

import numpy as np
import pytest

from logitcask.schemas.format.targets import Targets
from logitcask.schemas.inspection.comparison import compare, compare_targets


def stored(probs_TV: np.ndarray, widths: list[int]) -> Targets:
    """The targets of dense distributions with heads of these widths."""
    ids, log_probs, log_tail = [], [], []
    for probs_V, width in zip(probs_TV, widths, strict=True):
        head = np.sort(np.argsort(-probs_V, kind="stable")[:width])
        ids.append(head)
        log_probs.append(np.log(probs_V[head]))
        with np.errstate(divide="ignore"):
            log_tail.append(np.log(np.delete(probs_V, head).sum()))
    nothing = np.full(len(widths), np.nan, np.float32)
    return Targets(
        head_ids=np.concatenate(ids).astype(np.int32),
        head_log_probs=np.concatenate(log_probs).astype(np.float32),
        head_offsets=np.cumsum([0, *widths]),
        log_tail=np.array(log_tail, np.float32),
        log_next=nothing,
        entropy=None,
    )


@pytest.fixture
def dense(rng):
    return rng.dirichlet(np.full(50, 0.3), 20), rng.dirichlet(np.full(50, 0.3), 20)


def kl(p, q):
    return (p * np.log(p / q)).sum(-1)


def test_the_kl_is_over_merged_buckets_and_at_most_the_dense_kl(dense, rng):
    p_TV, q_TV = dense
    widths = [rng.integers(1, 30, 20).tolist() for _ in range(2)]
    a, b = stored(p_TV, widths[0]), stored(q_TV, widths[1])
    expected = reverse = same = shared_ids = 0.0
    for row, (p_V, q_V) in enumerate(zip(p_TV, q_TV, strict=True)):
        heads = [set(np.argsort(-one, kind="stable")[: w[row]]) for one, w in zip((p_V, q_V), widths, strict=True)]
        shared = sorted(heads[0] & heads[1])
        p, q = (np.append(one[shared], np.delete(one, shared).sum()) for one in (p_V, q_V))
        expected, reverse = expected + kl(p, q), reverse + kl(q, p)
        same += p_V.argmax() == q_V.argmax()
        shared_ids += len(shared)
    found = compare_targets(a, b)
    assert found.kl == pytest.approx(expected, rel=1e-4)
    assert found.reverse_kl == pytest.approx(reverse, rel=1e-4)
    assert 0 < found.kl < kl(p_TV, q_TV).sum()
    assert (found.rows, found.same_top, found.shared) == (20, same, shared_ids)


def test_whole_heads_give_the_dense_kl(dense):
    p_TV, q_TV = dense
    found = compare_targets(stored(p_TV, [50] * 20), stored(q_TV, [50] * 20))
    assert found.kl == pytest.approx(kl(p_TV, q_TV).sum(), rel=1e-4)


def test_infinite_rows_are_counted_and_not_part_of_the_means(dense):
    p_TV, _ = dense
    certain = np.zeros_like(p_TV)
    certain[:, 0] = 1
    b = dataclasses.replace(stored(p_TV, [1] * 20), log_tail=np.full(20, -np.inf, np.float32))
    found = compare_targets(stored(p_TV, [2] * 20), b)
    assert (found.rows, found.infinite, found.kl) == (20, 20, 0.0)


def test_a_dataset_agrees_with_itself(seen):
    agreement = compare(seen, seen)["agreement"]
    assert agreement["kl_a_to_b_nats"] == pytest.approx(0, abs=1e-9)
    assert (agreement["top1_agreement"], agreement["head_overlap"], agreement["infinite_rows"]) == (1, 1, 0)
    assert agreement["rows"] == seen.total().statistics.targets


def test_windows_are_matched_by_content_not_by_place(tmp_path, write_dataset, shards, seen):
    _, _, windows, targets = shards[0]
    rows = windows.window_offsets[3]
    tail = windows.select(3, 5), targets.select_rows(rows, windows.num_positions)
    other = write_dataset(str(tmp_path / "other"), [("elsewhere", "held-out", *tail)])
    comparison = compare(seen, other)
    assert comparison["windows"] == {"a": 10, "b": 2, "matched": 2}
    assert comparison["agreement"]["kl_a_to_b_nats"] == pytest.approx(0, abs=1e-9)
