"""Loads written in every way: what a prologue makes of them, or why not. Each of these once went wrong, or nearly."""

from __future__ import annotations

import textwrap
import time
from dataclasses import dataclass

import pytest

from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.fuse import fuse

HEAD = """\
import triton
import triton.language as tl
from triton.language.extra import libdevice


@triton.jit
def add(a, b):
    return a + b


@triton.jit
def at(p, offs):
    return p + offs


@triton.jit
def pick(p, q, n):
    r = p
    if n > 7:
        r = q
    return r


@triton.jit
def both(p, q, offs, m):
    return tl.load(p + offs, mask=m, other=0.0) - tl.load(q + offs, mask=m, other=0.0)


@triton.jit
def centred(a):
    return a - tl.sum(a)


@triton.jit
def index(p, offs, m):
    return tl.load(p + offs, mask=m, other=0)


@triton.jit
def rows(d, at):
    t = d.load([at, 0])
    return tl.sum(t, 0)


@triton.jit
def k(x_ptr, y_ptr, out_ptr, n, BLOCK: tl.constexpr, FLAG: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m = offs < n
"""

DESCRIPTOR = "d = tl.make_tensor_descriptor(x_ptr, [n, 16], [16, 1], [16, 16])\n"
BLOCK = "b = tl.make_block_ptr(x_ptr, (n, 16), (16, 1), (0, 0), (16, 16), (1, 0))\n"
SUM = "\ntl.store(out_ptr + offs, a + tl.sum(a), mask=m)"
"""A reduction: every lane takes part."""


@dataclass(frozen=True)
class Fused:
    """`lines` are among those of the fused kernel; `without` is in none of them."""

    body: str
    lines: tuple[str, ...]
    prologue: str = "x + 1"
    dtype: str = "fp32"
    without: str = "\0"
    epilogue: tuple[str, ...] = ()


INLINE = "a = add_1(tl.load(x_ptr + offs, mask=m, other=0.0))"
GUARD = "a = tl.where(m, add_1(a), a)"
LOAD = "a = tl.load(x_ptr + offs, mask=m, other=0.0)"

FUSED = {
    "a comment in the mask": Fused(
        "a = tl.load(x_ptr + offs, mask=(offs < n  # the tail\n    ) & (offs >= 0), other=0.0)" + SUM,
        ("a = tl.where((offs < n) & (offs >= 0), add_1(a), a)",),
    ),
    "a mask over two lines": Fused(
        "a = tl.load(x_ptr + offs, mask=offs \\\n    < n, other=0.0)" + SUM, ("a = tl.where(offs < n, add_1(a), a)",)
    ),
    "a mask that changes later": Fused(LOAD + "\nm = offs < n - 1" + SUM, (LOAD, GUARD, "m = offs < n - 1")),
    "a mask by position": Fused("a = tl.load(x_ptr + offs, m, 0.0)" + SUM, (GUARD,)),
    "a mask of one number": Fused(
        "a = tl.load(x_ptr + offs, mask=n > 3, other=0.0)" + SUM, ("a = tl.where(n > 3, add_1(a), a)",)
    ),
    "no mask": Fused("a = tl.load(x_ptr + offs, mask=None)" + SUM, ("a = add_1(tl.load(x_ptr + offs, mask=None))",)),
    "another fill": Fused("a = tl.load(x_ptr + offs, mask=m, other=n)" + SUM, ("a = tl.where(m, relu(a), a)",), "relu"),
    "a fill that is kept": Fused(
        "a = tl.load(x_ptr + offs, mask=m, other=1)" + SUM,
        ("a = relu(tl.load(x_ptr + offs, mask=m, other=1))",),
        "relu",
    ),
    "255, written as -1": Fused(
        "a = tl.load(x_ptr + offs, mask=m, other=-1)\ntl.store(out_ptr + offs, tl.sum(a.to(tl.int32)))",
        ("a = tl.where(m, clamp_max(a, max=0), a)",),
        "clamp(max=0)",
        "u8",
    ),
    "a fill of its own input": Fused(
        "a = tl.load(x_ptr + offs, mask=m, other=tl.load(x_ptr))" + SUM,
        ("a = tl.load(x_ptr + offs, mask=m, other=add_1(tl.load(x_ptr)))", GUARD),
    ),
    "a load inside a load": Fused(
        "a = tl.load(x_ptr + tl.load(x_ptr + offs, mask=m, other=0), mask=m, other=0)" + SUM,
        ("a = tl.abs(tl.load(x_ptr + tl.abs(tl.load(x_ptr + offs, mask=m, other=0)), mask=m, other=0))",),
        "abs",
        "i32",
    ),
    "a copied helper inside a load": Fused(
        "b = index(y_ptr, offs, m)\na = tl.load(x_ptr + index(x_ptr, offs, m), mask=m, other=0) + b" + SUM,
        ("a = tl.abs(tl.load(x_ptr + index_abs(x_ptr, offs, m), mask=m, other=0)) + b", "b = index(y_ptr, offs, m)"),
        "abs",
        "i32",
    ),
    "a loop's condition": Fused(
        "i = 0\nwhile tl.load(x_ptr + i, mask=i < n, other=0.0) > 0:\n    i += 1\ntl.store(out_ptr + offs, i + offs, mask=m)",
        ("while relu(tl.load(x_ptr + i, mask=i < n, other=0.0)) > 0:",),
        "relu",
    ),
    "an operand": Fused(
        "tl.store(out_ptr + offs, 3 - tl.load(x_ptr + offs) * 2)",
        ("tl.store(out_ptr + offs, 3 - add_1(tl.load(x_ptr + offs)) * 2)",),
    ),
    "a pointer from a helper": Fused(
        "a = tl.load(at(x_ptr, offs), mask=m, other=0.0) - tl.load(at(y_ptr, offs), mask=m, other=0.0)" + SUM,
        ("a = relu(tl.load(at(x_ptr, offs), mask=m, other=0.0)) - tl.load(at(y_ptr, offs), mask=m, other=0.0)",),
        "relu",
    ),
    # guarded where the load has no line of its own
    "a mask in the name that the load takes": Fused(
        "a = offs < n\na = tl.load(x_ptr + offs, mask=a, other=0.0)" + SUM,
        ("a = add_1_where(tl.load(x_ptr + offs, mask=a, other=0.0), a)",),
    ),
    "converted where it is loaded": Fused(
        "a = tl.load(x_ptr + offs, mask=m, other=0.0).to(tl.float32)" + SUM,
        ("a = add_1_where(tl.load(x_ptr + offs, mask=m, other=0.0), m).to(tl.float32)",),
    ),
    "added where it is loaded": Fused(
        "a = tl.zeros((BLOCK,), tl.float32)\na += tl.load(x_ptr + offs, mask=offs < n, other=0.0)" + SUM,
        ("a += add_1_where(tl.load(x_ptr + offs, mask=offs < n, other=0.0), offs < n)",),
    ),
    "a while whose lanes are off": Fused(
        "i = 0\nwhile tl.load(x_ptr + i, mask=i < n, other=0.0) > 0:\n    i += 1\ntl.store(out_ptr + offs, i + offs)",
        ("while add_1_where(tl.load(x_ptr + i, mask=i < n, other=0.0), i < n) > 0:",),
    ),
    # what becomes of the lanes that are off
    "stored under the same mask": Fused(LOAD + "\ntl.store(out_ptr + offs, a * 2, mask=offs < n)", (INLINE,)),
    "stored under a narrower mask": Fused(
        LOAD + "\ntl.store(out_ptr + offs, a, mask=(offs > 2) & (m & (offs != 7)))", (INLINE,)
    ),
    "stored under a wider mask": Fused(LOAD + "\ntl.store(out_ptr + offs, a, mask=offs < n + 1)", (GUARD,)),
    "stored under either of two masks": Fused(LOAD + "\ntl.store(out_ptr + offs, a, mask=m | (offs > 2))", (GUARD,)),
    "stored without a mask": Fused(LOAD + "\ntl.store(out_ptr + offs, a)", (GUARD,)),
    "taken by another mask": Fused(
        LOAD + "\ntl.store(out_ptr + offs, tl.sum(tl.where(offs < n - 1, a, 5.0)))", (GUARD,)
    ),
    "summed in a helper": Fused(LOAD + "\ntl.store(out_ptr + offs, centred(a), mask=m)", (GUARD,)),
    "summed up": Fused(LOAD + "\ntl.store(out_ptr + offs, tl.cumsum(a), mask=m)", (GUARD,)),
    "added in memory": Fused(LOAD + "\ntl.atomic_add(out_ptr + offs, a, mask=m)", (GUARD,)),
    "moved to other lanes": Fused(
        "r = tl.arange(0, BLOCK)\nt = r[:, None] * BLOCK + r[None, :]\nm2 = (t < n) & (r[:, None] < 3)\n"
        "a = tl.load(x_ptr + t, mask=m2, other=0.0)\ntl.store(out_ptr + t, tl.trans(a), mask=m2)",
        ("a = tl.where(m2, add_1(a), a)",),
    ),
    "a place of another load": Fused(
        "a = tl.load(x_ptr + offs, mask=m, other=0)\ntl.store(out_ptr + offs, tl.load(y_ptr + a), mask=m)",
        (GUARD,),
        dtype="i32",
    ),
    "a mask of a store": Fused(LOAD + "\ntl.store(out_ptr + offs, 1.0, mask=m & (a > 0))", (GUARD,)),
    "carried around a loop": Fused(
        LOAD + "\nfor i in range(3):\n    a = a + 1\ntl.store(out_ptr + offs, a, mask=m)", (GUARD,)
    ),
    "behind an early return": Fused(LOAD + "\nif n > 100:\n    return\ntl.store(out_ptr + offs, a, mask=m)", (INLINE,)),
    # a product that a sum behind it would swallow, on a GPU
    "a product, added": Fused(LOAD + "\ntl.store(out_ptr + offs, a + 1.0, mask=m)", ("rounded",), "x * 0.3"),
    "a product, reduced": Fused(LOAD + "\ntl.store(out_ptr, tl.reduce(a, 0, add))", ("rounded",), "x * 0.3"),
    "a product, scanned": Fused(
        LOAD + "\ntl.store(out_ptr + offs, tl.associative_scan(a, 0, add))", ("rounded",), "x * 0.3"
    ),
    "a product, in a library function": Fused(
        LOAD + "\ntl.store(out_ptr + offs, libdevice.acosh(a), mask=m)", ("rounded",), "x * 0.3"
    ),
    "a product, stored": Fused(
        LOAD + "\ntl.store(out_ptr + offs, a, mask=m)",
        ("a = mul_0_3(tl.load(x_ptr + offs, mask=m, other=0.0))",),
        "x * 0.3",
        without="rounded",
    ),
    "a product, stored, and an epilogue that adds": Fused(
        LOAD + "\ntl.store(out_ptr + offs, a, mask=m)",
        ("tl.store(out_ptr + offs, rounded(a.to(out_ptr.dtype.element_ty)) + 1.0, mask=m)",),
        "x * 0.3",
        epilogue=("out_ptr=x + 1.0",),
    ),
}


WITHIN = {
    "a descriptor": (
        DESCRIPTOR + "t = d.load([n // 2, 0])\na = tl.sum(t, 0)" + SUM,
        "t = tl.where((n // 2 + tl.arange(0, 16) < n)[:, None] & (tl.arange(0, 16) < 16)[None, :], add_1(t), t)",
    ),
    "an offset that may be negative": (
        DESCRIPTOR + "t = d.load([n - 20, 0])\na = tl.sum(t, 0)" + SUM,
        "t = tl.where((n - 20 + tl.arange(0, 16) >= 0)[:, None] & (n - 20 + tl.arange(0, 16) < n)[:, None]"
        " & (tl.arange(0, 16) < 16)[None, :], add_1(t), t)",
    ),
    "an offset by the name that the load takes": (
        DESCRIPTOR + "t = n // 2\nt = d.load([t, 0])\na = tl.sum(t, 0)" + SUM,
        "t = add_1_where(d.load([t, 0]), (t + tl.arange(0, 16) < n)[:, None] & (tl.arange(0, 16) < 16)[None, :])",
    ),
    "a descriptor of one dimension": (
        "d = tl.make_tensor_descriptor(x_ptr, [n], [1], [BLOCK])\na = d.load([offset])" + SUM,
        "a = tl.where(offset + tl.arange(0, BLOCK) < n, add_1(a), a)",
    ),
    "a helper that is handed a descriptor": (
        DESCRIPTOR + "a = rows(d, n // 2)" + SUM,
        "t = tl.where((at + tl.arange(0, d.block_shape[0]) < d.shape[0])[:, None]"
        " & (tl.arange(0, d.block_shape[1]) < d.shape[1])[None, :], add_1(t), t)",
    ),
    "a block pointer, one of its bounds checked": (
        BLOCK + "t = tl.load(b, boundary_check=(0,))\na = tl.sum(t, 0)" + SUM,
        "t = tl.where((tl.arange(0, 16) < n)[:, None], add_1(t), t)",
    ),
    "a block that a loop moves": (
        BLOCK + "a = offs * 0.0\nfor i in range(32, n, 16):\n    t = tl.load(b, boundary_check=(0,))\n"
        "    a += tl.sum(t, 0)\n    b = b.advance((16, 0))" + SUM,
        "t = tl.where((i - 32 + tl.arange(0, 16) >= 0)[:, None] & (i - 32 + tl.arange(0, 16) < n)[:, None], add_1(t), t)",
    ),
    "a block that a loop moves from where it was moved to": (
        BLOCK
        + "b = tl.advance(b, (32, 0))\na = offs * 0.0\nfor i in range(n):\n    t = tl.load(b, boundary_check=(0,))\n"
        "    a += tl.sum(t, 0)\n    b = b.advance((16, 0))" + SUM,
        "t = tl.where((32 + i * 16 + tl.arange(0, 16) < n)[:, None], add_1(t), t)",
    ),
}


@pytest.mark.parametrize("name", WITHIN)
def test_the_bounds_of_a_block_are_written_out(name: str, installed_triton: tuple[int, ...]) -> None:
    body, line = WITHIN[name]
    if "make_block_ptr" in body and installed_triton >= (3, 9):
        pytest.skip("block pointers are gone in Triton 3.9")
    text = fused_text("offset = tl.program_id(0) * BLOCK\n" + body, "x + 1", "fp32")
    assert line in [found.strip() for found in text.splitlines()], text


def fused_text(body: str, prologue: str, dtype: str, epilogue: tuple[str, ...] = ()) -> str:
    types = [f"x_ptr={dtype}", f"y_ptr={'i32' if 'index(y_ptr' in body else 'fp32'}", "out_ptr=fp32"]
    text = HEAD + textwrap.indent(body, "    ") + "\n"
    constexprs = ["BLOCK=16"]
    options = {"prologues": [f"x_ptr={prologue}"], "kernel": "k", "dtypes": types, "constexprs": constexprs}
    return fuse(text, epilogue, **options).source.partition("# end of header\n")[2]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FUSED)
def test_a_load_is_rewritten(name: str) -> None:
    case = FUSED[name]
    text = fused_text(case.body, case.prologue, case.dtype, case.epilogue)
    lines = [line.strip() for line in text.splitlines()]
    for line in case.lines:
        assert line in lines if " " in line else line in text, text
    assert case.without not in text


REFUSED = {
    "pointers that change places": (
        "p = x_ptr\nq = y_ptr\na = offs * 0.0\nfor i in range(2):\n    a += tl.load(p + offs, mask=m, other=0.0)\n"
        "    p, q = q, p" + SUM,
        "relu",
        "KR224",
    ),
    "pointers that change places in a while": (
        "p = x_ptr\nq = y_ptr\ni = 0\na = offs * 0.0\nwhile i < n:\n    a += tl.load(p + offs, mask=m, other=0.0)\n"
        "    p, q = q, p\n    i += 1" + SUM,
        "relu",
        "KR224",
    ),
    "pointers that change places in an unrolled loop": (
        "p = x_ptr\nq = y_ptr\na = offs * 0.0\nfor i in tl.static_range(FLAG):\n"
        "    a += tl.load(p + offs, mask=m, other=0.0)\n    p, q = q, p" + SUM,
        "relu",
        "KR224",
    ),
    "a helper that picks": ("a = tl.load(pick(x_ptr, y_ptr, n) + offs, mask=m, other=0.0)" + SUM, "relu", "KR224"),
    "a helper for either": (
        "a = both(x_ptr, y_ptr, offs, m) * both(y_ptr, x_ptr, offs, m)" + SUM,
        "relu",
        "KR224",
    ),
    "a tuple of both": (
        "a = offs * 0.0\nfor p in tl.static_range(2):\n    a += tl.load((x_ptr, y_ptr)[p] + offs, mask=m, other=0.0)"
        + SUM,
        "relu",
        "KR224",
    ),
    "written in a branch that is not compiled": (
        LOAD + "\nif FLAG * 7 == 77:\n    tl.store(x_ptr + offs, a)" + SUM,
        "relu",
        "KR227",
    ),
    "an address as a number": (LOAD + "\na += x_ptr.to(tl.int64) % 2" + SUM, "relu", "KR222"),
    "a pointer to other elements": (
        "a = tl.load(x_ptr.to(tl.pointer_type(tl.int32)) + offs, mask=m, other=0)" + SUM,
        "relu",
        "KR225",
    ),
    "a mask that reads": (
        "a = tl.load(x_ptr + offs, mask=m & (tl.load(x_ptr) > 0), other=0.0)" + SUM,
        "x + 1",
        "KR402",
    ),
    "a block whose offset is read": (
        DESCRIPTOR + "a = tl.sum(d.load([tl.load(y_ptr).to(tl.int32), 0]), 0)" + SUM,
        "x + 1",
        "KR402",
    ),
    "a block whose offset changes": (
        "i = 0\nb = tl.make_block_ptr(x_ptr, (n, 16), (16, 1), (i, 0), (16, 16), (1, 0))\ni = n\n"
        "a = tl.sum(tl.load(b, boundary_check=(0, 1)), 0)" + SUM,
        "x + 1",
        "KR402",
    ),
    "a block that moves by more each round": (
        BLOCK + "a = offs * 0.0\nfor i in range(0, n, 16):\n    a += tl.sum(tl.load(b, boundary_check=(0,)), 0)\n"
        "    b = tl.advance(b, (i, 0))" + SUM,
        "x + 1",
        "KR402",
    ),
    "a block that moves before it is loaded": (
        BLOCK + "a = offs * 0.0\nfor i in range(0, n, 16):\n    b = tl.advance(b, (16, 0))\n"
        "    a += tl.sum(tl.load(b, boundary_check=(0,)), 0)" + SUM,
        "x + 1",
        "KR402",
    ),
    "a block that moves while a test holds": (
        BLOCK + "i = 0\na = offs * 0.0\nwhile i < n:\n    a += tl.sum(tl.load(b, boundary_check=(0,)), 0)\n"
        "    b = tl.advance(b, (16, 0))\n    i += 16" + SUM,
        "x + 1",
        "KR402",
    ),
    "a gather": (
        "d = tl.make_tensor_descriptor(x_ptr, [n, 16], [16, 1], [1, 16])\n"
        "a = tl.sum(d.gather(tl.arange(0, 16), 0), 0)" + SUM,
        "relu",
        "KR225",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_load_is_left_alone(name: str, installed_triton: tuple[int, ...]) -> None:
    body, prologue, code = REFUSED[name]
    if "make_block_ptr" in body and installed_triton >= (3, 9):
        pytest.skip("block pointers are gone in Triton 3.9")
    with pytest.raises(FusionRefused) as caught:
        fused_text(body, prologue, "fp32")
    assert code in {diagnostic.code for diagnostic in caught.value.diagnostics}, caught.value


HELD = {
    "other lanes than zero": (
        "a = tl.load(x_ptr + offs, mask=m, other=1.0)\ntl.store(out_ptr + offs, a, mask=m)",
        "x_ptr:int8=x.to(float32)",
        "KR402",
    ),
    "other lanes that are not known": (
        "a = tl.load(x_ptr + offs, mask=m, other=n)\ntl.store(out_ptr + offs, a, mask=m)",
        "x_ptr:int8=x.to(float32)",
        "KR402",
    ),
    "a pointer that is cast": (
        "a = tl.load(x_ptr.to(tl.pointer_type(tl.float32)) + offs, mask=m, other=0.0)" + SUM,
        "x_ptr:int8=x.to(float32)",
        "KR403",
    ),
    "bools": (LOAD + SUM, "x_ptr:bool=x.to(float32)", "KR401"),
}


NAN_PADDED = DESCRIPTOR.replace("[16, 16])", "[16, 16], padding_option='nan')")


@pytest.mark.parametrize(
    ("maker", "prologue", "guards"),
    [
        (DESCRIPTOR, "x_ptr=x * 2", 0),
        (NAN_PADDED, "x_ptr=where(x > 0, x, 0)", 1),
        (NAN_PADDED, "x_ptr=relu", 0),
        (DESCRIPTOR, "x_ptr:int8=x.to(float32) - 3", 1),
        (BLOCK.replace("b =", "d ="), "x_ptr:int8=x.to(float32) - 3", 1),
    ],
)
def test_what_a_block_is_padded_with(maker: str, prologue: str, guards: int, installed_triton: tuple[int, ...]) -> None:
    if maker.startswith("d = tl.make_block_ptr") and installed_triton >= (3, 9):
        pytest.skip("block pointers are gone in Triton 3.9")
    load = "tl.load(d, boundary_check=(0,))" if "block_ptr" in maker else "d.load([0, 0])"
    text = HEAD + textwrap.indent(f"{maker}t = {load}\na = tl.sum(t, 0)" + SUM, "    ") + "\n"
    types = ["x_ptr=fp32", "y_ptr=fp32"]
    source = fuse(text, prologues=[prologue], kernel="k", dtypes=types, constexprs=["BLOCK=16"]).source
    assert source.count("    t = tl.where((tl.arange(0, 16) < n)") == guards, source
    assert ", 0.0)\n" in source or ":int8" not in prologue


def test_a_descriptor_padded_with_nan_holds_no_other_type() -> None:
    text = HEAD + textwrap.indent(NAN_PADDED + "t = d.load([0, 0])\na = tl.sum(t, 0)" + SUM, "    ") + "\n"
    with pytest.raises(FusionRefused, match="KR402"):
        fuse(text, prologues=["x_ptr:int8=x.to(float32)"], kernel="k", dtypes=["x_ptr=fp32"], constexprs=["BLOCK=16"])


@pytest.mark.parametrize("name", HELD)
def test_an_input_keeps_its_type(name: str) -> None:
    body, prologue, code = HELD[name]
    text = HEAD + textwrap.indent(body, "    ") + "\n"
    with pytest.raises(FusionRefused) as caught:
        fuse(text, prologues=[prologue], kernel="k", dtypes=["x_ptr=fp32", "y_ptr=fp32"], constexprs=["BLOCK=16"])
    assert {diagnostic.code for diagnostic in caught.value.diagnostics} == {code}


STRIDES = """\
import triton
import triton.language as tl


@triton.jit
def k(x_ptr, out_ptr, strides, n, BLOCK: tl.constexpr, FLAG: tl.constexpr):
    x_ptr = x_ptr + tl.program_id(0) * strides[0]
    if FLAG:
        x_ptr = x_ptr + tl.arange(0, BLOCK) * strides[1]
        tl.store(out_ptr + tl.arange(0, BLOCK), tl.load(x_ptr))
    else:
        tl.store(out_ptr + tl.arange(0, BLOCK), tl.load(x_ptr + tl.arange(0, BLOCK)))


def launch(x, out):
    k[(1,)](x, out, (x.stride(0), x.stride(1)), x.shape[1], BLOCK=16, FLAG=True)
"""


def test_a_tuple_of_strides_is_no_buffer() -> None:
    assert fuse(STRIDES, prologues=["x_ptr=relu"], dtypes=["x_ptr=fp32"]).source.count("relu(tl.load") == 2


STRIDE = """\
import triton
import triton.language as tl


@triton.jit
def k(x_ptr, out_ptr, stride_row, stride_column, n, ROWS: tl.constexpr, WIDE: tl.constexpr):
    rows = tl.make_tensor_descriptor(x_ptr, shape=[n, 16], strides=[stride_row, stride_column], block_shape=[ROWS, 16])
    x = rows.load([0, 0])
    if WIDE:
        x += tl.load(x_ptr + tl.arange(0, 16))[None, :]
    at = tl.arange(0, ROWS)[:, None] * 16 + tl.arange(0, 16)[None, :]
    tl.store(out_ptr + at, x)


def launch(x, out):
    k[(1,)](x, out, x.stride(0), x.stride(1), x.shape[0], ROWS=16, WIDE=True)
"""


def test_the_last_stride_of_a_descriptor_is_no_buffer() -> None:
    assert fuse(STRIDE, prologues=["x_ptr=abs"], dtypes=["x_ptr=fp32"]).source.count("tl.abs(") == 2


HANDED_ON = """import triton
import triton.language as tl
from triton.language.extra.other_device import only_there


@triton.jit
def rows(p, offs, n, MASKED: tl.constexpr):
    {first}
    if MASKED:
        a = tl.load(p + offs, mask=offs < n, other=0.0)
    else:
        a = {otherwise}
    return a


@triton.jit
def half(p, offs, n, MASKED: tl.constexpr):
    return rows(p, offs, n, not MASKED and MASKED) * 0.5


@triton.jit
def k(x_ptr, out_ptr, n, BLOCK: tl.constexpr, FLAG: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    a = {call}
    if FLAG:
        a = only_there(a)
    tl.store(out_ptr + offs, a)
"""


@pytest.mark.parametrize("call", ["rows(x_ptr, offs, n, False)", "half(x_ptr, offs, n, MASKED=True)"])
def test_a_branch_that_a_literal_rules_out_never_runs(call: str) -> None:
    """Where some values do not compile, what is in no TTIR is dead only if the source says so."""
    text = HANDED_ON.format(first="n += 0", otherwise="tl.load(p + offs)", call=call)
    assert fuse(text, prologues=["x_ptr=relu"], dtypes=["x_ptr=fp32"]).source.count("relu(") >= 1


@pytest.mark.parametrize(
    ("first", "call"),
    [
        ("n += 0", "rows(x_ptr, offs, n, FLAG)"),
        ("n += 0", "rows(x_ptr, offs, n, True) if FLAG else rows(x_ptr, offs, n, False)"),
        ("MASKED = not MASKED", "rows(x_ptr, offs, n, False) if FLAG else offs * 0.0"),
    ],
)
def test_a_branch_that_no_literal_rules_out_may_run(first: str, call: str) -> None:
    text = HANDED_ON.format(first=first, otherwise="offs * 0.0", call=f"tl.load(x_ptr) + ({call})")
    with pytest.raises(FusionRefused, match="KR226") as caught:
        fuse(text, prologues=["x_ptr=relu"], dtypes=["x_ptr=fp32"])
    (note,) = caught.value.diagnostics[0].notes
    assert note.startswith("Triton rejects the kernel with FLAG=") and "only_there is not defined" in note


def test_what_the_tuner_zeroes_is_zero() -> None:
    tuner = "@triton.autotune([triton.Config({'BLOCK': 16})], key=['n'], reset_to_zero=['x_ptr'])\n@triton.jit\ndef k("
    body = LOAD + "\ntl.store(out_ptr + offs, a, mask=m)\n"
    text = HEAD.replace("@triton.jit\ndef k(", tuner) + textwrap.indent(body, "    ")
    with pytest.raises(FusionRefused, match="KR211"):
        fuse(text, prologues=["x_ptr=x + 1"], kernel="k", dtypes=["x_ptr=fp32"])
    assert "relu(tl.load" in fuse(text, prologues=["x_ptr=relu"], kernel="k", dtypes=["x_ptr=fp32"]).source


@pytest.mark.parametrize("prologue", ["~x", "logical_not(x)"])
def test_bools_are_left_alone(prologue: str) -> None:
    """They are bytes in memory."""
    with pytest.raises(FusionRefused, match="KR401") as caught:
        fused_text("a = tl.load(x_ptr + offs, mask=m, other=0).to(tl.int32)" + SUM, prologue, "i1")
    (diagnostic,) = caught.value.diagnostics
    assert "byte" in diagnostic.labels[0].text


@pytest.mark.parametrize("loop", ["m2 = (m2 & q) & (m2 & r)", "q = q * q\n    r = r * r", "a = (a + a) * a"])
def test_values_that_are_diamonds_take_linear_time(loop: str) -> None:
    body = f"q = offs\nr = offs\nm2 = m\n{LOAD}\nfor i in tl.static_range(40):\n    {loop}\n"
    body = body.replace("q = offs\nr = offs", "q = offs > 1\nr = offs < 1000") if "m2 &" in loop else body
    store = "tl.store(out_ptr + offs, a, mask=(q < r) & m2)" if "*" in loop else "tl.store(out_ptr + offs, a, mask=m2)"
    started = time.process_time()
    fused_text(body + store, "x + 1", "fp32")
    assert time.process_time() - started < 10


# ------------------------------------------------------------------- tuples, arguments that are None, pointers that are cast

TUPLE = """\
import torch
import triton
import triton.language as tl


@triton.jit
def k(args, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    a = tl.load(args[0] + offs, mask=mask, other=0.0)
    b = tl.load(args[1] + offs, mask=mask, other=0.0)
    tl.store(args[2] + offs, a - tl.sum(b), mask=mask)


def launch(a, b):
    out = torch.empty_like(a)
    k[(triton.cdiv(a.numel(), 32),)]((a, b, out), a.numel(), BLOCK=32)
    return out
"""
UNPACKED = TUPLE.replace("    mask = offs < n\n", "    mask = offs < n\n    p, q, r = args\n")
UNPACKED = UNPACKED.replace("args[0]", "p").replace("args[1]", "q").replace("args[2]", "r")
OPTIONAL = """\
import torch
import triton
import triton.language as tl


@triton.jit
def k(b_ptr, a_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    a = tl.load(a_ptr + offs, mask=mask, other=0.0)
    if b_ptr is not None:
        b = tl.load(b_ptr + offs, mask=mask, other=0.0)
        a += tl.sum(b)
    tl.store(out_ptr + offs, a, mask=mask)


def launch(a, b=None):
    out = torch.empty_like(a)
    k[(triton.cdiv(a.numel(), 32),)](b, a, out, a.numel(), BLOCK=32)
    return out
"""
CAST = """\
import triton
import triton.language as tl


@triton.jit
def k(a_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    p = a_ptr.to(tl.pointer_type(tl.float32))
    a = tl.load(p + offs, mask=offs < n, other=0.0)
    tl.store(out_ptr + offs, a, mask=offs < n)
"""
AT_B = "b = tl.where(mask, add_1(b), b)"

FORMS: dict[str, tuple[str, str, str, dict[str, object]]] = {
    "an element of a tuple": (TUPLE, "args[1]=x + 1", AT_B, {}),
    "an element of a tuple, of which nobody sees more": (TUPLE, "args[0]=x + 1", "a = add_1(tl.load(args[0]", {}),
    "an element by a name of its own": (UNPACKED, "args[1]=x + 1", AT_B, {}),
    "an argument that may be None": (OPTIONAL, "b_ptr=x + 1", AT_B, {}),
    "an argument behind one that may be None": (OPTIONAL, "a_ptr=x + 1", "a = add_1(tl.load(a_ptr", {}),
    "an argument that is always None here": (OPTIONAL.replace("](b, a", "](None, a"), "b_ptr=x + 1", AT_B, {}),
    "an operand beside what may be None": (OPTIONAL, "b_ptr=x + y", "b = tl.where(mask, b + y, b)", {"y": "tile"}),
    "a cast to its own type": (CAST, "a_ptr=x + 1", "a = add_1(tl.load(p", {}),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_parameter_is_passed_in_another_form(name: str) -> None:
    text, prologue, line, operands = FORMS[name]
    dtypes = ["a_ptr=fp32"] if text is CAST else []
    assert line in fuse(text, prologues=[prologue], operands=operands, dtypes=dtypes).source  # type: ignore[arg-type]


NO_FORMS: dict[str, tuple[str, str, list[str], str]] = {
    "a whole tuple": (TUPLE, "args=relu", ["KR220"], "name one of them: `args[0]` or `args[1]`"),
    "no element of the tuple": (TUPLE, "args[7]=relu", ["KR220"], "name a parameter"),
    "an element that is written": (TUPLE, "args[2]=relu", ["KR220"], "name a parameter"),
    "another type in a tuple": (TUPLE, "args[1]:float16=x.to(float32)", ["KR403"], "name the type"),
    "an element that is written too": (
        TUPLE.replace("(a, b, out)", "(a, b, b)"),
        "args[1]=relu",
        ["KR229"],
        "pass a buffer",
    ),
    "an element by a number that changes": (
        TUPLE.replace("    b = ", "    for i in tl.static_range(2):\n        a += tl.load(args[i] + offs)\n    b = "),
        "args[1]=relu",
        ["KR224"],
        "give each buffer a load",
    ),
    "a cast to what nothing says": (CAST, "a_ptr=relu", ["KR225"], "say what the elements are"),
    "a cast to another type": (
        CAST.replace("float32", "int32").replace("0.0", "0"),
        "a_ptr=relu",
        ["KR225", "KR225"],
        "load it with",
    ),
}


@pytest.mark.parametrize("name", NO_FORMS)
def test_a_parameter_in_another_form_is_refused(name: str) -> None:
    text, prologue, codes, help_text = NO_FORMS[name]
    with pytest.raises(FusionRefused) as caught:
        fuse(text, prologues=[prologue])
    assert [diagnostic.code for diagnostic in caught.value.diagnostics] == codes, caught.value
    assert help_text in caught.value.diagnostics[0].help


def test_one_op_on_two_inputs_has_one_helper() -> None:
    text = fuse(TUPLE, ["args[2]=x + 1"], prologues=["args[0]=sigmoid", "args[1]=sigmoid"]).source
    assert text.count("def sigmoid(") == 1 and "torch_sigmoid" not in text
    twice = (
        HEAD
        + "    tl.store(out_ptr + offs, tl.sum(tl.load(x_ptr + offs, mask=m, other=0.0)) - tl.sum(tl.load(y_ptr + offs, mask=m, other=0.0)))\n"
    )
    text = fuse(twice, prologues=["x_ptr=x + 1", "y_ptr=x + 1"], kernel="k", dtypes=["x_ptr=fp32", "y_ptr=fp32"]).source
    assert text.count("def add_1(") == text.count("def add_1_where(") == 1, text
