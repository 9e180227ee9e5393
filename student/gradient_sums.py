"""The gradients of a projection's three inputs, summed chunk by chunk, so that no [T, V] is ever needed."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(kw_only=True, slots=True, eq=False)
class GradientSums:
    """Running gradients of hidden states, weight and bias; None for one that needs none.

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
    def zeros(cls, inputs: Sequence[Tensor | None], needed: Sequence[bool], vocab_size: int) -> "GradientSums":
        """Zeros like those of (hidden, weight, bias) that are needed."""
        hidden, weight, bias = (
            torch.zeros_like(tensor) if is_needed and tensor is not None else None
            for tensor, is_needed in zip(inputs, needed, strict=True)
        )
        return cls(hidden=hidden, weight=weight, bias=bias, vocab_size=vocab_size)

    def add(self, start: int, gradient: Tensor, hidden: Tensor, weight: Tensor) -> None:
        """Adds a chunk's share, given the gradient of its logits [C, V] in the dtype of the products."""
        if self.hidden is not None:
            torch.mm(gradient, weight, out=self.hidden[start : start + hidden.shape[0]])
        if self.weight is not None:
            _add_product(self.weight[: self.vocab_size], gradient.T, hidden)
        if self.bias is not None:
            self.bias[: self.vocab_size] += gradient.sum(dim=0)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
