"""A pointwise kernel as an epilogue: what is written, what is refused at which line, and that another function is rejected."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import kernel_rewrite
from kernel_rewrite import selection
from kernel_rewrite.cli import cli
from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.epilogue_kernels import read_epilogue_kernel
from kernel_rewrite.pointwise.calls import TritonCall
from kernel_rewrite.rewrite.header import read_header
from kernel_rewrite.source.files import Project
from kernel_rewrite.verify import verify

HEAD = """\
import torch
import triton
import triton.language as tl

"""

SCALE = (
    HEAD
    + """
@triton.jit
def scale_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    x = tl.load(x_ptr + offsets, mask=mask) + 2.0
    tl.store(out_ptr + offsets, x, mask=mask)


def scale(x):
    out = torch.empty_like(x, dtype=torch.float16)
    scale_kernel[(triton.cdiv(x.numel(), 128),)](x, out, x.numel(), BLOCK=128)
    return out
"""
)

PLACES = """\
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
"""
LOAD = "    x = tl.load(in_ptr + offsets, mask=mask)\n"
LOADS = LOAD + "    b = tl.load(b_ptr + offsets, mask=mask)\n"


def kernel(body: str, parameters: str = "in_ptr, out_ptr, n", more: str = "") -> str:
    """A file with the kernel `act_kernel`, whose definition is in line 7."""
    return f"{HEAD}{more}\n@triton.jit\ndef act_kernel({parameters}, BLOCK: tl.constexpr = 128):\n{PLACES}{body}"


def store(value: str, pointer: str = "out_ptr") -> str:
    return f"    tl.store({pointer} + offsets, {value}, mask=mask)\n"


GELU = kernel(
    "    x = tl.load(in_ptr + offsets, mask=mask).to(tl.float32)\n"
    + "    b = tl.load(b_ptr + offsets, mask=mask)\n"
    + "    # above\n    if FAST:\n        y = x * tl.sigmoid(1.702 * x)  # behind\n"
    + "    else:\n        y = x * SLOPE\n"
    + "    y += alpha * b\n"
    + store("y.to(out_ptr.dtype.element_ty)"),
    "in_ptr, b_ptr, out_ptr, n, alpha, FAST: tl.constexpr = True",
    "SLOPE = tl.constexpr(0.5)\n",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scale.py").write_text(SCALE)
    return tmp_path


def fused(folder: Path, source: str, text: str = "act.py:act_kernel", **options: Any) -> Any:
    (folder / "act.py").write_text(source)
    return kernel_rewrite.fuse("scale.py", epilogue_kernels=text, **options)


def test_the_lines_of_the_author(folder: Path) -> None:
    result = fused(folder, GELU, "act.py:act_kernel(in_ptr)")
    assert (
        '''
from act import SLOPE


@triton.jit
def act(stored, b, alpha, FAST: tl.constexpr):
    """What `act_kernel` stores where it loads `stored`."""
    x = stored.to(tl.float32)
    # above
    if FAST:
        y = x * tl.sigmoid(1.702 * x)  # behind
    else:
        y = x * SLOPE
    y += alpha * b
    return y.to(stored.dtype)
'''
        in result.source
    )
    assert (
        "tl.store(out_ptr + offsets, act(x.to(out_ptr.dtype.element_ty), b, alpha, FAST=True), mask=mask)"
        in result.source
    )
    assert "def scale(x, *, b, alpha):" in result.source
    assert "epilogue-kernel" in [assumption.name for assumption in result.assumptions]


WRITTEN = [
    ("plain", kernel(LOAD + store("x * 2")), "act.py:act_kernel", "def act(x):", "return x * 2\n"),
    ("in place", kernel(LOAD + store("x * 2", "in_ptr"), "in_ptr, n"), "act.py:act_kernel", "def act(x):", "return x * 2\n"),
    ("names of operands", kernel(LOADS + store("x * b"), "in_ptr, b_ptr, out_ptr, n"),
     "act.py:act_kernel(in_ptr, b_ptr=gate)", "def act(x, b):", "gate = tl.load(gate_ptr + offsets, mask=mask)\n"),
    ("the other input", kernel(LOADS + store("x - b"), "in_ptr, b_ptr, out_ptr, n"),
     "act.py:act_kernel(b_ptr)", "def act(b, x):", "return x - b\n"),
    ("one value", kernel(LOAD + store("x * tl.load(s_ptr)"), "in_ptr, s_ptr, out_ptr, n"),
     "act.py:act_kernel(in_ptr)", "def act(x, s):", "return x * s\n"),
    ("loaded twice", kernel(LOAD + "    y = tl.load(in_ptr + offsets, mask=mask)\n" + store("x * y"), ), "act.py:act_kernel",
     "    y = stored\n", "return x * y\n"),
    ("rows", f"{HEAD}\n@triton.jit\ndef act_kernel(in_ptr, out_ptr, stride, n, BLOCK: tl.constexpr):\n"
     "    cols = tl.arange(0, BLOCK)\n    row = tl.program_id(0) * stride\n"
     "    x = tl.load(in_ptr + row + cols, mask=cols < n)\n    tl.store(out_ptr + row + cols, -x, mask=cols < n)\n",
     "act.py:act_kernel", "def act(x):", "return -x\n"),
    ("a static loop", kernel(LOAD + "    for i in tl.static_range(3):\n        x = x * 0.5 + i\n" + store("x")),
     "act.py:act_kernel", "    for i in tl.static_range(3):\n        x = x * 0.5 + i\n", "return x\n"),
    ("a value in lines", kernel(LOAD + "    tl.store(\n        out_ptr + offsets,\n        x\n        + 1,\n        mask=mask,\n    )\n"),
     "act.py:act_kernel", "def act(x):", "    return (x\n            + 1)\n"),
    ("no mask for the load", kernel(LOAD.replace(", mask=mask", "") + store("x * 2")), "act.py:act_kernel", "def act(x):", "return x * 2\n"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "text", "first", "second"), [row[1:] for row in WRITTEN], ids=[row[0] for row in WRITTEN]
)
def test_what_is_written(folder: Path, source: str, text: str, first: str, second: str) -> None:
    result = fused(folder, source, text)
    assert first in result.source and second in result.source, result.source


@pytest.mark.parametrize("dtype", ["bf16", "fp32", "fp64", "i32", "fp8e5"])
def test_types_of_the_output(folder: Path, dtype: str) -> None:
    assert dtype in fused(folder, kernel(LOAD + store("x * 2")), dtypes=[f"out_ptr={dtype}"]).statements[0]


def test_a_kernel_of_the_same_file(folder: Path) -> None:
    source = SCALE.replace("def scale(x)", kernel(LOAD + store("x * 3")).removeprefix(HEAD) + "\n\ndef scale(x)")
    (folder / "scale.py").write_text(source)
    result = kernel_rewrite.fuse("scale.py", epilogue_kernels={"out_ptr": "scale.py:act_kernel"}, kernel="scale_kernel")
    assert "act(x.to(out_ptr.dtype.element_ty))" in result.source


def test_a_name_that_the_file_has(folder: Path) -> None:
    (folder / "scale.py").write_text(SCALE + "\n\ndef act():\n    pass\n")
    assert "act_of_x(x.to(" in fused(folder, kernel(LOAD + store("x * 3"))).source


def test_beside_an_epilogue(folder: Path) -> None:
    two = SCALE.replace("out_ptr, n", "out_ptr, half_ptr, n").replace("x, out, x", "x, out, torch.empty_like(x), x")
    two = two.replace(
        "    tl.store(out_ptr", "    tl.store(half_ptr + offsets, x / 2, mask=mask)\n    tl.store(out_ptr"
    )
    (folder / "scale.py").write_text(two)
    result = fused(folder, kernel(LOAD + store("x * 3")), "out_ptr=act.py:act_kernel", epilogues={"half_ptr": "relu"})
    assert dict(result.epilogues) == {"out_ptr": "act.py:act_kernel(in_ptr)", "half_ptr": "relu"}


TWO = "in_ptr, b_ptr, out_ptr, n"
REFUSED = [
    ("no kernel", kernel(LOAD + store("x")), "act.py:gelu_kernel", "act.py has no kernel `gelu_kernel`", 0),
    ("no parameter", kernel(LOAD + store("x")), "act.py:act_kernel(y_ptr)", "has no parameter `y_ptr`", 7),
    ("unreadable", kernel(LOAD + store("x")), "act.py:act_kernel(in_ptr + 1)", "cannot be read", 0),
    ("not its input", kernel(LOAD + store("x")), "act.py:act_kernel(out_ptr)", "loads nothing from `out_ptr`", 7),
    ("several inputs", kernel(LOADS + store("x + b"), TWO), "act.py:act_kernel", "loads from 2 buffers", 7),
    ("no input", kernel(store("1.0")), "act.py:act_kernel", "loads nothing", 7),
    ("does not depend", kernel(LOADS + store("b + 1"), TWO), "act.py:act_kernel(in_ptr)", "does not come from `in_ptr`", 12),
    ("no store", kernel(LOAD), "act.py:act_kernel", "stores nothing", 7),
    ("two stores", kernel(LOAD + store("x") + store("x")), "act.py:act_kernel", "stores 2 times", 12),
    ("in a branch", kernel(LOAD + "    if n > 8:\n    " + store("x")), "act.py:act_kernel", "inside of a loop or a branch", 12),
    ("atomic", kernel(LOAD + "    tl.atomic_add(out_ptr + offsets, x, mask=mask)\n" + store("x")), "act.py:act_kernel",
     "touches memory with `tl.atomic_add`", 11),
    ("another mask", kernel(LOADS.replace("b_ptr + offsets, mask=mask", "b_ptr + offsets, mask=mask & (offsets > 3), other=0") + store("x + b"), TWO),
     "act.py:act_kernel(in_ptr)", "loads `b_ptr` under another mask", 11),
    ("another place", kernel(LOADS.replace("b_ptr + offsets", "b_ptr + offsets + 1") + store("x + b"), TWO),
     "act.py:act_kernel(in_ptr)", "loads `b_ptr` at another place", 11),
    ("x elsewhere", kernel(LOAD.replace("+ offsets", "+ offsets * 2") + store("x")), "act.py:act_kernel", "loads `in_ptr` at another place", 10),
    ("the store elsewhere", kernel(LOAD + store("x").replace("+ offsets", "+ offsets + 1")), "act.py:act_kernel", "at another place", 10),
    ("a column", kernel(LOADS.replace("b_ptr + offsets", "b_ptr + offsets % 8") + store("x + b"), TWO),
     "act.py:act_kernel(in_ptr)", "loads `b_ptr` at another place", 11),
    ("a later element", kernel(LOAD + store("x * tl.load(b_ptr + 1)"), TWO), "act.py:act_kernel(in_ptr)", "loads `b_ptr` at another place", 11),
    ("a reduction", kernel(LOAD + store("x - tl.max(x, 0)")), "act.py:act_kernel", "makes `tt.reduce`", 11),
    ("a scan", kernel(LOAD + store("tl.cumsum(x, 0)")), "act.py:act_kernel", "makes `tt.scan`", 11),
    ("its place", kernel(LOAD + store("x + offsets")), "act.py:act_kernel", "depends on where it is stored", 8),
    ("its program", kernel(LOAD + store("x + tl.program_id(0)")), "act.py:act_kernel", "depends on where it is stored", 11),
    ("a loop", kernel(LOAD + "    for i in range(3):\n        x = x * 0.5\n" + store("x")), "act.py:act_kernel", "loops or branches at run time", 11),
    ("a loop around", kernel("    for i in range(2):\n    " + LOAD + "    " + store("x")), "act.py:act_kernel", "inside of a loop or a branch", 12),
    ("returns early", kernel("    if n == 0:\n        return\n" + LOAD + store("x")), "act.py:act_kernel", "branches or returns early", 10),
    ("prints", kernel(LOAD + "    tl.device_print('x', x)\n" + store("x")), "act.py:act_kernel", "does more than load, compute and store", 11),
    ("volatile", kernel(LOAD.replace("mask)", "mask, volatile=True)") + store("x")), "act.py:act_kernel", "volatile", 10),
    ("a constant", kernel(LOAD + store("x * WAY"), "in_ptr, out_ptr, n, WAY: tl.constexpr"), "act.py:act_kernel", "needs a value of `WAY`", 7),
    ("a number for a number", kernel(LOAD + store("x * slope"), "in_ptr, out_ptr, n, slope"), "act.py:act_kernel(in_ptr, slope=2.0)",
     "takes `slope` at run time", 7),
    ("what it does not need", kernel(LOAD + store("x")), "act.py:act_kernel(in_ptr, n=8)", "does not need `n`", 7),
    ("an integer", kernel(LOAD + store("x * n")), "act.py:act_kernel", "computes with `n`, of type i32", 7),
    ("a pointer", kernel(LOAD + store("(x + in_ptr.to(tl.int64))")), "act.py:act_kernel", "uses the pointer `in_ptr`", 11),
    ("a helper that loads", kernel("    x = get(in_ptr + offsets)\n" + store("x"), more="\n@triton.jit\ndef get(p):\n    return tl.load(p)\n\n"),
     "act.py:act_kernel", "touches memory in its helper `get`", 8),
    ("a block pointer", kernel("    b = tl.make_block_ptr(in_ptr, (n,), (1,), (0,), (BLOCK,), (0,))\n    x = tl.load(b)\n" + store("x")), "act.py:act_kernel",
     "something else than a pointer that it is given", 11),
]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "text", "message", "line"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_what_is_refused(
    folder: Path, source: str, text: str, message: str, line: int, installed_triton: tuple[int, ...]
) -> None:
    if "make_block_ptr" in source and installed_triton >= (3, 9):
        pytest.skip("needs block pointers")
    with pytest.raises(FusionRefused) as caught:
        fused(folder, source, text)
    diagnostic = caught.value.diagnostics[0]
    assert (diagnostic.code, message in diagnostic.message) == ("KR123", True), diagnostic
    assert diagnostic.help
    assert [label.span.line for label in diagnostic.labels[:1]] == ([line] if line else []), diagnostic
    assert all(label.span.file == "act.py" for label in diagnostic.labels)


LAUNCHED = kernel(LOAD + store("x * SLOPE"), "in_ptr, out_ptr, n, SLOPE: tl.constexpr = 2.0") + (
    "\n\ndef act(x):\n    y = torch.empty_like(x)\n"
    "    act_kernel[(1,)](x, y, x.numel(), SLOPE=3.0, BLOCK=128)\n    return y\n"
)


def test_a_value_that_launches_give(folder: Path) -> None:
    """The default is not what runs."""
    with pytest.raises(FusionRefused, match="KR123: `act_kernel` needs a value of `SLOPE`"):
        fused(folder, LAUNCHED)
    assert "SLOPE=3.0)" in fused(folder, LAUNCHED, "act.py:act_kernel(in_ptr, SLOPE=3.0)").source


def test_a_result_of_another_type(folder: Path) -> None:
    source = LAUNCHED.replace("empty_like(x)", "empty_like(x, dtype=torch.float32)")
    with pytest.raises(FusionRefused, match="KR124: `act_kernel` loads float16 and stores float32"):
        fused(folder, source, "act.py:act_kernel(in_ptr, SLOPE=3.0)")


FUSION_OFF = LAUNCHED.replace("SLOPE=3.0, BLOCK=128", "SLOPE=3.0, BLOCK=128, enable_fp_fusion=False")
TUNED = LAUNCHED.replace(
    "@triton.jit",
    '@triton.autotune([triton.Config({"BLOCK": 128, "enable_fp_fusion": False})], key=["n"])\n@triton.jit',
).replace(", BLOCK=128)", ")")
SCALE_OFF = SCALE.replace("BLOCK=128)", "BLOCK=128, enable_fp_fusion=False)")

OPTIONS = [
    ("of the second", SCALE, FUSION_OFF, "`act_kernel` is launched with `enable_fp_fusion=False`, and `scale_kernel` is not"),
    ("of the first", SCALE_OFF, LAUNCHED, "`scale_kernel` is launched with `enable_fp_fusion=False`, and `act_kernel` is not"),
    ("in a dict", SCALE, FUSION_OFF.replace("enable_fp_fusion=False", '**{"enable_fp_fusion": False}'), "`enable_fp_fusion=False`"),
    ("a configuration", SCALE, TUNED, "`act_kernel` is launched with `enable_fp_fusion=False`"),
    ("not known", SCALE_OFF, FUSION_OFF.replace("enable_fp_fusion=False", "enable_fp_fusion=x.is_cuda"), "`enable_fp_fusion=x.is_cuda`"),
    ("of one launch", SCALE_OFF, FUSION_OFF + FUSION_OFF[FUSION_OFF.index("\n\ndef act(x)"):].replace("False", "True"), "=True"),
    ("of libdevice", SCALE, FUSION_OFF.replace("enable_fp_fusion", "enable_reflect_ftz"), "`enable_reflect_ftz=False`"),
]  # fmt: skip


@pytest.mark.parametrize(("first", "second", "message"), [row[1:] for row in OPTIONS], ids=[row[0] for row in OPTIONS])
def test_options_that_change_arithmetic_are_the_same(folder: Path, first: str, second: str, message: str) -> None:
    (folder / "scale.py").write_text(first)
    with pytest.raises(FusionRefused) as caught:
        fused(folder, second, "act.py:act_kernel(in_ptr, SLOPE=3.0)")
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.code, message in diagnostic.message) == ("KR125", True), diagnostic
    assert [label.span.file for label in diagnostic.labels] == [
        "scale.py" if "`scale_kernel` is launched" in diagnostic.message else "act.py"
    ]


def test_options_that_both_kernels_have(folder: Path) -> None:
    def taken(first: str, second: str) -> str:
        (folder / "scale.py").write_text(first)
        result = fused(folder, second, "act.py:act_kernel(in_ptr, SLOPE=3.0)")
        assert ("enable_fp_fusion=False)" in result.source) == ("False)" in first)
        return next(a.statement for a in result.assumptions if a.name == "epilogue-kernel")

    assert "arithmetic" not in taken(SCALE, LAUNCHED)
    assert "arithmetic" not in taken(SCALE_OFF, FUSION_OFF)
    assert "arithmetic" not in taken(SCALE_OFF, FUSION_OFF.replace("=False)", "=OFF)") + "\n\nOFF = False\n")
    assert "arithmetic" not in taken(SCALE, LAUNCHED.replace("BLOCK=128)", "BLOCK=128, num_warps=8)"))
    unseen = "it and `scale_kernel` are compiled with the same arithmetic options, such as `enable_fp_fusion=False`"
    assert unseen in taken(SCALE[: SCALE.index("\n\ndef scale(x)")], FUSION_OFF)
    assert unseen in taken(SCALE_OFF, FUSION_OFF.replace("enable_fp_fusion=False", "**options()"))


def test_a_name_that_means_something_else_here(folder: Path) -> None:
    (folder / "scale.py").write_text(SCALE.replace("def scale(x)", "SLOPE = 3.0\n\n\ndef scale(x)"))
    with pytest.raises(FusionRefused, match="KR123: `act_kernel` uses `SLOPE`, which means something else"):
        fused(folder, GELU, "act.py:act_kernel(in_ptr)")


def test_an_operand_that_is_declared_otherwise(folder: Path) -> None:
    with pytest.raises(FusionRefused, match="KR123: `act_kernel` reads `b` as a tile"):
        fused(folder, GELU, "act.py:act_kernel(in_ptr)", operands={"b": "scalar"})
    with pytest.raises(FusionRefused, match="KR123: `act_kernel` does not show that it loads `b_ptr` at the column"):
        fused(folder, GELU, "act.py:act_kernel(in_ptr)", operands={"b": "row"})
    result = fused(folder, GELU, "act.py:act_kernel(in_ptr)", operands={"b": "tile:fp32"})
    assert '--operand "b=tile:float32"' in result.source


MATRIX = (
    HEAD
    + """
@triton.jit
def scale_kernel(x_ptr, out_ptr, M, N, BLOCK: tl.constexpr):
    rows = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK))[:, None]
    cols = tl.arange(0, BLOCK)[None, :]
    mask = (rows < M) & (cols < N)
    x = tl.load(x_ptr + rows * N + cols, mask=mask) + 2.0
    tl.store(out_ptr + rows * N + cols, x, mask=mask)


def scale(x):
    out = torch.empty_like(x, dtype=torch.float16)
    M, N = x.shape
    scale_kernel[(triton.cdiv(M, 64),)](x, out, M, N, BLOCK=64)
    return out
"""
)
ROWS = (
    f"{HEAD}\n@triton.jit\ndef act_kernel(in_ptr, b_ptr, out_ptr, stride, n, BLOCK: tl.constexpr = 128):\n"
    "    row = tl.program_id(0)\n    cols = tl.arange(0, BLOCK)\n    mask = cols < n\n"
    "    x = tl.load(in_ptr + row * stride + cols, mask=mask)\n    b = tl.load(b_ptr + cols, mask=mask)\n"
    "    tl.store(out_ptr + row * stride + cols, x * b, mask=mask)\n"
)
FLAT = kernel(
    LOADS.replace("b_ptr + offsets", "b_ptr + offsets % n_cols") + store("x * b"), "in_ptr, b_ptr, out_ptr, n, n_cols"
)
BY_ROW, BY_COLUMN = "b = tl.load(b_ptr + cols, mask=cols < N)", "b = tl.load(b_ptr + rows, mask=rows < M)"
ALONG = [
    ("flat", FLAT, "row", BY_ROW),
    ("rows of it", FLAT.replace("offsets % n", "offsets // n"), "column", BY_COLUMN),
    ("by program", ROWS, "row", BY_ROW),
    ("one a program", ROWS.replace("b_ptr + cols, mask=mask", "b_ptr + row"), "column", BY_COLUMN),
    ("not masked", ROWS.replace("b_ptr + cols, mask=mask", "b_ptr + cols"), "row", BY_ROW),
    ("rows for columns", FLAT, "column", ""),
    ("columns for rows", ROWS, "column", ""),
    ("another column", FLAT.replace("offsets % n", "(offsets + 1) % n"), "row", ""),
    ("another number", FLAT.replace("offsets % n_cols", "n_cols % offsets"), "row", ""),
    ("another mask", ROWS.replace("b_ptr + cols, mask=mask", "b_ptr + cols, mask=cols < n - 1"), "row", ""),
    ("a part of the row", ROWS.replace("b_ptr + cols", "b_ptr + cols + stride"), "row", ""),
    ("in the block", FLAT.replace("offsets % n_cols", "tl.arange(0, BLOCK)"), "row", ""),
    ("the element", FLAT.replace(" % n_cols", ""), "row", ""),
]  # fmt: skip


@pytest.mark.parametrize(("source", "kind", "read"), [row[1:] for row in ALONG], ids=[row[0] for row in ALONG])
def test_operands_along_rows(folder: Path, source: str, kind: str, read: str) -> None:
    """What is declared as a row or a column is read at the column or the row of what is stored, or refused."""
    (folder / "scale.py").write_text(MATRIX)
    if read:
        result = fused(folder, source, "act.py:act_kernel(in_ptr)", operands={"b": kind})
        assert read in result.source, result.source
        statement = next(a.statement for a in result.assumptions if a.name == "epilogue-kernel")
        assert "the rows that it reads `b` along are those of `out_ptr`" in statement
    else:
        with pytest.raises(
            FusionRefused, match=r"KR123: `act_kernel` (does not show|loads `b_ptr` under another mask)"
        ):
            fused(folder, source, "act.py:act_kernel(in_ptr)", operands={"b": kind})


def test_a_row_is_verified(folder: Path) -> None:
    (folder / "scale.py").write_text(MATRIX)
    (folder / "act.py").write_text(ROWS)
    arguments = ("--epilogue-kernel", "act.py:act_kernel(in_ptr)", "--operand", "b=row", "-o", "fused.py")
    assert run("fuse", "scale.py", *arguments)[0] == 0
    assert "1 fresh" in run("check", "--full", "fused.py")[1]
    call = "scale(randn(70, 50), b=randn(50, dtype=float16))"
    assert verify("fused.py", [call], trials=2, judge="interpreter").ok
    text = (folder / "fused.py").read_text()
    (folder / "fused.py").write_text(text.replace("b_ptr + cols", "b_ptr + cols // 2"))
    assert not verify("fused.py", [call], trials=1, judge="interpreter").ok


def test_a_kernel_is_no_expression(folder: Path) -> None:
    (folder / "act.py").write_text(GELU)
    with pytest.raises(FusionRefused, match=r"KR123: `act.py:act_kernel\(in_ptr\)` names a kernel"):
        kernel_rewrite.fuse("scale.py", "act.py:act_kernel(in_ptr)")


TILES = (
    HEAD
    + """
@triton.jit
def act_kernel(in_ptr, b_ptr, out_ptr, stride, m, n, ADD: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    cols = tl.max_contiguous(tl.multiple_of(tl.program_id(1) * BN + tl.arange(0, BN), BN), BN)
    tl.assume(stride > 0)
    where = rows[:, None] * stride + cols[None, :]
    mask = (rows < m)[:, None] & (cols < n)[None, :]
    pointers = in_ptr + where
    y = tl.load(pointers, mask=mask, other=0.0)
    if ADD:
        y += tl.load(b_ptr + where, mask=mask)
    y = tl.where(y > 0, y, 0.01 * y); z = y
    tl.store(out_ptr + where, z + 1, mask=mask)
"""
)


def test_tiles_and_a_load_in_a_branch(folder: Path) -> None:
    result = fused(folder, TILES, "act.py:act_kernel(in_ptr, ADD=True)")
    assert (
        "    if ADD:\n        y += b\n    y = tl.where(y > 0, y, 0.01 * y)\n    z = y\n    return z + 1\n"
        in result.source
    )
    with pytest.raises(FusionRefused, match="KR123: `act_kernel` loads nothing from `b_ptr` with these"):
        fused(folder, TILES, "act.py:act_kernel(in_ptr, ADD=False)")


SPOILED = [
    ("1.702", "1.703"),
    ("y += alpha * b", "y += alpha"),
    ("y += alpha * b", "y += b"),
    ("y += alpha * b", "y = alpha * b"),
    ("y += alpha * b", "y -= alpha * b"),
    ("alpha * b", "b * b"),
    ("stored.to(tl.float32)", "stored"),
    ("stored.to(tl.float32)", "b.to(tl.float32)"),
    ("if FAST:", "if not FAST:"),
    ("return y.to(stored.dtype)", "return x.to(stored.dtype)"),
    ("return y.to(stored.dtype)", "return y + 0.0"),
    ("return y.to(stored.dtype)", "return y.to(tl.bfloat16)"),
    ("return y.to(stored.dtype)", "return tl.where(y > 0, y, y * 2)"),
    ("x * tl.sigmoid", "x + tl.sigmoid"),
    ("(stored, b, alpha", "(b, stored, alpha"),
    ("(stored, b, alpha", "(alpha, b, stored"),
]


@pytest.mark.parametrize(("right", "wrong"), [("", ""), *SPOILED])
def test_another_function_is_rejected(folder: Path, monkeypatch: pytest.MonkeyPatch, right: str, wrong: str) -> None:
    """A reading that gets the kernel wrong writes nothing, although the fused kernel is just what the reading says."""

    def misread(*arguments: Any) -> TritonCall:
        call = read_epilogue_kernel(*arguments)
        assert call.inlined is not None and right in call.inlined.definition
        definition = call.inlined.definition.replace(right, wrong) if right else call.inlined.definition
        return replace(call, inlined=replace(call.inlined, definition=definition))

    monkeypatch.setattr(selection, "read_epilogue_kernel", misread)
    if not right:
        fused(folder, GELU, "act.py:act_kernel(in_ptr)")
        return
    with pytest.raises(FusionRefused, match=r"KR123: `act_kernel` (stores something else than|cannot be taken apart)"):
        fused(folder, GELU, "act.py:act_kernel(in_ptr)")


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, list(words))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_a_header_in_another_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "act.py").write_text(GELU)
    (folder / "made").mkdir()
    assert run("fuse", "scale.py", "--epilogue-kernel", "act.py:act_kernel(in_ptr)", "-o", "made/fused.py")[0] == 0
    header = read_header((folder / "made" / "fused.py").read_text())
    assert header is not None
    assert header.epilogues == (("out_ptr", "../act.py:act_kernel(in_ptr)"),)
    assert [path for path, _ in header.reads] == ["../act.py"]
    assert "1 fresh" in run("check", "made/fused.py")[1]
    monkeypatch.chdir(folder / "made")
    assert "1 fresh" in run("check", "--full", "fused.py")[1]
    (folder / "act.py").write_text(GELU + "\n\nUNUSED = 1\n")
    assert "1 fresh" in run("check", "fused.py")[1]
    (folder / "act.py").write_text(GELU.replace("constexpr(0.5)", "constexpr(0.25)"))
    assert "1 fresh" in run("check", "fused.py")[1]  # the fused file imports that constant
    (folder / "act.py").write_text(GELU.replace("1.702", "1.7"))
    code, output = run("check", "fused.py", "--no-cache")
    assert code == 1 and "+        y = x * tl.sigmoid(1.7 * x)" in output


def test_an_entry_of_a_project(folder: Path) -> None:
    (folder / "act.py").write_text(GELU)
    assert run("init", "scale.py", "--epilogue-kernel", "act.py:act_kernel(in_ptr)", "--operand", "b=tile:fp16")[0] == 0
    assert 'epilogue-kernels = ["act.py:act_kernel(in_ptr)"]' in (folder / "pyproject.toml").read_text()
    assert "1 written" in run("fuse")[1]
    assert (folder / "scale_act.py").is_file()
    assert "1 fresh" in run("check")[1]
    text = (folder / "pyproject.toml").read_text()
    (folder / "pyproject.toml").write_text(text.replace("(in_ptr)", "(b_ptr)"))
    assert run("check")[0] == 1


def test_the_unfused_pair(folder: Path) -> None:
    (folder / "act.py").write_text(GELU)
    assert run("fuse", "scale.py", "--epilogue-kernel", "act.py:act_kernel(in_ptr)", "-o", "fused.py")[0] == 0
    call = "scale(randn(300), b=randn(300, dtype=float16), alpha=0.5)"
    assert verify("fused.py", [call], trials=2, judge="interpreter").ok
    text = (folder / "fused.py").read_text()
    (folder / "fused.py").write_text(text.replace("alpha * b", "alpha + b"))
    assert not verify("fused.py", [call], trials=1, judge="interpreter").ok


def test_reading_runs_nothing(folder: Path) -> None:
    (folder / "act.py").write_text(GELU + "\nraise SystemExit('run')\n")
    call = read_epilogue_kernel("act.py:act_kernel(in_ptr)", {}, Project())
    assert [operand.name for operand in call.operands] == ["b", "alpha"]
