import dataclasses

import numpy as np
import pytest

from logitcask.schemas.format.targets import Kind, Part, TailSample, Targets, Windows


@pytest.fixture
def small() -> Windows:
    """Two windows: parts of 3 and 2 rows, then one of 4 whose first row is context."""
    return Windows(
        token=np.array([2, 10, 11, 2, 12, 2, 13, 14, 1], np.int32),
        kind=np.array([0, 0, 0, 0, 0, Kind.CONTEXT, 0, 0, 0], np.uint8),
        part=np.array([0, 0, 0, 1, 1, 2, 2, 2, 2], np.int32),
        window_offsets=np.array([0, 5, 9], np.int64),
        parts=tuple(Part(id=i, source="s", offset=o) for i, o in (("a", 0), ("b", 0), ("b", 1))),
    )


def test_positions_restart_with_each_part(small):
    assert small.position_ids().tolist() == [0, 1, 2, 0, 1, 0, 1, 2, 3]


def test_a_part_ends_with_its_window_even_if_its_index_continues(small):
    one_part = dataclasses.replace(small, part=np.zeros(9, np.int32))
    assert np.flatnonzero(one_part.part_starts()).tolist() == [0, 5]
    assert np.flatnonzero(one_part.part_ends()).tolist() == [4, 8]


def test_the_label_is_the_next_token_of_the_same_part(small):
    assert small.next_token().tolist() == [10, 11, -1, 12, -1, 13, 14, 1, -1]


def test_a_row_has_a_label_if_it_has_a_target_and_a_next_token(small):
    assert small.has_label().tolist() == [True, True, False, True, False, False, True, True, False]


def test_a_document_is_counted_where_it_begins(small):
    assert small.num_documents() == 2


def test_selecting_and_concatenating_gives_the_same_windows(small):
    again = Windows.concatenate([small.select(0, 1), small.select(1, 2)])
    np.testing.assert_array_equal(again.token, small.token)
    np.testing.assert_array_equal(again.window_offsets, small.window_offsets)
    np.testing.assert_array_equal(again.part_starts(), small.part_starts())
    assert [again.parts[i].id for i in again.part] == [small.parts[i].id for i in small.part]


@pytest.mark.parametrize(
    "change",
    [
        lambda w: dataclasses.replace(w, token=np.where(np.arange(9) == 6, 15, w.token).astype(np.int32)),
        lambda w: dataclasses.replace(w, kind=np.zeros(9, np.uint8)),
        lambda w: dataclasses.replace(w, part=np.array([0, 0, 0, 1, 1, 2, 2, 3, 3], np.int32)),
    ],
    ids=["a token", "a kind", "a part's start"],
)
def test_the_content_hash_covers_everything_a_target_depends_on(small, change):
    before, after = small.content_hashes(), change(small).content_hashes()
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_the_content_hash_does_not_depend_on_the_place_of_the_window(small):
    assert small.select(1, 2).content_hashes() == small.content_hashes()[1:]


def test_no_windows_concatenate_to_no_windows():
    assert Windows.concatenate([]).num_windows == 0


ARRAYS = ("head_ids", "head_log_probs", "head_offsets", "log_tail", "log_next", "entropy", "top1_ids")


def check_equal(found: Targets, expected: Targets) -> None:
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    assert list(found.tempered_log_tails) == list(expected.tempered_log_tails)
    for temperature, log_tail in expected.tempered_log_tails.items():
        np.testing.assert_array_equal(found.tempered_log_tails[temperature], log_tail)
    for sample, other in zip(found.tail_samples, expected.tail_samples, strict=True):
        np.testing.assert_array_equal(sample.ids, other.ids)
        np.testing.assert_array_equal(sample.offsets, other.offsets)


@pytest.fixture
def rich(targets, rng) -> Targets:
    """Targets with a value in every field."""
    offsets = np.cumsum([0, *np.where(targets.has_target(), rng.integers(0, 4, targets.num_positions), 0)])
    sample = TailSample(ids=rng.integers(0, 300, offsets[-1], dtype=np.int32), offsets=offsets)
    return dataclasses.replace(targets, tail_samples=(sample, sample), tempered_log_tails={2.0: targets.log_tail / 2})


def test_targets_survive_selecting_and_concatenating(rich):
    check_equal(Targets.concatenate([rich.select_rows(0, 70), rich.select_rows(70, rich.num_positions)]), rich)


def test_no_targets_concatenate_to_no_rows():
    none = Targets.concatenate([])
    assert (none.num_positions, none.entropy, none.tail_samples, none.tempered_log_tails) == (0, None, (), {})
    assert (none.log_tail.dtype, none.head_ids.dtype, none.head_offsets.tolist()) == (np.float32, np.int32, [0])


def test_an_optional_field_in_some_pieces_only_is_an_error(targets):
    with pytest.raises(AssertionError, match="some pieces only"):
        Targets.concatenate([targets, dataclasses.replace(targets, entropy=None)])


def test_filtering_keeps_the_chosen_rows(rich):
    kept = np.zeros(rich.num_positions, bool)
    kept[20:90] = True
    check_equal(rich.filter_rows(kept, np.zeros_like(kept)), rich.select_rows(20, 90))


def test_a_silenced_row_stays_without_a_target(rich):
    rows, silenced = np.ones(rich.num_positions, bool), np.arange(rich.num_positions) % 3 == 0
    found = rich.filter_rows(rows, silenced)
    assert found.num_positions == rich.num_positions
    for values in (found.log_tail, found.log_next, found.entropy, found.tempered_log_tails[2.0]):
        assert np.isnan(values[silenced]).all()
    assert (found.top1_ids[silenced] == -1).all()
    assert (found.head_widths()[silenced] == 0).all()
    assert (np.diff(found.tail_samples[1].offsets)[silenced] == 0).all()
    np.testing.assert_array_equal(found.log_tail[~silenced], rich.log_tail[~silenced])
