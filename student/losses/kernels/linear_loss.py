"""The losses of an output projection and their gradients on CUDA, over blocks of the vocabulary.

Row chunks (`linear_truncated_kl`) need three products of T · V · D, but 256-row products make a large GPU wait for the
weight, and a bfloat16 weight gradient would be rounded once per chunk. So these kernels pass over the vocabulary
instead, twice, with all rows of a block (up to 8,192) at a time:

1. logits = hidden · weightᵀ; then, per row, running log-sum-exps over the complement, and the gathered logits;
2. the logits again, overwritten by their gradient, and two products: into the weight's gradient, which is then complete
   for these ids, and into the hidden states' gradient, which is summed in float32.

These are four products, all by cuBLAS with float32 output; the work in between is bound by memory. Estimated, *not*
measured, for an H200 that reaches 790 TFLOP/s in large products and copies at 4.3 TB/s, at T = 8192, D = 2304,
V = 256,000: 4 × 9.66 TFLOP take 49 ms at that rate, 56 ms at the 88 % of 132 multiprocessors that tiles of 128 × 256
keep busy; writing and reading the blocks takes 6 ms, the running sum of the hidden states' gradient 5 ms. A product
fused with its softmax would save those 6 ms, but must come within a tenth of cuBLAS to be worth it. Memory beyond the
gradients: a block of 8192 × 1792 logits, 59 MB, and 75 MB for that sum, whatever T; each gathered id takes 12 bytes. If
T > 8192, the gradient of a bfloat16 weight is rounded once per block of rows, as it is when gradients of micro-batches
of that size are accumulated.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from logitcask.student.losses.chunk_losses import LossSpec, row_ranges
from logitcask.student.losses.gradient_sums import add_product, put_product
from logitcask.student.losses.kernels import block_kernels
from logitcask.student.losses.kernels.distinct_pairs import DistinctPairs
from logitcask.student.losses.row_gradients import GatherIndex, cross_entropy_of_rows, divergence_of_rows

# 1792 = 14 tiles of 128: with 9 of 256 across D = 2304 a product fills 126 of an H200's 132 multiprocessors.
BLOCK_COLUMNS = 1792
BLOCK_ROWS = 8192
_PAIR_BLOCK = 1024
_SCALE_BLOCK = 8192


def losses_and_gradients(
    spec: LossSpec, hidden_TD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, needed: Sequence[bool]
) -> tuple[Tensor, Tensor, tuple[Tensor | None, ...]]:
    """Divergence and cross-entropy of each row, float64[T], and the gradients of their weighted sum.

    Args:
        spec: what is minimized.
        hidden_TD: float16, bfloat16 or float32.
        weight_VD: rows beyond the teacher's vocabulary get a gradient of zero.
        bias_V: or None.
        needed: whether hidden states, weight and bias need a gradient; None is returned for those that do not.
    """
    vocab_size, num_rows = spec.targets.vocab_size, hidden_TD.shape[0]
    gradients = _Gradients.of(weight_VD, bias_V, needed)
    kl_T = hidden_TD.new_zeros(num_rows, dtype=torch.float64)
    cross_entropy_T = torch.zeros_like(kl_T)
    bias = None if bias_V is None else bias_V[:vocab_size]
    with torch.cuda.device_of(hidden_TD):
        for start, stop in row_ranges(num_rows, BLOCK_ROWS):
            rows = slice(start, stop)
            projection = _Projection(
                hidden=hidden_TD[rows], weight=weight_VD[:vocab_size], bias=bias, softcap=spec.softcap
            )
            part = spec if stop - start == num_rows else spec.select(start, stop)
            kl_T[rows], cross_entropy_T[rows] = _block_of_rows(projection, part, gradients, any(needed))
            gradients.finish_rows(rows, hidden_TD)
    gradients.finish_rows(slice(0, 0), hidden_TD)  # a batch may have no rows
    return kl_T, cross_entropy_T, (gradients.hidden, gradients.weight, gradients.bias)


def scale_in_place(values: Tensor, factor: Tensor) -> None:
    """values ← values · factor. Does not wait for the device to learn that the factor is one, as it usually is."""
    with torch.cuda.device_of(values):
        num_programs = triton.cdiv(values.numel(), _SCALE_BLOCK)
        _launch(block_kernels.scale, num_programs, values, factor, values.numel(), BLOCK=_SCALE_BLOCK)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Projection:
    """A block of hidden states [T, D] and the output projection to V ids."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    softcap: float | None

    @property
    def num_rows(self) -> int:
        return self.hidden.shape[0]

    def blocks(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(first id, raw logits float32, rows of the weight) of each block of ids; all logits use the same memory."""
        vocab_size = self.weight.shape[0]
        memory = self.hidden.new_empty(self.num_rows * min(BLOCK_COLUMNS, vocab_size), dtype=torch.float32)
        for start in range(0, vocab_size, BLOCK_COLUMNS):
            weight = self.weight[start : start + BLOCK_COLUMNS].to(self.hidden.dtype)
            raw = memory[: self.num_rows * weight.shape[0]].view(self.num_rows, weight.shape[0])
            put_product(raw, self.hidden, weight.T)
            yield start, raw, weight

    def flags(self, temperature: float, num_columns: int) -> dict[str, bool | int]:
        """The compile-time constants of the kernels over whole rows."""
        return {
            "HAS_BIAS": self.bias is not None,
            "HAS_SOFTCAP": self.softcap is not None,
            "HAS_TEMPERATURE": temperature != 1,
            "BLOCK": triton.next_power_of_2(num_columns),
        }

    def capped(self, logits_E: Tensor) -> Tensor:
        """softcap · tanh(logits / softcap), or the logits without a soft-cap."""
        return logits_E if self.softcap is None else self.softcap * torch.tanh(logits_E / self.softcap)

    def slope(self, logits_E: Tensor) -> Tensor | float:
        """Derivative of `capped`: 1 − tanh² = cosh⁻²."""
        return 1.0 if self.softcap is None else torch.cosh(logits_E / self.softcap) ** -2


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _ComplementSums:
    """Running maxima and sums of exp(logit − maximum) over the complement of each row, float32[T]."""

    maxima: Tensor
    sums: Tensor

    @classmethod
    def empty(cls, hidden_TD: Tensor) -> "_ComplementSums":
        sums = hidden_TD.new_zeros(hidden_TD.shape[0], dtype=torch.float32)
        return cls(maxima=torch.full_like(sums, float("-inf")), sums=sums)

    def shift(self) -> Tensor:
        """The maxima, 0 where nothing was added."""
        return self.maxima.where(~self.maxima.isneginf(), 0.0)

    def logsumexp(self) -> Tensor:
        return self.shift().double() + self.sums.double().log()

    def softmax_times(self, complement: Tensor) -> "_Exponential":
        factors = torch.where(self.sums > 0, complement / self.sums, 0.0)
        return _Exponential(factors=factors.float(), shift=self.shift())


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Exponential:
    """factors · exp(logits − shift), row by row; float32[T] both."""

    factors: Tensor
    shift: Tensor

    def at(self, logits_E: Tensor, rows_E: Tensor) -> Tensor:
        return self.factors[rows_E].double() * (logits_E - self.shift[rows_E]).exp()


def _block_of_rows(
    projection: _Projection, spec: LossSpec, gradients: "_Gradients", needs_gradient: bool
) -> tuple[Tensor, Tensor]:
    temperature = spec.temperature
    index = GatherIndex.of(spec.targets, spec.labels)
    pairs = DistinctPairs.of(index, spec.targets.vocab_size)
    raw_E, tempered, plain = _first_pass(projection, pairs, temperature)
    logits_E = projection.capped(raw_E)
    gathered = pairs.logits(logits_E, index.sample_rows.shape[0], plain.logsumexp())
    tempered_gathered = gathered.at_temperature(temperature, tempered.logsumexp())
    kl_T, by_kl = divergence_of_rows(spec.targets, index, tempered_gathered, spec.divergence, needs_gradient)
    cross_entropy_T, by_label = cross_entropy_of_rows(index, gathered, spec.cross_entropy_weight)
    if by_kl is not None:
        by_kl = by_kl.times(temperature * spec.kl_weight)  # T² from the loss, 1 / T from the chain rule
        by = by_kl.plus(by_label)
        exponentials = _exponentials(by_kl.complement, by_label.complement, tempered, plain)
        extra_rows, extra_logits = pairs.rows[pairs.num_head :], logits_E[pairs.num_head :]
        outside = exponentials[0].at(extra_logits / temperature, extra_rows)
        if temperature != 1:
            outside = outside + exponentials[1].at(extra_logits, extra_rows)
        values_E = (pairs.gradients(by, outside) * projection.slope(raw_E)).float()
        del gathered, tempered_gathered, by, by_kl, by_label, logits_E, raw_E  # room for the second pass
        _second_pass(projection, pairs, values_E, exponentials, temperature, gradients)
    return temperature**2 * kl_T, cross_entropy_T


def _exponentials(
    by_kl: Tensor, by_label: Tensor, tempered: _ComplementSums, plain: _ComplementSums
) -> tuple[_Exponential, _Exponential]:
    """The complement's gradient as two terms, at the temperature and at one; if these are equal, one shared term."""
    if plain is tempered:
        both = tempered.softmax_times(by_kl + by_label)
        return both, both
    return tempered.softmax_times(by_kl), plain.softmax_times(by_label)


def _first_pass(
    projection: _Projection, pairs: DistinctPairs, temperature: float
) -> tuple[Tensor, _ComplementSums, _ComplementSums]:
    """Logits of the pairs before the soft-cap, float64[E]; sums over the complement at the temperature and at one."""
    gathered_E = projection.hidden.new_zeros(pairs.rows.shape[0], dtype=torch.float32)
    tempered = _ComplementSums.empty(projection.hidden)
    plain = tempered if temperature == 1 else _ComplementSums.empty(projection.hidden)
    bias = projection.hidden if projection.bias is None else projection.bias
    for first_id, raw, weight in projection.blocks():
        width = weight.shape[0]
        _launch(
            block_kernels.gather_logits, pairs.num_programs(_PAIR_BLOCK), raw, raw.stride(0), pairs.rows, pairs.ids,
            bias, gathered_E, first_id, width, pairs.rows.shape[0], pairs.num_head,
            HAS_BIAS=projection.bias is not None, BLOCK=_PAIR_BLOCK,
        )  # fmt: skip
        _launch(
            block_kernels.add_complement, projection.num_rows, raw, raw.stride(0), bias, tempered.maxima, tempered.sums,
            plain.maxima, plain.sums, first_id, width, float(temperature), float(projection.softcap or 0.0),
            **projection.flags(temperature, width),
        )  # fmt: skip
    return gathered_E.double(), tempered, plain


def _second_pass(
    projection: _Projection,
    pairs: DistinctPairs,
    values_E: Tensor,
    exponentials: tuple[_Exponential, _Exponential],
    temperature: float,
    gradients: "_Gradients",
) -> None:
    """Overwrites each block of logits with its gradient, and adds its products."""
    tempered, plain = exponentials
    bias = projection.hidden if projection.bias is None else projection.bias
    for first_id, raw, weight in projection.blocks():
        width = weight.shape[0]
        gradient = raw.view(projection.hidden.dtype)[:, :width]
        _launch(
            block_kernels.write_gradient, projection.num_rows, raw, raw.stride(0), gradient, gradient.stride(0), bias,
            tempered.factors, tempered.shift, plain.factors, plain.shift, first_id, width, float(temperature),
            float(projection.softcap or 0.0), **projection.flags(temperature, width),
        )  # fmt: skip
        _launch(
            block_kernels.scatter_gradients, pairs.num_programs(_PAIR_BLOCK), gradient, gradient.stride(0), pairs.rows,
            pairs.ids, values_E, first_id, width, pairs.rows.shape[0], BLOCK=_PAIR_BLOCK,
        )  # fmt: skip
        gradients.add(slice(first_id, first_id + width), gradient, projection.hidden, weight)


def _launch(kernel: Any, num_programs: int, *arguments: Tensor | float, **flags: bool | int) -> None:
    if num_programs:
        kernel[(num_programs,)](*arguments, **flags)


@dataclass(kw_only=True, slots=True, eq=False)
class _Gradients:
    """The needed gradients of hidden states, weight and bias.

    Attributes:
        hidden: [T, D], allocated after the first block of rows: until then only the sum takes memory.
        hidden_sum: float32, of the current block of rows.
        weight, bias: as wide as the student's vocabulary.
        needs_hidden: whether the gradient of the hidden states is needed.
    """

    hidden: Tensor | None
    hidden_sum: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    needs_hidden: bool

    @classmethod
    def of(cls, weight_VD: Tensor, bias_V: Tensor | None, needed: Sequence[bool]) -> "_Gradients":
        return cls(
            hidden=None,
            hidden_sum=None,
            weight=torch.zeros_like(weight_VD) if needed[1] else None,
            bias=torch.zeros_like(bias_V) if needed[2] and bias_V is not None else None,
            needs_hidden=needed[0],
        )

    def add(self, ids: slice, gradient: Tensor, hidden: Tensor, weight: Tensor) -> None:
        """Adds the contribution of a block of logits, given their gradient."""
        if self.needs_hidden:
            if self.hidden_sum is None:
                self.hidden_sum = torch.zeros_like(hidden, dtype=torch.float32)
            add_product(self.hidden_sum, gradient, weight)
        if self.weight is not None:
            add_product(self.weight[ids], gradient.T, hidden)
        if self.bias is not None:
            self.bias[ids] += gradient.sum(dim=0, dtype=torch.float32).to(self.bias.dtype)

    def finish_rows(self, rows: slice, hidden_TD: Tensor) -> None:
        """Stores the sum of a block of rows, rounded to the dtype of the gradient."""
        if not self.needs_hidden:
            return
        self.hidden = torch.zeros_like(hidden_TD) if self.hidden is None else self.hidden
        if self.hidden_sum is not None:
            self.hidden[rows] = self.hidden_sum
        self.hidden_sum = None
