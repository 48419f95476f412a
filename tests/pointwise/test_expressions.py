"""Expressions with operands: parsing and types, and that the kernel's bits are torch's.

Run as a script under TRITON_INTERPRET=1 (a test does so), it compares rows of the table and random expressions with torch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.model import Operand, OperandKind
from kernel_rewrite.pointwise.language import Pointwise, emit, parse_epilogue
from kernel_rewrite.pointwise.ops import OPS
from kernel_rewrite.pointwise.printing import epilogue_text

ROOT = Path(__file__).resolve().parents[2]
FLOATS = ("float16", "bfloat16", "float32", "float64")
INTEGERS = ("int8", "uint8", "int16", "int32", "int64")
NUMBER = ""

DECLARED = {
    "bias": OperandKind.ROW,
    "shift": OperandKind.COLUMN,
    "residual": OperandKind.TILE,
    "gate": OperandKind.TILE,
    "scale": OperandKind.SCALAR,
    "step": OperandKind.SCALAR,
    "level": OperandKind.SCALAR,
}


def declared(text: str, dtypes: dict[str, str] | None = None) -> dict[str, Operand]:
    """The operands that `text` mentions; `level` is a scalar tensor of float32, the other scalars are numbers."""
    types = {"level": "float32"} | (dtypes or {})
    return {n: Operand(n, kind, types.get(n, "")) for n, kind in DECLARED.items() if n in text}


def parsed(text: str, dtypes: dict[str, str] | None = None) -> Pointwise:
    return parse_epilogue(text, declared(text, dtypes))


# Texts that run every op of several operands, and what torch's CPU and the stand-ins of the interpreter may be apart.
ROWS_OF_THE_TABLE: dict[str, int] = {
    "x + bias": 0,
    "x - shift": 0,
    "residual - x": 0,
    "x * residual": 0,
    "x * scale": 0,
    "x + 0.1": 0,
    "0.1 - x": 0,
    "x * 0.1 + bias": 0,
    "x * scale + bias": 0,
    "x * bias + residual * shift": 0,
    "x / bias": 0,
    "x / step": 0,
    "x / 4": 0,
    "level / x": 0,
    "x // bias": 1,
    "x % bias": 0,
    "x % 2.5": 0,
    "fmod(x, bias)": 0,
    "fmod(x, 2.5)": 0,
    "x ** bias": 2,
    "x ** 1.5": 2,
    "2 ** x": 2,
    "x ** 2 + bias": 0,
    "atan2(x, bias)": 2,
    "hypot(x, bias)": 2,
    "copysign(x, bias)": 0,
    "copysign(x, -1)": 0,
    "maximum(x, bias)": 0,
    "minimum(x, shift) + residual": 0,
    "clamp(x, bias, residual)": 0,
    "clamp(x, scale, 3)": 0,
    "clamp(x, min=bias)": 0,
    "where(x > 0, x, bias)": 0,
    "where(x > bias, 0.1, x)": 0,
    "where(x <= scale, x, scale)": 0,
    "lerp(x, residual, 0.25)": -1,
    "lerp(x, residual, bias)": -1,
    "addcmul(x, bias, residual)": -1,
    "addcmul(x, bias, residual, value=0.5)": -1,
    "addcdiv(x, bias, residual, value=2)": -1,
    "x == bias": 0,
    "x != 0": 0,
    "x < bias": 0,
    "x >= scale": 0,
    "x * (x > 0)": 0,
    "logical_and(x, bias)": 0,
    "logical_or(x, bias)": 0,
    "logical_xor(x, bias)": 0,
    "logical_not(x)": 0,
    "(x > 0) & (x < bias)": 0,
    "(x > 0) | ~(x < bias)": 0,
    "(x > 0) ^ (x < bias)": 0,
    "x & bias": 0,
    "x | 3": 0,
    "x ^ bias": 0,
    "~x": 0,
    "x << 2": 0,
    "x >> bias": 0,
    "x << bias": 0,
    "relu(x + bias) + residual": 0,
    "x.to(float16)": 0,
    "x.to(bfloat16)": 0,
    "x.to(float32)": 0,
    "x.to(float64)": 0,
    "x.to(int8)": 0,
    "x.to(uint8)": 0,
    "x.to(int16)": 0,
    "x.to(int32)": 0,
    "x.to(int64)": 0,
    "x.to(bool)": 0,
    "x.to(float8_e4m3fn)": 0,
    "x.to(float8_e5m2)": 0,
    "(x.float() * scale).to(x.dtype)": 0,
    "x + bias.to(x.dtype)": 0,
    "x + level": 0,
    "x * level + bias": 0,
}


def test_every_op_of_several_operands_is_run() -> None:
    from kernel_rewrite.pointwise.language import applications
    from kernel_rewrite.pointwise.ops import OPS

    run = {node.op for text in ROWS_OF_THE_TABLE for node in applications(parsed(text).result)}
    assert {name for name, row in OPS.items() if len(row.operands) > 1} - run == set()


# ------------------------------------------------------------------------------------------- random expressions

ARITHMETIC = ("+", "-", "*")
COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")
# Results whose zero has the other sign in torch's CPU kernels, and ops that show the sign of a zero: never both.
UNSIGNED_ZERO = ("relu({})", "clamp({}, -1, 2.5)", "relu6({})", "hardtanh({})")
SHOWS_SIGN = ("reciprocal({})",)
HARMLESS = (
    "abs({})",
    "neg({})",
    "floor({})",
    "round({})",
    "sign({})",
    "square({})",
    "softsign({})",
    "leaky_relu({}, 0.1)",
)


@st.composite
def expressions(draw: Any) -> str:
    """A text over x, operands and numbers, of exactly rounded ops."""
    signed = draw(st.booleans())
    unary = (*HARMLESS, *(SHOWS_SIGN if signed else UNSIGNED_ZERO))
    leaves = st.sampled_from(["x", "x", "x", "bias", "shift", "residual", "scale", "level", "0.1", "2", "-1.702"])

    def grown(inner: Any) -> Any:
        binary = [*ARITHMETIC] + (["/"] if signed else [])
        both = st.tuples(inner, inner)
        return st.one_of(
            st.tuples(st.sampled_from(unary), inner).map(lambda t: t[0].format(t[1])),
            st.tuples(st.sampled_from(binary), both).map(lambda t: f"({t[1][0]} {t[0]} {t[1][1]})"),
            st.tuples(st.sampled_from(COMPARISONS), both, both).map(
                lambda t: f"where({t[1][0]} {t[0]} {t[1][1]}, {t[2][0]}, {t[2][1]})"
            ),
            inner.map(lambda t: f"({t}).to(x.dtype)"),
            st.tuples(inner, st.just("float32")).map(lambda t: f"({t[0]}).to({t[1]})"),
            *(
                []
                if signed
                else [both.map(lambda t: f"maximum({t[0]}, {t[1]})"), both.map(lambda t: f"minimum({t[0]}, {t[1]})")]
            ),
        )

    return draw(st.recursive(leaves, grown, max_leaves=7))


@given(expressions())
@settings(deadline=None)
def test_printed_text_is_read_as_the_same_graph(text: str) -> None:
    try:
        graph = parsed(text)
    except FusionRefused:
        assume(False)
    printed = epilogue_text(graph.result)
    assert repr(parsed(printed)) == repr(graph)


PRINTED = [
    *ROWS_OF_THE_TABLE,
    *(
        "leaky_relu(0.2)",
        "softplus(2, 10)",
        "gelu(approximate='tanh')",
        "clamp(0, 6)",
        "clamp(min=0)",
        "clamp(-inf, 3)",
    ),
    *(row.name for row in OPS.values() if len(row.operands) == 1 and not row.parameters),
    *(f"x.to({name})" for name in ("float16", "bool", "float8_e5m2", "x.dtype")),
    "x + table[offs % n]",
    "x * -1e30 + inf",
    "x == True",
]


@pytest.mark.parametrize("text", PRINTED)
def test_every_row_is_printed(text: str) -> None:
    assert repr(parsed(epilogue_text(parsed(text).result))) == repr(parsed(text))


def compared(text: str, dtypes: dict[str, str], x: str, seed: int, *, product: bool = False, ulps: int = 0) -> str:
    """ "" when kernel and torch agree, "undefined" where the language refuses, else what differs."""
    import running

    try:
        pointwise = parsed(text, dtypes)
    except FusionRefused:
        return "undefined"
    if pointwise.undefined_reason(x):
        return "undefined"
    values = {o.name: running.draw_operand(o, x, seed + i) for i, o in enumerate(pointwise.operands, 1)}
    stored = running.draw((running.ROWS, running.COLUMNS), x, seed)
    result, expected, source = running.run(pointwise, stored, values, product=product)
    types = {o.name: str(v.dtype)[6:] for o in pointwise.operands if hasattr(v := values[o.name], "dtype")}
    assert pointwise.result_dtype(x, types) == str(expected.dtype)[6:], (text, x, types)
    wrong = running.differences(result, expected, ulps)
    if not bool(wrong.any()):
        return ""
    at = tuple(wrong.nonzero()[0].tolist())
    return (
        f"{text} x:{x} {dtypes}: {int(wrong.sum())} differ, at {at}: x = {stored[at].item()!r}, "
        f"{result[at].item()!r} stored, {expected[at].item()!r} in torch\n{source}"
    )


def compare_rows() -> list[str]:
    found = []
    for text, ulps in ROWS_OF_THE_TABLE.items():
        for x in (*FLOATS, "int8", "uint8", "int32", "bool"):
            if x in INTEGERS and any(sign in text for sign in ("//", "%", "fmod")):
                continue  # torch's CPU raises for a zero among the divisors
            if (text, x) == ("~x", "uint8"):
                continue  # the interpreter has no ~ of it
            for dtypes in ({}, {"bias": "float32"})[: 2 if "bias" in text and x in ("float16", "float32") else 1]:
                try:
                    difference = compared(text, dtypes, x, 7, ulps=ulps)
                except Exception as error:
                    difference = f"{text} x:{x} {dtypes}: {type(error).__name__}: {error} {error.__cause__}"
                found += [difference] if difference not in ("", "undefined") else []
    return found


def bits_changed_by_rounded() -> int:
    """How many values of float16 and float32, signed zeros and denormals among them, the helper `rounded` changes."""
    import running
    import torch

    (helper,) = emit(parsed("x * bias + 1"), "v", {"bias": "b"}).helpers[:1]
    source = f"{running.HEADER}{helper.text}\n\n@triton.jit\ndef kernel(x_ptr, out_ptr, N: tl.constexpr):\n"
    source += "    i = tl.arange(0, N)\n    tl.store(out_ptr + i, rounded(tl.load(x_ptr + i)))\n"
    kernel = running.load(source, "rounded_alone").kernel
    changed = 0
    patterns = torch.arange(-(2**15), 2**15, dtype=torch.int32)
    for values in (
        patterns.to(torch.int16).view(torch.float16),
        (patterns << 16).view(torch.float32),
        patterns.view(torch.float32),
    ):
        result = torch.empty_like(values)
        kernel[(1,)](values, result, N=2**16)
        bits = torch.int16 if values.dtype == torch.float16 else torch.int32
        changed += int(((result.view(bits) != values.view(bits)) & ~(result.isnan() & values.isnan())).sum())
    return changed


TESTED = {"agree": 0, "undefined": 0}


@given(
    expressions(),
    st.sampled_from(FLOATS),
    st.sampled_from(["", "", "float32", "float16"]),
    st.sampled_from(["", "", "float32"]),
    st.booleans(),
    st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
def random_expressions_agree(text: str, x: str, bias: str, residual: str, product: bool, seed: int) -> None:
    verdict = compared(text, {"bias": bias, "residual": residual}, x, seed, product=product)
    TESTED["undefined" if verdict else "agree"] += 1
    assume(verdict != "undefined")
    assert verdict == "", verdict


def main() -> None:
    import warnings

    import torch

    from kernel_rewrite.pointwise.interpreter import stand_ins

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with stand_ins():
        rows = compare_rows()
        rounded = bits_changed_by_rounded()
        failure = ""
        try:
            random_expressions_agree()
        except BaseException as error:
            failure = f"{type(error).__name__}: {error}\n{getattr(error, '__notes__', '')}"
    print(json.dumps({"rows": rows, "rounded": rounded, "random": failure, **TESTED}))


@pytest.mark.slow
def test_kernels_write_the_bits_of_torch() -> None:
    """Every op of several operands, in every type, and random expressions over all kinds of operands."""
    pytest.importorskip("triton")
    pytest.importorskip("torch")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH", "")]))
    run = subprocess.run(
        [sys.executable, "-W", "ignore", __file__], env=environment, capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stderr[-4000:]
    results = json.loads(run.stdout.strip().splitlines()[-1])
    assert "\n".join(results["rows"]) == ""
    assert results["random"] == ""
    assert results["rounded"] == 0
    assert results["agree"] >= 50


# ---------------------------------------------------------------------------------------------------- parsing and types


@pytest.mark.parametrize(
    ("text", "torch_text", "name", "expression"),
    [
        ("x + bias", "x + bias", "bias", "c + b"),
        ("gelu(x + bias)", "torch.nn.functional.gelu(x + bias)", "bias_gelu", "gelu(c + b)"),
        ("F.silu(x) * bias", "torch.nn.functional.silu(x) * bias", "silu_bias", "silu(c) * b"),
        (
            "(x + bias).clamp(0, 6)",
            "torch.clamp(x + bias, min=0, max=6)",
            "bias_clamp_0_6",
            "clamp(c + b, min=0, max=6)",
        ),
        ("x / 4", "x / 4", "div_4", "c * 0.25"),
        ("2 / x", "torch.reciprocal(x) * 2", "reciprocal_mul_2", "reciprocal(c) * 2"),
        ("x - (bias - 1)", "x - (bias - 1)", "bias_sub", "c - (b - 1)"),
        ("bias if False else x", None, "", ""),
    ],
)
def test_expressions(text: str, torch_text: str | None, name: str, expression: str) -> None:
    if torch_text is None:
        with pytest.raises(FusionRefused):
            parsed(text)
        return
    pointwise = parsed(text)
    assert (pointwise.torch_text(), pointwise.name) == (torch_text, name)
    assert emit(pointwise, "c", {"bias": "b"}).expression == expression


def test_two_indices_are_two_reads_of_one_operand() -> None:
    pointwise = parse_epilogue("x + table[offs % n] * table[offs + 1, 0] + table[offs % n]")
    assert pointwise.operands == (
        Operand("table", OperandKind.INDEXED, "", "offs % n"),
        Operand("table", OperandKind.INDEXED, "", "offs + 1, 0"),
    )
    assert pointwise.uses("table") == 3 and pointwise.uses("x") == 1
    emission = emit(pointwise, "c", {"table[offs % n]": "t", "table[offs + 1, 0]": "u"})
    assert emission.expression == "table_table_add_table(c, t, u)"
    assert "def table_table_add_table(x, table, table_2):" in emission.helpers[-1].text


@pytest.mark.parametrize(
    ("text", "operands", "code", "message"),
    [
        ("x + bais", ["bias"], "KR107", "unknown op `bais`"),
        ("x + 1", ["bias"], "KR119", "operand `bias` is declared"),
        ("bias + 1", ["bias"], "KR107", "does not use x"),
        ("x[0] + bias", ["bias"], "KR118", "reads other elements"),
        ("bias[columns] + x", ["bias"], "KR108", "is a row operand and takes no index"),
        ("relu[columns] + x", [], "KR107", "is an op"),
        ("x @ bias", ["bias"], "KR118", "multiplies matrices"),
        ("x.softmax(-1)", [], "KR118", "needs every element"),
        ("max(x, bias)", ["bias"], "KR118", "largest or smallest"),
        ("x.relu_()", [], "KR118", "in place"),
        ("0 < x < 6", [], "KR107", "not an expression"),
        ("x and bias", ["bias"], "KR107", "not an expression"),
        ("not x", [], "KR107", "not an expression"),
        ("x / 0", [], "KR108", "divides by zero"),
        ("where(x > 0, x)", [], "KR108", "needs `condition`, `x` and `y`"),
        ("atan2", [], "KR108", "needs `x` and `y`"),
        ("fmod(x, bias, 3)", ["bias"], "KR108", "takes no arguments beside"),
        ("x * -0.0", [], "KR108", "-0.0"),
        ("x + nan", [], "KR108", "NaN is no number"),
        ("x + 2 ** 70", [], "KR108", "no integer type holds"),
        ("x + 1j", [], "KR107", "not an expression"),
    ],
)
def test_refusals(text: str, operands: list[str], code: str, message: str) -> None:
    with pytest.raises(FusionRefused) as caught:
        parse_epilogue(text, {n: Operand(n, DECLARED[n]) for n in operands})
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == code and message in diagnostic.message, diagnostic


@pytest.mark.parametrize(
    ("text", "dtypes", "x", "reason"),
    [
        ("x + bias", {"bias": "float16"}, "bfloat16", "float32 in torch and not in Triton"),
        ("x + bias", {"bias": "int8"}, "uint8", "int16 in torch"),
        ("x * scale", {}, "float64", "Triton passes a Python number as a float32"),
        ("x + 0.5", {}, "float16", ""),
        ("x + 300", {}, "int8", "300 is not a value of int8"),
        ("x + -1", {}, "uint8", "-1 is not a value of uint8"),
        ("x + bias", {"bias": "float8_e4m3fn"}, "float32", "8-bit floats"),
        ("maximum(x, 0)", {}, "float32", "wants tensors"),
        ("where(x, bias, residual)", {}, "float32", "must be a bool"),
        ("x & bias", {}, "float32", "not a function of this language"),
        ("x.to(float16)", {}, "float64", "in two steps"),
    ],
)
def test_where_it_is_undefined(text: str, dtypes: dict[str, str], x: str, reason: str) -> None:
    found = parsed(text, dtypes).undefined_reason(x)
    assert reason in found and bool(found) == bool(reason), found


def test_promotion_is_that_of_torch() -> None:
    """Every pair of types, and every type with every kind of number."""
    torch = pytest.importorskip("torch")
    from kernel_rewrite.pointwise.element_types import BITS, FLOAT8, promoted
    from kernel_rewrite.pointwise.graph import Number

    tensors = {name: torch.zeros(1, dtype=getattr(torch, name)) for name in BITS if name not in FLOAT8}
    numbers = {Number.of(n).kind: n for n in (True, 2, 2.5)}
    for left, a in tensors.items():
        for right, b in {**tensors, **numbers}.items():
            assert promoted([left, right]) == str(torch.result_type(a, b))[6:], (left, right)


def test_the_types_of_results_are_those_of_torch() -> None:
    torch = pytest.importorskip("torch")
    for text in ROWS_OF_THE_TABLE:
        for x in (*FLOATS, *INTEGERS, "bool"):
            pointwise = parsed(text)
            if pointwise.undefined_reason(x):
                continue
            values = {
                o.name: 2.0 if o.is_number else torch.ones(1, dtype=getattr(torch, o.dtype or x))
                for o in pointwise.operands
            }
            assert (
                pointwise.result_dtype(x)
                == str(pointwise.evaluate(torch.ones(3, dtype=getattr(torch, x)), **values).dtype)[6:]
            )


@pytest.mark.parametrize(
    ("text", "kept", "changed"),
    [
        ("x * 2", [0.0, float("inf")], [1.0]),
        ("x * 0.1", [0.0], [1.0, 0.5]),
        ("x + 0.1 - 0.1", [], [0.0]),
        ("x + bias", [], [0.0]),
        ("x * scale", [], [0.0]),
        ("x.to(int8)", [0.0, 1.0], [0.5]),
        ("relu(x) * 2 - 0", [0.0], [1.0]),
        ("where(x > 0, x, 0)", [], [0.0]),
    ],
)
def test_fills(text: str, kept: list[float], changed: list[float]) -> None:
    assert [f for f in kept if not parsed(text).preserves(f)] == []
    assert [f for f in changed if parsed(text).preserves(f)] == []


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
