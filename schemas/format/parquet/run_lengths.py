"""Parquet's hybrid of run lengths and bit packing, as far as our reader decodes it itself.

A stream is a sequence of runs. Each begins with a number, seven bits a byte, the low ones first: of an odd one the
upper bits count groups of eight packed values that follow; of an even one they count how often the one value that
follows is repeated. Where a run begins is only known from the one before, so a loop over runs is too slow for most
streams. Two are quick: bytes, whose runs are long; and bits that repeat themselves.

https://parquet.apache.org/docs/file-format/data-pages/encodings/#RLE
"""

import numpy as np

# Parquet's C++ writer packs at most 63 groups into a run: a header byte and 504 values.
_LONG_HEADER, _LONG_RUN = 0x7F, 504
_LONG_RUNS_AT_ONCE = 256
# How many runs may pass before bits begin to repeat themselves.
_PERIOD_RUNS = 64


def whole_bytes(encoded: np.ndarray, num_values: int) -> np.ndarray:
    """So many values of eight bits, uint8.

    Raises:
        ValueError: The stream holds fewer values.
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
            raise ValueError(f"{num_values - done} values less than there should be")
        values[done : done + num] = run
        at, done = at + (8 * count if is_packed else 1), done + num
    return values


def _num_long_runs(encoded: np.ndarray, at: int) -> int:
    """How many whole packed runs of the writer's greatest length follow one another from here."""
    stride = _LONG_RUN + 1
    most = min((len(encoded) - at) // stride, _LONG_RUNS_AT_ONCE)
    other = np.flatnonzero(encoded[at : at + most * stride : stride] != _LONG_HEADER)
    return int(other[0]) if len(other) else most


def all_ones(encoded: bytes, num_values: int) -> bool:
    """Whether a stream is so many bits, all 1, in one run."""
    try:
        count, is_packed, at = _header(encoded, 0)
    except IndexError:
        return False
    return not is_packed and count == num_values and encoded[at:] == b"\x01"


def begins_at_every(encoded: bytes, length: int, num_lists: int) -> bool:
    """Whether a stream is so many lists' levels: a 0 and `length` − 1 times 1, over and over.

    False also where that would take long to find out.
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
    """The values of the run that begins at a byte, a byte each, and where it ends."""
    count, is_packed, at = _header(encoded, at)
    if not is_packed:
        return encoded[at : at + 1] * count, at + 1
    packed = np.frombuffer(encoded[at : at + count], np.uint8)
    return np.unpackbits(packed, bitorder="little").tobytes(), at + count


def _header(encoded: bytes | np.ndarray, at: int) -> tuple[int, bool, int]:
    """How many values or groups a run has, whether it is of groups, and where its header ends.

    Raises:
        IndexError: The stream ends before.
    """
    header = shift = 0
    while True:
        digit = int(encoded[at])
        header, shift, at = header | (digit & 127) << shift, shift + 7, at + 1
        if digit < 128:
            return header >> 1, bool(header & 1), at
