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
from kernel_rewrite.pointwise.language import Pointwise, parse_epilogue

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


TESTED = {"agree": 0, "undefined": 0}


@given(
    expressions(),
    st.sampled_from(FLOATS),
    st.sampled_from(["", "", "float32", "float16"]),
    st.sampled_from(["", "", "float32"]),
    st.booleans(),
    st.integers(0, 1000),
)
@settings(max_examples=250, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
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
        failure = ""
        try:
            random_expressions_agree()
        except BaseException as error:
            failure = f"{type(error).__name__}: {error}\n{getattr(error, '__notes__', '')}"
    print(json.dumps({"rows": rows, "random": failure, **TESTED}))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()


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
    assert results["agree"] >= 150
