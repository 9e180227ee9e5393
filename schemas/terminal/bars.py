"""Bar charts of block characters."""

from collections.abc import Mapping, Sequence
from typing import Any

_BARS = " ▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def bars(heights: Sequence[float]) -> str:
    """One character for each height; the tallest is a full block, and every height above zero is visible."""
    tallest = max(heights, default=0)
    return "".join(_BARS[0] if not h else _BARS[max(1, round(8 * h / tallest))] for h in heights)


def bar(share: float, width: int) -> str:
    """A horizontal bar that fills `share` of `width` characters, in steps of an eighth; padded to the width."""
    eighths = round(8 * width * min(max(share, 0.0), 1.0))
    eighths = max(eighths, 1) if share > 0 else eighths
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width)


def nat_bars(histogram: Mapping[str, Any], nats: int = 12, width: int = 24) -> str:
    """A histogram over 0..nats; the last bar includes all larger values."""
    heights = [0] * width
    for index, count in histogram["counts"].items():
        heights[min(int(index) * width // (nats * histogram["bins_per_nat"]), width - 1)] += count
    return bars(heights)


def width_bars(counts: Mapping[str, int], width: int = 24) -> tuple[str, int]:
    """A histogram over head widths from 1 in at most `width` characters, and the widest head."""
    widest = max(1, *map(int, counts)) if counts else 1
    width = min(width, widest)
    heights = [0] * width
    for head_width, count in counts.items():
        heights[(max(int(head_width), 1) - 1) * width // widest] += count
    return bars(heights), widest
