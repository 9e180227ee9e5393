"""Block sums against float64, and the compiled pass against plain torch."""

import math
import shutil

import pytest
import torch
import torch._inductor.config

from logitcask.schemas.errors import UsageError
from logitcask.schemas.format.scheme import Scheme, ThresholdScheme, TopKScheme
from logitcask.teacher.scoring.block_sums import BlockSums, Kernel, choose_kernel, plain_block_sums
from logitcask.teacher.scoring.heads import select_heads


def random_blocks(num_blocks: int) -> torch.Tensor:
    blocks = 4 * torch.randn(num_blocks, 128, generator=torch.Generator().manual_seed(num_blocks))
    blocks[0] = -math.inf
    blocks[1, 3:] = -math.inf
    return blocks


def assert_equals_definition(found: BlockSums, blocks: torch.Tensor, temperature: float = 1.0) -> None:
    z = blocks.double()
    below = (z - z.amax(-1, keepdim=True)).nan_to_num(nan=-math.inf) / temperature
    torch.testing.assert_close(found.highest, blocks.amax(-1))
    torch.testing.assert_close(found.sums.double(), below.exp().sum(-1), rtol=1e-6, atol=0)
    weighted = torch.where(below == -math.inf, 0.0, below.exp() * below).sum(-1)
    torch.testing.assert_close(found.weighted.double(), weighted, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
def test_plain_sums_equal_their_definition(temperature: float) -> None:
    blocks = random_blocks(40)
    assert_equals_definition(plain_block_sums(blocks, temperature), blocks, temperature)


def test_auto_compiles_for_large_vocabularies_only() -> None:
    assert choose_kernel("auto", 1000, "cpu") == "plain"
    assert choose_kernel("compiled", 1000, "cpu") == "compiled"
    with pytest.raises(UsageError, match="auto, plain or compiled"):
        choose_kernel("fast", 1000, "cpu")


def test_without_a_compiler_auto_is_plain(monkeypatch) -> None:
    # Torch reads CXX when its configuration is first read, which must not happen below.
    monkeypatch.setenv("CXX", "/no/such/compiler")
    with torch._inductor.config.patch({"cpp.cxx": (None, "/no/such/compiler")}):
        assert choose_kernel("auto", 262_144, "cpu") == "plain"


def test_where_compiling_fails_plain_torch_replaces_it_with_a_warning(monkeypatch, caplog) -> None:
    def fail(_device_type: str) -> None:
        raise RuntimeError("no compiler\nmore")

    monkeypatch.setattr("logitcask.teacher.scoring.block_sums._compiled", fail)
    kernel = Kernel("compiled", block_ids=2)
    assert kernel.kind == "plain"
    assert "compiling failed (RuntimeError: no compiler)" in caplog.text
    torch.testing.assert_close(kernel(torch.zeros(3, 2)).sums, torch.full((3,), 2.0))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
# Torch's compiler imports a module of torch that torch itself has deprecated.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_the_compiled_pass_gives_the_same_heads_and_is_compiled_once() -> None:
    kernel = Kernel("compiled")
    assert kernel.kind == "compiled"
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        blocks = random_blocks(40)
        assert_equals_definition(kernel(blocks), blocks)
        with torch.compiler.set_stance("fail_on_recompile"):
            for num_rows in (1, 2, 7, 64):
                logits = 3 * torch.randn(num_rows, 1280, generator=generator)
                for scheme in (ThresholdScheme(), TopKScheme(k=5)):
                    found, plain = (
                        select_heads(logits.clone(), scheme, torch.arange(num_rows), kernel=which)
                        for which in (kernel, None)
                    )
                    assert found.ids.tolist() == plain.ids.tolist()
                    torch.testing.assert_close(found.log_probs, plain.log_probs, rtol=0, atol=1e-6)
                    torch.testing.assert_close(found.log_tail, plain.log_tail, rtol=0, atol=1e-6)
                    torch.testing.assert_close(found.entropy, plain.entropy, rtol=0, atol=2e-6)


@pytest.mark.parametrize("scheme", [ThresholdScheme(), TopKScheme(k=128)])
def test_heads_are_those_of_a_stable_sort_within_a_millionth(scheme: Scheme) -> None:
    # Rounded to steps of 1/32, so that many logits are equal.
    logits = (6 * torch.randn(8, 20_480, generator=torch.Generator().manual_seed(5)) * 32).round() / 32
    heads = select_heads(logits.clone(), scheme, torch.zeros(8, dtype=torch.long))
    log_probs = logits.double().log_softmax(-1)
    for row, (ids, values) in enumerate(
        zip(heads.ids.split(heads.widths.tolist()), heads.log_probs.split(heads.widths.tolist()), strict=True)
    ):
        count = len(ids)
        expected = logits[row].sort(descending=True, stable=True).indices[:count].sort().values
        assert ids.tolist() == expected.tolist()
        torch.testing.assert_close(values.double(), log_probs[row][expected], rtol=0, atol=1e-6)
