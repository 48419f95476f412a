"""Outputs that an epilogue gives another element type: what is written is accepted, every other kernel is rejected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from textwrap import dedent

import pytest

from kernel_rewrite.analysis import Analysis, analyse
from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.fuse import fuse, plan_output
from kernel_rewrite.model import InternalError
from kernel_rewrite.pointwise.declarations import declared_operands
from kernel_rewrite.request import OutputRequest
from kernel_rewrite.rewrite.confirm import References, check_compiled, lower_rewritten, views_to_confirm
from kernel_rewrite.rewrite.edits import apply_edits
from kernel_rewrite.rewrite.epilogue import Rewrite, fusion_edits
from kernel_rewrite.selection import choose_kernel, choose_outputs, requested_ops
from kernel_rewrite.source.files import Project, source_from_text
from kernel_rewrite.source.signatures import parse_overrides
from kernel_rewrite.ttir.lower import compiler

HEAD = "import torch\nimport triton\nimport triton.language as tl\n\n\n"
LAUNCH = """

def launch(a, b, n):
    out = torch.empty(n, dtype=torch.float16, device=a.device)
    kernel[(1,)](a, b, out, n, BLOCK=64)
    return out
"""


@dataclass(frozen=True)
class Case:
    """A kernel, with what its one output gets."""

    kernel: str
    epilogue: str
    operands: Mapping[str, str] = field(default_factory=dict)
    numerics: str = "eager"
    dtypes: tuple[str, ...] = ()
    launch: str = LAUNCH

    @property
    def text(self) -> str:
        return HEAD + dedent(self.kernel).strip() + "\n" + self.launch


PLAIN = """
@triton.jit
def kernel(a_ptr, b_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    a = tl.load(a_ptr + offsets, mask=mask)
    acc = a.to(tl.float32) * tl.load(b_ptr + offsets, mask=mask).to(tl.float32)
    tl.store(out_ptr + offsets, acc, mask=mask)
"""
WITH_TYPE = PLAIN.replace("+ offsets, acc, mask", "+ offsets, acc.to(out_ptr.dtype.element_ty), mask")
NAMED_TYPE = PLAIN.replace("    tl.store", "    kind = out_ptr.dtype.element_ty\n    acc = acc.to(kind)\n    tl.store")
LOOP = """
@triton.jit
def kernel(a_ptr, b_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    out_ptrs = out_ptr + offsets
    last = out_ptr + n * BLOCK + offsets
    if n > 8:
        last = last + BLOCK
    for i in range(n):
        acc = tl.load(a_ptr + i * BLOCK + offsets).to(tl.float32) * 2.0
        tl.store(out_ptrs, acc)
        out_ptrs += BLOCK
    for i in range(n):
        last += 1
    tl.store(last, tl.load(b_ptr + offsets).to(tl.float32) * 3.0)
"""
WHILE = """
@triton.jit
def kernel(a_ptr, b_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    out_ptrs = out_ptr + offsets
    i = 0
    while i < n:
        tl.store(out_ptrs, tl.load(a_ptr + i * BLOCK + offsets).to(tl.float32) * 2.0)
        out_ptrs += BLOCK
        i += 1
"""
BLOCKS = """
@triton.jit
def kernel(a_ptr, b_ptr, out_ptr, n, BLOCK: tl.constexpr):
    place = tl.make_block_ptr(out_ptr, (n, n), (n, 1), (0, 0), (BLOCK, BLOCK), (1, 0))
    rows = tl.arange(0, BLOCK)
    acc = tl.load(a_ptr + rows[:, None] * n + rows[None, :]).to(tl.float32)
    place = tl.advance(place, (0, BLOCK))
    tl.store(place, acc.to(place.dtype.element_ty), boundary_check=(0, 1))
"""
DESCRIPTOR = """
@triton.jit
def kernel(a_ptr, b_ptr, out_ptr, n, BLOCK: tl.constexpr):
    desc = tl.make_tensor_descriptor(out_ptr, (n, n), (n, 1), (BLOCK, BLOCK))
    rows = tl.arange(0, BLOCK)
    acc = tl.load(a_ptr + rows[:, None] * n + rows[None, :]).to(tl.float32)
    desc.store((0, BLOCK), acc.to(desc.dtype))
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
    put(out_ptr + n + offsets, acc + 1.0, mask)
"""
TWO = """
@triton.jit
def put(ptrs, value, mask):
    tl.store(ptrs, value.to(ptrs.dtype.element_ty), mask=mask)


@triton.jit
def kernel(a_ptr, b_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    acc = tl.load(a_ptr + offsets, mask=mask).to(tl.float32) * 2.0
    put(out_ptr + offsets, acc, mask)
    put(b_ptr + offsets, acc, mask)
"""
FP8 = "(x / scale).to(float8_e4m3fn)"
SCALE = {"scale": "scalar"}
HALF = ("a_ptr=fp16", "b_ptr=fp16")

CASES: dict[str, Case] = {
    "plain": Case(PLAIN, FP8, SCALE, dtypes=HALF),
    "with its type": Case(WITH_TYPE, FP8, SCALE, dtypes=HALF),
    "named type": Case(NAMED_TYPE, FP8, SCALE, dtypes=HALF),
    "loop": Case(LOOP, FP8, SCALE, dtypes=HALF),
    "while": Case(WHILE, FP8, SCALE, dtypes=HALF),
    "blocks": Case(BLOCKS, FP8, SCALE, dtypes=HALF, launch=LAUNCH.replace("64", "16")),
    "descriptor": Case(DESCRIPTOR, FP8, SCALE, dtypes=HALF, launch=LAUNCH.replace("64", "16")),
    "helper": Case(HELPER, FP8, SCALE, dtypes=HALF),
    "two outputs": Case(TWO, FP8, SCALE, dtypes=HALF),
    "fused": Case(PLAIN, FP8, SCALE, "fused", HALF),
    "int8": Case(PLAIN, "clamp(round(x), -128, 127).to(int8)", dtypes=HALF),
    "uint8": Case(PLAIN, "clamp(round(x), 0, 255).to(uint8)", dtypes=HALF),
    "bool": Case(PLAIN, "x > 0", dtypes=HALF),
    "float32": Case(PLAIN, "x.to(float32)", dtypes=HALF),
    "promoted": Case(PLAIN, "x + bias", {"bias": "tile:fp32"}, dtypes=HALF),
    "e5m2": Case(PLAIN, "x.to(float8_e5m2)", dtypes=HALF),
}

# (case, what the rewriter writes, what stands there instead)
SPOILED: list[tuple[str, str, str]] = [
    # the rounding to the type that the output has without the epilogue
    ("plain", "acc.to(tl.float16)", "acc"),
    ("plain", "acc.to(tl.float16)", "acc.to(tl.bfloat16)"),
    ("plain", "acc.to(tl.float16)", "acc.to(tl.float32)"),
    ("plain", "acc.to(tl.float16)", "acc.to(out_ptr.dtype.element_ty)"),
    ("plain", "acc.to(tl.float16)", "acc.to(tl.float8e4nv)"),
    ("plain", "acc.to(tl.float16)", "acc.to(tl.float16).to(tl.float32).to(tl.bfloat16)"),
    ("with its type", "acc.to(tl.float16)", "acc.to(out_ptr.dtype.element_ty)"),
    ("with its type", "acc.to(tl.float16)", "acc"),
    ("with its type", "acc.to(tl.float16)", "acc.to(tl.bfloat16)"),
    ("named type", "kind = tl.float16", "kind = out_ptr.dtype.element_ty"),
    ("named type", "kind = tl.float16", "kind = tl.bfloat16"),
    ("helper", "value.to(tl.float16)", "value.to(ptrs.dtype.element_ty)"),
    ("helper", "value.to(tl.float16)", "value"),
    ("blocks", "acc.to(tl.float16)", "acc.to(place.dtype.element_ty)"),
    ("blocks", "acc.to(tl.float16)", "acc"),
    ("descriptor", "acc.to(tl.float16)", "acc.to(desc.dtype)"),
    ("descriptor", "acc.to(tl.float16)", "acc"),
    ("promoted", "acc.to(tl.float16)", "acc"),
    ("int8", "acc.to(tl.float16)", "acc"),
    ("bool", "acc.to(tl.float16)", "acc"),
    # the epilogue and its cast
    ("plain", "scale_to_float8_e4m3fn(acc.to(tl.float16), scale)", "acc.to(tl.float16)"),
    ("plain", ".to(tl.float8e4nv)", ".to(tl.float8e5)"),
    ("plain", ".to(tl.float8e4nv)", ".to(tl.float16)"),
    ("plain", ".to(tl.float32).to(tl.float8e4nv)", ""),
    ("e5m2", "acc.to(tl.float16)", "acc.to(tl.float16), mask=mask)\n    tl.store(out_ptr + offsets, acc"),
    ("int8", ".to(tl.int32).to(tl.int8)", ".to(tl.int8)"),
    ("int8", ".to(tl.int32).to(tl.int8)", ".to(tl.uint8).to(tl.int8)"),
    ("int8", "-128", "-127"),
    ("uint8", ".to(tl.int32).to(tl.uint8)", ".to(tl.int8)"),
    ("bool", "> 0", ">= 0"),
    ("bool", "acc.to(tl.float16) > 0", "(acc.to(tl.float16) > 0).to(tl.float32) * 2"),
    ("float32", "acc.to(tl.float16).to(tl.float32)", "acc"),
    ("float32", "acc.to(tl.float16).to(tl.float32)", "acc.to(tl.float32)"),
    ("fused", "scale_to_float8_e4m3fn(acc, scale)", "scale_to_float8_e4m3fn(acc.to(tl.bfloat16), scale)"),
    ("fused", "scale_to_float8_e4m3fn(acc, scale)", "acc"),
    # where it is stored, and what else is
    ("plain", "out_ptr + offsets", "out_ptr + 2 * offsets"),
    ("plain", "out_ptr + offsets", "out_ptr + offsets + 1"),
    ("plain", "out_ptr + offsets", "out_ptr.to(tl.pointer_type(tl.float16)) + offsets"),
    ("int8", "out_ptr + offsets", "out_ptr.to(tl.pointer_type(tl.uint8)) + offsets"),
    ("plain", "out_ptr + offsets", "a_ptr + offsets"),
    ("bool", "out_ptr + offsets", "out_ptr.to(tl.pointer_type(tl.int8)) + 2 * offsets"),
    ("loop", "out_ptrs += BLOCK", "out_ptrs += 2 * BLOCK"),
    ("loop", "last = last + BLOCK", "last = last + 1"),
    ("loop", "last += 1", "last += 2"),
    ("loop", "out_ptr + n * BLOCK", "out_ptr + 2 * n * BLOCK"),
    ("while", "out_ptrs += BLOCK", "out_ptrs += BLOCK // 2"),
    ("blocks", "(0, BLOCK))", "(BLOCK, 0))"),
    ("blocks", "(n, 1), (0, 0)", "(1, n), (0, 0)"),
    ("descriptor", "(n, 1), (BLOCK", "(n + n, 1), (BLOCK"),
    ("descriptor", "desc.store((0, BLOCK)", "desc.store((BLOCK, 0)"),
    ("two outputs", "put(b_ptr + offsets, acc, mask", "put_scale_to_float8_e4m3fn(b_ptr + offsets, acc, mask, scale=scale"),
    ("two outputs", "put_scale_to_float8_e4m3fn(out_ptr + offsets, acc, mask, scale=scale", "put(out_ptr + offsets, acc, mask"),
    ("two outputs", "put_scale_to_float8_e4m3fn(out_ptr", "put_scale_to_float8_e4m3fn(b_ptr"),
    ("plain", "    tl.store(", "    tl.store(b_ptr + offsets, acc, mask=mask)\n    tl.store("),
    ("plain", "    tl.store(", "    a = tl.load(out_ptr + offsets)\n    tl.store("),
]  # fmt: skip

# (case, the types of parameters that the fused kernel is lowered with in place of the right ones)
WRONG_TYPES: list[tuple[str, dict[str, str]]] = [
    ("plain", {"out_ptr": "*fp16"}),
    ("plain", {"out_ptr": "*fp8e5"}),
    ("plain", {"out_ptr": "*bf16"}),
    ("plain", {"out_ptr": "*fp32"}),
    ("plain", {"out_ptr": "*fp8e4nv", "b_ptr": "*fp8e4nv"}),
    ("plain", {"out_ptr": "*fp8e4nv", "a_ptr": "*bf16"}),
    ("plain", {"a_ptr": "*fp8e4nv"}),
    ("loop", {"out_ptr": "*fp8e5"}),
    ("while", {"out_ptr": "*fp8e5"}),
    ("descriptor", {"out_ptr": "*fp8e5"}),
    ("helper", {"out_ptr": "*fp8e5"}),
    ("two outputs", {"out_ptr": "*fp8e4nv", "b_ptr": "*fp8e4nv"}),
    ("two outputs", {"b_ptr": "*fp8e4nv"}),
    ("two outputs", {"out_ptr": "*fp16"}),
    ("int8", {"out_ptr": "*fp16"}),
    ("int8", {"out_ptr": "*i32"}),
    ("bool", {"out_ptr": "*i8"}),
    ("bool", {"out_ptr": "*i32"}),
    ("float32", {"out_ptr": "*fp16"}),
    ("promoted", {"out_ptr": "*fp16"}),
]


def planned(
    case: Case, assumed: frozenset[str] = frozenset()
) -> tuple[Analysis, tuple[OutputRequest, ...], Rewrite, str]:
    declared = declared_operands(case.operands)
    file = source_from_text(case.text, "before.py")
    project = Project((file,))
    chosen = choose_kernel(file, project, "kernel")
    analysis = analyse(chosen, project, compiler(), lambda function: parse_overrides(function, (), case.dtypes))
    requested, _ = requested_ops({"out_ptr": case.epilogue}, (), declared)
    requests = choose_outputs(analysis, requested, assumed, tuple(declared.values()))
    plans = [(plan_output(analysis, request), request.pointwise) for request in requests]
    rewrite = fusion_edits(plans, analysis, case.numerics)
    return analysis, requests, rewrite, apply_edits(analysis.kernel.file, rewrite.edits)


def judged(name: str, spoil: Callable[[str], str], types: Mapping[str, str] | None = None) -> None:
    case = CASES[name]
    analysis, requests, rewrite, text = planned(case)
    spoiled = source_from_text(spoil(text), "before.py")
    views = views_to_confirm(analysis, requests)
    if types is None:
        lowered = lower_rewritten(spoiled, analysis, views, rewrite, requests)
    else:
        assert not rewrite.parameters or "scale" in rewrite.parameters or "bias" in rewrite.parameters
        operand = {p.name: "fp32" if p.number else "*fp32" for p in rewrite.parameters.values()}
        views = views[:1]
        order = spoiled.tree.body
        signature = [node.args.args for node in order if getattr(node, "name", "") == "kernel"][0]  # type: ignore[attr-defined]
        known = dict(views[0].specialization.signature) | operand | dict(types)
        changed = replace(views[0].specialization, signature=tuple((a.arg, known[a.arg]) for a in signature))
        lowered = lower_rewritten(spoiled, analysis, [replace(views[0], specialization=changed)])
    check_compiled(lowered, views, References(analysis, case.numerics, rewrite), requests)


@pytest.mark.parametrize("name", CASES)
def test_what_is_written_is_accepted(name: str) -> None:
    judged(name, lambda text: text)


@pytest.mark.parametrize(("name", "right", "wrong"), SPOILED)
def test_another_kernel_is_rejected(name: str, right: str, wrong: str) -> None:
    def spoil(text: str) -> str:
        assert right in text, text
        return text.replace(right, wrong, 1)

    with pytest.raises((FusionRefused, InternalError)) as raised:
        judged(name, spoil)
    assert "Triton rejects" not in str(raised.value), raised.value


@pytest.mark.parametrize(("name", "types"), WRONG_TYPES)
def test_other_element_types_are_rejected(name: str, types: dict[str, str]) -> None:
    with pytest.raises((FusionRefused, InternalError)) as raised:
        judged(name, lambda text: text, types)
    assert "Triton rejects" not in str(raised.value), raised.value


def test_the_right_element_types_are_accepted() -> None:
    judged("plain", lambda text: text, {"out_ptr": "*fp8e4nv"})
    judged("bool", lambda text: text, {"out_ptr": "*i1"})


REFUSED: dict[str, Case] = {
    "bools": Case(PLAIN.replace("acc, mask", "acc > 0, mask"), "x.to(float32)", dtypes=(*HALF, "out_ptr=i1")),
    "another type in each launch": Case(
        PLAIN,
        "x + bias",
        {"bias": "tile:fp16"},
        dtypes=HALF,
        launch=LAUNCH + LAUNCH.replace("def launch", "def other").replace("float16", "int32"),
    ),
    "its own type in one launch": Case(
        PLAIN,
        "x + bias",
        {"bias": "tile:fp32"},
        dtypes=HALF,
        launch=LAUNCH + LAUNCH.replace("def launch", "def other").replace("float16", "float64"),
    ),
    "read in place": Case(
        PLAIN.replace("tl.load(b_ptr + offsets", "tl.load(out_ptr + offsets"), "x.to(float32)", dtypes=HALF
    ),
    "the type of the pointer": Case(
        PLAIN.replace("    tl.store", "    tl.static_assert(out_ptr.dtype != tl.float32)\n    tl.store"), FP8, SCALE, dtypes=HALF
    ),
    "a type that is not said": Case(PLAIN, FP8, SCALE, launch=LAUNCH.replace("torch.float16", "b[0]")),
    "an argument of another name": Case(
        PLAIN, FP8, SCALE, launch=LAUNCH.replace("torch.float16", "a.dtype").replace("(a, b, out", "(a.float(), b, out")
    ),
    "an argument that is bound anew": Case(
        PLAIN, FP8, SCALE, launch=LAUNCH.replace("torch.float16", "a.dtype").replace("    kernel", "    a = a + b\n    kernel")
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_an_output_that_keeps_its_type(name: str) -> None:
    with pytest.raises(FusionRefused) as raised:
        planned(REFUSED[name], frozenset({"in-place"}))
    assert {d.code for d in raised.value.diagnostics} == {"KR410"}


@pytest.mark.parametrize(
    ("allocated", "spelled"),
    [
        ("torch.empty(n, dtype=a.dtype)", "a_ptr.dtype.element_ty"),
        ("torch.empty_like(a)", "a_ptr.dtype.element_ty"),
        ("torch.empty_like(b)", "b_ptr.dtype.element_ty"),
        ("b.new_empty(n)", "b_ptr.dtype.element_ty"),
        ("torch.empty_like(b, dtype=a.dtype)", "a_ptr.dtype.element_ty"),
        ("torch.empty(n, dtype=torch.bfloat16)", "tl.bfloat16"),
    ],
)
def test_the_type_that_the_output_had_is_spelled(allocated: str, spelled: str) -> None:
    launch = LAUNCH.replace("torch.empty(n, dtype=torch.float16, device=a.device)", allocated)
    *_, text = planned(Case(PLAIN, FP8, SCALE, launch=launch))
    assert f"acc.to({spelled})" in text
    assert "dtype=torch.float8_e4m3fn" in text


def test_arguments_of_the_same_type_by_another_name() -> None:
    launch = LAUNCH.replace("torch.float16", "a.dtype").replace("(a, b, out", "(a.contiguous().view(-1), b, out")
    *_, text = planned(Case(PLAIN, FP8, SCALE, launch=launch))
    assert "acc.to(a_ptr.dtype.element_ty)" in text


def test_a_buffer_that_keeps_the_original_has_the_type_that_the_output_had() -> None:
    text = CASES["plain"].text
    fused = fuse(text, "x.to(int8)", path="before.py", keep_original={"out_ptr": "first"})
    assert (
        "`first` is a tensor like the one for `out_ptr`, with the element type that it has without the epilogue"
        in fused.contract
    )
    (layout,) = [a.statement for a in fused.assumptions if a.name == "kept-layout"]
    assert layout.startswith("`first` has the element type that `out_ptr` has without the epilogue")
