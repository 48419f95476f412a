"""The output's allocation gets the element type and the fill that the epilogue gives, where nothing else depends on it."""

from __future__ import annotations

from textwrap import dedent

import pytest
from launched import host

from kernel_rewrite.rewrite.allocations import ChangedBuffer

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
    ("before", "fill", "after"),
    [
        ("torch.full((4,), 0.0)", 0.5, "torch.full((4,), 0.5)"),
        ("torch.full((4,), fill_value=0.0, dtype=x.dtype)", -1.0, "torch.full((4,), fill_value=-1.0, dtype=x.dtype)"),
        ("torch.full((4,), 0.0)", float("-inf"), "torch.full((4,), float('-inf'))"),
        ("torch.full((4,), 0.0)", 1, "torch.full((4,), 1.0)"),
        ("torch.zeros_like(x)", 0.5, "torch.full_like(x, fill_value=0.5)"),
        ("torch.zeros((4, 4), device=d)", 1, "torch.full((4, 4), fill_value=1.0, device=d)"),
        ("x.new_ones((4, 4), dtype=torch.int8)", 0, "x.new_full((4, 4), fill_value=0, dtype=torch.int8)"),
    ],
)
def test_the_fill_is_replaced(before: str, fill: float, after: str) -> None:
    assert allocated(before, (ChangedBuffer("out_ptr", fill=fill),)) == (after, [])


@pytest.mark.parametrize("made", ["torch.zeros(4, 4)", "torch.empty(4)", "torch.zeros(n)"])
def test_a_fill_that_cannot_be_replaced(made: str) -> None:
    assert allocated(made, (ChangedBuffer("out_ptr", fill=0.5),)) == (made, ["KR317"])


def test_type_and_fill_at_once() -> None:
    made = "torch.zeros_like(\n        x,\n        device=d,\n    )"
    after = (
        "torch.full_like(\n        x,\n        dtype=torch.float16,\n        fill_value=0.5,\n        device=d,\n    )"
    )
    assert allocated(made, (ChangedBuffer("out_ptr", "float16", 0.5),)) == (after, [])


def test_the_contract_names_the_new_type() -> None:
    _, outcome = host("def f(x):\n    y = torch.empty_like(x)\n    kernel[(1,)](x, y, 4, 64)\n", (), buffers=HALF)
    assert outcome.contract == ("`f` allocates `out_ptr` as float16",)
