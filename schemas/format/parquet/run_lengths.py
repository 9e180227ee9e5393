"""The part of Parquet's hybrid of run lengths and bit packing that our reader decodes itself.

A stream is a sequence of runs. Each begins with a number, seven bits per byte, low bits first. If it is odd, its upper
bits count the groups of eight packed values that follow; if it is even, they count the repetitions of the single value
that follows. The start of a run is known only from the previous run, so a loop over runs is too slow for most streams.
Two kinds are fast: bytes, which have long runs, and bits with a short period.

https://parquet.apache.org/docs/file-format/data-pages/encodings/#RLE
"""

import numpy as np

# Parquet's C++ writer packs at most 63 groups into a run: one header byte and 504 values.
_LONG_HEADER, _LONG_RUN = 0x7F, 504
_LONG_RUNS_AT_ONCE = 256
# Maximum number of runs in one period of repeating bits.
_PERIOD_RUNS = 64


def whole_bytes(encoded: np.ndarray, num_values: int) -> np.ndarray:
    """The first `num_values` values of eight bits, uint8.

    Raises:
        ValueError, IndexError: The stream holds fewer values.
    """
    values = np.empty(num_values, np.uint8)
    at = done = 0
    while done < num_values:
        num_long = min(_num_long_runs(encoded, at), (num_values - done) // _LONG_RUN)
        if num_long:
            runs = encoded[at : at + num_long * (_LONG_RUN + 1)].reshape(num_long, -1)
            values[done : done + num_long * _LONG_RUN].reshape(num_long, -1)[:] = runs[:, 1:]
            at, done = at + runs.size, done + num_long * _LONG_RUN
            continue
        count, is_packed, at = _header(encoded, at)
        num = min(8 * count if is_packed else count, num_values - done)
        run = encoded[at : at + num] if is_packed else encoded[at : at + 1]
        if num == 0 or len(run) < (num if is_packed else 1):
            raise ValueError(f"{num_values - done} of {num_values} values are missing")
        values[done : done + num] = run
        at, done = at + (8 * count if is_packed else 1), done + num
    return values


def _num_long_runs(encoded: np.ndarray, at: int) -> int:
    """Number of complete packed runs of the writer's maximum length that follow in sequence from `at`."""
    stride = _LONG_RUN + 1
    limit = min((len(encoded) - at) // stride, _LONG_RUNS_AT_ONCE)
    other = np.flatnonzero(encoded[at : at + limit * stride : stride] != _LONG_HEADER)
    return int(other[0]) if len(other) else limit


def all_ones(encoded: bytes, num_values: int) -> bool:
    """Whether a stream is one run of `num_values` bits, all 1."""
    try:
        count, is_packed, at = _header(encoded, 0)
    except IndexError:
        return False
    return not is_packed and count == num_values and encoded[at:] == b"\x01"


def begins_at_every(encoded: bytes, length: int, num_lists: int) -> bool:
    """Whether a stream holds the levels of `num_lists` lists: for each a 0, then `length` − 1 times 1.

    Also False if that would take long to determine.
    """
    one_list = b"\x00" + b"\x01" * (length - 1)
    bits, at = bytearray(), 0
    for _ in range(_PERIOD_RUNS):
        try:
            bits_of_run, at = _bits(encoded, at)
        except IndexError:
            return False
        bits += bits_of_run
        num_begun = len(bits) // length
        if num_begun >= num_lists:
            return at == len(encoded) and bits[: num_lists * length] == one_list * num_lists
        if len(bits) == num_begun * length:
            if bits != one_list * num_begun:
                return False
            num_times = num_lists // num_begun
            rest = num_lists - num_times * num_begun
            return encoded[: at * num_times] == encoded[:at] * num_times and (
                len(encoded) == at * num_times
                if rest == 0
                else begins_at_every(encoded[at * num_times :], length, rest)
            )
    return False


def _bits(encoded: bytes, at: int) -> tuple[bytes, int]:
    """The values of the run that begins at byte `at`, one byte each, and where the run ends."""
    count, is_packed, at = _header(encoded, at)
    if not is_packed:
        return encoded[at : at + 1] * count, at + 1
    packed = np.frombuffer(encoded[at : at + count], np.uint8)
    return np.unpackbits(packed, bitorder="little").tobytes(), at + count


def _header(encoded: bytes | np.ndarray, at: int) -> tuple[int, bool, int]:
    """Number of values or groups in a run, whether they are groups, and where the run's header ends.

    Raises:
        IndexError: The stream ends inside the header.
    """
    header = shift = 0
    while True:
        digit = int(encoded[at])
        header, shift, at = header | (digit & 127) << shift, shift + 7, at + 1
        if digit < 128:
            return header >> 1, bool(header & 1), at
