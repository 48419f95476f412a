"""Which arguments of a launch can be one tensor, and when."""

from __future__ import annotations

import ast
from textwrap import dedent

import pytest

from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.fuse import fuse
from kernel_rewrite.source.launches import Alias, Launch, aliases, launches

KERNEL = "@triton.jit\ndef kernel(x, out, n, FLAG: tl.constexpr, SIZE: tl.constexpr = 1):\n    pass\n\n"


def launch_in(body: str, parameters: str = "x, y, w, flag, n") -> Launch:
    """The one launch in a function with this body."""
    lines = "".join(f"    {line}\n" for line in dedent(body).strip().splitlines())
    module = ast.parse(f"{KERNEL}def f({parameters}):\n{lines}")
    kernel = next(node for node in module.body if isinstance(node, ast.FunctionDef))
    (launch,) = launches(kernel, module, "f.py")
    return launch


def alias_in(body: str, parameters: str = "x, y, w, flag, n") -> Alias | None:
    found = aliases(launch_in(body, parameters), ("x", "out"))
    return found[0] if found else None


APART = {
    "the branch of the launch assigns last": """
        if flag:
            out = torch.empty(n)
            kernel[(1,)](x, out, n, True)
        else:
            out = x""",
    "an assignment after the launch": """
        out = torch.empty_like(x)
        kernel[(1,)](x, out, n, True)
        x = out""",
    "the other branch returned": """
        if flag:
            out = x
            return out
        out = torch.empty_like(x)
        kernel[(1,)](x, out, n, True)""",
    "a swap": """
        x, y = y, x
        kernel[(1,)](x, y, n, True)""",
    "the right side is read first": """
        before, x = x, torch.empty_like(x)
        kernel[(1,)](before, x, n, True)""",
    "entries of a dictionary": """
        buffers = make()
        kernel[(1,)](buffers["a"], buffers["b"], n, True)""",
    "parts by number": """
        first, second = x[0], x[1]
        kernel[(1,)](first, second, n, True)""",
    "slices that meet": "kernel[(1,)](x[n:], x[:n], n, True)",
    "slices of the last dimension that meet": "kernel[(1,)](x[..., :n], x[..., n : 2 * n], n, True)",
    "slices with a gap": "kernel[(1,)](x[:2], x[4:], n, True)",
    "chunks": """
        a, b = x.chunk(2)
        kernel[(1,)](a, b, n, True)""",
    "opposite conditions": """
        kernel[(1,)](x if flag else y, w if flag else x, n, True)""",
    "the launch stands under the other condition": """
        out = x if flag else torch.empty_like(x)
        if flag:
            return
        else:
            kernel[(1,)](x, out, n, True)""",
    "two allocations": """
        a = torch.empty(n)
        b = torch.empty(n)
        kernel[(1,)](a, b, n, True)""",
}  # fmt: skip


@pytest.mark.parametrize("body", APART.values(), ids=APART)
def test_arguments_that_never_share_memory(body: str) -> None:
    assert alias_in(body) is None


TOGETHER = {
    "one name": "kernel[(1,)](x, x, n, True)",
    "a view": "kernel[(1,)](x, x.view(-1)[3:], n, True)",
    "the same part": "a = x[0]\nb = x[0]\nkernel[(1,)](a, b, n, True)",
    "a part and the whole": "a = x[0]\nkernel[(1,)](a, x, n, True)",
    "a part of another shape": "a = x[1]\nb = x.view(4, -1)[0]\nkernel[(1,)](a, b, n, True)",
    "slices that overlap": "kernel[(1,)](x[:4], x[2:], n, True)",
    "slices of different dimensions": "kernel[(1,)](x[:n], x[:, n:], n, True)",
    "slices of another shape": "kernel[(1,)](x[:n], x.view(-1)[n:], n, True)",
    "slices with a step": "kernel[(1,)](x[:n:2], x[n::2], n, True)",
    "slices far apart if a size is not negative": "kernel[(1,)](x[:n], x[2 * n :], n, True)",
    "slices from the end": "kernel[(1,)](x[:-1], x[-2:], n, True)",
    "a bound that changed": "a = x[:n]\nn = n - 1\nkernel[(1,)](a, x[n:], n, True)",
    "a bound that is computed twice": "kernel[(1,)](x[:g()], x[g():], n, True)",
    "a slice and a part in it": "kernel[(1,)](x[:2], x[1], n, True)",
    "a chunk and the whole": "a, b = x.chunk(2)\nkernel[(1,)](x, b, n, True)",
    "two names of one allocation": "a = torch.empty(n)\nb = a\nkernel[(1,)](a, b, n, True)",
    "in place": "out = x.add_(1)\nkernel[(1,)](x, out, n, True)",
    "handed through a loop": "out = torch.empty(n)\nfor _ in range(2):\n    kernel[(1,)](x, out, n, True)\n    out = x",
    "left by break": "out = x\nfor i in y:\n    if i:\n        break\n    out = torch.empty(n)\nkernel[(1,)](x, out, n, True)",
    "assigned before break": (
        "out = torch.empty(n)\nfor i in y:\n    if i:\n        out = x\n        break\n    out = w\n"
        "else:\n    out = w\nkernel[(1,)](x, out, n, True)"
    ),
    "after try": "out = torch.empty(n)\ntry:\n    out = x\n    g()\nexcept E:\n    pass\nkernel[(1,)](x, out, n, True)",
    "in a handler": "try:\n    out = x\n    out = g()\nexcept E:\n    kernel[(1,)](x, out, n, True)",
    "conditions of different rounds": (
        "out = torch.empty(n)\nfor i in range(3):\n    if i == 0:\n        out = x\n    if not i == 0:\n"
        "        kernel[(1,)](x, out, n, True)"
    ),
    "a test that is run twice": "a = x if g() else y\nb = w if g() else x\nkernel[(1,)](a, b, n, True)",
    "a name that changed its meaning": "a = x if flag else y\nflag = n\nb = w if flag else x\nkernel[(1,)](a, b, n, True)",
    "a lambda that is called later": (
        "out = torch.empty(n)\nrun = lambda: kernel[(1,)](x, out, n, True)\nout = x\nrun()"
    ),
    "a walrus": "kernel[(1,)](x, (out := x), n, True)",
    "with": "with hold(x) as y:\n    y = x\n    kernel[(1,)](x, y, n, True)",
}


@pytest.mark.parametrize("body", TOGETHER.values(), ids=TOGETHER)
def test_arguments_that_may_share_memory(body: str) -> None:
    assert alias_in(body) is not None


@pytest.mark.parametrize(
    ("body", "certain"),
    [
        ("kernel[(1,)](x, x, n, True)", True),
        ("out = x\nkernel[(1,)](x, out, n, True)", True),
        ("if flag:\n    kernel[(1,)](x, x, n, True)", True),
        ("kernel[(1,)](x[1:], x, n, True)", True),
        ("kernel[(1,)](x[n:], x[:w], n, True)", False),
        ("out = x if flag else y\nkernel[(1,)](x, out, n, True)", False),
        ("out = y\nif flag:\n    out = x\nkernel[(1,)](x, out, n, True)", False),
    ],
)
def test_only_what_holds_on_every_path_is_certain(body: str, certain: bool) -> None:
    alias = alias_in(body)
    assert alias is not None
    assert alias.certain is certain


PLACEHOLDER = [
    # body, values of a launch in which the two are one, values of one in which they are not
    ("kernel[(1,)](y if flag else x, x, n, FLAG=flag)", {"FLAG": False}, {"FLAG": True}),
    ("kernel[(1,)](x if not flag else y, x, n, FLAG=flag)", {"FLAG": False}, {"FLAG": True}),
    ("kernel[(1,)](y if y is not None else x, x, n, FLAG=y is not None)", {"FLAG": False}, {"FLAG": True}),
    ("kernel[(1,)](y if y is not None else x, x, n, FLAG=y is None)", {"FLAG": True}, {"FLAG": False}),
    ("has = y is not None\nkernel[(1,)](y if has else x, x, n, FLAG=has)", {"FLAG": False}, {"FLAG": True}),
    (
        "has = y is not None and w is not None\nkernel[(1,)](y if has else x, x, n, FLAG=has)",
        {"FLAG": False},
        {"FLAG": True},
    ),
    ("if flag:\n    p = y\nelse:\n    p = x\nkernel[(1,)](p, x, n, FLAG=flag)", {"FLAG": False}, {"FLAG": True}),
    ("if n == 1:\n    p = x\nelse:\n    p = y\nkernel[(1,)](p, x, n, True, SIZE=n)", {"SIZE": 1}, {"SIZE": 2}),
    (
        "if y is not None:\n    p, size = y, y.shape[0]\nelse:\n    p, size = x, 0\nkernel[(1,)](p, x, n, True, SIZE=size)",
        {"SIZE": 0},
        {"SIZE": 64},
    ),
]


@pytest.mark.parametrize(("body", "together", "apart"), PLACEHOLDER)
def test_a_placeholder_only_coincides_where_its_flag_is_off(
    body: str, together: dict[str, object], apart: dict[str, object]
) -> None:
    launch = launch_in(body)
    (alias,) = aliases(launch, ("x", "out"))
    assert any(launch.allows(way, together) for way in alias.ways)
    assert not any(launch.allows(way, apart) for way in alias.ways)


@pytest.mark.parametrize(
    "body",
    [
        "kernel[(1,)](y if flag else x, x, n, FLAG=n)",  # another flag
        "p = y if flag else x\nflag = not flag\nkernel[(1,)](p, x, n, FLAG=flag)",
        "for flag in w:\n    p = y if flag else x\nkernel[(1,)](p, x, n, FLAG=flag)",
        "kernel[(1,)](y if ready() else x, x, n, FLAG=ready())",
    ],
)
def test_a_flag_that_may_differ_from_the_condition_tells_nothing(body: str) -> None:
    launch = launch_in(body)
    (alias,) = aliases(launch, ("x", "out"))
    for value in (True, False):
        assert any(launch.allows(way, {"FLAG": value}) for way in alias.ways)


FUSED = """
import torch, triton, triton.language as tl

@triton.jit
def kernel(x_ptr, scale_ptr, out_ptr, n, {parameters}, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    v = tl.load(x_ptr + i, mask=i < n)
{body}
    tl.store(out_ptr + i, v, mask=i < n)

def launch(x, scale, flag):
    out = torch.empty_like(x)
    kernel[(1,)](x, {argument}, out, x.numel(), {flags}, B=128)
    return out
"""


@pytest.mark.parametrize(
    ("parameters", "body", "argument", "flags", "fuses"),
    [
        ("HAS: tl.constexpr", "if HAS: v = v * tl.load(scale_ptr)", "scale if scale is not None else out", "HAS=scale is not None", True),
        ("HAS: tl.constexpr", "if HAS: v = v * tl.load(scale_ptr)", "scale if flag else out", "HAS=flag", True),
        # the flag is about something else, is the other way round, or does not guard the load
        ("HAS: tl.constexpr", "if HAS: v = v * tl.load(scale_ptr)", "scale if flag else out", "HAS=x.is_cuda", False),
        ("HAS: tl.constexpr", "if HAS: v = v * tl.load(scale_ptr)", "out if flag else scale", "HAS=flag", False),
        ("HAS: tl.constexpr", "v = v * tl.load(scale_ptr)\nif HAS: v += 1", "scale if flag else out", "HAS=flag", False),
        # with two flags, only one of which turns the load off
        (
            "HAS: tl.constexpr, ALSO: tl.constexpr",
            "if HAS: v = v * tl.load(scale_ptr)\nif ALSO: v += tl.load(scale_ptr)",
            "scale if flag else out",
            "HAS=flag, ALSO=x.is_cuda",
            False,
        ),
        ("HAS: tl.constexpr", "if HAS: v = v * tl.load(scale_ptr)", "out", "HAS=flag", False),
    ],
)  # fmt: skip
def test_a_placeholder_that_the_kernel_leaves_alone_is_no_reason_to_refuse(
    parameters: str, body: str, argument: str, flags: str, fuses: bool
) -> None:
    indented = "\n".join(f"    {line}" for line in body.splitlines())
    text = FUSED.format(parameters=parameters, body=indented, argument=argument, flags=flags)
    try:
        fuse(text, "out_ptr=relu")
    except FusionRefused as refused:
        assert not fuses
        assert {d.code for d in refused.diagnostics} == {"KR208"}
    else:
        assert fuses


UNLOWERED = """
import torch, triton, triton.language as tl
from elsewhere import transformed

@triton.jit
def kernel(x_ptr, other_ptr, out_ptr, n, MODE: tl.constexpr, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    v = tl.load(x_ptr + i, mask=i < n)
    if MODE == 1:
        v += transformed({read})
    tl.store(out_ptr + i, v, mask=i < n)

def launch(x, mode):
    out = torch.empty_like(x)
    kernel[(1,)](x, out, out, x.numel(), MODE=mode, B=128)
    return out
"""


def test_what_only_code_that_does_not_compile_reads_may_be_the_output_too() -> None:
    with pytest.raises(FusionRefused) as refused:
        fuse(UNLOWERED.format(read="tl.load(other_ptr + i, mask=i < n)"), "out_ptr=relu", path="f.py")
    assert [d.code for d in refused.value.diagnostics] == ["KR208"]
    assert fuse(UNLOWERED.format(read="n"), "out_ptr=relu", path="f.py").source
