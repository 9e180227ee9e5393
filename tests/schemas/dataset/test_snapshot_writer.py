"""Writing snapshots: each number once, and none that says the same as the latest."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest

from logitcask.schemas.dataset.identity import Identity
from logitcask.schemas.dataset.shard_view import stored_record
from logitcask.schemas.dataset.snapshot import Snapshot, load_snapshot, snapshot_numbers
from logitcask.schemas.dataset.snapshot_writer import Draft, draft_digest, publish, write_draft


@pytest.fixture
def draft(small_dataset) -> Draft:
    """What the first snapshot of the small dataset says."""
    return Draft.of_records(
        [stored_record(small_dataset, entry) for entry in small_dataset.shards()],
        complete=True,
        identity=small_dataset.identity,
        num_documents_in=small_dataset.num_documents_in,
        rejected=small_dataset.rejected,
    )


def test_the_same_again_makes_no_new_snapshot(small_dataset, draft):
    assert write_draft(small_dataset.url, draft) == small_dataset
    assert draft_digest(draft) == small_dataset.shards_digest
    fewer = write_draft(small_dataset.url, dataclasses.replace(draft, complete=False, shards=draft.shards[:1]))
    assert (fewer.number, snapshot_numbers(small_dataset.url)) == (2, [1, 2])


def test_writers_that_race_get_different_numbers(tmp_path):
    def write(num_documents: int) -> Snapshot:
        draft = Draft.of_records([], complete=False, identity=Identity(), num_documents_in=num_documents, rejected={})
        return write_draft(str(tmp_path), draft)

    with ThreadPoolExecutor(4) as pool:
        numbers = [snapshot.number for snapshot in pool.map(write, range(8))]
    assert sorted(numbers) == list(range(1, 9))


def test_a_number_that_exists_is_not_published_again(small_dataset, draft):
    assert publish(small_dataset.url, dataclasses.replace(draft, rejected={}), 1) is None
    assert load_snapshot(small_dataset.url) == small_dataset


def test_a_list_of_shards_without_rules_has_no_column_for_them(small_dataset, draft):
    """So that it has the bytes, and the digest, that the first release gave it."""
    with_rule = [dataclasses.replace(draft.shards[0], selection=0), *draft.shards[1:]]
    assert draft_digest(dataclasses.replace(draft, shards=with_rule)) != draft_digest(draft)
    again = publish(small_dataset.url, dataclasses.replace(draft, shards=with_rule, selections=((),)), 2)
    assert again is not None
    assert [entry.selection for entry in again.shards()] == [0, None, None]
