from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Rewrite = Callable[[Callable[[pa.Table, dict[bytes, bytes]], tuple[pa.Table, dict[bytes, bytes]]]], str]


@pytest.fixture
def path(tmp_path, encoded) -> str:
    """A target shard in a file."""
    file = tmp_path / "shard.parquet"
    file.write_bytes(encoded.data)
    return str(file)


@pytest.fixture
def rewrite(path) -> Rewrite:
    """Writes the shard again, with a function applied to its table and its footer's key-value metadata."""

    def write(change) -> str:
        table, metadata = change(pq.read_table(path), dict(pq.read_metadata(path).metadata))
        with pq.ParquetWriter(path, table.schema.remove_metadata(), store_schema=False) as writer:
            writer.write_table(table.replace_schema_metadata(None))
            writer.add_key_value_metadata({key.decode(): value.decode() for key, value in metadata.items()})
        return path

    return write
