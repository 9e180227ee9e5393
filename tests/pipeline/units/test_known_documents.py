"""Known documents: exact sets of 64-bit hashes, in files that are mapped into memory."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logitcask.pipeline.units import known_documents
from logitcask.pipeline.units.known_documents import (
    KnownDocuments,
    document_hash,
    hashes_of_shards,
    read_unit_hashes,
    remove_index,
    write_index,
    write_unit_hashes,
)
from logitcask.schemas import storage
from logitcask.schemas.dataset.snapshot import Snapshot, load_snapshot

HASHES = st.lists(st.integers(0, 2**64 - 1), max_size=50)


@given(st.lists(HASHES, max_size=5), HASHES, st.integers(1, 40))
def test_an_index_holds_exactly_the_hashes_of_its_sources(tmp_path_factory, sources, others, part_hashes):
    out = str(tmp_path_factory.mktemp("known"))
    arrays = [np.unique(np.array(one, "<u8")) for one in sources]
    known = {hash_ for one in sources for hash_ in one}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(known_documents, "_PART_HASHES", part_hashes)
        urls = write_index(out, "append", arrays, sum(map(len, arrays)))
    index = KnownDocuments(urls)
    assert all(hash_ in index for hash_ in known)
    assert [hash_ for hash_ in others if hash_ in index] == [hash_ for hash_ in others if hash_ in known]
    remove_index(out, "append")
    assert not storage.list_files(out)


def test_an_index_in_an_object_store_is_the_same(dataset_url: str) -> None:
    urls = write_index(dataset_url, "append", [np.array([1, 2**63, 2**64 - 1], "<u8")], 3)
    index = KnownDocuments(urls)
    assert [one in index for one in (0, 1, 2**63, 2**63 + 1, 2**64 - 1)] == [False, True, True, False, True]


def test_without_an_index_no_document_is_known() -> None:
    assert 0 not in KnownDocuments(())


def test_hashes_of_a_unit_come_back_sorted(dataset_url: str) -> None:
    assert read_unit_hashes(dataset_url, "000000-0") is None
    write_unit_hashes(dataset_url, "000000-0", [2**64 - 1, 3, 3, 7])
    hashes = read_unit_hashes(dataset_url, "000000-0")
    assert hashes is not None
    assert hashes.tolist() == [3, 7, 2**64 - 1]


def test_an_end_token_does_not_change_a_documents_hash() -> None:
    ids = np.array([5, 6, 1])
    assert document_hash(ids, 1) == document_hash(ids[:2], 1) == document_hash(ids[:2].astype(np.int64), None)
    assert document_hash(ids, None) != document_hash(ids, 1)


def test_shards_give_the_hashes_that_the_first_stage_recorded(finished_job) -> None:
    snapshot: Snapshot = load_snapshot(finished_job.out)
    recorded = [
        hash_
        for file in storage.list_files(storage.join(finished_job.out, "tokens", "documents"))
        for hash_ in np.frombuffer(storage.read_bytes(file.url), "<u8").tolist()
    ]
    assert sorted(hash_ for one in hashes_of_shards(snapshot) for hash_ in one.tolist()) == sorted(recorded)
    assert len(recorded) == snapshot.total().num_documents
