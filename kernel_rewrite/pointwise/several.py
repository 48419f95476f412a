"""The ops of several operands.

Where a spelling wants its operands in one type, they come in the type that torch promotes them to.
"""

from __future__ import annotations

import math

from kernel_rewrite.pointwise.element_types import ANY, INTEGRAL, NUMERIC, ElementClass
from kernel_rewrite.pointwise.op import (
    CUDA,
    NAN,
    Numbers,
    Op,
    Parameter,
    Result,
    maximum,
    minimum,
)

_PAIR = ("x", "y")
_SIGNS = frozenset({ElementClass.SIGNED, ElementClass.UNSIGNED})


def _wide(*names: str) -> str:
    """`wide_y = ...`: each operand in the type torch computes in; they share one type."""
    return "".join(
        f"{_wide_name(n)} = {n} if x.dtype.primitive_bitwidth >= 32 else {n}.to({{tl}}.float32)\n" for n in names
    )


def _wide_name(name: str) -> str:
    return "wide" if name == "x" else f"wide_{name}"


def _arithmetic(name: str, infix: str, formula: str, **row: object) -> Op:
    return Op(
        name,
        f"torch.{name}",
        formula,
        inline=f"{{x}} {infix} {{y}}",
        infix=infix,
        operands=_PAIR,
        numbers=Numbers.WIDE,
        classes=NUMERIC,
        integer_result="",
        **row,  # type: ignore[arg-type]
    )


def _comparison(name: str, infix: str, *aliases: str) -> Op:
    return Op(
        name,
        f"torch.{name}",
        f"x {infix} y",
        inline=f"{{x}} {infix} {{y}}",
        infix=infix,
        operands=_PAIR,
        numbers=Numbers.ROUNDED,
        result=Result.BOOL,
        classes=ANY,
        aliases=aliases,
        exact=True,
        nan="False" if name != "ne" else "True",
        source=CUDA + ("CompareEQKernel.cu" if name in ("eq", "ne") else "CompareKernels.cu"),
    )


def _logical(name: str, inline: str, formula: str) -> Op:
    return Op(
        f"logical_{name}",
        f"torch.logical_{name}",
        formula,
        inline=inline,
        operands=_PAIR if "{y}" in inline else ("x",),
        result=Result.BOOL,
        unified=False,
        classes=ANY,
        exact=True,
        nan="counts as True",
        source=CUDA + "BinaryLogicalOpsKernels.cu",
    )


def _bitwise(name: str, infix: str, formula: str) -> Op:
    return Op(
        f"bitwise_{name}",
        f"torch.bitwise_{name}",
        formula,
        inline=f"{{x}} {infix} {{y}}",
        infix=infix,
        operands=_PAIR,
        numbers=Numbers.ROUNDED,
        classes=INTEGRAL,
        integer_result="",
        exact=True,
        nan="no floats",
        source=CUDA + "BinaryBitwiseOpsKernels.cu",
    )


def _shift(name: str, infix: str, formula: str, outside: str) -> Op:
    return Op(
        f"bitwise_{name}_shift",
        f"torch.bitwise_{name}_shift",
        formula,
        steps=f"inside = (y >= 0) & (y < x.dtype.primitive_bitwidth)\n"
        f"shift = {{tl}}.where(inside, y, 0).to(x.dtype)\n"
        f"{{tl}}.where(inside, x {infix} shift, {outside})",
        infix=infix,
        operands=_PAIR,
        numbers=Numbers.ROUNDED,
        classes=_SIGNS,
        integer_result="",
        exact=True,
        nan="no floats",
        source=CUDA + "BinaryShiftOpsKernels.cu",
    )


_FLOOR_STEPS = (
    "if x.dtype.is_floating():\n"
    "    wide = x if x.dtype.primitive_bitwidth >= 32 else x.to({tl}.float32)\n"
    "    wide_y = y if x.dtype.primitive_bitwidth >= 32 else y.to({tl}.float32)\n"
    "    rest = {libdevice}.fmod(wide, wide_y)\n"
)

SEVERAL: tuple[Op, ...] = (
    # ---- arithmetic
    _arithmetic(
        "add",
        "+",
        "x + y",
        at=lambda x, y: x + y,
        adds=True,
        source=CUDA + "CUDALoops.cuh: CUDAFunctor_add",
    ),
    _arithmetic(
        "sub",
        "-",
        "x - y",
        at=lambda x, y: x - y,
        aliases=("subtract",),
        adds=True,
        source=CUDA + "BinaryInternal.h",
    ),
    _arithmetic(
        "mul",
        "*",
        "x * y",
        at=lambda x, y: x * y,
        aliases=("multiply",),
        product=True,
        source=CUDA + "BinaryMulKernel.cu",
    ),
    Op(
        "div",
        "torch.div",
        "x / y, correctly rounded; by a number: x * (1 / y)",
        steps=_wide(*_PAIR) + "wide / wide_y if x.dtype == {tl}.float64 else {tl}.div_rn(wide, wide_y)",
        infix="/",
        operands=_PAIR,
        numbers=Numbers.WIDE,
        result=Result.FLOAT,
        aliases=("divide", "true_divide"),
        helper="divide",
        at=lambda x, y: x / y if y != 0.0 and (x == 0.0 or math.isnan(x)) else None,
        source=CUDA + "BinaryDivTrueKernel.cu",
    ),
    Op(
        "floor_divide",
        "torch.floor_divide",
        "the integer at or below x / y",
        steps=_FLOOR_STEPS
        + "    fits = wide - rest\n"
        + "    quotient = fits / wide_y if x.dtype == {tl}.float64 else {tl}.div_rn(fits, wide_y)\n"
        + "    quotient = {tl}.where((rest != 0) & ((wide_y < 0) != (rest < 0)), quotient - 1.0, quotient)\n"
        + "    whole = {libdevice}.trunc(quotient)\n"
        + "    whole = {tl}.where(whole > quotient, whole - 1.0, whole)\n"
        + "    whole = {tl}.where(quotient - whole > 0.5, whole + 1.0, whole)\n"
        + "    ratio = wide / wide_y if x.dtype == {tl}.float64 else {tl}.div_rn(wide, wide_y)\n"
        + "    zero = {tl}.where(ratio < 0, ratio * 0.0, 0.0)\n"
        + "    whole = {tl}.where(quotient != 0, whole, {libdevice}.copysign({tl}.zeros_like(ratio), ratio))\n"
        + "    result = {tl}.where(wide_y == 0, ratio, whole)\n"
        + "else:\n"
        + "    quotient = x // y\n"
        + "    result = {tl}.where((x % y != 0) & ((x < 0) != (y < 0)), quotient - 1, quotient)\n"
        + "result",
        infix="//",
        operands=_PAIR,
        numbers=Numbers.ROUNDED,
        classes=NUMERIC,
        integer_result="",
        source="c10/util/generic_math.h: div_floor_floating",
    ),
    Op(
        "remainder",
        "torch.remainder",
        "x - y * floor(x / y), with the sign of y",
        steps=_FLOOR_STEPS
        + "    result = {tl}.where((rest != 0) & ((wide_y < 0) != (rest < 0)), rest + wide_y, rest)\n"
        + "else:\n"
        + "    rest = x % y\n"
        + "    result = {tl}.where((rest != 0) & ((y < 0) != (rest < 0)), rest + y, rest)\n"
        + "result",
        infix="%",
        operands=_PAIR,
        numbers=Numbers.ROUNDED,
        classes=NUMERIC,
        integer_result="",
        source=CUDA + "BinaryRemainderKernel.cu",
    ),
    Op(
        "fmod",
        "torch.fmod",
        "x - y * trunc(x / y), with the sign of x",
        steps="if x.dtype.is_floating():\n"
        "    wide = x if x.dtype.primitive_bitwidth >= 32 else x.to({tl}.float32)\n"
        "    wide_y = y if x.dtype.primitive_bitwidth >= 32 else y.to({tl}.float32)\n"
        "    result = {libdevice}.fmod(wide, wide_y)\n"
        "else:\n"
        "    result = x % y\n"
        "result",
        operands=_PAIR,
        numbers=Numbers.ROUNDED,
        classes=NUMERIC,
        integer_result="",
        exact=True,
        source=CUDA + "BinaryRemainderKernel.cu",
    ),
    Op(
        "pow",
        "torch.pow",
        "x to the power of y",
        steps=_wide(*_PAIR) + "{libdevice}.pow(wide, wide_y)",
        infix="**",
        operands=_PAIR,
        numbers=Numbers.ROUNDED,
        helper="power",
        integer_result="",
        nan="stays NaN, but pow(NaN, 0) and pow(1, NaN) are 1",
        source=CUDA + "PowKernel.cu",
    ),
    Op(
        "atan2",
        "torch.atan2",
        "the angle of the point (y, x), x being the second operand",
        steps=_wide(*_PAIR) + "{libdevice}.atan2(wide, wide_y)",
        operands=_PAIR,
        result=Result.FLOAT,
        aliases=("arctan2",),
        source=CUDA + "GeometricKernel.cu",
    ),
    Op(
        "hypot",
        "torch.hypot",
        "sqrt(x * x + y * y), without overflow in between",
        steps=_wide(*_PAIR) + "{libdevice}.hypot(wide, wide_y)",
        operands=_PAIR,
        integer_result="",
        nan="stays NaN, but hypot(inf, NaN) is inf",
        source=CUDA + "GcdLcmKernel.cu: hypot_kernel",
    ),
    Op(
        "copysign",
        "torch.copysign",
        "|x| with the sign of y",
        steps=_wide(*_PAIR) + "{libdevice}.copysign(wide, wide_y)",
        operands=_PAIR,
        numbers=Numbers.ROUNDED,
        result=Result.FLOAT,
        exact=True,
        nan="stays NaN",
        source=CUDA + "CopysignKernel.cu",
    ),
    # ---- choice
    Op(
        "maximum",
        "torch.maximum",
        "the larger of x and y",
        inline="{tl}.maximum({x}, {y}, " + NAN + ")",
        operands=_PAIR,
        classes=NUMERIC,
        integer_result="",
        keeps_dtype=False,
        at=maximum,
        exact=True,
        nan="NaN where either is",
        source=CUDA + "MaxMinElementwiseKernel.cu",
    ),
    Op(
        "minimum",
        "torch.minimum",
        "the smaller of x and y",
        inline="{tl}.minimum({x}, {y}, " + NAN + ")",
        operands=_PAIR,
        classes=NUMERIC,
        integer_result="",
        keeps_dtype=False,
        at=minimum,
        exact=True,
        nan="NaN where either is",
        source=CUDA + "MaxMinElementwiseKernel.cu",
    ),
    Op(
        "clamp_between",
        "torch.clamp",
        "min(max(x, min), max), the bounds being operands",
        steps="raised = {tl}.maximum(x, min, " + NAN + ")\n{tl}.minimum(raised, max, " + NAN + ")",
        operands=("x", "min", "max"),
        numbers=Numbers.ROUNDED,
        classes=NUMERIC,
        integer_result="",
        helper="clamp",
        at=lambda x, low, high: minimum(maximum(x, low), high),
        exact=True,
        nan="NaN where any is",
        source=CUDA + "TensorCompare.cu",
    ),
    Op(
        "where",
        "torch.where",
        "x where condition, else y",
        inline="{tl}.where({condition}, {x}, {y})",
        operands=("condition", "x", "y"),
        numbers=Numbers.ROUNDED,
        result=Result.SELECTED,
        classes=ANY,
        at=lambda condition, x, y: x if condition else y,
        exact=True,
        product=True,
        nan="taken or left like any value",
        source=CUDA + "TensorCompare.cu",
    ),
    # ---- several steps in one kernel of torch
    Op(
        "lerp",
        "torch.lerp",
        "x + weight * (end - x), from end's side where |weight| >= 0.5",
        steps=_wide("x", "end", "weight")
        + "difference = wide_end - wide\n"
        + "below = {tl}.fma(wide_weight, difference, wide)\n"
        + "above = {tl}.fma(wide_weight - 1.0, difference, wide_end)\n"
        + "{tl}.where({tl}.abs(wide_weight) < 0.5, below, above)",
        operands=("x", "end", "weight"),
        numbers=Numbers.WIDE,
        integer_result="",
        adds=True,
        source="aten/src/ATen/native/Lerp.h",
    ),
    Op(
        "addcmul",
        "torch.addcmul",
        "x + value * (first * second)",
        steps=_wide("x", "first", "second")
        + "scale = {tl}.full((), value, wide.dtype)\n"
        + "{tl}.fma(scale, wide_first * wide_second, wide)",
        operands=("x", "first", "second"),
        parameters=(Parameter("value", 1.0),),
        integer_result="",
        source=CUDA + "PointwiseOpsKernel.cu",
    ),
    Op(
        "addcdiv",
        "torch.addcdiv",
        "x + value * (first / second)",
        steps=_wide("x", "first", "second")
        + "scale = {tl}.full((), value, wide.dtype)\n"
        + "ratio = wide_first / wide_second if x.dtype == {tl}.float64 else {tl}.div_rn(wide_first, wide_second)\n"
        + "{tl}.fma(scale, ratio, wide)",
        operands=("x", "first", "second"),
        parameters=(Parameter("value", 1.0),),
        integer_result="",
        source=CUDA + "PointwiseOpsKernel.cu",
    ),
    # ---- comparisons and logic
    _comparison("eq", "=="),
    _comparison("ne", "!=", "not_equal"),
    _comparison("lt", "<", "less"),
    _comparison("le", "<=", "less_equal"),
    _comparison("gt", ">", "greater"),
    _comparison("ge", ">=", "greater_equal"),
    _logical("and", "({x} != 0) & ({y} != 0)", "x and y"),
    _logical("or", "({x} != 0) | ({y} != 0)", "x or y"),
    _logical("xor", "({x} != 0) ^ ({y} != 0)", "x or y, not both"),
    _logical("not", "{x} == 0", "not x"),
    # ---- bits of integers
    _bitwise("and", "&", "x & y"),
    _bitwise("or", "|", "x | y"),
    _bitwise("xor", "^", "x ^ y"),
    Op(
        "bitwise_not",
        "torch.bitwise_not",
        "~x; not x for bools",
        inline="~{x}",
        infix="~",
        classes=INTEGRAL,
        integer_result="",
        exact=True,
        nan="no floats",
        source=CUDA + "UnaryFractionKernels.cu",
    ),
    _shift("left", "<<", "x << y; 0 where y is no bit position of x", "0"),
    _shift(
        "right",
        ">>",
        "x >> y with x's sign; the sign alone where y is no bit position of x",
        "{tl}.where(x < 0, x * 0 - 1, x * 0)",
    ),
)
