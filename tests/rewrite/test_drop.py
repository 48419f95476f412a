"""Outputs that are dropped: what goes from the kernel and from its launchers, and what stops it."""

from __future__ import annotations

import ast
from textwrap import dedent

import pytest

from kernel_rewrite import FusionRefused, fuse

HEAD = "import torch\nimport triton\nimport triton.language as tl\n\n\n"
STORES = """\
    gate_ptrs = gate_ptr + offsets
    tl.store(gate_ptrs, x * 0.5, mask=mask)
    tl.store(c_ptr + offsets, x, mask=mask)
"""
KERNEL = f"""\
@triton.jit
def kernel(x_ptr, gate_ptr, c_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    x = tl.load(x_ptr + offsets, mask=mask)
{STORES}"""
LAUNCHER = """

def pair(x):
    gate = torch.empty_like(x)
    c = torch.empty_like(x)
    kernel[(triton.cdiv(x.numel(), 64),)](x, gate, c, x.numel(), BLOCK=64)
    return gate, c
"""


def dropped(kernel: str = KERNEL, launcher: str = LAUNCHER, *, without: str = "gate_ptr", **options: object) -> str:
    """The text of the file without the output, and without its header."""
    fused = fuse(HEAD + kernel + launcher, drop=[without], **options)  # type: ignore[arg-type]
    text = fused.source.partition("# end of header\n\n")[2]
    made = list(HEAD + kernel + launcher)
    for edit in reversed(fused.edits):
        made[edit.start : edit.end] = edit.replacement
    assert "".join(made) == text, "the edits make the text"
    assert "gate_ptr" not in text.replace("# gate_ptr", "")
    return text


def refused(kernel: str = KERNEL, launcher: str = LAUNCHER, **options: object) -> list[tuple[str, str]]:
    """(code, what the first label says) of each reason."""
    with pytest.raises(FusionRefused) as raised:
        fuse(HEAD + kernel + launcher, **{"drop": ["gate_ptr"], **options})  # type: ignore[arg-type]
    return [(d.code, d.labels[0].text if d.labels else "") for d in raised.value.diagnostics]


def body(text: str, name: str = "kernel") -> str:
    node = next(n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef) and n.name == name)
    return "\n".join(map(ast.unparse, node.body))


def with_stores(text: str) -> str:
    lines = "".join(f"    {line}\n" if line else "\n" for line in dedent(text).strip("\n").split("\n"))
    return KERNEL.replace(STORES, lines)


LEFT = "tl.store(c_ptr + offsets, x, mask=mask)"

# (what the kernel stores, what is left of that)
KERNELS = {
    "pointer": (STORES, LEFT),
    "moved": ("gate_ptr += 4\ngate_ptrs = gate_ptr + offsets\ngate_ptrs += 1\ntl.store(gate_ptrs, x)\n" + LEFT, LEFT),
    "hinted": ("p = tl.multiple_of(gate_ptr, 16)\ntl.store(p + offsets, x)\n" + LEFT, LEFT),
    "two stores": ("tl.store(gate_ptr + offsets, x)\n" + LEFT + "\ntl.store(gate_ptr + offsets + n, x)", LEFT),
    "at run time": (f"if n > 3:\n    tl.store(gate_ptr + offsets, x)\n{LEFT}", LEFT),
    "one of two": (f"if n > 3:\n    tl.store(gate_ptr + offsets, x)\n    {LEFT}", f"if n > 3:\n    {LEFT}"),
    "branches": (
        f"if n > 3:\n    tl.store(gate_ptr + offsets, x)\nelse:\n    {LEFT}",
        f"if n > 3:\n    pass\nelse:\n    {LEFT}",
    ),
    "both branches": (
        f"if n > 3:\n    tl.store(gate_ptr + offsets, x)\nelse:\n    tl.store(gate_ptr + n, 0.0)\n{LEFT}",
        LEFT,
    ),
    "elif": (
        f"if n > 3:\n    {LEFT}\nelif n > 2:\n    tl.store(gate_ptr + offsets, x)",
        f"if n > 3:\n    {LEFT}\nelif n > 2:\n    pass",
    ),
    "loop": (
        "for i in range(n):\n    p = gate_ptr + i\n    tl.store(p + offsets, x)\n    tl.store(c_ptr + i + offsets, x)",
        "for i in range(n):\n    tl.store(c_ptr + i + offsets, x)",
    ),
    "loop of nothing else": (
        f"for i in range(n):\n    tl.store(gate_ptr + i + offsets, x)\n{LEFT}",
        f"for i in range(n):\n    pass\n{LEFT}",
    ),
    "blocks": (
        "p = tl.make_block_ptr(gate_ptr, (n,), (1,), (0,), (BLOCK,), (0,))\n"
        f"tl.store(p, x, boundary_check=(0,))\n{LEFT}",
        LEFT,
    ),
    "descriptor": (
        f"d = tl.make_tensor_descriptor(gate_ptr, [n], [1], [BLOCK])\nd.store([0], x)\n{LEFT}",
        LEFT,
    ),
    "left over": (
        f"g = x * 0.5\ng = g + 1\nother = offsets + n\ntl.store(gate_ptr + other, g, mask=other < n)\n{LEFT}",
        LEFT,
    ),
    "still asked": (
        "g = x * 0.5\ntl.store(gate_ptr + offsets, g)\ntl.store(c_ptr + offsets, x + g, mask=mask)",
        "g = x * 0.5\ntl.store(c_ptr + offsets, x + g, mask=mask)",
    ),
    "type": (f"g = x.to(gate_ptr.dtype.element_ty)\ntl.store(gate_ptr + offsets, g)\n{LEFT}", LEFT),
    "loaded for it": (f"o = tl.load(x_ptr + n)\ng = tl.load(x_ptr + offsets + 1)\ntl.store(gate_ptr + o + offsets, g)\n{LEFT}", LEFT),
    "loaded in the call": (f"tl.store(gate_ptr + offsets, tl.load(x_ptr + offsets + 1))\n{LEFT}", LEFT),
    "loaded at run time": (
        f"f = tl.load(x_ptr)\nif f > 3:\n    g = tl.load(x_ptr + n)\n    tl.store(gate_ptr, g)\n{LEFT}",
        LEFT,
    ),
    "loaded and asked for": (
        "g = tl.load(x_ptr + offsets + 1)\ntl.store(gate_ptr + offsets, g)\ntl.store(c_ptr + offsets, x + g)",
        "g = tl.load(x_ptr + offsets + 1)\ntl.store(c_ptr + offsets, x + g)",
    ),
    "loaded in a loop": (
        f"s = 0.0\nfor i in range(n):\n    s += tl.load(x_ptr + i)\ntl.store(gate_ptr, s)\n{LEFT}",
        f"s = 0.0\nfor i in range(n):\n    s += tl.load(x_ptr + i)\n{LEFT}",
    ),
    "one line": (f"y = x; tl.store(gate_ptr + offsets, y); {LEFT}", f"pass\npass\n{LEFT}"),
    "nothing": (f"if gate_ptr is not None:\n    tl.store(gate_ptr + offsets, x)\n{LEFT}", LEFT),
    "comments": (f"# the gate\ntl.store(gate_ptr + offsets, x)\n\n# the value\n{LEFT}", LEFT),
}  # fmt: skip


@pytest.mark.parametrize("name", KERNELS)
def test_what_made_its_pointers_goes_with_the_stores(name: str, installed_triton: tuple[int, ...]) -> None:
    if name == "blocks" and installed_triton >= (3, 9):
        pytest.skip("Triton 3.9 has no block pointers")
    before, left = KERNELS[name]
    text = dropped(with_stores(before))
    head = body(KERNEL).partition("gate_ptrs =")[0]
    assert body(text) == head + "\n".join(map(ast.unparse, ast.parse(left).body))
    if name == "comments":
        assert "# the gate" not in text and "mask=mask)\n\n    # the value\n    tl.store" in text


# (what the kernel stores, what the diagnostic points out)
NOT_FROM_THE_KERNEL = {
    "read": (f"tl.store(gate_ptr + offsets, x)\n{LEFT.replace(' x,', ' x + tl.load(gate_ptr + offsets),')}", "KR201"),
    "a loop": (f"p = gate_ptr + offsets\nfor i in range(n):\n    tl.store(p, x)\n    p += BLOCK\n{LEFT}", "a loop or a"),
    "the parameter in a loop": (
        f"for i in range(n):\n    tl.store(gate_ptr + offsets, x)\n    gate_ptr += BLOCK\n{LEFT}",
        "a loop or a",
    ),
    "a branch": (
        "if n > 3:\n    p = gate_ptr + offsets\nelse:\n    p = gate_ptr + offsets + 1\n"
        f"tl.store(p, x)\n{LEFT}",
        "a loop or a",
    ),
    "another pointer": ("p = gate_ptr + offsets\ntl.store(p, x)\np = c_ptr + offsets\ntl.store(p, x)", "`p` is given"),
    "a tuple": ("p, q = gate_ptr + offsets, c_ptr + offsets\ntl.store(p, x)\ntl.store(q, x)", "`gate_ptr` is used"),
    "an address": ("tl.store(gate_ptr + offsets, x)\ntl.store(c_ptr + offsets, x + (gate_ptr.to(tl.int64) % 2), mask=mask)", "KR203"),
    "a test": (f"if gate_ptr is not None:\n    tl.store(gate_ptr + offsets, x)\n    {LEFT}", "`gate_ptr` is used"),
}  # fmt: skip


def test_its_type_is_that_of_what_it_is_allocated_like() -> None:
    kernel = with_stores("tl.store(gate_ptr + offsets, x)\ntl.store(c_ptr + offsets, x.to(gate_ptr.dtype.element_ty))")
    assert "x.to(x_ptr.dtype.element_ty))" in dropped(kernel)
    assert "dropped-type" in [a.name for a in fuse(HEAD + kernel + LAUNCHER, drop=["gate_ptr"]).assumptions]
    assert "dropped-type" not in [a.name for a in fuse(HEAD + KERNEL + LAUNCHER, drop=["gate_ptr"]).assumptions]
    half = LAUNCHER.replace("gate = torch.empty_like(x)", "gate = torch.empty_like(x, dtype=torch.float16)")
    assert "x.to(tl.float16))" in dropped(kernel, half)
    assert refused(kernel, "") == [("KR320", "the type of its elements is asked for here")]


@pytest.mark.parametrize("name", NOT_FROM_THE_KERNEL)
def test_what_the_kernel_needs_is_not_dropped(name: str) -> None:
    text, expected = NOT_FROM_THE_KERNEL[name]
    ((code, why), *_) = refused(with_stores(text))
    assert expected in (code, why[: len(expected)])
    assert code == (expected if expected.startswith("KR") else "KR320")


def test_a_store_in_a_helper_stays() -> None:
    helper = "@triton.jit\ndef put(p, x, mask):\n    tl.store(p, x, mask=mask)\n\n\n"
    kernel = helper + with_stores(f"put(gate_ptr + offsets, x, mask)\n{LEFT}")
    assert refused(kernel) == [("KR320", "a helper stores it, which other stores may go through too")]


def test_a_helper_in_the_call_only_computes() -> None:
    helper = "@triton.jit\ndef half(x):\n    return x * 0.5\n\n\n"
    kernel = with_stores(f"tl.store(gate_ptr + offsets, half(x), mask=mask)\n{LEFT}")
    assert "half(x)" not in dropped(helper + kernel).replace("def half(x)", "")
    loading = helper.replace("(x):", "(p):").replace("x * 0.5", "tl.load(p)")
    kernel = kernel.replace("half(x)", "half(x_ptr + offsets)")
    assert refused(loading + kernel) == [("KR320", "what is computed in this call does more than compute and load")]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"epilogues": {"gate_ptr": "relu"}}, "KR320"),
        ({"drop": ["gate_ptr", "c_ptr"]}, "KR320"),
        ({"drop": ["x_ptr"]}, "KR210"),
        ({"drop": ["gates_ptr"]}, "KR105"),
        ({"epilogues": {"c_ptr": "gate_ptr * x"}, "drop": []}, "KR107"),
    ],
)
def test_what_is_asked_must_have_a_meaning(options: dict[str, object], code: str) -> None:
    assert refused(**options)[0][0] == code  # type: ignore[arg-type]


def test_an_epilogue_may_take_what_was_stored() -> None:
    text = dropped(epilogues={"c_ptr": "maximum(gate_ptr, x)"})
    assert "(x * 0.5).to(c_ptr.dtype.element_ty)" in text and "return None, c" in text
    kept = dropped(epilogues={"c_ptr": "gate_ptr * x"}, keep_original={"c_ptr": "up_ptr"})
    assert "def kernel(x_ptr, c_ptr, n, up_ptr, BLOCK" in kept


# ------------------------------------------------------------------------------------------------------------ launchers

BARE = "kernel[triton.cdiv(x.numel(), 64),](x, c, x.numel(), BLOCK=64)"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("return gate, c", "return (None, c)"),
        ("return c", "return c"),
        ("return c, gate.view(-1, 2).t(), gate", "return (c, None, None)"),
    ],
)
def test_its_buffer_goes(before: str, after: str) -> None:
    text = dropped(launcher=LAUNCHER.replace("return gate, c", before))
    assert body(text, "pair") == f"c = torch.empty_like(x)\n{BARE}\n{after}"


def test_buffers_are_made_together() -> None:
    two = "    gate = torch.empty_like(x)\n    c = torch.empty_like(x)\n"
    launcher = LAUNCHER.replace(two, "    gate, c = torch.empty_like(x), torch.empty_like(x)\n")
    assert body(dropped(launcher=launcher), "pair") == f"c = torch.empty_like(x)\n{BARE}\nreturn (None, c)"
    three = dropped(launcher=LAUNCHER.replace(two, "    c, gate, d = f(x), torch.empty_like(x), f((x, 1))\n"))
    assert body(three, "pair") == f"c, d = (f(x), f((x, 1)))\n{BARE}\nreturn (None, c)"
    for other in (
        "gate, c = both(x)",
        "gate, *c = torch.empty_like(x), x",
        "gate, c = (\n        torch.empty_like(x), x)",
    ):
        assert [code for code, _ in refused(launcher=LAUNCHER.replace(two, f"    {other}\n"))] == ["KR321"]


def test_two_buffers_of_which_one_is_made_like_the_other() -> None:
    kernel = with_stores("tl.store(d_ptr + offsets, x)\ntl.store(gate_ptr + offsets, x, mask=mask)\n" + LEFT)
    kernel = kernel.replace("gate_ptr, c_ptr", "gate_ptr, d_ptr, c_ptr")
    launcher = LAUNCHER.replace("    kernel", "    d = torch.empty(gate.shape)\n    kernel").replace(
        "x, gate, c", "x, gate, d, c"
    )
    fused = fuse(HEAD + kernel + launcher, epilogues="c_ptr=gate_ptr * x", drop=["gate_ptr", "d_ptr"])
    assert body(fused.source, "pair") == f"c = torch.empty_like(x)\n{BARE}\nreturn (None, c)"


def test_a_buffer_that_is_asked_for_its_shape_stays() -> None:
    launcher = LAUNCHER.replace("x.numel(), BLOCK", "gate.numel(), BLOCK").replace("return gate, c", "return c")
    text = dropped(launcher=launcher)
    assert "gate = torch.empty_like(x)" in text and "(x, c, gate.numel(), BLOCK=64)" in text
    fused = fuse(HEAD + KERNEL + launcher, drop=["gate_ptr"])
    assert fused.contract == ("`pair` still allocates `gate`, whose shape or strides it asks for",)
    asked = dropped(launcher=launcher.replace("    c = torch", "    c =torch"), epilogues={"c_ptr": "gate_ptr * x"})
    assert "gate.numel()" not in asked and "gate = " not in asked and "(x, c, c.numel(), BLOCK=64)" in asked


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ("x, torch.empty_like(x), c, x.numel(), BLOCK=64", "x, c, x.numel(), BLOCK=64"),
        ("x, c_ptr=c, gate_ptr=torch.empty(x.shape), n=x.numel(), BLOCK=64", "x, c_ptr=c, n=x.numel(), BLOCK=64"),
        ("x, None, c, x.numel(), BLOCK=64", "x, c, x.numel(), BLOCK=64"),
        ("*(x, gate, c), x.numel(), BLOCK=64", None),
        ("x, gate, c, BLOCK=64, **options", "x, c, BLOCK=64, **options"),
        ("x, c_ptr=c, BLOCK=64, **options", None),
        ("x, self.gate, c, x.numel(), BLOCK=64", None),
        ("x, make(x), c, x.numel(), BLOCK=64", None),
    ],
)
def test_no_launch_passes_it(given: str, left: str | None) -> None:
    launcher = LAUNCHER.replace("x, gate, c, x.numel(), BLOCK=64", given).replace("return gate, c", "return c")
    launcher = launcher.replace("def pair(x):", "def pair(x, options):")
    if left is None:
        assert {code for code, _ in refused(launcher=launcher)} == {"KR321"}
    else:
        assert f"64),)]({left})" in dropped(launcher=launcher)


CALLERS = {
    "def f(x):\n    gate, c = pair(x)\n    return c": True,
    "def f(x):\n    return pair(x)\n\ndef g(x):\n    _, c = f(x)\n    return c": True,
    "def f(x):\n    return pair(x)[1]": True,
    "def f(x):\n    pair(x)": True,
    "def f(x):\n    return pair(x)[0]": False,
    "def f(x):\n    gate, c = pair(x)\n    return c * gate": False,
    "def f(x):\n    return pair(x)\n\ndef g(x):\n    gate, _ = f(x)\n    return gate": False,
    "def f(x):\n    both = pair(x)\n    return both[1]": False,
    "class F(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x):\n        return pair(x)": False,
}  # fmt: skip


@pytest.mark.parametrize("caller", CALLERS)
def test_callers_must_not_look_at_it(caller: str) -> None:
    launcher = f"{LAUNCHER}\n\n{caller}\n"
    if CALLERS[caller]:
        assert caller in dropped(launcher=launcher)
    else:
        assert {code for code, _ in refused(launcher=launcher)} == {"KR321"}


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("return gate, c", "return gate", "is all that is returned"),
        ("return gate, c", "return gate * c", "is used here too"),
        ("return gate, c", "return {'gate': gate, 'c': c}", "is used here too"),
        ("return gate, c", "gate.zero_()\n    return c", "is used here too"),
        ("return gate, c", "keep.append(gate)\n    return c", "is used here too"),
        ("    gate = torch", "    gate = c = torch", "is not bound by one plain allocation"),
        ("torch.empty_like(x)\n    c", "x.clone()\n    c", "is not bound by one plain allocation"),
        ("torch.empty_like(x)\n    c", "torch.empty_like(prepare(x))\n    c", "is not bound by one plain allocation"),
    ],
)
def test_a_launcher_that_does_more_with_it_is_left_alone(old: str, new: str, why: str) -> None:
    found = refused(launcher=LAUNCHER.replace(old, new))
    assert [code for code, _ in found] == ["KR321"] and why in found[0][1]


def test_a_buffer_that_is_given_is_left_as_it_is() -> None:
    launcher = LAUNCHER.replace("pair(x)", "pair(x, gate)").replace("    gate = torch.empty_like(x)\n", "")
    launcher = launcher.replace("return gate, c", "return c")
    assert "def pair(x, gate):" in dropped(launcher=launcher)
    fused = fuse(HEAD + KERNEL + launcher, drop=["gate_ptr"])
    assert fused.contract == ("`pair` leaves `gate` as it is: nothing is written to it",)
    caller = "\n\ndef f(x, gate):\n    pair(x, gate)\n    return gate\n"
    assert [code for code, _ in refused(launcher=launcher + caller)] == ["KR321"]


def test_launches_are_left_alone_where_that_is_asked_for() -> None:
    fused = fuse(HEAD + KERNEL + LAUNCHER, drop=["gate_ptr"], launcher="leave")
    assert LAUNCHER in fused.source and "gate_ptr" not in fused.source.partition("end of header")[2]
    assert fused.contract == ("line 19: `kernel` is launched without `gate_ptr`",)


def test_no_launch_left_alone_may_pass_its_buffers_to_other_parameters_unseen() -> None:
    optional = KERNEL.replace("n, BLOCK: tl.constexpr", "n=0, BLOCK: tl.constexpr = 64")
    with pytest.raises(FusionRefused) as raised:
        fuse(HEAD + optional + LAUNCHER, drop=["gate_ptr"], launcher="leave")
    assert [d.code for d in raised.value.diagnostics] == ["KR320"]


# ----------------------------------------------------------------------------------------------------- around the kernel

TUNED = '@triton.autotune(configs=[triton.Config({{"BLOCK": 64}})], key=["n"]{})\n@triton.jit{}\n'


@pytest.mark.parametrize(
    ("tuned", "jit", "left"),
    [
        (', reset_to_zero=["gate_ptr", "c_ptr"]', "", ', reset_to_zero=["c_ptr"])'),
        (', restore_value=["gate_ptr"]', "", ", restore_value=[])"),
        ("", "(do_not_specialize=[1, 3])", "jit(do_not_specialize=[2])"),
        ("", '(do_not_specialize=("n", "gate_ptr"))', 'jit(do_not_specialize=("n",))'),
        ("", "(do_not_specialize=(1, 3))", "jit(do_not_specialize=(2,))"),
        (', prune_configs_by={"early_config_prune": lambda c, a, **k: [d for d in c if a["gate_ptr"] is None]}', "", None),
        (", reset_to_zero=NAMES", "", None),
    ],
)  # fmt: skip
def test_what_stands_around_the_kernel_does_without_it(tuned: str, jit: str, left: str | None) -> None:
    kernel = KERNEL.replace("@triton.jit\n", TUNED.format(tuned, jit))
    if "NAMES" in tuned:
        kernel = 'NAMES = ["gate_ptr"]\n\n\n' + kernel
    launcher = LAUNCHER.replace(", BLOCK=64", "")
    options = {"assume": ["fully-written"]}
    if left is None:
        assert refused(kernel, launcher, **options)[0] == ("KR320", "it is asked for by its name here")
    else:
        assert left in dropped(kernel, launcher, **options)
