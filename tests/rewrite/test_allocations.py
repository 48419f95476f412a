"""The output's allocation gets the element type and the fill that the epilogue gives, where nothing else depends on it."""

from __future__ import annotations

from textwrap import dedent

import pytest
from launched import IMPORTS, KERNEL, host, rewritten

from kernel_rewrite.rewrite.allocations import ChangedBuffer, Fills

HALF = (ChangedBuffer("out_ptr", "float16"),)


def allocated(made: str, buffers: tuple[ChangedBuffer, ...] = HALF) -> tuple[str, list[str]]:
    text, outcome = host(
        f"def f(x, w):\n    y = {made}\n    kernel[(1,)](x, y, 4, BLOCK=64)\n    return y\n", (), buffers=buffers
    )
    start = text.index("y = ") + 4
    return text[start : text.index("\n    kernel", start)], outcome.codes


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("torch.empty(4, 4)", "torch.empty(4, 4, dtype=torch.float16)"),
        ("torch.empty((4, 4), device=x.device)", "torch.empty((4, 4), dtype=torch.float16, device=x.device)"),
        ("torch.empty((4, 4), device=x.device, dtype=x.dtype)", "torch.empty((4, 4), device=x.device, dtype=torch.float16)"),
        ("torch.empty(4, dtype=torch.float32)", "torch.empty(4, dtype=torch.float16)"),
        ("torch.empty_like(x)", "torch.empty_like(x, dtype=torch.float16)"),
        ("torch.zeros_like(x, memory_format=m)", "torch.zeros_like(x, dtype=torch.float16, memory_format=m)"),
        ("x.new_empty(4)", "x.new_empty(4, dtype=torch.float16)"),
        ("torch.full((4,), 0.0)", "torch.full((4,), 0.0, dtype=torch.float16)"),
        ("torch.empty(\n        4,  # rows\n        4,\n    )", "torch.empty(\n        4,  # rows\n        4,\n        dtype=torch.float16,\n    )"),
    ],
)  # fmt: skip
def test_the_element_type_follows(before: str, after: str) -> None:
    assert allocated(before) == (after, [])


@pytest.mark.parametrize(
    "made",
    [
        "make(x)",
        "x",
        "x.clone()",
        "x + 1",
        "torch.empty(4) if w else x",
        "torch.empty(4, **o)",
        "torch.empty(4, out=w)",
        "empty(4)",
    ],
)
def test_what_is_no_plain_allocation_is_refused(made: str) -> None:
    assert allocated(made) == (made, ["KR317"])


@pytest.mark.parametrize(
    "body",
    [
        "y = torch.empty_like(x)\n{launch}\nreturn y",
        "y = torch.empty_like(x)\n{launch}\nreturn y, x",
        "y = torch.empty_like(x)\n{launch}\nreturn y.view(4, 4)",
        "y = torch.empty_like(x)\nn = y.numel() + y.stride(0) + y.shape[0]\n{launch}\nreturn y",
        "y = torch.empty_like(x)\n{launch}\n{launch}\nreturn y",
        "kernel[(1,)](x, torch.empty_like(x), 4, BLOCK=64)",
        "y = torch.empty_like(x)\nkernel[(1,)](x, y.view(-1), 4, BLOCK=64)\nreturn y",
    ],
)
def test_uses_that_bear_any_element_type(body: str) -> None:
    text, outcome = changed(body)
    assert outcome == []
    assert text.count("torch.empty_like(x, dtype=torch.float16)") == 1


@pytest.mark.parametrize(
    "body",
    [
        "y = torch.empty_like(x)\n{launch}\nreturn y + 1",
        "y = torch.empty_like(x)\n{launch}\nreturn y.dtype",
        "y = torch.empty_like(x)\n{launch}\nother[(1,)](y)",
        "y = torch.empty_like(x)\nz = y\n{launch}\nreturn y",
        "y = torch.empty_like(x)\nz = torch.empty_like(y)\n{launch}\nreturn y",
        "y = torch.empty_like(x)\nkernel[(1,)](y, y, 4, BLOCK=64)",
        "y = torch.empty_like(x)\nkernel[(1,)](x, y, 4, BLOCK=TYPES[y.dtype])",
        "y = torch.empty_like(x)\nkernel[(1,)](x, y.view(torch.int8), 4, BLOCK=64)",
        "y = torch.empty_like(x)\n{launch}\nreturn y.view(torch.int8)",
        "if w:\n    y = torch.empty_like(x)\nelse:\n    y = x\n{launch}\nreturn y",
        "y = z = torch.empty_like(x)\n{launch}\nreturn y",
        "if w is None:\n    w = torch.empty_like(x)\nkernel[(1,)](x, w, 4, BLOCK=64)",
        "kernel[(1,)](x, self.buffer, 4, BLOCK=64)",
        "kernel[(1,)](*x)",
    ],
)
def test_uses_that_need_the_element_type_it_has(body: str) -> None:
    text, outcome = changed(body)
    assert outcome == ["KR317"]
    assert "float16" not in text


def changed(body: str) -> tuple[str, list[str]]:
    lines = "".join(
        f"    {line}\n" for line in dedent(body.replace("{launch}", "kernel[(1,)](x, y, 4, BLOCK=64)")).splitlines()
    )
    text, outcome = host(f"def f(x, w=None):\n{lines}", (), buffers=HALF)
    return text, outcome.codes


@pytest.mark.parametrize(
    ("before", "fills", "after"),
    [
        ("torch.full((4,), 0.0)", ((0.0, 0.5),), "torch.full((4,), 0.5)"),
        ("torch.full((4,), fill_value=0.0, dtype=x.dtype)", ((0.0, -1.0),), "torch.full((4,), fill_value=-1.0, dtype=x.dtype)"),
        ("torch.full((4,), 0.0)", ((0.0, float("-inf")),), "torch.full((4,), float('-inf'))"),
        ("torch.full((4,), -float('inf'))", ((float("-inf"), 0.0),), "torch.full((4,), 0.0)"),
        ("torch.full((4,), 0)", ((0.0, 1.0),), "torch.full((4,), 1.0)"),
        ("torch.zeros_like(x)", ((0.0, 0.5), (1.0, 2.0)), "torch.full_like(x, fill_value=0.5)"),
        ("torch.ones_like(x)", ((0.0, 0.5), (1.0, 2.0)), "torch.full_like(x, fill_value=2.0)"),
        ("torch.ones_like(x)", ((0.0, 0.5),), "torch.ones_like(x)"),
        ("torch.empty_like(x)", ((0.0, 0.5),), "torch.empty_like(x)"),
        ("torch.zeros((4, 4), device=d)", ((0.0, 1.0),), "torch.full((4, 4), fill_value=1.0, device=d)"),
        ("x.new_ones((4, 4), dtype=torch.int8)", ((1.0, 0.0),), "x.new_full((4, 4), fill_value=0.0, dtype=torch.int8)"),
    ],
)  # fmt: skip
def test_the_fill_is_replaced(before: str, fills: Fills, after: str) -> None:
    assert allocated(before, (ChangedBuffer("out_ptr", fills=fills),)) == (after, [])


@pytest.mark.parametrize("made", ["torch.zeros(4, 4)", "torch.full((4,), w)", "torch.zeros(n)"])
def test_a_fill_that_cannot_be_replaced(made: str) -> None:
    assert allocated(made, (ChangedBuffer("out_ptr", fills=((0.0, 0.5),)),)) == (made, ["KR317"])


def test_type_and_fill_at_once() -> None:
    made = "torch.zeros_like(\n        x,\n        device=d,\n    )"
    after = "torch.full_like(\n        x,\n        dtype=torch.int8,\n        fill_value=3,\n        device=d,\n    )"
    assert allocated(made, (ChangedBuffer("out_ptr", "int8", ((0.0, 3.0),)),)) == (after, [])


def test_a_buffer_that_callers_give_is_a_line_of_the_contract() -> None:
    text, outcome = host("def f(x, out):\n    kernel[(1,)](x, out, 4, 64)\n    return out\n", (), buffers=HALF)
    assert (outcome.codes, outcome.contract) == ([], ("`f` takes `out` as float16",))
    assert "float16" not in text


@pytest.mark.parametrize(
    "launcher",
    [
        "def f(x, out):\n    kernel[(1,)](x, out, 4, 64)\n    return out + 1\n",
        "def f(x, out):\n    kernel[(1,)](x, out, 4, 64)\n\ndef g(x):\n    f(x, torch.empty_like(x))\n",
    ],
)
def test_a_buffer_that_is_used_otherwise_is_not(launcher: str) -> None:
    assert host(launcher, (), buffers=HALF)[1].codes == ["KR317"]


def test_a_heuristic_that_asks_for_the_element_type() -> None:
    decorated = KERNEL.replace(
        "@triton.jit",
        '@triton.heuristics({"BLOCK": lambda args: 64 if args["out_ptr"].dtype == torch.float32 else 32})\n@triton.jit',
    )
    launcher = "\ndef f(x):\n    y = torch.empty_like(x)\n    kernel[(1,)](x, y, 4)\n    return y\n"
    assert rewritten(IMPORTS + decorated + launcher, (), HALF).codes == ["KR317"]
    shape = decorated.replace(".dtype == torch.float32", ".shape[0] > 1")
    assert rewritten(IMPORTS + shape + launcher, (), HALF).codes == []


def test_an_autograd_function_and_an_operator_with_a_fake() -> None:
    autograd = (
        "class F(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x):\n"
        "        y = torch.empty_like(x)\n        kernel[(1,)](x, y, 4, 64)\n        return y\n"
    )
    assert host(autograd, (), buffers=HALF)[1].codes == ["KR313"]
    operator = (
        '@torch.library.triton_op("a::f", mutates_args=())\ndef f(x: torch.Tensor) -> torch.Tensor:\n'
        "    y = torch.empty_like(x)\n    kernel[(1,)](x, y, 4, 64)\n    return y\n\n"
        "@f.register_fake\ndef fake(x):\n    return torch.empty_like(x)\n"
    )
    assert host(operator, (), buffers=HALF)[1].codes == ["KR314"]


def test_the_contract_names_the_new_type() -> None:
    _, outcome = host("def f(x):\n    y = torch.empty_like(x)\n    kernel[(1,)](x, y, 4, 64)\n", (), buffers=HALF)
    assert outcome.contract == ("`f` allocates `out_ptr` as float16",)
