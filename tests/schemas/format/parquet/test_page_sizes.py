"""What a Parquet file declares is compared with its bytes before memory is taken; files of our writer pass."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from logitcask.schemas.format.parquet import page_sizes
from logitcask.schemas.format.parquet.page_sizes import check_column_chunks, check_num_values


def check(table: pa.Table, **options) -> None:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", **options)
    data = sink.getvalue()
    metadata = pq.read_metadata(io.BytesIO(data))
    groups, columns = range(metadata.num_row_groups), range(metadata.num_columns)
    check_column_chunks(metadata, groups, columns, lambda at, length: data[at : at + length], len(data))


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("use_dictionary", [True, False])
def test_pages_of_either_version_with_statistics_and_dictionaries_pass(version, use_dictionary):
    table = pa.table({"a": range(5000), "b": [f"text {i % 7}" for i in range(5000)], "c": [[1, 2], []] * 2500})
    check(table, data_page_version=version, use_dictionary=use_dictionary, data_page_size=1000, row_group_size=2000)


def test_a_long_text_in_few_bytes_is_refused():
    table = pa.table({"text": ["a" * 200_000_000]})
    with pytest.raises(ValueError, match="a page of column 'text' declares 200,"):
        check(table, use_dictionary=False, write_statistics=False)


def test_lists_of_more_entries_than_the_file_can_hold_are_refused(monkeypatch):
    monkeypatch.setattr(page_sizes, "_FREE_VALUES", 1000)
    table = pa.table({"ids": [[7] * 1_000_000]})
    with pytest.raises(ValueError, match=r"1,000,000 values of column 'ids.list.element' in a file of"):
        check(table)


def test_more_rows_than_a_file_can_hold_are_refused():
    check_num_values(4_000_000, 1000, "rows")
    with pytest.raises(ValueError, match=r"1,000,000,000 rows in a file of 4,000 bytes"):
        check_num_values(10**9, 4000, "rows")
