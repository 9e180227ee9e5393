import dataclasses

import numpy as np
import pytest

from logitcask.schemas.format.targets import Kind, Part, Targets, Windows


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


def test_a_part_ends_where_the_window_ends_even_if_its_number_goes_on(small):
    one_part = dataclasses.replace(small, part=np.zeros(9, np.int32))
    assert np.flatnonzero(one_part.part_starts()).tolist() == [0, 5]
    assert np.flatnonzero(one_part.part_ends()).tolist() == [4, 8]


def test_the_label_is_the_next_token_of_the_same_part(small):
    assert small.next_token().tolist() == [10, 11, -1, 12, -1, 13, 14, 1, -1]


def test_a_row_has_a_label_if_it_has_a_target_and_a_next_token(small):
    assert small.has_label().tolist() == [True, True, False, True, False, False, True, True, False]


def test_a_document_counts_where_it_begins(small):
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
def test_the_content_hash_covers_what_a_target_depends_on(small, change):
    before, after = small.content_hashes(), change(small).content_hashes()
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_the_content_hash_does_not_depend_on_where_the_window_stands(small):
    assert small.select(1, 2).content_hashes() == small.content_hashes()[1:]


def test_targets_survive_cutting_and_joining(targets):
    cut = Targets.concatenate([targets.select_rows(0, 70), targets.select_rows(70, targets.num_positions)])
    for field in dataclasses.fields(Targets)[:7]:
        np.testing.assert_array_equal(getattr(cut, field.name), getattr(targets, field.name))
