"""Gradients summed over chunks of rows."""

import torch

from logitcask.student.losses.gradient_sums import GradientSums


def tensors(dtype: torch.dtype, rows: int = 8) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(rows, 3), (7, 3), (7,), (rows, 5)]
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


def test_chunks_give_the_gradients_of_the_whole():
    hidden, weight, bias, gradient = tensors(torch.float64)
    sums = GradientSums.zeros((hidden, weight, bias), [True] * 3, vocab_size=5, num_chunks=2)
    for start, stop in ((0, 3), (3, 8)):
        sums.add(start, gradient[start:stop], hidden[start:stop], weight[:5])
    by_hidden, by_weight, by_bias = sums.like((hidden, weight, bias))
    torch.testing.assert_close(by_hidden, gradient @ weight[:5])
    torch.testing.assert_close(by_weight[:5], gradient.T @ hidden)
    torch.testing.assert_close(by_bias[:5], gradient.sum(0))
    assert (by_weight[5:] == 0).all()
    assert (by_bias[5:] == 0).all()


def test_sums_of_half_precision_are_float32_and_rounded_once():
    hidden, weight, bias, _ = tensors(torch.bfloat16)
    sums = GradientSums.zeros((hidden, weight, bias), [True] * 3, vocab_size=5, num_chunks=2)
    assert sums.weight.dtype == sums.bias.dtype == torch.float32
    assert [gradient.dtype for gradient in sums.like((hidden, weight, bias))] == [torch.bfloat16] * 3


def test_a_gradient_that_is_not_needed_is_none():
    hidden, weight, bias, gradient = tensors(torch.float32)
    sums = GradientSums.zeros((hidden, weight, bias), [True, False, False], vocab_size=5, num_chunks=1)
    sums.add(0, gradient, hidden, weight[:5])
    assert [one is None for one in sums.like((hidden, weight, bias))] == [False, True, True]
