"""How much is compiled: the answer depends on the kernel, never on how fast the machine is."""

from __future__ import annotations

import pytest

from kernel_rewrite import analysis
from kernel_rewrite.analysis import Analysis, analyse
from kernel_rewrite.model import MemoryEffect
from kernel_rewrite.selection import choose_kernel
from kernel_rewrite.source.files import Project, source_from_text
from kernel_rewrite.source.repair import Effort
from kernel_rewrite.ttir.lower import compiler

FLAGS = """\
import triton
import triton.language as tl


@triton.jit
def kernel(x_ptr, o_ptr, n, A: tl.constexpr, B: tl.constexpr, C: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    y = tl.load(x_ptr + offs, mask=offs < n)
    if A:
        y = y + 1
    if B:
        y = y * 2
    if C:
        y = y - 3
    if D:
        tl.store(o_ptr + offs, y, mask=offs < n)
    else:
        tl.store(o_ptr + offs + n, y, mask=offs < n)
"""


def analysed(text: str) -> Analysis:
    project = Project()
    file = project.add(source_from_text(text, "kernels.py"))
    return analyse(choose_kernel(file, project, None), project, compiler())


def sides(found: Analysis) -> dict[str, set[object]]:
    taken: dict[str, set[object]] = {flag: set() for flag in "ABCD"}
    for view in found.views:
        for name, value in view.specialization.constexprs:
            if name in taken:
                taken[name].add(value)
    return taken


def test_a_small_kernel_is_compiled_in_every_combination() -> None:
    found = analysed(FLAGS)
    assert len(found.views) == 16
    assert found.complete


def test_a_large_kernel_is_compiled_in_fewer_ways_that_still_take_each_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "OPERATIONS", 1)
    found = analysed(FLAGS)
    assert len(found.views) == analysis.FEWEST
    assert not found.complete
    assert all(len(values) == 2 for values in sides(found).values())
    lines = {a.location.line for a in found.accesses if a.effect is MemoryEffect.WRITE and a.location}
    assert len(lines) == 2


@pytest.mark.parametrize(("ways", "complete"), [(16, True), (15, False)])
def test_how_many_ways_follows_from_the_size_of_the_first(
    ways: int, complete: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (function,) = analysed(FLAGS).views[0].module.functions
    size = sum(1 for _ in function.walk())
    monkeypatch.setattr(analysis, "OPERATIONS", ways * size)
    found = analysed(FLAGS)
    assert found.complete is complete
    assert len(found.views) <= ways


@pytest.mark.parametrize(("each", "total", "tries"), [(100, 250, 3), (100, 50, 1), (1, 5, 5)])
def test_tries_are_counted_in_what_they_make_the_compiler_do(each: int, total: int, tries: int) -> None:
    effort = Effort(each, total)
    assert [effort.spend() for _ in range(tries + 2)] == [True] * tries + [False, False]
