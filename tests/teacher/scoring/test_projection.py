"""Hidden states to logits: the soft-cap is the same in one pass and in three, and leaves the padding alone."""

import shutil

import pytest
import torch

from logitcask.teacher.scoring.projection import LinearHead


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
# Torch's compiler imports a module of torch that torch itself has deprecated.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_the_compiled_softcap_is_the_plain_one_and_is_compiled_once() -> None:
    generator = torch.Generator().manual_seed(0)
    weight_VD = 20 * torch.randn(300, 16, generator=generator)
    head = LinearHead(weight=weight_VD, bias=None, scale=1.0, softcap=30.0)
    with torch.inference_mode():
        for num_rows, stance in ((64, "default"), (2, "fail_on_recompile"), (7, "fail_on_recompile")):
            hidden_TD = torch.randn(num_rows, 16, generator=generator)
            with_padding_TV = torch.full((num_rows, 320), 7.0)
            with torch.compiler.set_stance(stance):
                found_TV = head.logits(hidden_TD, with_padding_TV[:, :300], compiled=True)
            expected_TV = 30 * torch.tanh(hidden_TD.double() @ weight_VD.double().T / 30)
            torch.testing.assert_close(found_TV.double(), expected_TV, rtol=0, atol=5e-5)
            torch.testing.assert_close(found_TV, head.logits(hidden_TD, torch.empty_like(found_TV)), rtol=0, atol=1e-5)
            assert (with_padding_TV[:, 300:] == 7).all()
