"""Heads: `ids` (or `id_gaps` in the layout "compact") and `q`, two lists of equal length per row."""

from typing import Any

import numpy as np
import pyarrow as pa

from logitcask.schemas.format import id_gaps, quantizer
from logitcask.schemas.format.columns.family import (
    BrokenRules,
    EncodedColumns,
    StoredColumns,
    TargetColumns,
    check_ids,
    list_column,
    list_type,
    outside_vocabulary,
)
from logitcask.schemas.format.metadata import ShardMetadata
from logitcask.schemas.format.targets import TargetRows, Targets, Windows

IDS, ID_GAPS, Q = "ids", "id_gaps", "q"
ID_COLUMNS = (IDS, ID_GAPS)
# How far head and tail together may be from one. Rounding to stored values moves their sum by up to a percent, and by
# more only where nearly all entries are equal.
MASS_TOLERANCE = 0.02
_IDS_TYPE, _Q_TYPE = list_type(pa.int32()), list_type(pa.uint8())


class HeadColumns(TargetColumns):
    """Head entries. Rows without a target have empty lists."""

    is_optional = False

    def owns(self, column: str) -> bool:
        return column in (*ID_COLUMNS, Q)

    def field(self, column: str) -> pa.Field:
        return pa.field(column, _Q_TYPE if column == Q else _IDS_TYPE, nullable=False)

    def required(self, metadata: ShardMetadata) -> list[str]:
        return [IDS if metadata.layout == "plain" else ID_GAPS, Q]

    def encode(self, targets: Targets, metadata: ShardMetadata, frequent_ids: np.ndarray | None) -> EncodedColumns:
        ids, q = targets.head_ids, quantizer.quantize_head(targets.head_log_probs)
        check_ids("head", ids, metadata.vocab_size)
        if frequent_ids is not None:
            by_rank = id_gaps.ids_by_rank(frequent_ids, metadata.vocab_size)
            ids, q = id_gaps.to_gaps(ids, q, targets.head_offsets, by_rank)
        name = IDS if frequent_ids is None else ID_GAPS
        yield self.field(name), list_column(ids, targets.head_offsets, _IDS_TYPE)
        yield self.field(Q), list_column(q, targets.head_offsets, _Q_TYPE)

    def decode(self, stored: StoredColumns) -> dict[str, Any]:
        q, lists = stored.lists[Q], stored.lists
        ids, values = np.zeros(0, np.int32), q.values
        for name in ID_COLUMNS:
            if name in lists and not np.array_equal(lists[name].offsets, q.offsets):
                raise ValueError(f"a row does not have equally many {name!r} and {Q!r}")
        if IDS in lists:
            ids = lists[IDS].values
        elif ID_GAPS in lists:
            assert stored.ids_by_rank is not None, "gaps need the ids by rank"
            ids, values = id_gaps.from_gaps(lists[ID_GAPS].values, values, q.offsets, stored.ids_by_rank)
        return {"head_ids": ids, "head_q": values, "head_offsets": q.offsets}

    def broken_rules(self, windows: Windows, targets: TargetRows, metadata: ShardMetadata) -> BrokenRules:
        widths, has_target = targets.head_widths(), targets.has_target()
        ascends = np.ones(len(targets.head_ids), dtype=bool)
        ascends[1:] = np.diff(targets.head_ids) > 0
        ascends[targets.head_offsets[:-1][widths > 0]] = True
        row_of_entry = np.repeat(np.arange(targets.num_positions), widths)
        is_drawn = [np.diff(sample.offsets) > 0 for sample in targets.tail_samples]
        is_sampled = np.all(is_drawn, axis=0) if is_drawn else np.zeros(targets.num_positions, dtype=bool)
        yield (
            "a head id is outside the vocabulary",
            row_of_entry[outside_vocabulary(targets.head_ids, metadata.vocab_size)],
        )
        yield "head ids do not ascend", row_of_entry[~ascends]
        yield "a row without a target has a head", np.flatnonzero((widths > 0) & ~has_target)
        empty = (widths == 0) & has_target & ~is_sampled
        yield "a trained row has an empty head, and no tail sample", np.flatnonzero(empty)
        if metadata.scheme is not None:
            yield (
                "a head has more entries than the scheme allows",
                np.flatnonzero(widths > metadata.scheme.max_head_width),
            )
        mass, rounding = targets.mass()
        is_one = np.abs(mass - 1) <= np.maximum(MASS_TOLERANCE, rounding)
        yield (
            f"head and tail do not add up to one within {100 * MASS_TOLERANCE:g} %",
            np.flatnonzero(has_target & ~is_one),
        )
