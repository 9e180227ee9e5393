"""Formulas over blocks of rows, compiled by torch once for any number of rows."""

from collections.abc import Callable
from typing import Any

import torch


def compiled_over_rows(formula: Callable[[torch.Tensor], Any], device_type: str) -> Callable[[torch.Tensor], Any]:
    """Compiles a formula of one tensor, whose first dimension may change from call to call.

    Args:
        formula: The formula.
        device_type: "cpu" or "cuda".
    """
    # In this thread and process: a pool of compiler processes would outlive the few kernels that it compiles.
    options: dict[str, Any] = {"compile_threads": 1}
    if device_type == "cuda":
        # Otherwise torch picks the fastest block shape by trial, and two machines may sum in different orders.
        options["deterministic"] = True
    compiled = torch.compile(formula, fullgraph=True, options=options)

    def call(rows: torch.Tensor) -> Any:
        # The last chunk of a batch has fewer rows.
        torch._dynamo.mark_dynamic(rows, 0)  # pyright: ignore[reportPrivateImportUsage]
        return compiled(rows)

    return call
