"""The rewritten file is held to the planned additions: one that is missing, changed or too many is seen."""

from __future__ import annotations

import ast

import pytest
from launched import IMPORTS, KERNEL, RESIDUAL, SCALE, rewritten

from kernel_rewrite.model import InternalError
from kernel_rewrite.rewrite.allocations import ChangedBuffer
from kernel_rewrite.rewrite.unchanged import check_unchanged

TEXT = (
    IMPORTS
    + "@triton.autotune(configs=[], key=['n'])"
    + KERNEL.replace("@triton.jit", "@triton.jit(do_not_specialize=[3])")
    + """
def f(x: torch.Tensor, flag: bool = True) -> torch.Tensor:
    y = torch.empty(4, 4, device=x.device)
    kernel[(1,)](x, y, 4, BLOCK=64)
    return y


def g(x):
    return f(x, flag=False)
"""
)
OUTCOME = rewritten(TEXT, (RESIDUAL, SCALE), (ChangedBuffer("out_ptr", "float16"),))


def check(text: str) -> None:
    assert text != OUTCOME.text, "the mutation changes nothing"
    check_unchanged(OUTCOME.file.tree, ast.parse(text), (), OUTCOME.additions)


def test_what_was_planned_stands_there() -> None:
    check(OUTCOME.text + "# a comment\n")


MUTATIONS = {
    "a parameter is missing": ("residual_ptr, scale, stride_rm", "residual_ptr, stride_rm"),
    "two parameters change places": ("n, residual_ptr, scale", "n, scale, residual_ptr"),
    "a parameter stands elsewhere": ("x_ptr, out_ptr, n, residual_ptr", "x_ptr, out_ptr, residual_ptr, n"),
    "a parameter has a default": ("stride_rn, BLOCK: tl.constexpr)", "stride_rn, BLOCK: tl.constexpr = 1)"),
    "a parameter has an annotation": ("n, residual_ptr, scale", "n, residual_ptr: tl.constexpr, scale"),
    "one parameter more": ("stride_rn, BLOCK", "stride_rn, more, BLOCK"),
    "a parameter of the user is gone": ("def f(x: torch.Tensor, flag: bool = True, *", "def f(x: torch.Tensor, *"),
    "a default of the user is another": ("flag: bool = True", "flag: bool = False"),
    "an operand can be passed by position": ("def g(x, *, residual", "def g(x, residual"),
    "an operand has another type": ("scale: float", "scale: int"),
    "an operand has a default": ("scale: float", "scale: float = 1.0"),
    "an operand is not passed": ("scale=scale, ", ""),
    "an operand is passed for another": ("residual_ptr=residual,", "residual_ptr=scale,"),
    "a stride is of another dimension": ("stride_rm=residual.stride(0)", "stride_rm=residual.stride(1)"),
    "one argument more": ("scale=scale, ", "scale=scale, num_warps=8, "),
    "an argument of the user is gone": (", BLOCK=64", ""),
    "an argument of the user is another": ("kernel[(1,)](x, y, 4", "kernel[(1,)](x, y, 5"),
    "the grid is another": ("kernel[(1,)]", "kernel[(2,)]"),
    "the element type is another": ("torch.float16", "torch.float32"),
    "the element type is missing": (", dtype=torch.float16", ""),
    "the size is another": ("torch.empty(4, 4", "torch.empty(4, 5"),
    "a wrapper passes less": ("scale=scale)", "scale=1.0)"),
    "a wrapper returns something else": ("return f(x, flag=False", "return f(x, flag=True"),
    "the number of a parameter is not moved": ("do_not_specialize=[7]", "do_not_specialize=[3]"),
    "the number of a parameter is moved too far": ("do_not_specialize=[7]", "do_not_specialize=[8]"),
    "the tuner's key is another": ("key=['n']", "key=['n', 'scale']"),
    "a statement is added": ("    return y\n", "    y = y + 1\n    return y\n"),
}


@pytest.mark.parametrize("case", MUTATIONS)
def test_everything_else_is_seen(case: str) -> None:
    before, after = MUTATIONS[case]
    assert OUTCOME.text.count(before) == 1, OUTCOME.text
    with pytest.raises(InternalError, match="KR902"):
        check(OUTCOME.text.replace(before, after))


@pytest.mark.parametrize("index", range(len(OUTCOME.additions)))
def test_an_addition_that_was_not_planned_is_seen(index: int) -> None:
    left = [*OUTCOME.additions[:index], *OUTCOME.additions[index + 1 :]]
    with pytest.raises(InternalError, match="KR902"):
        check_unchanged(OUTCOME.file.tree, ast.parse(OUTCOME.text), (), left)
