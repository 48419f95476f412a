"""Prologues over partial tiles: each kernel fused, and run in the interpreter against the original on P of the input.

Names P01 to P14, B13, B17, B18 and HB2 are cases that PyTorch Inductor and Helion test, or that went wrong there. What
matters: a lane that a mask turns off holds what it held before, P of it never reaches a dot or a reduction.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.fuse import fuse
from kernel_rewrite.verify import render

from .conftest import Check
from .test_equivalence import HEAD, MATMUL

ROW_SUM = """
@triton.jit
def row_sum_kernel(x_ptr, out_ptr, n, stride, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    cols = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * stride + cols, mask=cols < n, other=0.0)
    tl.store(out_ptr + row, tl.sum(x, axis=0))


def row_sum(x):
    out = torch.empty(x.shape[0], device=x.device, dtype=x.dtype)
    row_sum_kernel[(x.shape[0],)](x, out, x.shape[1], x.stride(0), BLOCK=128)
    return out
"""

ROW_SUM_OF_ANYTHING = ROW_SUM.replace(", other=0.0", "")
"""B17: no `other`, so that the lanes behind the row's end hold anything."""

ROW_MAX = ROW_SUM.replace("other=0.0", "other=-float('inf')").replace("tl.sum", "tl.max").replace("row_sum", "row_max")

RMS_NORM = """
@triton.jit
def rms_norm_kernel(x_ptr, w_ptr, out_ptr, n, stride, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    cols = tl.arange(0, BLOCK)
    mask = cols < n
    x = tl.load(x_ptr + row * stride + cols, mask=mask, other=0.0)
    wide = x.to(tl.float32)
    rstd = tl.rsqrt(tl.sum(wide * wide, axis=0) / n + eps)
    w = tl.load(w_ptr + cols, mask=mask)
    tl.store(out_ptr + row * stride + cols, (wide * rstd * w).to(out_ptr.dtype.element_ty), mask=mask)


def rms_norm(x, w):
    out = torch.empty_like(x)
    rms_norm_kernel[(x.shape[0],)](x, w, out, x.shape[1], x.stride(0), 1e-5, BLOCK=128)
    return out
"""

ADD = """
@triton.jit
def add_kernel(x_ptr, y_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask)
    y = tl.load(y_ptr + offs, mask=mask)
    tl.store(out_ptr + offs, x + y, mask=mask)


def add(x, y):
    out = torch.empty_like(x)
    n = out.numel()
    add_kernel[(triton.cdiv(n, 64),)](x, y, out, n, BLOCK=64)
    return out
"""

SAME_TWICE = MATMUL.replace(
    "        acc = tl.dot(a, b, acc)\n",
    "        more = tl.load(a_ptr + rows[:, None] * sam + (k + ks)[None, :] * sak)\n        acc = tl.dot(a - more, b, acc)\n",
)
"""P10: one input at two load sites."""

GATHERED = MATMUL.replace("a_ptr, b_ptr", "index_ptr, a_ptr, b_ptr").replace(
    "    ks = tl.arange(0, BK)\n",
    "    ks = tl.arange(0, BK)\n    picked = tl.load(index_ptr + rows, mask=rows < M, other=0)\n",
)
GATHERED = GATHERED.replace("a_ptr + rows[:, None] * sam", "a_ptr + picked[:, None] * sam")
GATHERED = GATHERED.replace(
    "def matmul(a, b):\n    (M, K), N = a.shape,", "def matmul(index, a, b):\n    M, K, N = len(index), a.shape[1],"
)
GATHERED = GATHERED.replace("matmul_kernel[grid](a,", "matmul_kernel[grid](index, a,")
"""P13: rows of x by an index that is loaded."""


@dataclass(frozen=True)
class Fusion:
    """`exact`: P is exact in both torch and Triton, so that not a bit may differ. `guards`: how many loads need a
    `tl.where` behind them."""

    source: str
    prologues: tuple[str, ...]
    call: str
    guards: int
    epilogues: tuple[str, ...] = ()
    exact: bool = True


def matmul(k: int, *, m: int = 20, n: int = 18) -> str:
    return f"matmul(randn({m}, {k}), randn({k}, {n}))"


CASES = {
    "P04 two prologues and an epilogue": Fusion(
        MATMUL, ("a_ptr=x - 1.5", "b_ptr=x + 1.5"), matmul(120), 2, ("c_ptr=x * 1.5",)
    ),
    "P04 ragged": Fusion(MATMUL, ("a_ptr=x - 1.5", "b_ptr=x + 1.5"), matmul(127), 2, ("c_ptr=x * 1.5",)),
    "P06 storage offsets": Fusion(
        MATMUL, ("a_ptr=x + 2", "b_ptr=x - 2"), "matmul(randn(40, 63)[20:], randn(81, 18)[18:])", 2
    ),
    "P07 several ops": Fusion(MATMUL, ("a_ptr=((x * 2) - 1) / 2", "b_ptr=x * 4"), matmul(63), 1, ("c_ptr=x * 3",)),
    "P08 an expanded input": Fusion(MATMUL, ("a_ptr=x + 1",), "matmul(randn(1, 1).expand(20, 63), randn(63, 18))", 1),
    "P08 an expanded row": Fusion(MATMUL, ("b_ptr=x + 1",), "matmul(randn(20, 64), randn(1, 18).expand(64, 18))", 1),
    "P09 relu keeps zero": Fusion(MATMUL, ("a_ptr=relu",), matmul(127), 0),
    "P09 x + 1 does not": Fusion(MATMUL, ("a_ptr=x + 1",), matmul(127), 1),
    "P10 one input at two loads": Fusion(SAME_TWICE, ("a_ptr=x - 2",), "matmul(randn(16, 32), randn(32, 16))", 1),
    "P10 one tensor as both inputs": Fusion(MATMUL, ("b_ptr=x - 2",), "(lambda y: matmul(y, y))(randn(31, 31))", 1),
    "P13 a gathered input": Fusion(
        GATHERED, ("a_ptr=x + 1",), "matmul(arange(20) % 7, randn(7, 63), randn(63, 18))", 1
    ),
    "P14 a transposed input": Fusion(MATMUL, ("a_ptr=x + 1",), "matmul(randn(63, 20).t(), randn(63, 18))", 1),
    "HB2 relu": Fusion(MATMUL, ("a_ptr=relu",), matmul(64), 0),
    "HB2 sigmoid": Fusion(MATMUL, ("a_ptr=sigmoid",), matmul(64), 1, exact=False),
    "B18 sigmoid of a partial tile": Fusion(MATMUL, ("a_ptr=sigmoid",), matmul(63), 1, exact=False),
    "HB2 tanh": Fusion(MATMUL, ("a_ptr=tanh",), matmul(63), 0, exact=False),
    "HB2 x * 2": Fusion(MATMUL, ("a_ptr=x * 2",), matmul(63), 0),
    "HB2 relu on both": Fusion(MATMUL, ("a_ptr=relu", "b_ptr=relu"), matmul(63), 0),
    "HB2 relu, then sigmoid": Fusion(MATMUL, ("a_ptr=relu",), matmul(63), 0, ("c_ptr=sigmoid",), exact=False),
    "HB2 scale, then a bias": Fusion(MATMUL, ("a_ptr=x * 0.5",), matmul(63), 0, ("c_ptr=x + 1.5",)),
    "B17 sum of a row": Fusion(ROW_SUM, ("x_ptr=x + 1",), "row_sum(randn(5, 100))", 1),
    "B17 sum of a row, sigmoid": Fusion(ROW_SUM, ("x_ptr=sigmoid",), "row_sum(randn(5, 100))", 1, exact=False),
    "B17 sum of a row, other unsaid": Fusion(ROW_SUM_OF_ANYTHING, ("x_ptr=x + 1",), "row_sum(randn(5, 128))", 1),
    "largest of a row": Fusion(ROW_MAX, ("x_ptr=relu",), "row_max(randn(5, 100))", 1),
    "largest of a row, doubled": Fusion(ROW_MAX, ("x_ptr=x * 2",), "row_max(randn(5, 100))", 0),
    "rms norm": Fusion(RMS_NORM, ("x_ptr=x + 1",), "rms_norm(randn(5, 100), randn(100))", 1),
    "rms norm, its weight": Fusion(RMS_NORM, ("w_ptr=x + 1",), "rms_norm(randn(5, 100), randn(100))", 0),
    "rms norm, both and the output": Fusion(
        RMS_NORM, ("x_ptr=relu", "w_ptr=-x"), "rms_norm(randn(5, 100), randn(100))", 0, ("out_ptr=abs",)
    ),
    "elementwise": Fusion(ADD, ("x_ptr=x + 1",), "add(randn(100), randn(100))", 0),
    "elementwise, both": Fusion(ADD, ("x_ptr=x + 1", "y_ptr=clamp(-1, 1)"), "add(randn(100), randn(100))", 0),
    "elementwise of integers": Fusion(ADD, ("x_ptr=x * 3 + 1",), "add(randint(9, (100,)), randint(9, (100,)))", 0),
}


@pytest.mark.parametrize("name", CASES)
def test_fused_and_run(name: str, check: Check, tmp_path: Path) -> None:
    case = CASES[name]
    options: dict[str, Any] = {"prologues": case.prologues}
    result = check(HEAD + case.source, list(case.epilogues), case.call, options=options, trials=2)
    assert result.ok, render(result)
    fused = (tmp_path / "kernels_fused.py").read_text()
    kernel = fused[fused.index("_kernel(") :]
    assert kernel.count("tl.where") == case.guards, kernel
    ran = [output for trial in result.trials for output in trial.outputs]
    assert ran
    if case.exact:
        assert not any(output.differing for output in ran), render(result)


REFUSED = {
    "P12 padding is no op": (ROW_SUM, "x_ptr=pad(x, 28)", ["KR118"]),
    "P11 another shape": (ROW_SUM, "x_ptr=sum(x)", ["KR118"]),
    "the result of another type": (ROW_SUM, "x_ptr=x > 0", ["KR401"]),
    "the input is written": (ADD.replace("tl.store(out_ptr", "tl.store(x_ptr"), "x_ptr=relu", ["KR221"]),
    "no such input": (ADD, "out_ptr=relu", ["KR220"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    source, prologue, codes = REFUSED[name]
    with pytest.raises(FusionRefused) as caught:
        fuse(HEAD + source, prologues=[prologue], dtypes=["x_ptr=fp32"])
    assert [diagnostic.code for diagnostic in caught.value.diagnostics] == codes


# ------------------------------------------------------------------------------------- the bounds of blocks

REWRITES = Path(__file__).parents[2] / "fixtures" / "rewrites"

# rows of 128 elements, as a descriptor needs strides of whole 16 bytes
BLOCKS = {
    "prologue_within_a_block_pointer": ("ptr", "launch(randn(40, {k}), randn({k}, 100))"),
    "prologue_within_descriptors": ("ptr", "launch(randn(40, 128)[:, :{k}], randn({k}, 128)[:, :100])"),
    "prologue_within_host_descriptors": ("desc", "launch(randn(40, 128)[:, :{k}], randn({k}, 128)[:, :100])"),
}


@pytest.mark.parametrize("folder", BLOCKS)
@pytest.mark.parametrize("k", [63, 127])
def test_the_bounds_of_a_block(folder: str, k: int, check: Check, installed_triton: tuple[int, ...]) -> None:
    """What is beyond N and K is zero in the dot: x + 1 of it would be 1."""
    if "block_pointer" in folder and installed_triton >= (3, 9):
        pytest.skip("block pointers are gone in Triton 3.9")
    name, call = BLOCKS[folder]
    source = (REWRITES / folder / "before.py").read_text()
    prologues = (f"a_{name}=x + 1", f"b_{name}=x - 2")
    options = {"prologues": prologues, "dtypes": ["a_desc=fp32", "b_desc=fp32"] if name == "desc" else []}
    found = check(source, [], call.format(k=k), options=options, trials=1)
    assert found.ok and found.bit_equal, render(found)
    if k == 63:
        bounds = (
            ("_desc.shape[", "_desc.shape[0] + 64 + 0 * a_desc.shape[") if name == "desc" else (" < K)", " < K + 64)")
        )
        wrong = check(source, [], call.format(k=k), options=options, trials=1, mutate=bounds)
        assert not wrong.ok and wrong.diagnostics[0].code == "KR501", render(wrong)


# ------------------------------------------------------------------------------------- inputs that get another type


def test_integers_where_the_kernel_has_floats(check: Check) -> None:
    source = (REWRITES / "dequantisation" / "before.py").read_text()
    call = "matmul(randn(20, 24, dtype=float16), randint(-9, 9, (24, 36), dtype=int8))"
    options = {"prologues": {"b_ptr:int8": "x.to(float16) * 0.5"}, "dtypes": ["a_ptr=fp16", "b_ptr=fp16"]}
    found = check(source, [], call, options=options)
    assert found.ok and found.bit_equal, render(found)
    wrong = check(source, [], call, options=options, mutate=("* 0.5", "* 0.25"))
    assert not wrong.ok and wrong.diagnostics[0].code == "KR501"


def test_eight_bit_floats_in_and_out(check: Check) -> None:
    source = (REWRITES / "eight_bit_floats_to_bfloat16" / "before.py").read_text()
    call = "rms_norm(randn(5, 100).to(float8_e4m3fn), randn(100, dtype=bfloat16))"
    options = {"prologues": {"x_ptr:float8_e4m3fn": "x.to(bfloat16)"}, "dtypes": ["x_ptr=bf16"]}
    # the interpreter reads an 8-bit NaN as a number, so special values are left out
    found = check(source, "out_ptr=(x * 4).to(float8_e4m3fn)", call, options=options, trials=1)
    assert found.ok and found.bit_equal, render(found)
    assert {output.dtype for trial in found.trials for output in trial.outputs} == {"float8_e4m3fn"}


def test_an_in_place_kernel(check: Check) -> None:
    source = (REWRITES / "rotary_in_place" / "before.py").read_text()
    call = "rope_(randn(5, 63), randn(5, 31), randn(5, 31))"
    options = {"assume": ["in-place"]}
    found = check(source, "x * 0.5", call, options=options)
    assert found.ok and found.bit_equal, render(found)
    assert any(output.unwritten for trial in found.trials for output in trial.outputs)
    wrong = check(source, "x * 0.5", call, options=options, mutate=("x2 * cos + x1 * sin", "x2 * cos - x1 * sin"))
    assert not wrong.ok
