"""Original values that are kept: what is written is accepted, every other kernel is rejected; what launches must be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from kernel_rewrite import FusionRefused, fuse
from kernel_rewrite.analysis import Analysis, analyse
from kernel_rewrite.fuse import plan_output
from kernel_rewrite.model import InternalError
from kernel_rewrite.pointwise.declarations import declared_operands
from kernel_rewrite.request import OutputRequest
from kernel_rewrite.rewrite.confirm import (
    References,
    check_compiled,
    check_source,
    lower_rewritten,
    read_rewritten,
    views_to_confirm,
)
from kernel_rewrite.rewrite.edits import apply_edits
from kernel_rewrite.rewrite.epilogue import Rewrite, fusion_edits
from kernel_rewrite.selection import choose_kernel, choose_outputs, kept_names, requested_ops, with_kept
from kernel_rewrite.source.files import Project, source_from_text
from kernel_rewrite.source.signatures import parse_overrides
from kernel_rewrite.ttir.lower import compiler

HEAD = "import torch\nimport triton\nimport triton.language as tl\n\n\n"

PLAIN = """
@triton.jit
def kernel(a_ptr, b_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    acc = tl.load(a_ptr + offsets, mask=mask).to(tl.float32) * 2.0
    tl.store(out_ptr + offsets, acc, mask=mask)
"""
EXPRESSION = PLAIN.replace("offsets, acc, mask=mask)", "offsets, tl.load(b_ptr + offsets, mask=mask) + acc, mask)")
POINTERS = """
@triton.jit
def kernel(a_ptr, b_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    acc = tl.load(a_ptr + offsets, mask=mask).to(tl.float32) * 2.0
    out_ptrs = out_ptr + offsets
    tl.store(out_ptrs, acc, mask=mask, cache_modifier=".cg")
"""
SITES = """
@triton.jit
def kernel(a_ptr, b_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    if n > 3:
        tl.store(out_ptr + offsets, tl.load(a_ptr + offsets), mask=offsets < n)
    else:
        tl.store(out_ptr + offsets, tl.load(b_ptr + offsets) * 0.5, mask=offsets < n)
    for i in range(n):
        tl.store(out_ptr + (i + 1) * BLOCK + offsets, tl.load(a_ptr + i * BLOCK + offsets))
"""
HELPER = """
@triton.jit
def put(ptrs, value, mask):
    tl.store(ptrs, value.to(ptrs.dtype.element_ty), mask=mask)


@triton.jit
def kernel(a_ptr, b_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    acc = tl.load(a_ptr + offsets, mask=mask).to(tl.float32) * 2.0
    put(out_ptr + offsets, acc, mask)
"""
BLOCKS = """
@triton.jit
def kernel(a_ptr, b_ptr, out_ptr, n, BLOCK: tl.constexpr):
    acc = tl.load(a_ptr + tl.arange(0, BLOCK)[:, None] + tl.arange(0, BLOCK)[None, :]) * 2
    place = tl.make_block_ptr(out_ptr, (n, n), (n, 1), (0, BLOCK), (BLOCK, BLOCK), (1, 0))
    tl.store(place, acc, boundary_check=(0, 1))
"""
DESCRIPTOR = """
@triton.jit
def kernel(a_ptr, b_ptr, out_ptr, n, BLOCK: tl.constexpr):
    acc = tl.load(a_ptr + tl.arange(0, BLOCK)[:, None] + tl.arange(0, BLOCK)[None, :]) * 2
    desc = tl.make_tensor_descriptor(out_ptr, (n, n), (n, 1), (BLOCK, BLOCK))
    desc.store((0, BLOCK), acc)
"""
TWO = """
@triton.jit
def kernel(a_ptr, b_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    acc = tl.load(a_ptr + offsets, mask=mask) * 2.0
    tl.store(b_ptr + offsets, acc, mask=mask)
    tl.store(out_ptr + offsets, acc, mask=mask)
"""


@dataclass(frozen=True)
class Case:
    """A kernel, with what its outputs get, and what keeps their original values."""

    kernel: str
    epilogues: dict[str, str] = field(default_factory=lambda: {"out_ptr": "relu"})
    kept: dict[str, str] = field(default_factory=lambda: {"out_ptr": "pre_ptr"})
    operands: dict[str, str] = field(default_factory=dict)
    numerics: str = "eager"
    dtypes: tuple[str, ...] = ("a_ptr=fp16", "b_ptr=fp16", "out_ptr=fp16")

    @property
    def text(self) -> str:
        return HEAD + self.kernel


SHARED = HELPER.replace("    put(out_ptr", "    put(b_ptr + offsets, acc, mask)\n    put(out_ptr")
BOTH = {"out_ptr": "relu", "b_ptr": "abs"}
CASES = {
    "plain": Case(PLAIN),
    "fused": Case(PLAIN, {"out_ptr": "silu"}, numerics="fused"),
    "expression": Case(EXPRESSION, {"out_ptr": "silu"}),
    "pointers": Case(POINTERS),
    "sites": Case(SITES, {"out_ptr": "sigmoid"}),
    "helper": Case(HELPER, {"out_ptr": "x * 2 + 1"}),
    "shared helper": Case(SHARED, {"out_ptr": "x * 2 + 1"}),
    "blocks": Case(BLOCKS),
    "descriptor": Case(DESCRIPTOR, {"out_ptr": "abs"}),
    "operand": Case(PLAIN, {"out_ptr": "x + residual"}, operands={"residual": "tile"}),
    "cast": Case(PLAIN, {"out_ptr": "x.to(float8_e5m2)"}),
    "one of two": Case(TWO),
    "both": Case(TWO, BOTH, {"out_ptr": "pre_ptr", "b_ptr": "sum_ptr"}),
}

KEPT = "    tl.store(pre_ptr + offsets, acc, mask=mask)\n"
PRE = "    tl.store(pre_ptr + offsets, pre, mask)\n"

# (case, what the rewriter writes, what stands there instead)
SPOILED: list[tuple[str, str, str]] = [
    # not stored at all, at some sites, or too often
    ("plain", KEPT, ""),
    ("plain", KEPT, KEPT + KEPT),
    ("expression", PRE, ""),
    ("helper", "    tl.store(pre_ptr, pre, mask=mask)\n", ""),
    ("blocks", "    tl.store(pre_place, acc, boundary_check=(0, 1))\n", ""),
    ("descriptor", "    pre_desc.store((0, BLOCK), acc)\n", ""),
    ("sites", "        tl.store(pre_ptr + offsets, pre, mask=offsets < n)\n", ""),
    ("sites", "        tl.store(pre_ptr + offsets, pre_2, mask=offsets < n)\n", ""),
    ("sites", "        tl.store(pre_ptr + (i + 1) * BLOCK + offsets, pre_3)\n", ""),
    ("both", "    tl.store(sum_ptr + offsets, acc, mask=mask)\n", ""),
    ("shared helper", "    tl.store(pre_ptr, pre, mask=mask)\n", ""),
    ("shared helper", "pre_ptr=pre_ptr + offsets", "pre_ptr=pre_ptr + 2 * offsets"),
    ("shared helper", "tl.store(pre_ptr, pre", "tl.store(pre_ptr, pre + 1"),
    # behind the store, or under a condition of its own
    ("plain", KEPT, "    if n > 5:\n    " + KEPT),
    ("plain", KEPT, "    for i in range(n):\n    " + KEPT),
    ("plain", "    mask = offsets < n\n", "    mask = offsets < n\n    tl.store(pre_ptr + offsets, 0.0, mask=mask)\n"),
    # another value
    ("plain", KEPT, KEPT.replace("acc", "acc * 1.5")),
    ("plain", KEPT, KEPT.replace("acc", "0.0")),
    ("plain", KEPT, KEPT.replace("acc", "tl.maximum(acc, 0, propagate_nan=tl.PropagateNan.ALL)")),
    ("plain", KEPT, KEPT.replace("acc", "acc.to(tl.bfloat16)")),
    ("fused", "acc, mask=mask)", "silu(acc), mask=mask)"),
    ("expression", PRE, PRE.replace("pre,", "acc,")),
    ("expression", PRE, PRE.replace("pre,", "silu(pre.to(out_ptr.dtype.element_ty)),")),
    ("expression", "silu(pre.to", "silu(acc.to"),
    ("expression", "silu(pre.to(out_ptr.dtype.element_ty))", "pre"),
    ("operand", KEPT, KEPT.replace("acc", "acc + residual")),
    ("operand", KEPT, KEPT.replace("acc", "residual")),
    ("cast", "acc", "acc.to(tl.float32).to(tl.float8e5)"),
    ("helper", "tl.store(pre_ptr, pre,", "tl.store(pre_ptr, value * 2,"),
    ("blocks", "tl.store(pre_place, acc", "tl.store(pre_place, acc + acc"),
    ("descriptor", "pre_desc.store((0, BLOCK), acc", "pre_desc.store((0, BLOCK), tl.abs(acc)"),
    # another place
    ("plain", "pre_ptr + offsets", "pre_ptr + offsets + 1"),
    ("plain", "pre_ptr + offsets", "pre_ptr + 2 * offsets"),
    ("plain", "pre_ptr + offsets", "pre_ptr + tl.arange(0, BLOCK)"),
    ("pointers", "pre_ptrs = pre_ptr + offsets", "pre_ptrs = pre_ptr + offsets % n"),
    ("sites", "pre_ptr + (i + 1) * BLOCK", "pre_ptr + i * BLOCK"),
    ("helper", "pre_ptr=pre_ptr + offsets", "pre_ptr=pre_ptr + offsets * 2"),
    ("blocks", "make_block_ptr(pre_ptr, (n, n), (n, 1), (0, BLOCK)", "make_block_ptr(pre_ptr, (n, n), (n, 1), (BLOCK, 0)"),
    ("blocks", "make_block_ptr(pre_ptr, (n, n)", "make_block_ptr(pre_ptr, (n, n + 1)"),
    ("blocks", "(pre_place, acc, boundary_check=(0, 1))", "(pre_place, acc, boundary_check=(0,))"),
    ("descriptor", "make_tensor_descriptor(pre_ptr, (n, n), (n, 1)", "make_tensor_descriptor(pre_ptr, (n, n), (n + 1, 1)"),
    ("descriptor", "pre_desc.store((0, BLOCK)", "pre_desc.store((BLOCK, 0)"),
    # another mask, or another way to store
    ("plain", KEPT, KEPT.replace(", mask=mask", "")),
    ("plain", KEPT, KEPT.replace("mask=mask", "mask=offsets < n - 1")),
    ("plain", KEPT, KEPT.replace("mask=mask", "mask=mask & (acc > 0)")),
    ("pointers", 'pre_ptrs, acc, mask=mask, cache_modifier=".cg"', "pre_ptrs, acc, mask=mask"),
    ("pointers", 'pre_ptrs, acc, mask=mask, cache_modifier=".cg"', 'pre_ptrs, acc, mask=mask, cache_modifier=".cs"'),
    ("plain", "tl.store(pre_ptr + offsets, acc, mask=mask)", "tl.atomic_add(pre_ptr + offsets, acc.to(tl.float16), mask=mask)"),
    # another buffer
    ("plain", "tl.store(pre_ptr", "tl.store(b_ptr"),
    ("plain", "tl.store(pre_ptr", "tl.store(a_ptr"),
    ("plain", "tl.store(out_ptr", "tl.store(pre_ptr"),
    ("plain", "tl.store(pre_ptr", "tl.store(out_ptr"),
    ("operand", "tl.store(pre_ptr", "tl.store(residual_ptr"),
    ("one of two", "tl.store(b_ptr + offsets, acc", "tl.store(pre_ptr + offsets, acc"),
    ("one of two", "    tl.store(b_ptr", "    tl.store(pre_ptr + offsets, acc, mask=mask)\n    tl.store(b_ptr"),
    ("both", "tl.store(sum_ptr", "tl.store(pre_ptr"),
    ("both", "tl.store(pre_ptr", "tl.store(sum_ptr"),
    ("pointers", "pre_ptrs = pre_ptr + offsets", "pre_ptrs = tl.where(mask, pre_ptr + offsets, out_ptr + offsets)"),
    # what is kept is read
    ("plain", KEPT, KEPT + "    acc = tl.load(pre_ptr + offsets, mask=mask).to(tl.float32)\n"),
    ("plain", KEPT, KEPT.replace("acc", "acc + tl.load(pre_ptr + offsets, mask=mask)")),
    ("plain", "    acc = tl.load(a_ptr", "    acc = tl.load(pre_ptr"),
    ("plain", KEPT, "    tl.atomic_add(pre_ptr + offsets, acc.to(tl.float16), mask=mask)\n" + KEPT),
    ("operand", "tl.load(residual_ptr", "tl.load(pre_ptr"),
    # where it lies decides something
    ("plain", "pre_ptr + offsets", "pre_ptr + offsets + (pre_ptr.to(tl.int64) % 2)"),
    ("plain", "    mask = offsets < n\n", "    mask = offsets < n + (pre_ptr.to(tl.int64) % 16)\n"),
    ("plain", KEPT, "    if pre_ptr.to(tl.int64) % 32 == 0:\n    " + KEPT),
    # the output
    ("plain", "tl.maximum(acc, 0, propagate_nan=tl.PropagateNan.ALL)", "acc"),
    ("cast", "to_float8_e5m2(acc.to(tl.float16))", "to_float8_e5m2(acc)"),
]  # fmt: skip


def planned(case: Case) -> tuple[Analysis, tuple[OutputRequest, ...], Rewrite, str]:
    declared = declared_operands(case.operands)
    file = source_from_text(case.text, "before.py")
    project = Project((file,))
    chosen = choose_kernel(file, project, "kernel")
    analysis = analyse(chosen, project, compiler(), lambda function: parse_overrides(function, (), case.dtypes))
    requested, _ = requested_ops(case.epilogues, (), declared)
    outputs = choose_outputs(analysis, requested, frozenset(), tuple(declared.values()))
    requests = with_kept(analysis, outputs, kept_names(case.kept))
    plans = [(plan_output(analysis, request), request.pointwise) for request in requests]
    rewrite = fusion_edits(plans, analysis, case.numerics, kept=case.kept)
    return analysis, requests, rewrite, apply_edits(analysis.kernel.file, rewrite.edits)


def judged(case: Case, spoil: Callable[[str], str]) -> None:
    """What TTIR alone says of the spoiled rewrite of a case."""
    analysis, requests, rewrite, text = planned(case)
    views = views_to_confirm(analysis, requests)
    lowered = lower_rewritten(source_from_text(spoil(text), "before.py"), analysis, views, rewrite, requests)
    check_compiled(lowered, views, References(analysis, case.numerics, rewrite), requests)


@pytest.mark.parametrize("name", CASES)
def test_what_is_written_is_accepted(name: str) -> None:
    judged(CASES[name], lambda text: text)


@pytest.mark.parametrize(("name", "right", "wrong"), SPOILED)
def test_another_kernel_is_rejected(name: str, right: str, wrong: str) -> None:
    def spoil(text: str) -> str:
        assert right in text, text
        return text.replace(right, wrong, 1)

    with pytest.raises((FusionRefused, InternalError)) as raised:
        judged(CASES[name], spoil)
    assert "Triton rejects" not in str(raised.value), raised.value


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("plain", KEPT, ""),
        ("plain", KEPT, KEPT + KEPT),
        ("plain", KEPT, KEPT.replace("acc", "acc + 1")),
        ("plain", KEPT, KEPT.replace("tl.store", "tl.atomic_add")),
        ("plain", KEPT, KEPT.replace("tl.store(", "print(")),
        ("expression", "    pre = ", "    acc = "),
        ("expression", "silu(pre.to", "silu(acc.to"),
        ("expression", "+ acc", "- acc"),
        ("descriptor", "pre_desc.store(", "desc.store("),
    ],
)
def test_another_text_is_rejected_where_nothing_is_compiled(name: str, right: str, wrong: str) -> None:
    analysis, _, rewrite, text = planned(CASES[name])
    check_source(read_rewritten(text, analysis), rewrite, analysis)
    assert right in text, text
    with pytest.raises(InternalError):
        check_source(read_rewritten(text.replace(right, wrong, 1), analysis), rewrite, analysis)


# ------------------------------------------------------------------------------------------------------------- launches

ADD = """
@triton.jit
def add_kernel(x_ptr, y_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    tl.store(out_ptr + offsets, tl.load(x_ptr + offsets, mask=mask) + tl.load(y_ptr + offsets, mask=mask), mask=mask)


def add(x, y, wide=False):
    out = torch.empty_like(x)
"""
ONE = "    add_kernel[(4,)](x, y, out, x.numel(), BLOCK=64)\n"
END = "    return out\n"


def fused(launches: str, name: str = "pre_ptr", **options: object) -> str:
    """The launcher of the fused file."""
    found = fuse(HEAD + ADD + launches + END, "relu", keep_original={"out_ptr": name}, **options)  # type: ignore[arg-type]
    assert "`kept-apart`" not in found.source and "assumed (kept-apart)" in found.source
    return found.source[found.source.index("def add(") :]


def codes(launches: str, name: str = "pre_ptr", **options: object) -> list[str]:
    with pytest.raises(FusionRefused) as raised:
        fused(launches, name, **options)
    return [diagnostic.code for diagnostic in raised.value.diagnostics]


def test_the_launcher_takes_the_buffer_and_passes_it_on() -> None:
    assert fused(ONE) == (
        "def add(x, y, wide=False, *, pre):\n    out = torch.empty_like(x)\n"
        "    add_kernel[(4,)](x, y, out, x.numel(), pre_ptr=pre, BLOCK=64)\n    return out\n"
    )
    assert "*, sums):" in fused(ONE, "sums")
    assert "*, lambda_ptr):" in fused(ONE, "lambda_ptr")


def test_launches_of_which_one_runs() -> None:
    wide = ONE.replace("64", "128")
    branches = f"    if wide:\n    {wide}    else:\n    {ONE}"
    assert fused(branches).count("pre_ptr=pre") == 2
    leaving = f"    if wide:\n    {wide}        return out\n{ONE}"
    assert fused(leaving).count("pre_ptr=pre") == 2
    compiled = ONE.replace("add_kernel[(4,)](", "add_kernel.warmup(").replace("BLOCK=64", "BLOCK=64, grid=(4,)")
    assert fused(compiled + ONE).count("pre_ptr=pre") == 2


@pytest.mark.parametrize(
    "launches",
    [
        ONE + ONE,
        f"    for i in range(3):\n    {ONE}",
        f"    while wide:\n    {ONE}",
        f"    if wide:\n    {ONE}{ONE}",
        f"    if wide:\n    {ONE}    else:\n        y = x\n{ONE}",
        f"    if wide:\n    {ONE}    if not wide:\n    {ONE}",
        "    [add_kernel[(4,)](x, y, o, x.numel(), BLOCK=64) for o in out]\n",
    ],
)
def test_launches_that_would_write_over_what_is_kept(launches: str) -> None:
    assert set(codes(launches)) == {"KR319"}
    options = {"launcher": "leave"}
    assert "pre_ptr" not in fused(launches, **options)


@pytest.mark.parametrize("name", ["x_ptr", "offsets", "mask", "BLOCK", "n", "tl"])
def test_names_of_the_kernel_are_taken(name: str) -> None:
    assert codes(ONE, name) == ["KR311"]


@pytest.mark.parametrize("name", ["x", "y_ptr", "wide_ptr"])
def test_names_of_a_launcher_are_taken(name: str) -> None:
    assert codes(ONE, name) == ["KR311"]


def test_two_buffers_need_two_names() -> None:
    with pytest.raises(FusionRefused, match="KR311"):
        fuse(HEAD + TWO, BOTH, keep_original={"out_ptr": "pre_ptr", "b_ptr": "pre"})
    with pytest.raises(FusionRefused, match="KR311"):
        fuse(HEAD + PLAIN, "x + pre", operands={"pre": "tile"}, keep_original={"out_ptr": "pre_ptr"})


@pytest.mark.parametrize(
    "kept",
    [["pre_ptr"], ["out_ptr=pre ptr"], ["out_ptr=lambda"], ["out_ptr=a", "out_ptr=b"], ["out_ptr=a", "y_ptr=a"], {"x_ptr": "a"}],
)  # fmt: skip
def test_what_is_named_wrongly(kept: list[str] | dict[str, str]) -> None:
    with pytest.raises(FusionRefused, match="KR122"):
        fuse(HEAD + ADD + ONE + END, "relu", keep_original=kept)


@pytest.mark.parametrize(
    ("store", "why"),
    [
        ("ignored = tl.store(out_ptr + offsets, acc, mask=mask)", "part of a larger statement"),
        ("for i in range(2):\n        tl.store(out_ptr + offsets, acc)\n        out_ptr += n", "several values"),
        ("tl.store(tl.where(mask, out_ptr + offsets, out_ptr), acc)", "does not start from one pointer"),
    ],
)
def test_stores_that_cannot_be_followed(store: str, why: str) -> None:
    with pytest.raises(FusionRefused) as raised:
        fuse(
            HEAD + PLAIN.replace("tl.store(out_ptr + offsets, acc, mask=mask)", store),
            "relu",
            keep_original=["out_ptr=pre_ptr"],
        )
    (found,) = raised.value.diagnostics
    assert found.code == "KR306" and why in found.labels[0].text
