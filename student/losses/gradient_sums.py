"""The gradients of a projection's three inputs, summed block by block, so that [T, V] is never needed.

Sums are at least float32: summed in bfloat16, the gradient of a weight would lose accuracy with every block.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(kw_only=True, slots=True, eq=False)
class GradientSums:
    """Running gradients of hidden states, weight and bias; None for an input that needs none.

    Attributes:
        hidden: [T, D].
        weight: [V or wider, D].
        bias: [V or wider].
        vocab_size: V; rows of the weight beyond it stay zero.
    """

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    vocab_size: int

    @classmethod
    def zeros(
        cls, inputs: Sequence[Tensor | None], needed: Sequence[bool], vocab_size: int, num_chunks: int
    ) -> "GradientSums":
        """Zeros for the needed gradients of (hidden, weight, bias), to be summed over `num_chunks` chunks of rows."""
        hidden, weight, bias = (tensor if is_needed else None for tensor, is_needed in zip(inputs, needed, strict=True))
        return cls(
            hidden=None if hidden is None else torch.zeros_like(hidden),
            weight=None if weight is None else torch.zeros_like(weight, dtype=_sum_dtype(weight, num_chunks)),
            bias=None if bias is None else torch.zeros_like(bias, dtype=_sum_dtype(bias)),
            vocab_size=vocab_size,
        )

    def add(self, start: int, gradient: Tensor, hidden: Tensor, weight: Tensor) -> None:
        """Adds the contribution of a chunk, given the gradient of its logits [C, V] in the dtype of the products."""
        if self.hidden is not None:
            torch.mm(gradient, weight, out=self.hidden[start : start + hidden.shape[0]])
        if self.weight is not None:
            add_product(self.weight[: self.vocab_size], gradient.T, hidden)
        if self.bias is not None:
            self.bias[: self.vocab_size] += gradient.sum(dim=0, dtype=self.bias.dtype)

    def like(self, inputs: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
        """The gradients of (hidden, weight, bias), each in the dtype of its input."""
        sums = (self.hidden, self.weight, self.bias)
        return tuple(
            None if total is None or tensor is None else total.to(tensor.dtype)
            for total, tensor in zip(sums, inputs, strict=True)
        )


def _sum_dtype(tensor: Tensor, num_chunks: int = 2) -> torch.dtype:
    # A single product is rounded only once, whatever the dtype of the sum.
    return tensor.dtype if num_chunks < 2 else torch.promote_types(tensor.dtype, torch.float32)


def put_product(out: Tensor, left: Tensor, right: Tensor) -> None:
    """out ← left @ right, in the dtype of `out`, which may be wider than the dtype of the factors."""
    if out.dtype == left.dtype:
        torch.mm(left, right, out=out)
    elif left.is_cuda:
        torch.mm(left, right, out_dtype=out.dtype, out=out)
    else:
        torch.mm(left.to(out.dtype), right.to(out.dtype), out=out)


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total ← total + left @ right, in the dtype of `total`, which may be wider than the dtype of the factors."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    elif left.is_cuda:
        torch.addmm(total, left, right, out_dtype=total.dtype, out=total)
    else:
        total.addmm_(left.to(total.dtype), right.to(total.dtype))
