import numpy as np

from logitcask.schemas.format.targets import Targets
from logitcask.schemas.inspection.top_ids import most_probable_ids, row_of_entry


def heads(*rows: list[tuple[int, float]]) -> Targets:
    """Targets with these (id, log-probability) entries."""
    entries = [entry for row in rows for entry in row]
    return Targets(
        head_ids=np.array([one for one, _ in entries], np.int32),
        head_log_probs=np.array([log_prob for _, log_prob in entries], np.float32),
        head_offsets=np.cumsum([0, *map(len, rows)]),
        log_tail=np.zeros(len(rows), np.float32),
        log_next=np.zeros(len(rows), np.float32),
        entropy=None,
    )


def test_the_most_probable_id_is_the_lowest_of_equal_ones():
    targets = heads([(3, -2.0), (5, -1.0), (9, -1.0)], [(1, -0.5)])
    assert most_probable_ids(targets).tolist() == [5, 1]


def test_a_row_without_a_head_has_no_most_probable_id():
    targets = heads([], [(7, -1.0)], [])
    assert most_probable_ids(targets).tolist() == [-1, 7, -1]
    assert row_of_entry(targets).tolist() == [1]
    assert most_probable_ids(heads([], [])).tolist() == [-1, -1]
