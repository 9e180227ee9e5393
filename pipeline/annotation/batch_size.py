"""How many positions a forward pass gets: found once, before the first unit, and kept for the life of a dataset.

On a CPU a batch of 2,048 is as fast as any larger one and its memory is small. On a GPU larger is faster until it does
not fit. Memory grows linearly with the batch, so two small batches tell how large the largest may be.
"""

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from logitcask.pipeline.annotation.cached_scorer import cached_scorer
from logitcask.schemas.errors import MemoryExhaustedError
from logitcask.schemas.format.targets import Part, Windows
from logitcask.teacher.scoring.protocol import ScorerSpec

CPU_BATCH_TOKENS = 2_048
# Where no teacher is at hand to try: one of 2B parameters needs a tenth of a 80 GB device for it.
GPU_BATCH_TOKENS = 32_768
# More gains nothing: matrix products are at their full speed long before.
_MOST_BATCH_TOKENS = 131_072
# Of the memory that is free once the teacher is loaded; the rest is for fragmentation.
_USED_SHARE = 0.8
_logger = logging.getLogger(__name__)


def find_batch_tokens(spec: ScorerSpec, window_tokens: int, *, in_process: bool) -> int:
    """The batch size that "auto" means.

    Args:
        spec: The teacher; whatever its `batch_tokens` says.
        window_tokens: Positions of a full window.
        in_process: Whether this process will do the work, so that a teacher loaded here is not loaded twice.
    """
    if not spec.device.startswith("cuda"):
        return max(CPU_BATCH_TOKENS, window_tokens)
    if not in_process:
        return max(GPU_BATCH_TOKENS, window_tokens)
    found = _try_on_gpu(spec, window_tokens)
    _logger.info("forward passes of %d tokens fit into memory", found)
    return found


def largest_batch(peak_bytes: Callable[[int], int], free_bytes: int, window_tokens: int) -> int:
    """The largest power-of-two multiple of a window whose peak memory stays within its share of what is free.

    Args:
        peak_bytes: Memory that a batch of so many positions takes.
        free_bytes: Memory that there is.
        window_tokens: The smallest batch.
    """
    small, double = peak_bytes(window_tokens), peak_bytes(2 * window_tokens)
    slope = max(double - small, 1)
    batch = window_tokens
    while 2 * batch <= max(_MOST_BATCH_TOKENS, window_tokens):
        needed = small + slope * (2 * batch - window_tokens) / window_tokens
        if needed > _USED_SHARE * free_bytes:
            break
        batch *= 2
    return batch


def _try_on_gpu(spec: ScorerSpec, window_tokens: int) -> int:
    import torch

    # The spec of the job differs in its batch size alone, so the teacher is kept and takes the new one.
    scorer = cached_scorer(replace(spec, batch_tokens=2 * window_tokens))

    device = torch.device(spec.device)

    def peak_bytes(batch_tokens: int) -> int:
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        scorer.score(_windows(batch_tokens // window_tokens, window_tokens))
        return torch.cuda.max_memory_allocated(device) - before

    try:
        free_bytes, _ = torch.cuda.mem_get_info(device)
        return largest_batch(peak_bytes, free_bytes, window_tokens)
    except MemoryExhaustedError:
        return window_tokens


def _windows(num_windows: int, window_tokens: int) -> Windows:
    """Full windows of one part each."""
    return Windows(
        token=np.ones(num_windows * window_tokens, np.int32),
        kind=np.zeros(num_windows * window_tokens, np.uint8),
        part=np.repeat(np.arange(num_windows, dtype=np.int32), window_tokens),
        window_offsets=np.arange(num_windows + 1, dtype=np.int64) * window_tokens,
        parts=tuple(Part(id=str(n), source="", offset=0) for n in range(num_windows)),
    )
