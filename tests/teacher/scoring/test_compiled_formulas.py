"""A compiled formula equals the plain one for any number of rows, after one compilation."""

import shutil

import pytest
import torch

from logitcask.teacher.scoring.compiled_formulas import compiled_over_rows


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
# Torch's compiler imports a module of torch that torch itself has deprecated.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_one_compilation_serves_any_number_of_rows() -> None:
    def formula(rows_TV: torch.Tensor) -> torch.Tensor:
        return (rows_TV * 2).sum(dim=-1)

    compiled = compiled_over_rows(formula, "cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for num_rows, stance in ((64, "default"), (2, "fail_on_recompile"), (7, "fail_on_recompile")):
            rows_TV = torch.randn(num_rows, 48, generator=generator)
            with torch.compiler.set_stance(stance):
                torch.testing.assert_close(compiled(rows_TV), formula(rows_TV))
