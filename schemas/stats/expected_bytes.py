"""Expected bytes per token of a scheme, before anything is annotated.

Measured on English, code and manuals with Gemma 3 270M (262,144 ids) and SmolLM2-135M (49,152 ids). Other text and
teachers change the result by up to a third in either direction.
"""

import math
from collections.abc import Mapping

from logitcask.schemas.errors import UnknownSchemeError
from logitcask.schemas.format.scheme import (
    RandomSamplingScheme,
    Scheme,
    ThresholdSamplingScheme,
    ThresholdScheme,
    TopKScheme,
    TopPScheme,
)

BYTES_SOURCE = (
    "linear fit, within 2 %, to shards measured with Gemma 3 270M at k = 16 to 128: 5.1 bytes a row and 1.99 an entry "
    "(zstd 9) for ids, values, tail and token; next_q and entropy add 4.7. Adaptive and sampled shards of SmolLM2-135M "
    "cost 4 % less to 5 % more than the fit at their own numbers of entries"
)
ENTRIES_SOURCE = (
    "mean entries a row measured with Gemma 3 270M at tau 1e-2, 3e-3, 1e-3, theta 1/36, 1/64, 1/100, and 50, 100, 180 "
    "draws, and for top-p at p 0.8, 0.9, 0.95, 0.99 with at most 32, 128, 512 entries; linear interpolation and "
    "extrapolation of the logarithms (of 1 - p instead of p) elsewhere"
)
LAYOUT_SOURCE = (
    "bytes are those of the layout plain; compact saved 11.1 of 51.8 bytes a token for the ids of 44.3 entries "
    "(docs/measurements.md), which this estimate does not include: give --bytes-per-token"
)
_ROW_BYTES, _ENTRY_BYTES = 5.1, 1.99
# `next_q`, `entropy`, `window` and `document`.
_OPTIONAL_BYTES = 4.7
# Parameter to mean entries per row.
_ENTRIES_OF_TAU = {1e-3: 44.2, 3e-3: 20.5, 1e-2: 8.5}
_ENTRIES_OF_THETA = {1 / 100: 26.4, 1 / 64: 19.5, 1 / 36: 13.1}
# 1 − p to maximum entries to mean entries, over 55,628 positions of eight sources of English, code and manuals.
_ENTRIES_OF_MISSING_MASS = {
    0.2: {32.0: 11.2, 128.0: 24.1, 512.0: 37.7},
    0.1: {32.0: 15.2, 128.0: 40.6, 512.0: 85.6},
    0.05: {32.0: 18.3, 128.0: 55.2, 512.0: 141.8},
    0.01: {32.0: 23.0, 128.0: 79.8, 512.0: 260.9},
}
_DISTINCT_IDS_OF_DRAWS = {50.0: 14.8, 100.0: 23.7, 180.0: 34.2}


def entries_per_token(scheme: Scheme) -> float:
    """Mean stored entries per row, including the distinct drawn ids of one replica (`ENTRIES_SOURCE`).

    Raises:
        UnknownSchemeError: Nothing was measured for this kind of scheme.
    """
    match scheme:
        case TopKScheme():
            return float(scheme.k)
        case TopPScheme():
            return _entries_of_mass(scheme.p, scheme.k)
        case ThresholdScheme():
            return min(max(_interpolate(_ENTRIES_OF_TAU, scheme.tau), scheme.k_min), scheme.k)
        case ThresholdSamplingScheme():
            return _interpolate(_ENTRIES_OF_THETA, scheme.theta)
        case RandomSamplingScheme():
            return min(_interpolate(_DISTINCT_IDS_OF_DRAWS, scheme.draws), scheme.draws)
        case _:
            raise UnknownSchemeError(f"no measurement says how many entries scheme {scheme!r} stores")


def _entries_of_mass(p: float, k: int) -> float:
    """Entries of "topp": at least 1, and k if p = 1."""
    if p == 1:
        return float(k)
    at_k = {missing: _interpolate(entries, k) for missing, entries in _ENTRIES_OF_MISSING_MASS.items()}
    return min(max(_interpolate(at_k, 1 - p), 1.0), float(k))


def training_bytes_per_token(scheme: Scheme) -> float:
    """Mean stored bytes per row for ids, values, tail and token, all replicas included (`BYTES_SOURCE`)."""
    return _ROW_BYTES + _ENTRY_BYTES * max(1, scheme.num_tail_samples) * entries_per_token(scheme)


def bytes_per_token(scheme: Scheme) -> float:
    """Mean stored bytes per row, including `next_q` and `entropy` (`BYTES_SOURCE`)."""
    return training_bytes_per_token(scheme) + _OPTIONAL_BYTES


def _interpolate(points: Mapping[float, float], at: float) -> float:
    """The value at `at` on the line through the neighboring points; both axes are logarithmic."""
    known = sorted(points)
    upper = next((i for i in range(1, len(known) - 1) if at <= known[i]), len(known) - 1)
    x0, x1 = known[upper - 1], known[upper]
    share = (math.log(at) - math.log(x0)) / (math.log(x1) - math.log(x0))
    return math.exp(math.log(points[x0]) * (1 - share) + math.log(points[x1]) * share)
