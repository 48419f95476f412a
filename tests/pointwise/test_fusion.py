"""No rounding step is lost to a fused multiply-add: what the compiler makes of an epilogue with fusion is what it makes
without, but for sums with zero."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")
pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).parent))

from test_expressions import ROWS_OF_THE_TABLE, parsed

from kernel_rewrite.model import OperandKind
from kernel_rewrite.pointwise import composition
from kernel_rewrite.pointwise.op import Result
from kernel_rewrite.pointwise.ops import OPS
from kernel_rewrite.pointwise.reference import reference_source

pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="needs the compiler")

LIES = {
    OperandKind.ROW: (1, 16),
    OperandKind.COLUMN: (8, 1),
    OperandKind.TILE: (8, 16),
    OperandKind.SCALAR: (),
}
POINTERS = {"float16": "*fp16", "bfloat16": "*bf16", "float32": "*fp32"}

SUMS = [
    "x * scale + bias",
    "x * 0.1 + bias",
    "x * bias - residual",
    "bias - x * residual",
    "-(x * bias) + residual",
    "x * bias + residual * shift",
    "leaky_relu(x, 0.1) + bias",
    "gelu(x) + residual",
    "where(x > 0, x * bias, x) + residual",
    "(x * bias).to(float32) + residual",
    "x ** 2 + bias",
    "x * x + bias",
    "abs(x) * abs(bias) + residual",
    "bias - exp(x) * exp(bias)",
    "-(x * x) - 1",
    "square(x * bias) + 1",
    "(x > 0).to(float32) * 0.1 + bias",
    "relu(x) * relu(bias) + residual",
    "clamp(x, 0, 6) * clamp(bias, 0, 6) + residual",
    "x / scale + bias",
    "relu(x * bias) * residual + shift",
]
ALONE = [
    name
    for name, row in OPS.items()
    if len(row.operands) == 1 and row.steps and row.result is Result.PROMOTED and "clamp" not in name
]


def kernel(text: str, *, product: bool = False) -> Any:
    import running

    return running.load(running.kernel_source(parsed(text), product=product), f"fusion_{next(running._COUNT)}").kernel


def contracted(text: str, dtype: str, fusion: bool, *, product: bool = False) -> int:
    """How many instructions of the PTX round a product and a sum as one, sums with the constant zero left out."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    pointwise = parsed(text)
    signature = {"x_ptr": POINTERS[dtype], "out_ptr": POINTERS[dtype]}
    for operand in pointwise.operands:
        signature |= {operand.name: "fp32"} if operand.is_number else {f"{operand.name}_ptr": POINTERS[dtype]}
    source = ASTSource(kernel(text, product=product), signature, constexprs={})
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": fusion})
    ptx = compiled.asm["ptx"]
    zeros = set(re.findall(r"mov\.[bfu]\d+\s+(%\w+), (?:0x0+|0|0[fd]0+);", ptx)) | {"0f00000000", "0f80000000"}
    zeros -= {r for loaded in re.findall(r"ld\.global[^;]*?\{([^}]*)\}", ptx) for r in re.findall(r"%\w+", loaded)}
    addends = re.findall(r"fma\.rn\.\S+\s+[^;]*,\s*(\S+);", ptx)
    return sum(addend not in zeros for addend in addends)


@pytest.mark.parametrize("dtype", POINTERS)
@pytest.mark.parametrize("text", SUMS)
def test_no_rounding_is_lost(text: str, dtype: str) -> None:
    assert contracted(text, dtype, True) == contracted(text, dtype, False)


@pytest.mark.parametrize("name", ALONE)
def test_no_op_swallows_the_product_that_it_gets(name: str) -> None:
    """It contracts as many sums of its own (the last factor of exp is a power of two) with a product as without."""
    texts = (name, f"{name}(x * bias)")
    alone, of_a_product = (contracted(t, "float32", True) - contracted(t, "float32", False) for t in texts)
    assert of_a_product == alone


@pytest.mark.parametrize("text", ROWS_OF_THE_TABLE)
def test_the_reference_lowers(text: str, tmp_path: Path) -> None:
    """A function of x and the operands, in the order that was asked for, for every type of x."""
    from test_ops import REFERENCE_DTYPES, load, lower

    pointwise = parsed(text)
    lowered = 0
    for dtype in REFERENCE_DTYPES:
        if pointwise.undefined_reason(dtype):
            continue
        operands = [(o.name, LIES[o.kind], "float32" if o.is_number else o.dtype or dtype) for o in pointwise.operands]
        module = load(reference_source(pointwise, (8, 16), dtype, operands), tmp_path, f"reference_{lowered}")
        calls = re.findall(r"tt.call @\S*epilogue_alone\S*\(([^)]*)\)", lower(module.reference))
        assert [len(call.split(",")) for call in calls] == [1 + len(operands)], (text, dtype)
        lowered += 1
    assert lowered


@pytest.mark.parametrize("text", ["x + bias", "hardswish", "1 - x"])
def test_a_stored_product_is_kept_apart(text: str) -> None:
    assert "rounded(" in str(kernel(text, product=True).src) and "rounded(" not in str(kernel(text).src)


def test_without_the_barrier_a_rounding_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    composition.compose.cache_clear()
    monkeypatch.setattr(composition._Composer, "_apart", lambda self, piece: piece)
    lost = [
        t
        for t in ("x * bias - residual", "x ** 2 + bias")
        if contracted(t, "float32", True) != contracted(t, "float32", False)
    ]
    composition.compose.cache_clear()
    assert lost == ["x * bias - residual", "x ** 2 + bias"]
