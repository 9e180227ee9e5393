"""How many bytes a token a scheme is expected to cost, before anything is annotated.

Measured on English, code and manuals with Gemma 3 270M (262,144 ids) and SmolLM2-135M (49,152 ids); other text and
teachers move it by a third either way.
"""

import math
from collections.abc import Mapping
from typing import Any

BYTES_SOURCE = (
    "linear fit through shards measured with Gemma 3 270M at k = 16 to 128, within 2 %: 5.1 bytes a row and 1.99 an "
    "entry (zstd 9) for ids, values, tail and token; next_q and entropy add 4.7. Shards of SmolLM2-135M, adaptive and "
    "sampled, cost 4 % less to 5 % more than that at their own numbers of entries"
)
ENTRIES_SOURCE = (
    "mean entries a row measured with Gemma 3 270M at tau 1e-2, 3e-3, 1e-3, theta 1/36, 1/64, 1/100, and 50, 100, 180 "
    "draws; between and beyond them on a line through their logarithms"
)
_ROW_BYTES, _ENTRY_BYTES = 5.1, 1.99
# `next_q`, `entropy`, and what `window` and `document` add.
_OPTIONAL_BYTES = 4.7
# Parameter to mean entries of a row.
_ENTRIES_OF_TAU = {1e-3: 44.2, 3e-3: 20.5, 1e-2: 8.5}
_ENTRIES_OF_THETA = {1 / 100: 26.4, 1 / 64: 19.5, 1 / 36: 13.1}
_DIFFERENT_IDS_OF_DRAWS = {50.0: 14.8, 100.0: 23.7, 180.0: 34.2}


def entries_per_token(scheme: Mapping[str, Any]) -> float:
    """Mean stored entries of a row, drawn ids of one replica included (`ENTRIES_SOURCE`).

    Args:
        scheme: As `Scheme.to_json` gives it.
    """
    match scheme["kind"]:
        case "topk" | "topp":
            # Of "topp" an upper bound: how wide its heads are was not measured.
            return float(scheme["k"])
        case "threshold":
            return min(max(_interpolate(_ENTRIES_OF_TAU, scheme["tau"]), scheme["k_min"]), scheme["k"])
        case "threshold-sampling":
            return _interpolate(_ENTRIES_OF_THETA, scheme["theta"])
        case "random-sampling":
            return min(_interpolate(_DIFFERENT_IDS_OF_DRAWS, scheme["draws"]), scheme["draws"])
        case kind:
            raise ValueError(f"no expectation of scheme {kind!r}")


def training_bytes_per_token(scheme: Mapping[str, Any]) -> float:
    """Stored bytes of a row's ids, values, tail and token on average, all replicas (`BYTES_SOURCE`)."""
    return _ROW_BYTES + _ENTRY_BYTES * scheme.get("replicas", 1) * entries_per_token(scheme)


def bytes_per_token(scheme: Mapping[str, Any]) -> float:
    """Stored bytes of a row on average, with `next_q` and `entropy` (`BYTES_SOURCE`)."""
    return training_bytes_per_token(scheme) + _OPTIONAL_BYTES


def _interpolate(points: Mapping[float, float], at: float) -> float:
    """The value at `at` on the lines through the neighbouring points, both axes logarithmic."""
    known = sorted(points)
    upper = next((i for i in range(1, len(known) - 1) if at <= known[i]), len(known) - 1)
    x0, x1 = known[upper - 1], known[upper]
    share = (math.log(at) - math.log(x0)) / (math.log(x1) - math.log(x0))
    return math.exp(math.log(points[x0]) * (1 - share) + math.log(points[x1]) * share)
