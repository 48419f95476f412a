"""How much is compiled: the answer depends on the kernel, never on how fast the machine is."""

from __future__ import annotations

from dataclasses import replace

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


def test_tries_are_counted_in_what_they_make_the_compiler_do() -> None:
    effort = Effort(250)
    for left in (150, 50, -50):
        effort.note("rejected", 100)
        assert effort.left == left


@pytest.mark.parametrize("kind", ["crash", "timeout", "long"])
def test_a_try_that_did_not_just_fail_is_the_last(kind: str) -> None:
    effort = Effort(250)
    effort.note(kind, 0)
    assert effort.left == 0


UNROLLED = """\
import triton
import triton.language as tl


@triton.jit
def kernel(x_ptr, y_ptr, ROUNDS: tl.constexpr):
    for i in tl.static_range(ROUNDS):
        x = tl.load(x_ptr + i)
        tl.store(y_ptr + i, x)
"""


@pytest.mark.parametrize(("most", "kind"), [(None, ""), (41, ""), (40, "long"), (1, "long")])
def test_no_more_statements_are_compiled_than_may_be(most: int | None, kind: str) -> None:
    found = analysed(UNROLLED)
    specialization = found.views[0].specialization
    rounds = replace(specialization, constexprs=(("ROUNDS", 20),))
    (result,) = compiler().lower(found.closure, found.project.sources(), [rounds], most=most)
    assert getattr(result, "kind", "") == kind
    assert result.statements >= (41 if not kind else most or 0)
