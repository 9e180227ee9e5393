"""How many positions a forward pass gets: found once, before the first unit, and kept for the life of a dataset.

On a CPU a batch of 2,048 is as fast as any larger one and needs little memory. On a GPU a larger batch is faster, until
it does not fit. Memory grows linearly with the batch, so two small batches show how large a batch fits.
"""

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from logitcask.pipeline.annotation.cached_scorer import cached_scorer
from logitcask.schemas.errors import MemoryExhaustedError
from logitcask.teacher.scoring.protocol import ScorerSpec
from logitcask.teacher.text.packing import full_windows

CPU_BATCH_TOKENS = 2_048
# For a teacher that this process does not load: one of 2B parameters needs a tenth of an 80 GB device for it.
GPU_BATCH_TOKENS = 32_768
# More gains nothing: matrix products reach their full speed long before.
_MAX_BATCH_TOKENS = 131_072
# Of the memory that is free once the teacher is loaded; the rest is for fragmentation.
_USED_SHARE = 0.8
_logger = logging.getLogger(__name__)


def find_batch_tokens(spec: ScorerSpec, window_tokens: int, *, in_process: bool) -> int:
    """The batch size for "auto".

    Args:
        spec: The teacher; its `batch_tokens` is ignored.
        window_tokens: Positions of a full window.
        in_process: Whether this process will annotate, so that a teacher loaded here is not loaded twice.
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
        peak_bytes: From positions of a batch to its peak memory.
        free_bytes: Free memory.
        window_tokens: The smallest batch.
    """
    small, double = peak_bytes(window_tokens), peak_bytes(2 * window_tokens)
    slope = max(double - small, 1)
    batch = window_tokens
    while 2 * batch <= max(_MAX_BATCH_TOKENS, window_tokens):
        needed = small + slope * (2 * batch - window_tokens) / window_tokens
        if needed > _USED_SHARE * free_bytes:
            break
        batch *= 2
    return batch


def _try_on_gpu(spec: ScorerSpec, window_tokens: int) -> int:
    import torch

    # The job's spec differs from this one in its batch size only, so the job keeps this teacher.
    scorer = cached_scorer(replace(spec, batch_tokens=2 * window_tokens))
    device = torch.device(spec.device)

    def peak_bytes(batch_tokens: int) -> int:
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        scorer.score(full_windows(np.ones(batch_tokens, np.int32), window_tokens))
        return torch.cuda.max_memory_allocated(device) - before

    try:
        free_bytes, _ = torch.cuda.mem_get_info(device)
        return largest_batch(peak_bytes, free_bytes, window_tokens)
    except MemoryExhaustedError:
        return window_tokens
