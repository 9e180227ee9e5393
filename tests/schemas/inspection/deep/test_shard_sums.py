from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from logitcask.schemas.errors import CorruptShardError
from logitcask.schemas.inspection.deep.shard_sums import sum_shards


def test_several_processes_give_exactly_the_sums_of_one(seen):
    rows_of_shards = []
    one = sum_shards(seen, lambda _rows: None, num_processes=1)
    two = sum_shards(seen, rows_of_shards.append, num_processes=2)
    assert one.statistics == two.statistics
    for name in ("mass_of_top_k", "moments", "buckets", "label_ids", "by_label"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert rows_of_shards == [entry.num_positions for entry in seen.shards()]


def test_a_damaged_shard_in_another_process_is_named(seen):
    file = Path(seen.shard_url(seen.shards()[1]))
    group = pq.read_metadata(file).row_group(0)
    columns = [group.column(index) for index in range(group.num_columns)]
    (masses,) = (column for column in columns if column.path_in_schema == "q.list.element")
    data = bytearray(file.read_bytes())
    # Not in the ids, which are not read; `verify` checks those.
    data[masses.data_page_offset + masses.total_compressed_size // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(CorruptShardError, match=file.name):
        sum_shards(seen, lambda _rows: None, num_processes=2)
