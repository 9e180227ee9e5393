"""The one pass over all logits: the maximum, the sum of exponentials, and their weighted sum for each block of ids.

With m the largest logit z of a block of I ids (NaN and infinities propagate):

    highest = m,   sums = Σ exp(z - m),   weighted = Σ exp(z - m)·(z - m)

All that is computed of a row follows from these three numbers per block: the normalizer, the entropy, which blocks can
contain an entry of the head, and the tail, for which only the blocks that lost an entry to the head are summed again.
The sums are relative to the block's own maximum, so they need no earlier pass, and keep their precision in blocks far
below the row's peak.

There are two implementations: plain torch in pieces that stay in a cache, and the same formula compiled by
`torch.compile`, which reads memory once. They differ in low bits, so the numeric environment records which one ran.
"""

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from logitcask.schemas.errors import UsageError
from logitcask.teacher.scoring.compiled_formulas import compiled_over_rows

KernelKind = Literal["plain", "compiled"]
# Logits per piece: two such buffers fit into a core's second-level cache. A GPU gets 64 MB, to bound its memory too.
_PIECE_LOGITS = {"cpu": 1 << 17, "cuda": 1 << 24}
# Smaller differences have the exponential 0 in float32; -inf would give 0·(-inf).
_LOWEST_DIFFERENCE = -1e4
# Replaces -inf where a difference of two of them would be NaN.
LOWEST = torch.finfo(torch.float32).min
# Compiling takes seconds, which small vocabularies never earn back.
_MIN_COMPILED_VOCABULARY = 32_768

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockSums:
    """The sums of blocks of logits, float32, one number per block; -inf, 0 and 0 for a block of nothing but -inf.

    Attributes:
        highest: The largest logit z of the block, m.
        sums: Σ exp((z - m)/t), with t = 1 except for tempered tails.
        weighted: Σ exp((z - m)/t)·(z - m)/t.
    """

    highest: torch.Tensor
    sums: torch.Tensor
    weighted: torch.Tensor

    def view(self, *shape: int) -> "BlockSums":
        return BlockSums(
            highest=self.highest.view(shape), sums=self.sums.view(shape), weighted=self.weighted.view(shape)
        )

    def replace(self, block_M: torch.Tensor, other: "BlockSums") -> "BlockSums":
        """A copy with the sums of some blocks (indices into the flattened blocks) replaced."""

        def replaced(mine: torch.Tensor, theirs_M: torch.Tensor) -> torch.Tensor:
            return mine.flatten().index_put((block_M,), theirs_M).view_as(mine)

        return BlockSums(
            highest=replaced(self.highest, other.highest),
            sums=replaced(self.sums, other.sums),
            weighted=replaced(self.weighted, other.weighted),
        )


class Kernel:
    """Computes block sums.

    Args:
        kind: "plain" or "compiled"; if compiling fails, plain torch replaces it, with a warning.
        block_ids: Ids per block, fixed so that one compilation serves all chunks.
        device: Of the logits.

    Attributes:
        block_ids: As given.
        kind: The kind in use.
    """

    def __init__(self, kind: KernelKind = "plain", *, block_ids: int = 128, device: str | torch.device = "cpu") -> None:
        self.block_ids = block_ids
        self.kind: KernelKind = kind
        if kind == "compiled" and not _compiles(block_ids, torch.device(device)):
            self.kind = "plain"

    def __call__(self, logits_MI: torch.Tensor, temperature: float = 1.0) -> BlockSums:
        """Sums of M contiguous blocks of I ids, float32 [M, I]; `temperature` is t."""
        # A single block would need its own compilation; other temperatures are rare.
        if self.kind == "plain" or temperature != 1.0 or len(logits_MI) < 2 or logits_MI.shape[1] != self.block_ids:
            return plain_block_sums(logits_MI, temperature)
        highest_M, sums_M, weighted_M = _compiled(logits_MI.device.type)(logits_MI)
        return _without_empty(highest_M, sums_M, weighted_M)


def choose_kernel(kind: str, vocab_size: int, device: str | torch.device) -> KernelKind:
    """The kernel for a name; "auto" is compiled if there is a compiler and the vocabulary is large.

    Raises:
        UsageError: The name is unknown.
    """
    if kind == "auto":
        return "compiled" if vocab_size >= _MIN_COMPILED_VOCABULARY and _has_compiler(torch.device(device)) else "plain"
    if kind not in ("plain", "compiled"):
        raise UsageError(f"kernel {kind!r} is unknown; choose auto, plain or compiled")
    return kind


def plain_block_sums(logits_MI: torch.Tensor, temperature: float = 1.0) -> BlockSums:
    """Block sums by plain torch, piece by piece; arguments as for `Kernel`."""
    num_blocks, block_ids = logits_MI.shape
    highest_M, sums_M, weighted_M = logits_MI.new_empty(3, num_blocks).unbind()
    piece = max(1, _PIECE_LOGITS.get(logits_MI.device.type, _PIECE_LOGITS["cpu"]) // block_ids)
    below, weights = logits_MI.new_empty(2, min(piece, num_blocks), block_ids).unbind()
    for start in range(0, num_blocks, piece):
        part = slice(start, start + piece)
        z = logits_MI[part]
        m = torch.amax(z, dim=-1, out=highest_M[part])
        d = torch.sub(z, m.clamp(min=LOWEST)[:, None], out=below[: len(z)])
        if temperature != 1.0:
            d /= temperature
        e = torch.exp(d.clamp_(min=_LOWEST_DIFFERENCE), out=weights[: len(z)])
        torch.sum(e, dim=-1, out=sums_M[part])
        torch.sum(d.mul_(e), dim=-1, out=weighted_M[part])
    return _without_empty(highest_M, sums_M, weighted_M)


def _without_empty(highest_M: torch.Tensor, sums_M: torch.Tensor, weighted_M: torch.Tensor) -> BlockSums:
    return BlockSums(highest=highest_M, sums=sums_M.masked_fill(highest_M.isneginf(), 0), weighted=weighted_M)


def _formula(logits_MI: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    highest_M = logits_MI.amax(dim=-1)
    below_MI = (logits_MI - highest_M.clamp(min=LOWEST)[:, None]).clamp(min=_LOWEST_DIFFERENCE)
    weights_MI = _exp(below_MI) if logits_MI.device.type == "cpu" else below_MI.exp()
    return highest_M, weights_MI.sum(dim=-1), (weights_MI * below_MI).sum(dim=-1)


# Coefficients of 2^f on [-1/2, 1/2] by falling powers: least squares of the relative error at 200 Chebyshev nodes, with
# the constant fixed at 1 so that exp 0 = 1; the error is at most 2.2e-9 before rounding.
_EXP2 = (1.537070482e-4, 1.339984829e-3, 9.618373251e-3, 5.550329035e-2, 2.402264846e-1, 6.931472056e-1, 1.0)


def _exp(below: torch.Tensor) -> torch.Tensor:
    """exp of numbers ≤ 0 within a relative error of 5e-7; inlined, it saves a third of the pass.

    exp d = 2^n · 2^f with n + f = d / ln 2, |f| ≤ ½: a polynomial for 2^f, and n added to the exponent's bits.
    """
    powers = (below * 1.4426950408889634).clamp(min=-126.0)
    whole = powers.round()
    rest = powers - whole
    value = torch.full_like(rest, _EXP2[0])
    for coefficient in _EXP2[1:]:
        value = value * rest + coefficient
    return value * ((whole.to(torch.int32) + 127) << 23).view(torch.float32)


@functools.cache
def _compiled(device_type: str) -> Callable[[torch.Tensor], Any]:
    return compiled_over_rows(_formula, device_type)


@functools.cache
def _compiles(block_ids: int, device: torch.device) -> bool:
    """Compiles the kernel once per process; the compiler keeps its result on disk for the next process."""
    try:
        with torch.inference_mode():
            _compiled(device.type)(torch.zeros(64, block_ids, device=device))
    except Exception as error:
        _logger.warning("heads are computed by plain torch, which is slower: compiling failed (%s)", _first_line(error))
        return False
    return True


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def _has_compiler(device: torch.device) -> bool:
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        return has_triton()
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception:
        return False
    return True
