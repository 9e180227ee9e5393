"""Columns with one value per row: steps, and null where there is no value."""

import dataclasses

import numpy as np
import pyarrow as pa

from logitcask.schemas.format.columns.family import StoredColumns, TargetColumns
from logitcask.schemas.format.columns.single_values import (
    EntropyColumn,
    NextTokenColumn,
    TailColumn,
    TemperedTailColumns,
)
from logitcask.schemas.format.targets import Targets


def stored(columns: TargetColumns, targets: Targets, metadata) -> StoredColumns:
    pairs = list(columns.encode(targets, metadata, None))
    table = pa.Table.from_arrays([array for _, array in pairs], schema=pa.schema([field for field, _ in pairs]))
    return StoredColumns(single=table, lists={})


def test_a_zero_tail_is_65535_and_no_target_is_null(targets, metadata):
    log_tail = np.array([-1.0, -np.inf, np.nan, -100.0], np.float32)
    found = stored(TailColumn(), dataclasses.replace(targets, log_tail=log_tail), metadata)
    assert found.single["tail"].to_pylist() == [2048, 65535, None, 65534]
    decoded = TailColumn().decode(found)["log_tail"]
    np.testing.assert_array_equal(decoded, np.array([-1, -np.inf, np.nan, -65534 / 2048], np.float32))


def test_a_row_without_a_label_has_a_null_next_token(targets, metadata):
    found = stored(NextTokenColumn(), targets, metadata)
    np.testing.assert_array_equal(found.single["next_q"].is_null().to_numpy(), ~targets.has_label())
    decoded = NextTokenColumn().decode(found)["log_next"]
    np.testing.assert_allclose(decoded, targets.log_next, atol=0.5 / 2048 + 1e-6)


def test_entropy_is_stored_only_if_the_metadata_say_so(targets, metadata):
    assert stored(EntropyColumn(), targets, metadata).single.column_names == ["entropy"]
    without = stored(EntropyColumn(), targets, dataclasses.replace(metadata, has_entropy=False))
    assert without.single.column_names == []
    assert EntropyColumn().decode(without) == {"entropy": None}


def test_tempered_tails_are_named_by_their_temperature(targets, metadata):
    tails = {10.0: targets.log_tail, 0.5: targets.log_tail}
    found = stored(TemperedTailColumns(), dataclasses.replace(targets, tempered_log_tails=tails), metadata)
    assert found.single.column_names == ["tail@0.5", "tail@10"]
    assert sorted(TemperedTailColumns().decode(found)["tempered_log_tails"]) == [0.5, 10.0]
