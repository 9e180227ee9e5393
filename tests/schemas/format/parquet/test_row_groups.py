"""Row groups: single values and lists of any of them, and lists that are not complete are refused."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from logitcask.schemas.format.parquet.row_groups import RowGroups

LISTS = [[5, 7], [], [1], [2, 4, 8]] * 2
TAILS = list(range(8))


@pytest.fixture
def groups() -> RowGroups:
    """Two row groups of four rows."""
    type_ = pa.list_(pa.field("element", pa.int32(), nullable=False))
    schema = pa.schema([pa.field("ids", type_, nullable=False), pa.field("tail@0.5", pa.uint16())])
    sink = io.BytesIO()
    pq.write_table(pa.table([LISTS, TAILS], schema=schema), sink, row_group_size=4, write_page_checksum=True)
    source = pa.BufferReader(sink.getvalue())
    return RowGroups(pq.ParquetFile(source, page_checksum_verification=True), source, len(sink.getvalue()))


def test_columns_are_named_as_in_the_schema(groups):
    assert groups.columns == ["ids", "tail@0.5"]


@pytest.mark.parametrize("chosen", [[0], [1], [0, 1]])
def test_rows_of_the_chosen_groups_are_read(groups, chosen):
    table, lists = groups.read(chosen, ["ids", "tail@0.5"])
    rows = [4 * group + row for group in chosen for row in range(4)]
    assert table["tail@0.5"].to_pylist() == [TAILS[row] for row in rows]
    assert lists["ids"].values.tolist() == [value for row in rows for value in LISTS[row]]
    assert np.diff(lists["ids"].offsets).tolist() == [len(LISTS[row]) for row in rows]


def test_no_groups_are_no_rows(groups):
    table, lists = groups.read([], ["ids", "tail@0.5"])
    assert (table.num_rows, len(lists["ids"].values), lists["ids"].offsets.tolist()) == (0, 0, [0])


def test_a_list_column_with_missing_entries_is_refused(groups, monkeypatch):
    class Truncated:
        """The footer's metadata, as if every list column had one more value."""

        def __init__(self, chunk) -> None:
            self._chunk = chunk

        def __getattr__(self, name):
            return self._chunk.num_values + 1 if name == "num_values" else getattr(self._chunk, name)

    chunk = groups._chunk
    monkeypatch.setattr(groups, "_chunk", lambda group, column: Truncated(chunk(group, column)))
    with pytest.raises(ValueError, match="column 'ids' holds 7 values, the footer states 8"):
        groups.read([0], ["ids"])
