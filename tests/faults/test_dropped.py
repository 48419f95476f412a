"""Outputs dropped wrongly are rejected: by the guard of the syntax tree or by validation, and by validation alone where it is
another kernel that is compiled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import pytest

from kernel_rewrite.analysis import Analysis, analyse
from kernel_rewrite.fuse import plan_output, same_elements
from kernel_rewrite.model import InternalError
from kernel_rewrite.pointwise.declarations import declared_operands
from kernel_rewrite.rewrite.confirm import confirm, read_rewritten
from kernel_rewrite.rewrite.drop import (
    Without,
    analysed_again,
    check_without,
    confirm_without,
    lowered_without,
    without_outputs,
)
from kernel_rewrite.rewrite.edits import apply_edits
from kernel_rewrite.rewrite.epilogue import fusion_edits
from kernel_rewrite.rewrite.unchanged import check_unchanged
from kernel_rewrite.selection import choose_kernel, choose_outputs, requested_ops
from kernel_rewrite.source.files import Project, source_from_text
from kernel_rewrite.source.signatures import parse_overrides
from kernel_rewrite.ttir.lower import compiler

HEAD = "import torch\nimport triton\nimport triton.language as tl\n\n\n"
LAUNCHER = """

def launch(x):
    gate = torch.empty_like(x)
    c = torch.empty_like(x)
    d = torch.empty_like(x)
    kernel[(triton.cdiv(x.numel(), 64),)](x, gate, c, d, x.numel(), BLOCK=64)
    return gate, c, d
"""
START = """\
@triton.jit
def kernel(x_ptr, gate_ptr, c_ptr, d_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    x = tl.load(x_ptr + offsets, mask=mask).to(tl.float32)
    gate = x * 0.5
"""
PAIR = (
    START
    + """\
    tl.store(gate_ptr + offsets, gate, mask=mask)
    tl.store(c_ptr + offsets, x, mask=mask)
    tl.store(d_ptr + offsets, x + gate, mask=mask)
"""
)
BRANCHES = (
    START
    + """\
    for i in range(n):
        tl.store(gate_ptr + i * BLOCK + offsets, gate)
        if n > 3:
            tl.store(gate_ptr + offsets, gate, mask=mask)
        if n > 4:
            tl.store(c_ptr + offsets, x, mask=mask)
        tl.store(d_ptr + i * BLOCK + offsets, x)
"""
)
LOADS = (
    START
    + """\
    lost = tl.load(x_ptr + offsets + 1, mask=mask)
    kept = tl.load(x_ptr + offsets + 2, mask=mask)
    tl.store(gate_ptr + offsets, lost, mask=mask)
    if n > 3:
        tl.store(gate_ptr + offsets + n, tl.load(x_ptr + offsets + 3))
    tl.store(c_ptr + offsets, kept, mask=mask)
"""
)
DTYPES = ("x_ptr=fp32", "gate_ptr=fp16", "c_ptr=fp16", "d_ptr=fp16")


@dataclass(frozen=True)
class Case:
    """A right text without an output, and what it was made of."""

    analysis: Analysis
    without: Without

    def source_accepts(self, text: str) -> bool:
        """Whether the guard of the syntax tree lets `text` pass."""
        tree = read_rewritten(text, self.analysis).tree
        try:
            check_unchanged(self.analysis.kernel.file.tree, tree, (), self.without.additions, self.without.removals)
        except InternalError:
            return False
        return True

    def validation_accepts(self, text: str, outputs: Sequence[str] = ("gate_ptr",)) -> bool:
        """Whether the kernel of `text`, as it is compiled, is the one before without its stores to `outputs`."""
        try:
            lowered = lowered_without(read_rewritten(text, self.analysis), self.without, self.analysis)
            for view, result in zip(self.analysis.views, lowered, strict=True):
                check_without(view, result, outputs, self.without.parameters)
        except InternalError:
            return False
        return True


@lru_cache
def case(kernel: str, epilogue: str = "") -> Case:
    operands = declared_operands(["gate_ptr=stored"] if epilogue else ())
    requested, _ = requested_ops([epilogue] if epilogue else (), (), operands)
    file = source_from_text(HEAD + kernel + LAUNCHER, "kernel.py")
    project = Project((file,))
    definition = choose_kernel(file, project, None)
    analysis = analyse(definition, project, compiler(), lambda function: parse_overrides(function, (), DTYPES))
    requests = choose_outputs(analysis, requested, frozenset(), operands.values(), launcher=True)
    if requests:
        stores = [(plan_output(analysis, request), request.pointwise) for request in requests]
        rewrite = fusion_edits(stores, analysis, "eager")
        text = apply_edits(file, rewrite.edits)
        analysis = analysed_again(text, analysis, confirm(text, rewrite, analysis, requests, "eager"))
    found = Case(analysis, without_outputs(analysis, ["gate_ptr"], same_elements(requests), launcher=True))
    confirm_without(found.without.text, found.without, analysis, ["gate_ptr"])
    return found


SWIGLU = "c_ptr=silu(gate_ptr) * x"
C = "    tl.store(c_ptr + offsets, x, mask=mask)\n"
D = "    tl.store(d_ptr + offsets, x + gate, mask=mask)\n"

# (kernel, epilogue, what stands in the right text, what stands there instead)
SPOILED_KERNELS = [
    (PAIR, "", C, ""),
    (PAIR, "", D, ""),
    (PAIR, "", C + D, D + C),
    (PAIR, "", C, C + C),
    (PAIR, "", C, "    tl.store(c_ptr + offsets, gate, mask=mask)\n"),
    (PAIR, "", C, "    tl.store(c_ptr + offsets, gate, mask=mask)\n" + C),
    (PAIR, "", C, "    tl.store(d_ptr + offsets, x, mask=mask)\n"),
    (PAIR, "", C, "    tl.store(x_ptr + offsets, gate, mask=mask)\n" + C),
    (PAIR, "", C, C.replace(", mask=mask", "")),
    (PAIR, "", C, C.replace("c_ptr + offsets", "c_ptr + offsets + 1")),
    (PAIR, "", "kernel(x_ptr, c_ptr, d_ptr", "kernel(x_ptr, d_ptr, c_ptr"),
    (PAIR, "", "kernel(x_ptr, c_ptr, d_ptr, n", "kernel(c_ptr, x_ptr, d_ptr, n"),
    (PAIR, SWIGLU, "silu(gate_2)", "gate_2"),
    (PAIR, SWIGLU, "gate.to(c_ptr.dtype.element_ty)", "gate.to(x_ptr.dtype.element_ty)"),
    (PAIR, SWIGLU, "gate.to(c_ptr.dtype.element_ty)", "gate"),
    (PAIR, SWIGLU, "gate.to(c_ptr.dtype.element_ty)", "x.to(c_ptr.dtype.element_ty)"),
    (PAIR, SWIGLU, "    gate_2 =", "    tl.store(c_ptr + offsets, gate, mask=mask)\n    gate_2 ="),
    (BRANCHES, "", "        if n > 4:", "        if n > 3:"),
    (LOADS, "", "x_ptr + offsets + 2", "x_ptr + offsets + 1"),
    (LOADS, "", "c_ptr + offsets, kept", "c_ptr + offsets, kept + tl.load(x_ptr + offsets + 1, mask=mask)"),
    (LOADS, "", "x_ptr + offsets + 2, mask=mask)", "x_ptr + offsets + 2, mask=mask, volatile=True)"),
    (LOADS, "", "    tl.store(c_ptr", "    tl.load(x_ptr + offsets, volatile=True)\n    tl.store(c_ptr"),
    (LOADS, "", "    tl.store(c_ptr", "    if n > 3:\n        tl.store(d_ptr + offsets, kept)\n    tl.store(c_ptr"),
    (BRANCHES, "", "        if n > 4:", "        if n > 3:\n            tl.store(c_ptr + offsets, x)\n        if n > 4:"),
    (BRANCHES, "", "        tl.store(d_ptr + i * BLOCK + offsets, x)\n", ""),
    (BRANCHES, "", "for i in range(n):", "for i in range(n + 1):"),
]  # fmt: skip


@pytest.mark.parametrize(("kernel", "epilogue", "old", "new"), SPOILED_KERNELS)
def test_another_kernel_is_rejected_by_validation_alone(kernel: str, epilogue: str, old: str, new: str) -> None:
    right = case(kernel, epilogue)
    text = right.without.text
    assert text.count(old) == 1, text
    spoiled = text.replace(old, new)
    assert not right.validation_accepts(spoiled)
    assert not right.source_accepts(spoiled)
    with pytest.raises(InternalError, match="KR902"):
        confirm_without(spoiled, right.without, right.analysis, ["gate_ptr"])


LAUNCH = "(x, c, d, x.numel(), BLOCK=64)"

# what is launched otherwise, which no kernel shows
SPOILED_LAUNCHERS = [
    (LAUNCH, "(x, d, c, x.numel(), BLOCK=64)"),
    (LAUNCH, "(x, c, d, BLOCK=64)"),
    (LAUNCH, "(x, x, d, x.numel(), BLOCK=64)"),
    ("    c = torch.empty_like(x)\n", ""),
    ("    c = torch.empty_like(x)\n", "    gate = torch.empty_like(x)\n    c = torch.empty_like(x)\n"),
    ("return None, c, d", "return c, d"),
    ("return None, c, d", "return c, None, d"),
    ("return None, c, d", "return None, None, d"),
    ("return None, c, d", "return None, c, c"),
    ("    d = torch", "    d = c = torch"),
    ("kernel(x_ptr, c_ptr, d_ptr", "kernel(x_ptr, c_ptr, d_ptr, e_ptr"),
]


@pytest.mark.parametrize(("old", "new"), SPOILED_LAUNCHERS)
def test_another_launcher_is_rejected_by_the_guard(old: str, new: str) -> None:
    right = case(PAIR)
    text = right.without.text
    assert text.count(old) == 1, text
    assert right.source_accepts(text)
    assert not right.source_accepts(text.replace(old, new))


def test_stores_to_another_output_are_not_dropped_with_it() -> None:
    """Were the wrong output said to be dropped, nothing would fit: neither what is gone, nor what is left."""
    right = case(PAIR)
    assert right.validation_accepts(right.without.text)
    for outputs in (["c_ptr"], ["d_ptr"], [], ["gate_ptr", "c_ptr"]):
        assert not right.validation_accepts(right.without.text, outputs)
