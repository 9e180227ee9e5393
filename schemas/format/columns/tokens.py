"""The columns that every shard has: `window`, `document`, `token`, `kind`."""

import numpy as np
import pyarrow as pa

from logitcask.schemas.format.columns.family import BrokenRules, check_ids, outside_vocabulary
from logitcask.schemas.format.metadata import ShardMetadata
from logitcask.schemas.format.targets import Kind, Part, Windows

TOKEN_FIELDS = (
    pa.field("window", pa.int32(), nullable=False),
    pa.field("document", pa.int32(), nullable=False),
    pa.field("token", pa.int32(), nullable=False),
    pa.field("kind", pa.uint8(), nullable=False),
)
TOKEN_COLUMNS = tuple(field.name for field in TOKEN_FIELDS)


def encode_windows(windows: Windows, vocab_size: int) -> pa.Table:
    """The token columns of windows.

    Raises:
        VocabularyError: A token is negative or not below the vocabulary's size.
    """
    check_ids("token", windows.token, vocab_size)
    columns = (windows.window_index(), windows.part, windows.token, windows.kind)
    return pa.Table.from_arrays([pa.array(column) for column in columns], schema=pa.schema(TOKEN_FIELDS))


def decode_windows(table: pa.Table, first_window: int, window_offsets: np.ndarray, parts: tuple[Part, ...]) -> Windows:
    """Windows from their token columns.

    Args:
        table: The columns of T rows.
        first_window: Index of the first window in the shard.
        window_offsets: First row of each window, int64 [W + 1].
        parts: All parts of the shard.

    Raises:
        ValueError: The rows are not in the order of their windows.
    """
    windows = Windows(
        token=to_numpy(table["token"]),
        kind=to_numpy(table["kind"]),
        part=to_numpy(table["document"]),
        window_offsets=window_offsets,
        parts=parts,
    )
    if not np.array_equal(to_numpy(table["window"]), windows.window_index() + first_window):
        last_window = first_window + windows.num_windows
        raise ValueError(f"the rows of windows {first_window}..{last_window} are not in order")
    return windows


def broken_token_rules(windows: Windows, metadata: ShardMetadata) -> BrokenRules:
    """The rules for token columns."""
    lengths, starts = np.diff(windows.window_offsets), windows.part_starts()
    rises = np.diff(windows.part, prepend=windows.part[:1] - 1)
    yield "a token is outside the vocabulary", np.flatnonzero(outside_vocabulary(windows.token, metadata.vocab_size))
    yield "an unknown kind", np.flatnonzero(~np.isin(windows.kind, list(Kind)))
    yield "`document` does not rise by one at the start of a part", np.flatnonzero(rises != starts)
    yield (
        f"a window has more than {metadata.window_tokens} positions",
        windows.window_offsets[:-1][lengths > metadata.window_tokens],
    )


def to_numpy(column: pa.ChunkedArray) -> np.ndarray:
    """The values of a column without nulls, [T]."""
    return column.combine_chunks().to_numpy(zero_copy_only=False)
