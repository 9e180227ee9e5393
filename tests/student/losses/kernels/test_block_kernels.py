"""Each kernel compiles for a device that is not here."""

import itertools
import os
import subprocess
import sys

import pytest

COMPILE = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from logitcask.student.losses.kernels import block_kernels

kernel = getattr(block_kernels, {name!r})
signature = {{name: {types!r}.get(name, "constexpr") for name in kernel.arg_names}}
for flags in {flags!r}:
    ptx = compile(ASTSource(kernel, signature, flags), target=GPUTarget("cuda", 90, 32)).asm["ptx"]
    assert {name!r} in ptx
    if {name!r} == "write_gradient":
        # It may overwrite the logits that it reads, so each thread must wait until all have read.
        lines = ptx.splitlines()
        last_read = max(i for i, line in enumerate(lines) if "ld.global" in line)
        first_write = min(i for i, line in enumerate(lines) if "st.global" in line)
        assert any("bar.sync" in line for line in lines[last_read:first_write])
"""


NUMBERS = dict.fromkeys(
    ["raw_stride", "gradient_stride", "first_id", "width", "num_pairs", "num_head", "count"], "i32"
) | {"temperature": "fp32", "softcap": "fp32"}


POINTERS = {"rows": "*i32", "ids": "*i32", "bias": "*bf16", "gradient": "*bf16"} | dict.fromkeys(
    ["raw", "gathered", "maxima", "sums", "plain_maxima", "plain_sums", "factors", "plain_factors", "values", "factor"],
    "*fp32",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("gather_logits", ["HAS_BIAS"]),
        ("add_complement", ["HAS_BIAS", "HAS_SOFTCAP", "HAS_TEMPERATURE"]),
        ("write_gradient", ["HAS_BIAS", "HAS_SOFTCAP", "HAS_TEMPERATURE"]),
        ("scatter_gradients", []),
        ("scale", []),
    ],
)
def test_kernels_compile_for_hopper(name, flags, tmp_path):
    """Without a device: down to machine code for compute capability 9.0."""
    choices = [
        dict(zip(flags, values, strict=True)) | {"BLOCK": 2048}
        for values in itertools.product([True, False], repeat=len(flags))
    ]
    program = COMPILE.format(name=name, types=NUMBERS | POINTERS, flags=choices)
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
