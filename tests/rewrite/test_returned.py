"""Launchers return the rest of an epilogue, in torch, in the output's place: everywhere, or not at all."""

from __future__ import annotations

import ast
from textwrap import indent

import pytest
from launched import IMPORTS, KERNEL, SCALE, host, rewritten

from kernel_rewrite.diagnostics import Severity
from kernel_rewrite.model import InternalError, Operand, OperandKind
from kernel_rewrite.pointwise.remainder import Remainder, split_epilogue
from kernel_rewrite.rewrite.parameters import NewParameter
from kernel_rewrite.rewrite.unchanged import check_unchanged

MARK = "  # kernel-rewrite: not fused"
LAUNCH = "kernel[(1,)](x, c, x.numel(), BLOCK=64)\n"
HEAD = "def f(x):\n    c = torch.empty_like(x)\n"


def rest_of(text: str) -> Remainder:
    operands = {"scale": Operand("scale", OperandKind.SCALAR), "gate": Operand("gate", OperandKind.COLUMN)}
    rest = split_epilogue(text, {name: operand for name, operand in operands.items() if name in text}).rest
    assert rest is not None
    return rest


SUM, SHARES = rest_of("sum(relu(x), dim=-1)"), rest_of("relu(x) / sum(relu(x))")


def launcher(body: str, head: str = HEAD) -> str:
    return head + indent(LAUNCH + body, "    ")


@pytest.mark.parametrize(
    ("before", "rest", "after"),
    [
        (launcher("return c\n"), SUM, [f"return torch.sum(c, dim=-1){MARK}"]),
        (launcher("return c, x.sum()\n"), SHARES, [f"return c / torch.sum(c), x.sum(){MARK}"]),
        (launcher("return [x, (c)]  # both\n"), SUM, [f"return [x, (torch.sum(c, dim=-1))]  # both{MARK}"]),
        (launcher("return c.view(x.shape)\n"), SUM, [f"return torch.sum(c.view(x.shape), dim=-1){MARK}"]),
        (
            launcher("return c.squeeze(0) if x.dim() == 1 else c, x\n"),
            SUM,
            [f"return torch.sum(c.squeeze(0) if x.dim() == 1 else c, dim=-1), x{MARK}"],
        ),
        (
            launcher("return c\n", "def f(x):\n    c = torch.empty(4) if x.is_cuda else torch.zeros(4)\n"),
            SHARES,
            [f"return c / torch.sum(c){MARK}"],
        ),
        (launcher("return c.t()\n"), SUM, [f"return torch.sum(c.t(), dim=-1){MARK}"]),
        (
            launcher("if x.is_cuda: return c\nreturn c, c.shape\n"),
            SUM,
            [f"if x.is_cuda: return torch.sum(c, dim=-1){MARK}", f"return torch.sum(c, dim=-1), c.shape{MARK}"],
        ),
        (launcher("return (\n    c,  # first\n    x,\n)\n"), SUM, [f"torch.sum(c, dim=-1),  # first{MARK}", "x,"]),
        (launcher("return x, \\\n    c\n"), SUM, [f"torch.sum(c, dim=-1){MARK}"]),
        (launcher("return c, \\\n    x\n"), SUM, ["return torch.sum(c, dim=-1), \\", f"x{MARK}"]),
        (
            "def f(x):\n    if x.is_cuda:\n        c = torch.empty_like(x)\n    else:\n        c = x.new_zeros(x.shape)\n"
            + indent(LAUNCH + "return c\n", "    "),
            SUM,
            [f"return torch.sum(c, dim=-1){MARK}"],
        ),
        (
            launcher("return c\n", "def f(x):\n    a, c = x, torch.empty_like(x)\n"),
            SUM,
            [f"return torch.sum(c, dim=-1){MARK}"],
        ),
        (
            "class M:\n    @torch.no_grad()\n    def forward(self, x):\n        c = torch.empty(x.numel())\n"
            + indent(LAUNCH.replace("c,", "c.view(-1),") + "return c\n", "        "),
            SUM,
            [f"return torch.sum(c, dim=-1){MARK}"],
        ),
    ],
)
def test_what_is_returned(before: str, rest: Remainder, after: list[str]) -> None:
    text, outcome = host(before, (), rests={"out_ptr": rest})
    assert outcome.diagnostics == ()
    lines = [line.strip() for line in text.splitlines()]
    assert [line for line in after if line not in lines] == [], text
    assert sum(line.endswith(MARK.strip()) for line in lines) == sum(line.endswith(MARK.strip()) for line in after)
    assert any(f"returns `{rest.torch_text('c')}` for `c`" in sentence for sentence in outcome.contract)


@pytest.mark.parametrize(
    ("before", "why"),
    [
        (launcher("return c * 2\n"), "`c` is used here too"),
        (launcher("print(c)\nreturn c\n"), "`c` is used here too"),
        (launcher("d = c\nreturn c\n"), "`c` is used here too"),
        (launcher("other(c)\nreturn c\n"), "`c` is used here too"),
        (launcher("return c, c\n"), "not returned here, once"),
        (launcher("return {'c': c}\n"), "`c` is used here too"),
        (launcher("return c[0]\n"), "`c` is used here too"),
        (launcher("return c.view(torch.int8)\n"), "`c` is used here too"),
        (launcher("return c.view(dtype=torch.int8)\n"), "`c` is used here too"),
        (launcher("return x\n"), "not returned here, once"),
        (launcher("if x.is_cuda:\n    return\nreturn c\n"), "not returned here, once"),
        (launcher("return c; print()\n"), "something else stands behind it"),
        (launcher(""), "`f` returns nothing"),
        (launcher("yield 1\nreturn c\n"), "is a generator"),
        (launcher("return c\n", "async def f(x):\n    c = torch.empty_like(x)\n"), "no plain function"),
        (launcher("return c\n", "def f(x, c):\n"), "`c` is the caller's"),
        (
            launcher("return c\n", "def f(x, c=None):\n    if c is None:\n        c = torch.empty_like(x)\n"),
            "the caller's",
        ),
        (launcher("return c\n", "def f(x):\n    c = x.clone()\n"), "this is not an allocation"),
        (launcher("return c\n", "def f(x):\n    c, a = x, torch.empty_like(x)\n"), "this is not an allocation"),
        (launcher("return c\n", "def f(x):\n    c, a = both(x)\n"), "more than a plain assignment"),
        (launcher("return c\n", "def f(x):\n    *c, a = x, torch.empty_like(x)\n"), "more than a plain assignment"),
        (launcher("c = x\nreturn c\n"), "this is not an allocation"),
        (launcher("def get():\n    return c\nlog(get())\nreturn c\n"), "`c` is used here too"),
        (launcher("log(lambda: c)\nreturn c\n"), "`c` is used here too"),
        (launcher("try:\n    pass\nexcept Error as c:\n    pass\nreturn c\n"), "no variable of"),
        (launcher("import numpy as c\nreturn c\n"), "no variable of"),
        (launcher("match x:\n    case [*c]:\n        pass\nreturn c\n"), "no variable of"),
        (launcher("def c():\n    pass\nreturn c\n"), "no variable of"),
        (launcher("for c in x:\n    pass\nreturn c\n"), "more than a plain assignment"),
        (launcher("return (d := c)\n"), "`c` is used here too"),
        (launcher("return c if x.is_cuda else x\n"), "not returned here, once"),
        (launcher("return x if c else x\n"), "`c` is used here too"),
        (
            launcher("return c\n", "def f(x):\n    c = torch.empty(4) if x.is_cuda else x\n"),
            "this is not an allocation",
        ),
        (launcher("try:\n    return c\nfinally:\n    c.zero_()\n"), "`c` is used here too"),
        (launcher("c += 1\nreturn c\n"), "more than a plain assignment"),
        (launcher("return c\n", "def f(x):\n    c = d = torch.empty_like(x)\n"), "more than a plain assignment"),
        (launcher("return c\n", "def f(x):\n    global c\n    c = torch.empty_like(x)\n"), "no variable of"),
        (launcher("return c\n", "def f(x):\n"), "no variable of"),
        (launcher("return c\n", "def f(x, torch):\n    c = x.new_empty(4)\n"), "`torch` is something else here"),
        ("def g():\n" + indent(launcher("return c\n"), "    ") + "    return f\n", "no plain function"),
        ("x = torch.ones(4)\nc = torch.empty_like(x)\n" + LAUNCH, "outside any function"),
        ("", "no function of the file launches"),
    ],
)
def test_what_is_refused(before: str, why: str) -> None:
    _, outcome = host(before, (), rests={"out_ptr": SUM})
    found = [d for d in outcome.diagnostics if d.severity is Severity.ERROR]
    assert {d.code for d in found} == {"KR322"} and any(why in d.labels[0].text for d in found), found


@pytest.mark.parametrize(
    ("before", "code"),
    [
        (
            "class F(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x):\n"
            "        c = torch.empty_like(x)\n" + indent(LAUNCH + "return c\n", "        "),
            "KR313",
        ),
        (
            launcher("return c\n") + "\n\nclass F(torch.autograd.Function):\n    @staticmethod\n"
            "    def forward(ctx, x):\n        c = f(x)\n        ctx.save_for_backward(c)\n        return c\n",
            "KR313",
        ),
        (
            '@triton_op("lib::f", mutates_args=())\n' + launcher("return c\n") + "\n\n@f.register_fake\n"
            "def f_fake(x):\n    return torch.empty_like(x)\n",
            "KR314",
        ),
    ],
)
def test_who_else_knows_what_is_returned(before: str, code: str) -> None:
    _, outcome = host(before, (), rests={"out_ptr": SUM})
    assert code in outcome.codes


def test_an_operand_of_the_rest_alone_is_the_launcher_s() -> None:
    rest = rest_of("sum(relu(x), dim=-1) * scale")
    alone = NewParameter("scale", "scale", number=True, launchers_alone=True)
    text, outcome = host(launcher("return c\n"), (alone,), rests={"out_ptr": rest})
    assert outcome.diagnostics == ()
    assert "def f(x, *, scale):" in text and f"    {LAUNCH}" in text
    assert f"return torch.sum(c, dim=-1) * scale{MARK}" in text
    text, _ = host(launcher("return c\n"), (SCALE,), rests={"out_ptr": rest})
    assert "scale=scale" in text  # the kernel reads it too


def test_an_operand_that_torch_does_not_broadcast_so() -> None:
    _, outcome = host(launcher("return c\n"), (), rests={"out_ptr": rest_of("softmax(relu(x), dim=-1) - gate")})
    assert outcome.codes == ["KR322"]


def test_a_choice_is_made_once() -> None:
    _, outcome = host(launcher("return c.t() if x.is_cuda else c\n"), (), rests={"out_ptr": SHARES})
    assert [d.labels[0].text for d in outcome.diagnostics] == ["which of two it is would be asked several times"]


def test_without_a_name_for_torch() -> None:
    text = (
        IMPORTS.replace("import torch\n", "") + KERNEL + launcher("return c\n", "def f(x):\n    c = x.new_empty(4)\n")
    )
    assert rewritten(text, (), rests={"out_ptr": rest_of("relu(x).sum()")}).diagnostics == ()
    (found,) = rewritten(text, (), rests={"out_ptr": SUM}).diagnostics
    assert found.code == "KR322" and found.labels[0].text == "the file has no name for torch"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("torch.sum(c, dim=-1), x", "c, x"),
        ("torch.sum(c, dim=-1), x", "x, torch.sum(c, dim=-1)"),
        ("torch.sum(c, dim=-1), x", "torch.sum(c, dim=0), x"),
        ("torch.sum(c, dim=-1), x", "torch.mean(c, dim=-1), x"),
        ("torch.sum(c, dim=-1), x", "torch.sum(torch.sum(c, dim=-1), dim=-1), x"),
        ("    return torch.sum(c, dim=-1), x", "    c = torch.sum(c, dim=-1)\n    return torch.sum(c, dim=-1), x"),
        ("return torch.sum(c, dim=-1)" + MARK + "\n", "return c\n"),
    ],
)
def test_anything_but_the_planned_rest_is_rejected(old: str, new: str) -> None:
    _, outcome = host(launcher("if x.is_cuda:\n    return c\nreturn c, x\n"), (), rests={"out_ptr": SUM})
    assert old in outcome.text
    with pytest.raises(InternalError, match="not what was planned"):
        spoiled = ast.parse(outcome.text.replace(old, new, 1))
        check_unchanged(outcome.file.tree, spoiled, (), outcome.additions)
