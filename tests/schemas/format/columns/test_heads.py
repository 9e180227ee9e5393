"""Head columns: contradictions between ids and values are refused."""

import numpy as np
import pyarrow as pa
import pytest

from logitcask.schemas.errors import VocabularyError
from logitcask.schemas.format.columns.family import StoredColumns
from logitcask.schemas.format.columns.heads import HeadColumns
from logitcask.schemas.format.ragged import Lists

Q = Lists(values=np.array([10, 20, 30], np.uint8), offsets=np.array([0, 2, 2, 3]))


def decode(**lists: Lists) -> dict:
    return HeadColumns().decode(
        StoredColumns(single=pa.table({}), lists=lists, ids_by_rank=np.arange(9, dtype=np.int32))
    )


def test_ids_and_values_are_taken_as_they_are():
    ids = Lists(values=np.array([4, 7, 1], np.int32), offsets=Q.offsets)
    found = decode(ids=ids, q=Q)
    assert (found["head_ids"].tolist(), found["head_q"].tolist()) == ([4, 7, 1], [10, 20, 30])
    assert found["head_offsets"].tolist() == [0, 2, 2, 3]


def test_gaps_become_ascending_ids():
    gaps = Lists(values=np.array([4, 3, 1], np.int32), offsets=Q.offsets)
    assert decode(id_gaps=gaps, q=Q)["head_ids"].tolist() == [4, 7, 1]


def test_without_ids_heads_have_only_values():
    found = decode(q=Q)
    assert (len(found["head_ids"]), found["head_q"].tolist()) == (0, [10, 20, 30])


@pytest.mark.parametrize("name", ["ids", "id_gaps"])
def test_rows_with_another_number_of_ids_than_values_are_refused(name):
    ids = Lists(values=np.array([4, 7, 1], np.int32), offsets=np.array([0, 1, 2, 3]))
    with pytest.raises(ValueError, match=f"a row does not have equally many '{name}' and 'q'"):
        decode(**{name: ids, "q": Q})


def test_a_head_id_outside_the_vocabulary_is_refused(targets, metadata):
    targets.head_ids[3] = 300
    with pytest.raises(VocabularyError, match="head id 300 at entry 3"):
        list(HeadColumns().encode(targets, metadata, None))
