"""The catalogue of fusion cases: what the closest systems fuse, refuse and get wrong, and the sound answer here.

U.. are PyTorch's own tests of epilogue fusion into user kernels (`TestUserKernelEpilogueFusion`), M.. corner cases of
its analysis of Triton IR, A.. kernels for which that analysis gives a false proof, W.. what this tool itself once got
wrong. A fused case that has a `call` is run: the original and the torch op against the fused file, in Triton's
interpreter, all cases in one process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import pytest
from interpreted import Run, run_all

from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.fuse import Fused, fuse

HEADER = """\
import torch
import triton
import triton.language as tl


"""

INDICES = """\
    i = tl.program_id(0) * B + tl.arange(0, B)
    m = i < n
"""


@dataclass(frozen=True)
class Case:
    """`codes` are the refusal's (empty: it fuses); `sites` how many stores are rewritten. `call` computes
    {name: tensor} from the names of the module; `outputs` says which of them get the op."""

    name: str
    source: str
    request: str = "relu"
    codes: tuple[str, ...] = ()
    kernel: str | None = None
    sites: int = 1
    call: str = ""
    outputs: tuple[str, ...] = ("out",)
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    triton_below: tuple[int, int] | None = None

    @property
    def text(self) -> str:
        return HEADER + self.source


CASES: list[Case] = []


def case(name: str, source: str, request: str = "relu", *codes: str, **more: Any) -> None:
    CASES.append(Case(name, dedent(source).lstrip("\n"), request, codes or more.pop("codes", ()), **more))


def kernel(
    name: str,
    body: str,
    parameters: str = "a, b, out, n, B: tl.constexpr",
    request: str = "relu",
    *codes: str,
    before: str = "",
    after: str = "",
    **more: Any,
) -> None:
    """A case whose kernel `k` has the usual indices `i` and mask `m`, then `body`."""
    text = f"{dedent(before).strip()}\n\n\n" if before else ""
    text += f"@triton.jit\ndef k({parameters}):\n{INDICES}{indent(dedent(body).strip(), '    ')}\n"
    text += f"\n\n{dedent(after).strip()}\n" if after else ""
    case(name, text, request, *codes, **more)


# What most cases run: 300 elements in blocks of 128, so that the last block is ragged.
ADD = """
a, b, out = torch.randn(300), torch.randn(300), torch.empty(300)
k[(3,)](a, b, out, 300, B=128)
result = {"out": out}
"""
UNARY = """
a, out = torch.randn(300), torch.empty(300)
k[(3,)](a, out, 300, B=128)
result = {"out": out}
"""
LOADS = "x = tl.load(a + i, mask=m)\ny = tl.load(b + i, mask=m)\n"
A_OUT = "a, out, n, B: tl.constexpr"

# ---------------------------------------------------------------------------- U: PyTorch's TestUserKernelEpilogueFusion

ADD_KERNEL = """
@triton.jit
def k(a, b, out, n, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    m = i < n
    x = tl.load(a + i, mask=m)
    y = tl.load(b + i, mask=m)
    tl.store(out + i, x + y, mask=m)
"""

case("U01-relu", ADD_KERNEL, call=ADD)
case(
    "U02-sigmoid_of_float16",
    ADD_KERNEL
    + """

def add(a, b):
    out = torch.empty_like(a, dtype=torch.float16)
    k[(triton.cdiv(a.numel(), 128),)](a, b, out, a.numel(), B=128)
    return out
""",
    "sigmoid",
    call="result = {'out': add(torch.randn(300).half(), torch.randn(300).half())}",
)
kernel(
    "U03-unused_buffer",
    "x = tl.load(a + i, mask=m)\ntl.store(out + i, x * 2, mask=m)",
    "a, out, unused, n: tl.constexpr, B: tl.constexpr",
    call="a, out = torch.randn(300), torch.empty(300)\nk[(3,)](a, out, a, 300, B=128)\nresult = {'out': out}",
)
case(
    "U06-line_breaks_and_comments",
    """
    @triton.jit
    def k(a, b, out, n, B: tl.constexpr):
        i = tl.program_id(0) * B + tl.arange(0, B)
        m = i < n
        x = tl.load(a + i, mask=m)
        y = tl.load(b + i, mask=m)
        tl.store(
            out + i,  # where
            (
                # the sum
                x
                + y  # of both
            ),
            mask=m,
        )
    """,
    "sigmoid",
    call=ADD,
)
kernel(
    "U07-element_type_in_the_body",
    "v = tl.load(a + i, mask=m) * 300.0\ntl.store(out + i, v.to(out.dtype.element_ty), mask=m)",
    A_OUT,
    "silu",
    call=UNARY.replace("torch.empty(300)", "torch.empty(300, dtype=torch.float16)"),
)
kernel("U08-read_and_written", LOADS + "tl.store(out + i, x + y + tl.load(out + i, mask=m), mask=m)", codes=("KR201",))
kernel(
    "U09-two_stores_one_in_a_helper",
    LOADS + "tl.store(out + i, x + y, mask=m)\ncustom_store(out, i, x + y, m)",
    before="""
    @triton.jit
    def custom_store(p, offsets, v, mask):
        tl.store(p + offsets, v, mask=mask)
    """,
    sites=2,
    call=ADD,
    kernel="k",
)
kernel(
    "U10-half_of_a_filled_buffer",
    "tl.store(out + i // 2, tl.load(a + i // 2, mask=m), mask=m)",
    A_OUT,
    "sigmoid",
    "KR209",
    after="""
    def launch(a):
        out = torch.ones_like(a)
        k[(1,)](a, out, a.numel(), B=128)
        return out
    """,
)
kernel(
    "U11-allocation_that_cannot_be_read",  # fused, with the assumption stated
    "tl.store(out + i, tl.load(a + i, mask=m), mask=m)",
    A_OUT,
    "sigmoid",
    after="""
    def launch(a):
        out = torch.cat([torch.empty_like(a), torch.empty_like(a)])
        k[(1,)](a, out, a.numel(), B=128)
        return out
    """,
)
kernel("U13-atomic_xchg", LOADS + "tl.atomic_xchg(out + i, x + y, mask=m)", codes=("KR202",))
kernel(
    "U19-eighteen_stores",
    LOADS + "".join(f"tl.store(out + i * 18 + {j}, x * {j} - y, mask=m)\n" for j in range(18)),
    sites=18,
    call="""
    a, b, out = torch.randn(300), torch.randn(300), torch.empty(300 * 18)
    k[(3,)](a, b, out, 300, B=128)
    result = {"out": out}
    """,
)

# ----------------------------------------------------------------------------------- M: corner cases of the IR analysis

kernel(
    "M03-helper_updates_its_input",
    "double(a + i, m)\ntl.store(out + i, tl.load(b + i, mask=m), mask=m)",
    before="""
    @triton.jit
    def double(p, m):
        tl.store(p, tl.load(p, mask=m) * 2, mask=m)
    """,
    kernel="k",
    request="out=relu",
    call=ADD.replace("{", "{'a': a, "),
)
kernel(
    "M03-the_updated_input_itself",
    "double(a + i, m)\ntl.store(out + i, tl.load(b + i, mask=m), mask=m)",
    "a, b, out, n, B: tl.constexpr",
    "a=relu",
    "KR201",
    before="""
    @triton.jit
    def double(p, m):
        tl.store(p, tl.load(p, mask=m) * 2, mask=m)
    """,
    kernel="k",
)
kernel(
    "M04-caller_and_callee_store",
    "add(a, b, out, i, m)\n" + LOADS + "tl.store(out + i, x + y, mask=m)",
    before="""
    @triton.jit
    def add(p, q, o, i, m):
        tl.store(o + i, tl.load(p + i, mask=m) + tl.load(q + i, mask=m), mask=m)
    """,
    kernel="k",
    sites=2,
    call=ADD,
)
kernel("M05-in_place", "tl.store(a + i, tl.load(a + i, mask=m) * 2, mask=m)", "a, n, B: tl.constexpr", "relu", "KR201")
kernel(
    "M06-pure_inline_asm_of_values",
    """
    x = tl.load(a + i, mask=m)
    y = tl.inline_asm_elementwise("neg.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)
    tl.store(out + i, y, mask=m)
    """,
    A_OUT,
)
kernel(
    "M07-impure_inline_asm_of_values",
    """
    x = tl.load(a + i, mask=m)
    y = tl.inline_asm_elementwise("neg.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=False, pack=1)
    tl.store(out + i, y, mask=m)
    """,
    A_OUT,
    codes=("KR203",),
)
case(
    "M08-block_pointer_in_a_loop",
    """
    @triton.jit
    def k(a, out, n, B: tl.constexpr):
        p = tl.make_block_ptr(a, shape=(n,), strides=(1,), offsets=(0,), block_shape=(B,), order=(0,))
        q = tl.make_block_ptr(out, shape=(n,), strides=(1,), offsets=(0,), block_shape=(B,), order=(0,))
        for _ in range(0, n, B):
            x = tl.load(p, boundary_check=(0,))
            tl.store(q, x * 3, boundary_check=(0,))
            p = tl.advance(p, (B,))
            q = tl.advance(q, (B,))
    """,
    "gelu",
    call="""
    a, out = torch.randn(300), torch.empty(300)
    k[(1,)](a, out, 300, B=128)
    result = {"out": out}
    """,
    triton_below=(3, 9),
)
case(
    "M09-imported_load_and_store",
    """
    from triton.language import load, store


    @triton.jit
    def k(a, b, out, n, B: tl.constexpr):
        i = tl.program_id(0) * B + tl.arange(0, B)
        m = i < n
        store(out + i, load(a + i, mask=m) + load(b + i, mask=m), mask=m)
    """,
)
kernel("M10-atomic_add", LOADS + "tl.atomic_add(out + i, x + y, mask=m)", codes=("KR202",))
case(
    "M11-stores_in_a_for_and_in_a_while",
    """
    @triton.jit
    def k(a, b, out, n, B: tl.constexpr):
        i = tl.program_id(0) * B + tl.arange(0, B)
        m = i < n
        x = tl.load(a + i, mask=m)
        y = tl.load(b + i, mask=m)
        for _ in range(2):
            tl.store(out + i, x + y, mask=m)
        j = 2
        while j > 0:
            tl.store(out + i, x + y, mask=m)
            j -= 1
    """,
    "sigmoid",
    sites=2,
    call=ADD,
)
kernel(
    "M12-branch_chooses_the_value",
    LOADS + "if tl.program_id(0) == 1:\n    v = x + y\nelse:\n    v = x * y\ntl.store(out + i, v, mask=m)",
    call=ADD,
)
kernel(
    "M13-store_under_two_ifs",
    LOADS
    + "if tl.program_id(0) < 2:\n    if n > 5:\n        tl.store(out + i, x + y, mask=m)\n    else:\n        pass\n",
    call="""
    a, b, out = torch.randn(300), torch.randn(300), torch.zeros(300)
    k[(3,)](a, b, out, 300, B=128)
    result = {"out": out}
    """,
)
kernel(
    "M15-optional_pointer",
    "x = tl.load(a + i, mask=m)\nif b is not None:\n    x += tl.load(b + i, mask=m)\ntl.store(out + i, x, mask=m)",
    call="""
    a, b, out, none = torch.randn(300), torch.randn(300), torch.empty(300), torch.empty(300)
    k[(3,)](a, b, out, 300, B=128)
    k[(3,)](a, None, none, 300, B=128)
    result = {"out": out, "none": none}
    """,
    outputs=("out", "none"),
)
case(
    "M16-callee_with_permuted_parameters",
    """
    @triton.jit
    def inner(o, n, q, B: tl.constexpr, p):
        i = tl.program_id(0) * B + tl.arange(0, B)
        m = i < n
        tl.store(o + i, tl.load(p + i, mask=m) - tl.load(q + i, mask=m), mask=m)


    @triton.jit
    def k(a, n, b, B: tl.constexpr, out):
        inner(out, n, b, B, p=a)
    """,
    kernel="k",
    call="""
    a, b, out = torch.randn(300), torch.randn(300), torch.empty(300)
    k[(3,)](a, 300, b, 128, out)
    result = {"out": out}
    """,
)
case(
    "M17-row_sum",
    """
    @triton.jit
    def k(a, out, N, B: tl.constexpr):
        row = tl.program_id(0)
        i = tl.arange(0, B)
        x = tl.load(a + row * N + i, mask=i < N, other=0.0)
        tl.store(out + row, tl.sum(x, axis=0))
    """,
    "gelu",
    call="""
    a, out = torch.randn(5, 100), torch.empty(5)
    k[(5,)](a, out, 100, B=128)
    result = {"out": out}
    """,
)
kernel(
    "M18-cumulative_sum",
    "tl.store(out + i, tl.cumsum(tl.load(a + i, mask=m, other=0.0), 0), mask=m)",
    A_OUT,
    call=UNARY,
)
kernel(
    "M19-pointer_returned_by_a_helper",
    "p = same(out)\ntl.store(p + i, tl.load(a + i, mask=m), mask=m)",
    A_OUT,
    before="@triton.jit\ndef same(p):\n    return p",
    kernel="k",
    call=UNARY,
)
kernel(
    "M20-pointer_and_value_returned_by_a_helper",
    "v, p = both(a, out, i, m)\ntl.store(p + i, v, mask=m)",
    A_OUT,
    before="@triton.jit\ndef both(p, o, i, m):\n    return tl.load(p + i, mask=m) * 2, o",
    kernel="k",
    call=UNARY,
)
case(
    "M22-early_return",
    """
    @triton.jit
    def k(a, out, n, B: tl.constexpr):
        pid = tl.program_id(0)
        if pid * B >= n:
            return
        i = pid * B + tl.arange(0, B)
        m = i < n
        tl.store(out + i, tl.load(a + i, mask=m) - 1, mask=m)
    """,
    call=UNARY.replace("(3,)", "(5,)"),
)
case(
    "M23-store_inside_the_k_loop",
    """
    @triton.jit
    def k(a, out, n, B: tl.constexpr):
        for start in range(0, n, B):
            i = start + tl.arange(0, B)
            m = i < n
            tl.store(out + i, tl.load(a + i, mask=m) * 2, mask=m)
    """,
    "gelu",
    call=UNARY.replace("(3,)", "(1,)"),
)
kernel(
    "M24-branches_yield_pointers",
    """
    if tl.program_id(0) == 0:
        p, q, o = a, b, out
    else:
        p, q, o = b, a, out
    tl.store(o + i, tl.load(p + i, mask=m) - 2 * tl.load(q + i, mask=m), mask=m)
    """,
    call=ADD,
)
kernel(
    "M25-own_combine_function",
    "x = tl.load(a + i, mask=m, other=1.0)\ntl.store(out + i, tl.associative_scan(x, 0, times), mask=m)",
    A_OUT,
    before="@triton.jit\ndef times(x, y):\n    return x * y",
    kernel="k",
    call=UNARY,
)
case(
    "M29-device_descriptor",
    """
    @triton.jit
    def k(a, out, M, N, B: tl.constexpr):
        source = tl.make_tensor_descriptor(a, shape=[M, N], strides=[N, 1], block_shape=[B, B])
        target = tl.make_tensor_descriptor(out, shape=[M, N], strides=[N, 1], block_shape=[B, B])
        row = tl.program_id(0) * B
        target.store([row, 0], source.load([row, 0]) * 2)
    """,
    call="""
    a, out = torch.randn(32, 16), torch.empty(32, 16)
    k[(2,)](a, out, 32, 16, B=16)
    result = {"out": out}
    """,
)
case(
    "M29-device_descriptor_with_a_cast",
    """
    @triton.jit
    def k(a, out, M, N, B: tl.constexpr):
        source = tl.make_tensor_descriptor(a, shape=[M, N], strides=[N, 1], block_shape=[B, B])
        target = tl.make_tensor_descriptor(out, shape=[M, N], strides=[N, 1], block_shape=[B, B])
        row = tl.program_id(0) * B
        target.store([row, 0], source.load([row, 0]).to(tl.float32) * 2)
    """,
    "gelu",
    call="""
    a, out = torch.randn(32, 16).half(), torch.empty(32, 16, dtype=torch.float16)
    k[(2,)](a, out, 32, 16, B=16)
    result = {"out": out}
    """,
)
case(
    "M30-host_descriptors",
    """
    @triton.jit
    def k(source, out, B: tl.constexpr):
        row = tl.program_id(0) * B
        out.store([row, 0], source.load([row, 0]) * 2)


    def launch(a):
        from triton.tools.tensor_descriptor import TensorDescriptor

        out = torch.empty_like(a)
        B = 16
        k[(2,)](TensorDescriptor.from_tensor(a, [B, B]), TensorDescriptor.from_tensor(out, [B, B]), B=B)
        return out
    """,
    call="result = {'out': launch(torch.randn(32, 16))}",
)
kernel(
    "M34-offsets_loaded_from_memory",
    "o = tl.load(index + i, mask=m)\ntl.store(out + o, tl.load(a + i, mask=m), mask=m)",
    "a, index, out, n, B: tl.constexpr",
    call="""
    a, index, out = torch.randn(300), torch.randperm(300), torch.empty(300)
    k[(3,)](a, index, out, 300, B=128)
    result = {"out": out}
    """,
)
kernel(
    "M34-the_offsets_are_no_output",
    "tl.store(out + tl.load(index + i, mask=m), 1.0, mask=m)",
    "index, out, n, B: tl.constexpr",
    "index=relu",
    "KR210",
)
kernel(
    "M35-bool_output",  # torch.relu of a bool tensor is an error
    "tl.store(out + i, tl.load(a + i, mask=m) > 0, mask=m)",
    A_OUT,
    "relu",
    "KR401",
    options={"dtypes": ("out=i1",)},
)
kernel(
    "M36-static_range",
    "for j in tl.static_range(4):\n    tl.store(out + i * 4 + j, tl.load(a + i, mask=m) * j, mask=m)",
    A_OUT,
    "sigmoid",
    call=UNARY.replace("torch.empty(300)", "torch.empty(1200)"),
)
kernel(
    "M37-pointer_cast_to_another_type",
    """
    x = tl.load(a + i, mask=m)
    p = out.to(tl.pointer_type(tl.int32), bitcast=True)
    tl.store(p + i, x.to(tl.int32, bitcast=True), mask=m)
    """,
    A_OUT,
    codes=("KR205",),
)

# ------------------------------------------------------------------ A: where the closest system proves what is not true

kernel(
    "A01-read_after_an_early_return",
    """
    p = out
    if n > 100:
        if tl.program_id(0) == 0:
            return
        p = out + 1
    x = tl.load(p + i, mask=m)
    tl.store(out + i, x + tl.load(a + i, mask=m), mask=m)
    """,
    A_OUT,
    codes=("KR201",),
)
kernel(
    "A03-ping_pong",
    """
    p = a
    q = out
    for _ in range(n):
        tl.store(out + i, tl.load(p + i, mask=m), mask=m)
        t = p
        p = q
        q = t
    """,
    A_OUT,
    codes=("KR201",),
)
kernel(
    "A04-stores_alternate_between_two_buffers",
    """
    p = out
    q = other
    for _ in range(n):
        tl.store(p + i, tl.load(a + i, mask=m), mask=m)
        t = p
        p = q
        q = t
    """,
    "a, out, other, n, B: tl.constexpr",
    "out=relu",
    "KR212",
)
case(
    "A05-gathered_through_a_descriptor",
    """
    @triton.jit
    def k(index, out, M, N, B: tl.constexpr):
        d = tl.make_tensor_descriptor(out, shape=[M, N], strides=[N, 1], block_shape=[1, B])
        rows = tl.load(index + tl.arange(0, 32))
        x = d.gather(rows, 0)
        j = tl.arange(0, 32)[:, None] * N + tl.arange(0, B)[None, :]
        tl.store(out + j, x)
    """,
    "relu",
    "KR201",
    options={"dtypes": ("out=fp16", "index=i32")},
)
kernel(
    "A07-pure_inline_asm_that_reads",
    """
    address = (out + i).to(tl.int64)
    y = tl.inline_asm_elementwise("ld.global.f32 $0, [$1];", "=f,l", [address], dtype=tl.float32, is_pure=True, pack=1)
    tl.store(out + i, y + tl.load(a + i, mask=m), mask=m)
    """,
    A_OUT,
    codes=("KR203",),
)
DEAD = "a, out, n, LIVE: tl.constexpr, B: tl.constexpr"
LAUNCH_LIVE = """
def launch(a):
    out = torch.empty_like(a)
    k[(3,)](a, out, a.numel(), LIVE=True, B=128)
    return out
"""
case(
    "A08-dead_store_beside_a_live_descriptor",
    """
    @triton.jit
    def k(a, out, M, N, LIVE: tl.constexpr, B: tl.constexpr):
        i = tl.arange(0, B)[:, None] * N + tl.arange(0, B)[None, :]
        x = tl.load(a + i)
        if LIVE:
            d = tl.make_tensor_descriptor(out, shape=[M, N], strides=[N, 1], block_shape=[B, B])
            d.store([0, 0], x)
        else:
            tl.store(out + i, x)


    def launch(a):
        out = torch.empty_like(a)
        k[(1,)](a, out, 16, 16, LIVE=True, B=16)
        return out
    """,
    sites=2,
    call="result = {'out': launch(torch.randn(16, 16))}",
)
kernel(
    "A09-dead_store_beside_a_live_helper",
    "x = tl.load(a + i, mask=m)\nif LIVE:\n    put(out, i, x, m)\nelse:\n    tl.store(out + i, x, mask=m)",
    DEAD,
    before="@triton.jit\ndef put(p, i, v, m):\n    tl.store(p + i, v, mask=m)",
    after=LAUNCH_LIVE,
    kernel="k",
    sites=2,
    call="result = {'out': launch(torch.randn(300))}",
)
kernel(
    "A10-dead_store_beside_a_live_atomic",
    """
    x = tl.load(a + i, mask=m)
    if LIVE:
        tl.atomic_add(out + i, x, mask=m)
    else:
        tl.store(out + i, x, mask=m)
    """,
    DEAD,
    "relu",
    "KR202",
    after=LAUNCH_LIVE,
)
kernel(
    "A10-dead_atomic_beside_a_live_store",
    """
    x = tl.load(a + i, mask=m)
    if LIVE:
        tl.store(out + i, x, mask=m)
    else:
        tl.atomic_add(out + i, x, mask=m)
    """,
    DEAD,
    "relu",
    "KR202",
    after=LAUNCH_LIVE,
)
SPLIT_K = """
@triton.jit
def k(a, out, n, SPLIT_K: tl.constexpr, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    m = i < n
    x = tl.load(a + i, mask=m)
    if SPLIT_K == 1:
        tl.store(out + i, x, mask=m)
    else:
        tl.atomic_add(out + i, x, mask=m)
"""
case(
    "A11-split_k_in_one_configuration",
    """
@triton.autotune(configs=[triton.Config({"SPLIT_K": 1, "B": 64}), triton.Config({"SPLIT_K": 4, "B": 64})], key=["n"])
"""
    + SPLIT_K.strip(),
    "relu",
    "KR202",
)
case(
    "A11-split_k_in_a_configuration_far_down_the_list",
    """
@triton.autotune(
    configs=[triton.Config({"SPLIT_K": 1, "B": b}, num_warps=w) for b in (32, 64, 128) for w in (2, 4, 8)]
    + [triton.Config({"SPLIT_K": 2, "B": 64})],
    key=["n"],
)
"""
    + SPLIT_K.strip(),
    "relu",
    "KR202",
)
case("A11-split_k_that_no_launch_fixes", SPLIT_K, "relu", "KR202")
kernel(
    "A12-helper_stores_twice_beside_a_dead_store",
    "x = tl.load(a + i, mask=m)\nif LIVE:\n    twice(out + i, x, m)\nelse:\n    tl.store(out + i, x, mask=m)",
    DEAD,
    before="""
    @triton.jit
    def twice(p, v, m):
        tl.store(p, v * 0.5, mask=m)
        tl.store(p, v, mask=m)
    """,
    after=LAUNCH_LIVE,
    kernel="k",
    sites=3,
    call="result = {'out': launch(torch.randn(300))}",
)
kernel(
    "A13-pointer_loaded_from_memory",
    """
    p = tl.load(pointers + tl.program_id(0)).to(tl.pointer_type(tl.float32))
    tl.store(p + i, 1.0, mask=m)
    tl.store(out + i, tl.load(a + i, mask=m), mask=m)
    """,
    "a, pointers, out, n, B: tl.constexpr",
    "out=relu",
    "KR204",
    options={"dtypes": ("pointers=i64",)},
)
TUPLE = """
@triton.jit
def k(ins, out, other, n, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    m = i < n
    x = tl.load(ins[0] + i, mask=m)
    y = tl.load(ins[1] + i, mask=m)
    tl.store(out + i, x + y, mask=m)
    tl.store(other + i, x - y, mask=m)


def launch(a, b):
    out, other = torch.empty_like(a), torch.empty_like(a)
    k[(3,)]((a, b), out, other, a.numel(), B=128)
    return out, other
"""
RUN_TUPLE = "out, other = launch(torch.randn(300), torch.randn(300))\nresult = {'out': out, 'other': other}"
case("A14-tuple_shifts_the_parameters", TUPLE, "out=relu", call=RUN_TUPLE)
case("A14-tuple_shifts_the_parameters_other", TUPLE, "other=relu", call=RUN_TUPLE, outputs=("other",))
kernel(
    "A15-store_of_what_an_atomic_returned",
    "old = tl.atomic_add(out + i, 0.0, mask=m)\ntl.store(out + i, old * 2, mask=m)",
    "out, n, B: tl.constexpr",
    codes=("KR202",),
)
kernel(
    "A16-launch_passes_one_tensor_twice",
    "tl.store(out + i, tl.load(a + i, mask=m), mask=m)",
    A_OUT,
    "relu",
    "KR208",
    after="def launch(x):\n    k[(1,)](x, x, x.numel(), B=128)\n    return x",
)
kernel(
    "A16-launch_passes_a_view",
    "tl.store(out + i, tl.load(a + i, mask=m), mask=m)",
    A_OUT,
    "relu",
    "KR208",
    after="def launch(x):\n    y = x.view(-1)\n    k[(1,)](x, y, x.numel(), B=128)\n    return y",
)
kernel(
    "A17-one_parameter_on_both_sides",
    "x = tl.load(a + i, mask=m)\nif n > 5:\n    p = out + i\nelse:\n    p = out + i + 0\ntl.store(p, x, mask=m)",
    A_OUT,
    call=UNARY,
)
kernel(
    "A17-two_stores_under_a_constexpr",
    "x = tl.load(a + i, mask=m)\nif LIVE:\n    tl.store(out + i, x, mask=m)\nelse:\n    tl.store(out + i, -x, mask=m)",
    DEAD,
    sites=2,
    after=LAUNCH_LIVE,
    call="result = {'out': launch(torch.randn(300))}",
)
kernel(
    "A17-stores_only_in_a_helper",
    "put(out, i, tl.load(a + i, mask=m), m)",
    A_OUT,
    "gelu",
    before="@triton.jit\ndef put(p, i, v, m):\n    tl.store(p + i, v, mask=m)",
    kernel="k",
    call=UNARY,
)

# ---------------------------------------------------------------- found while this tool was built: never a wrong kernel

kernel(
    "W-helper_chosen_when_the_file_runs",
    "put(out + i, tl.load(a + i, mask=m), m)",
    A_OUT,
    "relu",
    "refused",
    before="""
    if torch.version.hip:

        @triton.jit
        def put(p, v, m):
            tl.store(p, v, mask=m, cache_modifier=".cs")

    else:

        @triton.jit
        def put(p, v, m):
            tl.store(p, v, mask=m)
    """,
    kernel="k",
)
kernel(
    "W-helper_imported_if_it_can_be",
    "put(out + i, tl.load(a + i, mask=m), m)",
    A_OUT,
    "relu",
    "refused",
    before="""
    try:
        from fast_stores import put
    except ImportError:

        @triton.jit
        def put(p, v, m):
            tl.store(p, v, mask=m)
    """,
    kernel="k",
)
case(
    "W-kernel_defined_twice",
    """
    if torch.version.hip:

        @triton.jit
        def k(a, out, n, B: tl.constexpr):
            i = tl.arange(0, B)
            tl.store(out + i, tl.load(a + i, mask=i < n), mask=i < n)

    else:

        @triton.jit
        def k(a, out, n, B: tl.constexpr):
            i = tl.arange(0, B)
            tl.store(out + i, tl.load(a + i, mask=i < n) * 2, mask=i < n)
    """,
    "relu",
    "refused",
    kernel="k",
)
kernel(
    "W-environment_decides_the_branch",
    """
    x = tl.load(a + i, mask=m)
    if FLAG:
        tl.store(out + i, x, mask=m)
    else:
        tl.atomic_add(out + i, x, mask=m)
    """,
    A_OUT,
    "relu",
    "refused",
    before='import os\n\nFLAG = tl.constexpr(os.environ.get("FAST", "1") == "1")',
)
kernel(
    "W-test_whose_other_side_was_never_lowered",
    "x = tl.load(a + i, mask=m)\nif MODE * 7 == 28:\n    x += tl.load(out + i, mask=m)\ntl.store(out + i, x, mask=m)",
    "a, out, n, MODE: tl.constexpr, B: tl.constexpr",
    "relu",
    "refused",
)
kernel(
    "W-dead_store_through_a_function_parameter",
    "x = tl.load(a + i, mask=m)\nif MODE == 3:\n    tl.store(out + i, x, mask=m)\nelse:\n    PUT(out + i, x, m)",
    "a, out, n, PUT: tl.constexpr, MODE: tl.constexpr, B: tl.constexpr",
    "relu",
    "refused",
    before="@triton.jit\ndef put(p, v, m):\n    tl.store(p, v, mask=m)",
    after="def launch(a, out):\n    k[(1,)](a, out, a.numel(), PUT=put, MODE=3, B=128)",
    kernel="k",
)

COPY = "tl.store(out + i, tl.load(a + i, mask=m), mask=m)"
TO_FLOAT32 = """
def launch(a):
    out = torch.empty(a.numel(), dtype=torch.float32)
    k[(3,)](a, out, a.numel(), B=128)
    return out
"""

# The type of `a` is nowhere in the file: the op must see the value as the buffer holds it, whatever it is.
kernel(
    "W-input_narrower_than_guessed",
    COPY,
    A_OUT,
    "square",
    after=TO_FLOAT32,
    call="result = {'out': launch((torch.randn(300) * 1000).half())}",
)
kernel(
    "W-integer_scalar_stored_as_float",
    "tl.store(out + i, value, mask=m)",
    "value, out, n, B: tl.constexpr",
    "hardswish",
    after=TO_FLOAT32.replace("def launch(a):", "def launch(a, value):").replace("(a, out", "(value, out"),
    call="""
    a = torch.empty(300)
    result = {"float": launch(a, 2.5), "int": launch(a, 2), "one": launch(a, 1)}
    """,
    outputs=("float", "int", "one"),
)

PUT = """
@triton.jit
def put(p, i, v, m):
    tl.store(p + i, v, mask=m)
"""
PUT_IF = """
@triton.jit
def put_if(p, i, v, m, TRIPLE: tl.constexpr):
    if TRIPLE:
        tl.store(p + i, v * 3, mask=m)
    else:
        tl.store(p + i, v, mask=m)
"""
MODE = "a, out, other, n, M: tl.constexpr, B: tl.constexpr"

# The helper's store is lowered, but not by way of this call: the copy would not be called here.
kernel(
    "W-helper_call_that_is_never_lowered",
    "x = tl.load(a + i, mask=m)\nput(out, i, x, m)\nif M * 7 == 28:\n    put(out, i, x * 2, m)",
    MODE,
    "out=relu",
    "refused",
    before=PUT,
    kernel="k",
)
kernel(
    "W-helper_call_that_is_lowered_for_another_buffer_only",
    """
    x = tl.load(a + i, mask=m)
    tl.store(out + i, x, mask=m)
    put(other, i, x, m)
    if M * 7 == 28:
        put(out, i, x, m)
    """,
    MODE,
    "out=relu",
    "refused",
    before=PUT,
    kernel="k",
)
kernel(
    "W-store_in_a_helper_that_is_lowered_for_another_buffer_only",
    "x = tl.load(a + i, mask=m)\nput_if(out, i, x, m, M * 7 == 28)\nput_if(other, i, x, m, True)",
    MODE,
    "out=relu",
    "refused",
    before=PUT_IF,
    kernel="k",
)
kernel(
    "W-load_in_a_helper_call_that_is_never_lowered",
    "x = get(a, i, m)\nif M * 7 == 28:\n    x += get(out, i, m)\ntl.store(out + i, x, mask=m)",
    MODE,
    "out=relu",
    "refused",
    before="@triton.jit\ndef get(p, i, m):\n    return tl.load(p + i, mask=m)",
    kernel="k",
)
# `P` is another name of `put`: what it stores to `other` gets no op.
kernel(
    "W-helper_also_passed_as_a_compile_time_argument",
    "x = tl.load(a + i, mask=m)\nif M == 1:\n    P(other, i, x, m)\nput(out, i, x, m)",
    "a, out, other, n, P: tl.constexpr, M: tl.constexpr, B: tl.constexpr",
    "out=relu",
    before=PUT,
    kernel="k",
    after="""
    def launch(a):
        out, other = torch.empty_like(a), torch.zeros_like(a)
        k[(3,)](a, out, other, a.numel(), P=put, M=1, B=128)
        return out, other
    """,
    call="out, other = launch(torch.randn(300))\nresult = {'out': out, 'other': other}",
)
kernel(
    "W-launches_with_different_element_types",
    COPY,
    A_OUT,
    "gelu",
    "KR401",
    after="""
    def launch(a):
        out = torch.empty(a.shape, dtype=torch.float32)
        k[(1,)](a, out, a.numel(), B=64)
        small = torch.empty(a.shape, dtype=torch.int8)
        k[(1,)](a, small, a.numel(), B=64)
        return out, small
    """,
)

FUSED_CASES = [c for c in CASES if not c.codes]
REFUSED_CASES = [c for c in CASES if c.codes]
NAMES = [c.name for c in CASES]


def requested(case: Case) -> Fused:
    options = {key: list(values) for key, values in case.options.items()}
    return fuse(case.text, case.request, kernel=case.kernel, **options)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------ the tests


@dataclass(frozen=True)
class Outcome:
    fused: Fused | None
    codes: tuple[str, ...]
    error: Exception | None = None


@pytest.fixture(scope="session")
def outcomes(installed_triton: tuple[int, ...]) -> dict[str, Outcome]:
    """What `fuse` says to each case."""
    found = {}
    for each in CASES:
        if each.triton_below and installed_triton >= each.triton_below:
            continue
        try:
            found[each.name] = Outcome(requested(each), ())
        except FusionRefused as refusal:
            found[each.name] = Outcome(None, tuple(d.code for d in refusal.diagnostics))
        except Exception as error:
            found[each.name] = Outcome(None, (), error)
    return found


@pytest.fixture(scope="session")
def runs(outcomes: dict[str, Outcome], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Why each fused case that has a call computes something else in the interpreter; "" when it does not."""
    return run_all(
        [
            Run(each.name, each.text, fused.source, dedent(each.call), each.request.split("=")[-1], each.outputs)
            for each in FUSED_CASES
            if each.call and each.name in outcomes and (fused := outcomes[each.name].fused) is not None
        ],
        tmp_path_factory.mktemp("runs"),
    )


def outcome_of(case: Case, outcomes: dict[str, Outcome]) -> Outcome:
    if case.name not in outcomes:
        pytest.skip("this Triton has no block pointers")
    outcome = outcomes[case.name]
    if outcome.error is not None:
        raise outcome.error
    return outcome


def test_names_are_unique() -> None:
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("case", FUSED_CASES, ids=lambda c: c.name)
def test_fuses(case: Case, outcomes: dict[str, Outcome]) -> None:
    outcome = outcome_of(case, outcomes)
    assert outcome.fused is not None, outcome.codes
    assert len(outcome.fused.proof.stores) == case.sites


@pytest.mark.parametrize("case", REFUSED_CASES, ids=lambda c: c.name)
def test_refuses(case: Case, outcomes: dict[str, Outcome]) -> None:
    outcome = outcome_of(case, outcomes)
    assert outcome.fused is None, outcome.fused and outcome.fused.diff
    if case.codes != ("refused",):  # several codes would be right
        assert set(case.codes) <= set(outcome.codes)
    assert "KR110" not in outcome.codes, "refused because it could not be lowered: the case tests nothing"


@pytest.mark.parametrize("case", [c for c in FUSED_CASES if c.call], ids=lambda c: c.name)
def test_runs_as_the_unfused_pair(case: Case, outcomes: dict[str, Outcome], runs: dict[str, str]) -> None:
    outcome_of(case, outcomes)
    assert case.name in runs, "it was not fused"
    assert runs[case.name] == ""


# U04, U05: the same kernel for two ops. Each file is complete by itself, and the original is not touched.
def test_two_epilogues_of_one_kernel_are_two_independent_files() -> None:
    text = HEADER + ADD_KERNEL.lstrip()
    relu, sigmoid = fuse(text, "relu"), fuse(text, "sigmoid")
    assert relu.source == fuse(text, "relu").source
    assert "sigmoid" not in relu.source and "maximum" not in sigmoid.source
    assert relu.kernel == sigmoid.kernel == "k"
    assert (relu.name, sigmoid.name) == ("relu", "sigmoid")


# U11, U12: nothing in the file tells what the output held, or who reads it: the header says what is taken for granted.
def test_what_the_caller_must_know_is_in_the_header() -> None:
    case = next(c for c in CASES if c.name.startswith("U11"))
    fused = requested(case)
    assert [a.name for a in fused.assumptions] == ["no-alias", "fully-written"]
    header = fused.source.split("# end of header")[0]
    assert "# assumed (no-alias)" in header and "# assumed (fully-written)" in header


# U12, H31, H40: the value has other users than the op, so that both are stored.
def test_a_value_with_other_users_is_kept() -> None:
    fused = fuse(HEADER + ADD_KERNEL.lstrip(), "relu", keep_original={"out": "raw"})
    stores = [line.strip() for line in fused.source.splitlines() if "tl.store(" in line]
    assert len(stores) == 2 and stores[0].startswith("tl.store(raw +") and "maximum" in stores[1]


# U10, H41: a precondition the caller takes on is recorded as such.
def test_a_filled_buffer_is_accepted_when_the_caller_answers_for_it() -> None:
    case = next(c for c in CASES if c.name.startswith("U10"))
    fused = fuse(case.text, case.request, assume=["fully-written"])
    assert "fully-written" in [a.name for a in fused.assumptions]


# The same, with an op that a cast would not put right for every type: what was taken for granted is said.
@pytest.mark.parametrize("op", ["relu", "neg", "abs", "clamp(0, 6)"])
def test_a_type_that_was_guessed_is_an_assumption(op: str) -> None:
    case = next(c for c in CASES if c.name == "W-input_narrower_than_guessed")
    fused = fuse(case.text, op)
    assert "float-elements" in [a.name for a in fused.assumptions] or ".to(out.dtype.element_ty)" in fused.diff
    sure = fuse(case.text, op, dtypes=["a=fp32"])
    assert "float-elements" not in [a.name for a in sure.assumptions]


EMPTY = "    out = torch.empty_like(a)\n"


# The buffer is a fresh one, but something is put into it before the launch, which the op would miss.
@pytest.mark.parametrize(
    "filled",
    [
        "out.fill_(7)",
        "out[:] = a",
        "out[0] = 1",
        "out.copy_(a)",
        "torch.add(a, a, out=out)",
        "prepare(out)",
        "k[(1,)](a, out, 1, B=128)",
    ],
)
def test_what_a_buffer_held_is_an_assumption_once_it_was_used(filled: str) -> None:
    case = next(c for c in CASES if c.name.startswith("U10"))
    fresh = case.text.replace("    out = torch.ones_like(a)\n", EMPTY)
    assert [a.name for a in fuse(fresh, "sigmoid").assumptions] == ["no-alias"]
    used = fresh.replace(EMPTY, f"{EMPTY}    {filled}\n")
    try:
        assert "fully-written" in [a.name for a in fuse(used, "sigmoid").assumptions]
    except FusionRefused as refusal:
        assert [d.code for d in refusal.diagnostics] == ["KR209"]


# zeros stay zeros under relu: no assumption is needed for what the kernel does not write.
def test_a_fill_that_the_op_keeps_is_no_obstacle() -> None:
    case = next(c for c in CASES if c.name.startswith("U10"))
    fused = fuse(case.text.replace("ones_like", "zeros_like"), "relu")
    assert "fully-written" not in [a.name for a in fused.assumptions]
    refilled = fuse(case.text.replace("ones_like", "zeros_like"), "sigmoid")  # sigmoid(0) is 0.5 in every type
    assert "full_like" in refilled.diff and "0.5" in refilled.diff
    with pytest.raises(FusionRefused) as refused:
        fuse(case.text.replace("ones_like", "zeros_like"), "sigmoid", launcher="leave")
    assert [d.code for d in refused.value.diagnostics] == ["KR209"]


# A14: each output of one kernel gets its own op, whatever the order.
def test_two_outputs_with_an_op_each() -> None:
    text = HEADER + TUPLE.lstrip()
    one = fuse(text, {"out": "relu", "other": "sigmoid"})
    other = fuse(text, {"other": "sigmoid", "out": "relu"})
    assert one.diff == other.diff
    assert [p.output for p in one.proofs] == ["out", "other"]
    with pytest.raises(FusionRefused) as refused:
        fuse(text, "relu")
    assert [d.code for d in refused.value.diagnostics] == ["KR106"]


# ---------------------------------------------------------------------------- refused or right, but never our own error

TWO = """
@triton.jit
def two(p, q, i, v, m):
    tl.store(p + i, v, mask=m)
    tl.store(q + i, v + 1, mask=m)


@triton.jit
def k(a, out, other, n, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    m = i < n
    v = tl.load(a + i, mask=m)
    two(out, other, i, v, m)
    two(other, out, i + n, v, m)
"""
IN_A_FUNCTION = """
def make():
    import triton
    import triton.language as tl

    @triton.jit
    def k(a, out, n, B: tl.constexpr):
        i = tl.program_id(0) * B + tl.arange(0, B)
        m = i < n
        tl.store(out + i, tl.load(a + i, mask=m), mask=m)

    return k
"""
COMPILE_TIME = """
@triton.jit
def k(out, B: tl.constexpr):
    SCALE: tl.constexpr = 1.0 / B
    tl.store(out + tl.program_id(0), SCALE)


def launch():
    out = torch.empty(3, dtype=torch.float16)
    k[(3,)](out, B=4)
    return out
"""
ROWS = """\
from triton import jit
import triton.language as tl

SCALE = tl.constexpr(2)


@jit
def put(p, i, v, m, scale: tl.constexpr = SCALE):
    tl.store(p + i, v * scale, mask=m)
"""
IMPORTED = f"""{HEADER.rstrip()}
from package import put


@triton.jit
def k(a, out, n, B: tl.constexpr):
{INDICES}    put(out, i, tl.load(a + i, mask=m), m)
"""


@pytest.mark.parametrize(
    ("text", "request_text"),
    [(HEADER + TWO, "out=relu"), ("import torch\n" + IN_A_FUNCTION, "gelu"), (HEADER + COMPILE_TIME, "gelu")],
    ids=["a helper called with its buffers swapped", "triton imported in a function", "a compile-time value is stored"],
)
def test_refused_or_right(text: str, request_text: str) -> None:
    with contextlib.suppress(FusionRefused):
        compile(fuse(text, request_text, kernel="k").source, "fused.py", "exec")


# The helper's file, and not the package that passes it on, has the names that a copy of the helper needs.
def test_refused_or_right_for_a_helper_that_a_package_passes_on(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("from .rows import put\n")
    (tmp_path / "package" / "rows.py").write_text(ROWS)
    (tmp_path / "kernels.py").write_text(IMPORTED)
    with contextlib.suppress(FusionRefused):
        compile(fuse(str(tmp_path / "kernels.py"), "relu", kernel="k").source, "fused.py", "exec")
