"""A shard is plain Parquet: DuckDB, polars, pandas and `datasets` decode the same values as our reader.

Each of them decodes the plain columns by FORMAT.md §3.
"""

import dataclasses
import re
from typing import Any, NamedTuple

import numpy as np
import pytest
from repository import ROOT

from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.format.writer import encode_shard

FORMAT = ROOT / "FORMAT.md"


class Sums(NamedTuple):
    """Sums over a shard: rows, head ids, probabilities of head entries, probability outside, next-token loss."""

    num_rows: float
    ids: float
    p: float
    p_other: float
    next_loss_nats: float


@pytest.fixture
def path(tmp_path, windows, targets, metadata, monkeypatch) -> str:
    """A shard in the working directory, under the name that FORMAT.md uses, with a few zero tails."""
    log_tail = np.where(np.arange(windows.num_positions) % 7 == 0, targets.log_tail - np.inf, targets.log_tail)
    targets = dataclasses.replace(targets, log_tail=log_tail)
    (tmp_path / "shard.parquet").write_bytes(encode_shard(windows, targets, metadata).data)
    monkeypatch.chdir(tmp_path)
    return "shard.parquet"


@pytest.fixture
def truth(path) -> Sums:
    with ShardReader(path) as reader:
        targets = reader.read().targets
    assert np.isneginf(targets.log_tail).any()
    return Sums(
        num_rows=targets.num_positions,
        ids=int(targets.head_ids.sum(dtype=np.int64)),
        p=np.exp(targets.head_log_probs.astype(np.float64)).sum(),
        p_other=np.nansum(np.exp(targets.log_tail.astype(np.float64))),
        next_loss_nats=-np.nansum(targets.log_next.astype(np.float64)),
    )


def check(found: Sums, truth: Sums) -> None:
    assert (found.num_rows, found.ids) == (truth.num_rows, truth.ids)
    # Our reader returns float32.
    assert found[2:] == pytest.approx(truth[2:], rel=1e-6)


def sums_of_columns(ids: list, q: list, tail: Any, next_q: Any) -> Sums:
    """Sums from one list of ids and of q per row, and from float arrays of tail and next_q with NaN for null."""
    head = [np.exp(-(np.float64(row) / 64) * (1 + np.float64(row) / 64)) for row in q]
    rest = np.where(tail == 65535, 0, np.exp(-tail / 2048))
    mass = np.array([row.sum() for row in head]) + rest
    return Sums(
        num_rows=len(ids),
        ids=sum(int(np.sum(row, dtype=np.int64)) for row in ids),
        p=sum(row.sum() / total for row, total in zip(head, mass, strict=True) if len(row)),
        p_other=np.nansum(rest / mass),
        next_loss_nats=np.nansum(next_q / 2048),
    )


def test_the_sql_of_the_specification_gives_the_readers_sums(path, truth):
    duckdb = pytest.importorskip("duckdb")
    (query,) = re.findall(r"```sql\n(.*?);\n```", FORMAT.read_text(), flags=re.DOTALL)
    connection = duckdb.connect()
    sums = f"select sum(list_sum(ids)), sum(list_sum(p)), sum(p_other) from ({query})"
    ((ids, p, p_other),) = connection.sql(sums).fetchall()
    ((num_rows, next_loss),) = connection.sql(f"select count(*), sum(next_q / 2048.0) from '{path}'").fetchall()
    check(Sums(num_rows=num_rows, ids=ids, p=p, p_other=p_other, next_loss_nats=next_loss), truth)


def test_the_sql_of_the_specification_gives_the_readers_rows(path):
    duckdb = pytest.importorskip("duckdb")
    (query,) = re.findall(r"```sql\n(.*?);\n```", FORMAT.read_text(), flags=re.DOTALL)
    rows = duckdb.connect().sql(f"select p, p_other from ({query})").fetchall()
    with ShardReader(path) as reader:
        targets = reader.read().targets
    np.testing.assert_allclose(np.concatenate([p for p, _ in rows]), np.exp(targets.head_log_probs), rtol=1e-5)
    np.testing.assert_allclose(
        [p_other for _, p_other in rows], np.exp(targets.log_tail[targets.has_target()]), rtol=1e-5
    )


def test_polars_gives_the_readers_sums(path, truth):
    polars = pytest.importorskip("polars")
    column = polars.col
    u = polars.element().cast(polars.Float64) / 64
    tail = column("tail").cast(polars.Float64)
    raw_tail = polars.when(tail == 65535).then(0.0).otherwise((-tail / 2048).exp())
    frame = polars.read_parquet(path).with_columns(
        raw=column("q").list.eval((-u * (1 + u)).exp()).list.sum(),
        raw_tail=polars.when(tail.is_not_null()).then(raw_tail),
    )
    mass = column("raw") + column("raw_tail")
    (row,) = frame.select(
        num_rows=polars.len(),
        ids=column("ids").list.sum().cast(polars.Int64).sum(),
        p=(column("raw") / mass).sum(),
        p_other=(column("raw_tail") / mass).sum(),
        next_loss_nats=column("next_q").cast(polars.Float64).sum() / 2048,
    ).to_dicts()
    check(Sums(**row), truth)


def test_pandas_gives_the_readers_sums(path, truth):
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(path, engine="pyarrow")
    tail, next_q = (frame[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in ("tail", "next_q"))
    check(sums_of_columns(list(frame["ids"]), list(frame["q"]), tail, next_q), truth)


def test_datasets_gives_the_readers_sums(path, truth, tmp_path):
    datasets = pytest.importorskip("datasets")
    loaded = datasets.Dataset.from_parquet(path, cache_dir=str(tmp_path / "cache"))
    columns = {name: loaded[name][:] for name in ("ids", "q", "tail", "next_q")}
    tail, next_q = (np.array(columns[name], dtype=np.float64) for name in ("tail", "next_q"))
    check(sums_of_columns(columns["ids"], columns["q"], tail, next_q), truth)


def test_datasets_streams_a_shard(path, truth):
    datasets = pytest.importorskip("datasets")
    stream = datasets.load_dataset("parquet", data_files=path, split="train", streaming=True)
    assert sum(sum(row["ids"]) for row in stream) == truth.ids
