"""Translation validation against rewrites made by hand to slip through it. Only TTIR is compared here."""

from __future__ import annotations

import pytest

from kernel_rewrite.model import InternalError
from kernel_rewrite.rewrite.confirm import check_compiled, lower_rewritten, read_rewritten
from kernel_rewrite.ttir.parse import parse
from kernel_rewrite.ttir.validate import Difference, Terms, validate
from tests.faults.cases import Case, Request, analysed_text, fused_case
from tests.faults.judges import Compiled, judged

HEAD = """\
import triton
import triton.language as tl
from triton.language.extra import libdevice


"""

KERNEL = """\
@triton.jit
def k(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs, mask=offs < n)
    {}
"""


def case_of(text: str, op: str, numerics: str = "eager", dtypes: tuple[str, ...] = ()) -> Case:
    request = Request((op,), numerics, "k", dtypes=dtypes)
    return fused_case("by hand", analysed_text(HEAD + text, request), [("out_ptr", op)], request)


def verdict(case: Case, wrong: str) -> Compiled:
    """What validation alone says of the kernel `wrong`; helpers of the epilogue are those of the right rewrite."""
    helpers = case.text[len(HEAD) : case.text.index("@triton.jit\ndef k(")] if "def k(" in case.text else ""
    return judged(HEAD + helpers + wrong, case).compiled


BEFORE_A_CAST = [
    # op, numerics, types, original, wrong
    ("square", "fused", ("out_ptr=fp32",), "v = (x * 0.5).to(tl.int32)", "v = (x * 0.5 * (x * 0.5)).to(tl.int32)"),
    ("sigmoid", "fused", ("out_ptr=fp32",), "v = x.to(tl.float16)", "v = sigmoid(x).to(tl.float16)"),
    ("abs", "fused", ("out_ptr=fp32",), "v = x.to(tl.int8)", "v = tl.abs(x).to(tl.int8)"),
    ("abs", "eager", ("out_ptr=i32",), "v = x.to(tl.int32)", "v = tl.abs(x).to(tl.int32)"),
    ("clamp(0, 6)", "eager", ("out_ptr=i32",), "v = x.to(tl.int32)", "v = clamp(x, min=0, max=6).to(tl.int32)"),
    (
        "clamp(0.1, 0.7)",
        "eager",
        ("out_ptr=fp16",),
        "v = x.to(tl.float16)",
        "v = clamp(x, min=0.1, max=0.7).to(tl.float16)",
    ),
    ("tanh", "eager", ("out_ptr=fp16",), "v = x.to(tl.float16)", "v = tanh(x).to(tl.float16)"),
    (
        "square",
        "eager",
        ("out_ptr=i8",),
        "v = x.to(tl.int32).to(tl.int8)",
        "v = (x.to(tl.int32) * x.to(tl.int32)).to(tl.int8)",
    ),
]


@pytest.mark.parametrize("op, numerics, dtypes, original, wrong", BEFORE_A_CAST)
def test_an_epilogue_before_a_cast_of_the_user_is_rejected(
    op: str, numerics: str, dtypes: tuple[str, ...], original: str, wrong: str
) -> None:
    store = "\n    tl.store(out_ptr + offs, v, mask=offs < n)"
    case = case_of(KERNEL.format(original + store), op, numerics, ("x_ptr=fp32", *dtypes))
    case.accept()
    assert verdict(case, KERNEL.format(wrong + store)) is Compiled.REJECTED


def test_an_epilogue_may_stand_before_the_cast_of_the_store_when_asked_to_keep_the_precision() -> None:
    for numerics, expected in (("fused", Compiled.SAME), ("eager", Compiled.REJECTED)):
        types = ("x_ptr=fp32", "out_ptr=fp16")
        case = case_of(KERNEL.format("tl.store(out_ptr + offs, x, mask=offs < n)"), "sigmoid", numerics, types)
        case.accept()
        assert verdict(case, KERNEL.format("tl.store(out_ptr + offs, sigmoid(x), mask=offs < n)")) is expected


# What the fused kernel must not be taken for, by pairs (original, other): no epilogue at all, one difference.
PAIRS = {
    "variables of an outer loop and of a loop in a helper": (
        """\
@triton.jit
def inner(total, x):
    for j in range(4):
        total = total + {}
    return total

@triton.jit
def k(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs)
    kept = x
    for i in range(n):
        kept = inner(kept * 2, kept)
    tl.store(out_ptr + offs, kept)
""",
        "x",
        "total",
    ),
    "a loop that does not end": (
        KERNEL.format("i = 0\n    {}\n    tl.store(out_ptr + offs, x, mask=offs < n)"),
        "i = n",
        "while i < n:\n        i = i * 1",
    ),
    "an operand of a loop": (
        KERNEL.format("for i in range({}, n):\n        x += i\n    tl.store(out_ptr + offs, x)"),
        "0",
        "1",
    ),
    "the step of a loop": (
        KERNEL.format("for i in range(0, n, {}):\n        tl.store(out_ptr + offs + i, x)"),
        "BLOCK",
        "BLOCK * 2",
    ),
    "an attribute of a loop": (
        KERNEL.format("for i in tl.range(0, n, num_stages={}):\n        tl.store(out_ptr + offs + i, x)"),
        "2",
        "3",
    ),
    "an else": (
        KERNEL.format("if n > 3:\n        tl.store(out_ptr + offs, x)\n    {}"),
        "n += 1",
        "else:\n        tl.store(out_ptr + offs, x)",
    ),
    "which side of a branch": (
        KERNEL.format("y = x\n    if n {} 3:\n        y = x + 1\n    tl.store(out_ptr + offs, y)"),
        "> ",
        "<=",
    ),
    "an early return": (
        KERNEL.format("{}\n    tl.store(out_ptr + offs, x)"),
        "n += 1",
        "if n > 3:\n        return",
    ),
    "when to return early": (
        KERNEL.format("if n > {}:\n        return\n    tl.store(out_ptr + offs, x)"),
        "3",
        "4",
    ),
    "the value returned by a helper with an early return": (
        "@triton.jit\ndef f(n):\n    if n > 3:\n        return n * {}\n    return n\n\n\n"
        + KERNEL.format("tl.store(out_ptr + offs, x + f(n))"),
        "2",
        "3",
    ),
    "whether a call is inlined": (
        "@triton.jit{}\ndef f(p, x):\n    tl.store(p, x)\n\n\n" + KERNEL.format("f(out_ptr, n * 2)"),
        "",
        "(noinline=True)",
    ),
    "whether a call that only computes is inlined": (
        "@triton.jit{}\ndef f(x):\n    return x * 2\n\n\n" + KERNEL.format("tl.store(out_ptr + offs, x + f(n))"),
        "",
        "(noinline=True)",
    ),
    "the combination of a reduction": (
        KERNEL.format("tl.store(out_ptr + offs, x - tl.{}(x))"),
        "max",
        "min",
    ),
    "the axis of a reduction": (
        KERNEL.format("y = tl.sum(x[:, None] * x[None, :], axis={})\n    tl.store(out_ptr + offs, y * x)"),
        "0",
        "1",
    ),
    "the direction of a scan": (
        KERNEL.format("tl.store(out_ptr + offs, tl.cumsum(x, reverse={}))"),
        "True",
        "False",
    ),
    "precision of a dot": (
        KERNEL.format(
            "a = x[:, None] + x[None, :]\n    c = tl.dot(a, a, input_precision='{}')\n"
            "    tl.store(out_ptr + offs, tl.sum(c, 1))"
        ),
        "tf32",
        "ieee",
    ),
    "the order of two stores": (
        KERNEL.format("{}"),
        "tl.store(out_ptr + offs, x)\n    tl.store(out_ptr + offs, x + 1)",
        "tl.store(out_ptr + offs, x + 1)\n    tl.store(out_ptr + offs, x)",
    ),
    "the scope of an atomic": (
        KERNEL.format("tl.store(out_ptr + offs, x)\n    tl.atomic_add(x_ptr + offs, x, scope='{}')"),
        "gpu",
        "cta",
    ),
    "the semantics of an atomic": (
        KERNEL.format("tl.store(out_ptr + offs, x)\n    tl.atomic_add(x_ptr + offs, x, sem='{}')"),
        "relaxed",
        "acq_rel",
    ),
    "inline assembly": (
        KERNEL.format(
            "y = tl.inline_asm_elementwise('{}.f32 $0, $1;', '=f,f', [x], dtype=tl.float32, is_pure=True, pack=1)\n"
            "    tl.store(out_ptr + offs, y)"
        ),
        "sqrt.approx",
        "rsqrt.approx",
    ),
    "an external function": (KERNEL.format("tl.store(out_ptr + offs, libdevice.{}(x))"), "erf", "erfc"),
    "which dimension is spread": (
        KERNEL.format(
            "y = x[{}] + tl.zeros((BLOCK, BLOCK), tl.float32)\n"
            "    tl.store(out_ptr + offs, tl.sum(y * y * x[:, None], 1))"
        ),
        ":, None",
        "None, :",
    ),
    "an operand of a subtraction of spread values": (
        KERNEL.format("tl.store(out_ptr + offs, x + ({}))"),
        "n - tl.program_id(1)",
        "tl.program_id(1) - n",
    ),
    "what a masked load gives elsewhere": (
        KERNEL.format("y = tl.load(x_ptr + offs, mask=offs < n, other={})\n    tl.store(out_ptr + offs, y)"),
        "0.0",
        "1.0",
    ),
    "whether a load is volatile": (
        KERNEL.format("y = tl.load(x_ptr + offs, volatile={})\n    tl.store(out_ptr + offs, y)"),
        "False",
        "True",
    ),
    "signed and unsigned": (
        KERNEL.format("y = tl.load(x_ptr + offs).to(tl.int32).to(tl.{}) // 3\n    tl.store(out_ptr + offs, y)"),
        "uint32",
        "int32",
    ),
    "NaN": (
        KERNEL.format("tl.store(out_ptr + offs, tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.{}))"),
        "ALL",
        "NONE",
    ),
    "fused multiply-add": (KERNEL.format("tl.store(out_ptr + offs, {})"), "tl.fma(x, x, x)", "x * x + x"),
    "order of additions": (
        KERNEL.format("y = tl.load(x_ptr + offs + 1)\n    tl.store(out_ptr + offs, {})"),
        "(x + y) + 1.0",
        "x + (y + 1.0)",
    ),
}


def differences(original: str, other: str) -> tuple[Difference, ...]:
    """What validation says of two kernels that should be one, no store being the output's."""
    request = Request(("relu",), kernel="k", dtypes=("x_ptr=fp32", "out_ptr=fp32"))
    analysis = analysed_text(HEAD + original, request)
    results = lower_rewritten(read_rewritten(HEAD + other, analysis), analysis, analysis.views)
    found: list[Difference] = []
    for view, result in zip(analysis.views, results, strict=True):
        _, differing = validate(view.module, parse(result.text), lambda operation, path: None)  # type: ignore[union-attr]
        found += differing
    return tuple(found)


@pytest.mark.parametrize("name", PAIRS)
def test_two_kernels_are_told_apart(name: str) -> None:
    text, one, other = PAIRS[name]
    original, changed = text.replace("{}", one), text.replace("{}", other)
    assert not differences(original, original)
    assert not differences(changed, changed)
    assert differences(original, changed)
    assert differences(changed, original)


ALIKE = {
    "names": ("y = x * 2\n    tl.store(out_ptr + offs, y)", "z = x * 2\n    tl.store(out_ptr + offs, z)"),
    "dead arithmetic": ("tl.store(out_ptr + offs, x)", "y = tl.sum(x * 3)\n    tl.store(out_ptr + offs, x)"),
    "a dead loop that counts": (
        "tl.store(out_ptr + offs, x)",
        "y = x\n    for i in range(n):\n        y += i\n    tl.store(out_ptr + offs, x)",
    ),
    "operands of an addition": ("tl.store(out_ptr + offs, x + n)", "tl.store(out_ptr + offs, n + x)"),
    "operands of a product": ("tl.store(out_ptr + offs, x * n)", "tl.store(out_ptr + offs, n * x)"),
    "the order of pure statements": (
        "y = x * 2\n    z = x + 1\n    tl.store(out_ptr + offs, y - z)",
        "z = x + 1\n    y = x * 2\n    tl.store(out_ptr + offs, y - z)",
    ),
    "where a scalar is spread": (
        "y = n * 2 + 1\n    tl.store(out_ptr + offs, x * y)",
        "y = tl.full((BLOCK,), n, tl.int32) * 2 + 1\n    tl.store(out_ptr + offs, x * y)",
    ),
}


@pytest.mark.parametrize("name", ALIKE)
def test_two_spellings_of_one_kernel_are_not_told_apart(name: str) -> None:
    one, other = (KERNEL.format(body) for body in ALIKE[name])
    assert not differences(one, other)
    assert not differences(other, one)


TTIR = """\
module {{
  tt.func public @k(%p: !tt.ptr<f32>) {{
    {}
    %x = tt.load %p : !tt.ptr<f32>
    tt.store %p, %x : !tt.ptr<f32>
    tt.return
  }}
}}
"""


@pytest.mark.parametrize(
    "operation",
    [
        "%c = arith.constant 1.0 : f32\n    %y = tt.extern_elementwise %c "
        '{libname = "", libpath = "", pure = false, symbol = "f"} : (f32) -> f32',
        '%c = arith.constant 1.0 : f32\n    %y = tt.elementwise_inline_asm "f" '
        '{constraints = "=f,f", packed_element = 1 : i32, pure = false} %c : f32 -> f32',
        "%y = tt.some_new_operation : i32",
    ],
)
def test_what_may_have_an_effect_is_never_dropped(operation: str) -> None:
    plain, with_it = parse(TTIR.format("%c_0 = arith.constant 1.0 : f32")), parse(TTIR.format(operation))
    assert validate(plain, with_it, lambda operation, path: None)[1]
    assert validate(with_it, plain, lambda operation, path: None)[1]
    assert not validate(with_it, with_it, lambda operation, path: None)[1]


def test_a_difference_is_shown_in_the_source_s_names() -> None:
    (difference,) = differences(
        KERNEL.format("y = x * 2.0\n    tl.store(out_ptr + offs, y + 1.0)"),
        KERNEL.format("y = x * 2.0\n    tl.store(out_ptr + offs, y + 3.0)"),
    )
    assert (difference.expected, difference.found) == ("1.000000e+00", "3.000000e+00")
    (difference,) = differences(
        KERNEL.format("y = x * 2.0\n    tl.store(out_ptr + offs, y + x)"),
        KERNEL.format("y = x * 2.0\n    tl.store(out_ptr + offs, y - x)"),
    )
    assert sorted((difference.expected, difference.found)) in (
        ["addf(x, y)", "subf(y, x)"],
        ["addf(y, x)", "subf(y, x)"],
    )


def test_terms_of_a_deep_graph_take_linear_time_and_space() -> None:
    """x + x, that plus itself, ...: a tree of 2**5000 leaves, a graph of 5000 nodes."""
    terms = Terms()
    one, other = terms.term("parameter", "0", "f32"), terms.term("parameter", "0", "f32")
    for _ in range(5000):
        one, other = (
            terms.term("arith.addf", "", "f32", (one, one)),
            terms.term("arith.addf", "", "f32", (other, other)),
        )
    assert one is other
    assert terms.shown(one).startswith("addf(")


def test_the_wrong_rewrite_is_rejected_by_confirmation_itself() -> None:
    case = case_of(KERNEL.format("tl.store(out_ptr + offs, x, mask=offs < n)"), "gelu")
    wrong = case.text.replace("gelu(x.to(out_ptr.dtype.element_ty))", "x")
    results = case.lower(wrong)
    with pytest.raises(InternalError, match=r"KR902(?s:.)*expected: (?s:.)*found: +x$"):
        check_compiled(results, case.views, case.references, case.requests)
