"""Triton kernels over a block of raw logits, float32 [T, C]: C consecutive ids of the vocabulary, bias not yet added.

A block is the product of hidden states and C rows of the weight. All kernels are bound by memory, not arithmetic: a
program holds one row of the block in registers, and reads and writes device memory once.
"""

import triton
import triton.language as tl


@triton.jit
def gather_logits(
    raw, raw_stride, rows, ids, bias, gathered, first_id, width, num_pairs, num_head, HAS_BIAS: tl.constexpr,
    BLOCK: tl.constexpr
):  # fmt: skip
    """Copies the logits of (row, id) pairs in the block to `gathered`, adds the bias, and marks head pairs with −inf.

    The pairs are distinct, so no program reads what another one marks. Head pairs come first.
    """
    pair = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    column = tl.load(ids + pair, mask=pair < num_pairs, other=-1) - first_id
    is_here = (column >= 0) & (column < width) & (pair < num_pairs)
    place = raw + tl.load(rows + pair, mask=is_here, other=0).to(tl.int64) * raw_stride + column
    logit = tl.load(place, mask=is_here, other=0.0)
    if HAS_BIAS:
        logit += tl.load(bias + first_id + column, mask=is_here, other=0.0).to(tl.float32)
    tl.store(gathered + pair, logit, mask=is_here)
    tl.store(place, float("-inf"), mask=is_here & (pair < num_head))


@triton.jit
def _soft_capped(logit, softcap):
    """softcap · tanh(logit / softcap), without overflow."""
    small = tl.exp(-2.0 * tl.abs(logit) / softcap)
    capped = softcap * (1.0 - small) / (1.0 + small)
    return tl.where(logit < 0, -capped, capped)


@triton.jit
def _soft_cap_slope(logit, softcap):
    """1 − tanh²(logit / softcap), without cancellation."""
    small = tl.exp(-2.0 * tl.abs(logit) / softcap)
    return 4.0 * small / ((1.0 + small) * (1.0 + small))


@triton.jit
def _add_to_sum(logit, maxima, sums, row):
    """Adds the row's logits to its running maximum and its running sum of exp(logit − maximum)."""
    before = tl.load(maxima + row)
    maximum = tl.maximum(before, tl.max(logit, axis=0))
    shift = tl.where(maximum == float("-inf"), 0.0, maximum)
    total = tl.load(sums + row) * tl.exp(before - shift) + tl.sum(tl.exp(logit - shift), axis=0)
    tl.store(maxima + row, maximum)
    tl.store(sums + row, total)


@triton.jit
def add_complement(
    raw, raw_stride, bias, maxima, sums, plain_maxima, plain_sums, first_id, width, temperature, softcap,
    HAS_BIAS: tl.constexpr, HAS_SOFTCAP: tl.constexpr, HAS_TEMPERATURE: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Log-sum-exp, as a running maximum and sum, over the logits that `gather_logits` did not mark; one program a row.

    With a temperature, also the log-sum-exp at temperature one (`plain_…`), for the cross-entropy.
    """
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    logit = tl.load(raw + row * raw_stride + column, mask=column < width, other=float("-inf"))
    # Read before bias and soft-cap, which would change the mark.
    is_marked = logit == float("-inf")
    if HAS_BIAS:
        logit += tl.load(bias + first_id + column, mask=column < width, other=0.0).to(tl.float32)
    if HAS_SOFTCAP:
        logit = _soft_capped(logit, softcap)
    logit = tl.where(is_marked, float("-inf"), logit)
    if HAS_TEMPERATURE:
        _add_to_sum(logit, plain_maxima, plain_sums, row)
        logit = logit / temperature
    _add_to_sum(logit, maxima, sums, row)


@triton.jit
def write_gradient(
    raw, raw_stride, gradient, gradient_stride, bias, factors, maxima, plain_factors, plain_maxima, first_id, width,
    temperature, softcap, HAS_BIAS: tl.constexpr, HAS_SOFTCAP: tl.constexpr, HAS_TEMPERATURE: tl.constexpr,
    BLOCK: tl.constexpr
):  # fmt: skip
    """factor · exp(logit − maximum), times the soft-cap's slope, over the whole block; one program a row.

    `gradient` may use the memory of `raw`, row by row, in a narrower type. The values at pairs are replaced later, by
    `scatter_gradients`.
    """
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    before_cap = tl.load(raw + row * raw_stride + column, mask=column < width, other=float("-inf"))
    if HAS_BIAS:
        before_cap += tl.load(bias + first_id + column, mask=column < width, other=0.0).to(tl.float32)
    logit = before_cap
    if HAS_SOFTCAP:
        logit = _soft_capped(before_cap, softcap)
    if HAS_TEMPERATURE:
        slope = tl.load(plain_factors + row) * tl.exp(logit - tl.load(plain_maxima + row))
        slope += tl.load(factors + row) * tl.exp(logit / temperature - tl.load(maxima + row))
    else:
        slope = tl.load(factors + row) * tl.exp(logit - tl.load(maxima + row))
    if HAS_SOFTCAP:
        slope *= _soft_cap_slope(before_cap, softcap)
    # Some threads of a program read words that other threads overwrite.
    tl.debug_barrier()
    tl.store(gradient + row * gradient_stride + column, slope.to(gradient.dtype.element_ty), mask=column < width)


@triton.jit
def scatter_gradients(
    gradient, gradient_stride, rows, ids, values, first_id, width, num_pairs, BLOCK: tl.constexpr
):  # fmt: skip
    """Overwrites the gradient at the (row, id) pairs in the block."""
    pair = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    column = tl.load(ids + pair, mask=pair < num_pairs, other=-1) - first_id
    is_here = (column >= 0) & (column < width) & (pair < num_pairs)
    place = gradient + tl.load(rows + pair, mask=is_here, other=0).to(tl.int64) * gradient_stride + column
    value = tl.load(values + pair, mask=is_here, other=0.0)
    tl.store(place, value.to(gradient.dtype.element_ty), mask=is_here)


@triton.jit
def scale(values, factor, count, BLOCK: tl.constexpr):
    """values ← values · factor; if the factor is one, nothing is read or written."""
    by = tl.load(factor).to(tl.float32)
    if by != 1.0:
        place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        value = tl.load(values + place, mask=place < count, other=0.0).to(tl.float32)
        tl.store(values + place, (value * by).to(values.dtype.element_ty), mask=place < count)
