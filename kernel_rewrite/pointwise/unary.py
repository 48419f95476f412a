"""The ops of one operand.

A test runs every row against torch; docs/numerics.md says what a GPU made of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from kernel_rewrite.pointwise.element_types import NUMERIC, ElementClass
from kernel_rewrite.pointwise.op import (
    CUDA,
    NAN,
    NN,
    SMALLEST_NORMAL,
    WIDE,
    ArgumentKind,
    Arguments,
    Op,
    Parameter,
    always,
    bounds_are_exact,
    clamp,
    elu,
    exp,
    guarded,
    integer_bounds,
    integral,
    maximum,
    minimum,
)


def _signed_only(arguments: Arguments, kind: ElementClass, dtype: str) -> str:
    return "Triton has no product of an unsigned tensor and -1" if kind is ElementClass.UNSIGNED else ""


def _hardtanh_variant(arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """torch takes 1.0 for a bound of integers; Triton takes only 1, which is the same bound of floats."""
    return "hardtanh", {k: int(v) if abs(v) < 2**31 and v == int(v) else v for k, v in arguments.items()}


def _gelu_variant(arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return ("gelu_tanh" if arguments["approximate"] == "tanh" else "gelu"), {}


def _clamp_variant(arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    if arguments["max"] is None:
        return "clamp_min", {"min": arguments["min"]}
    if arguments["min"] is None:
        return "clamp_max", {"max": arguments["max"]}
    return "clamp", arguments


# ----------------------------------------------------------------------------------------------------------- the table

# torch's CUDA kernels multiply by 1 / 6 as a float32 has it, in float64 too.
_ONE_SIXTH = "0.1666666716337204"

_ERF = "erf of Triton's libdevice up to 3.7 is not that of CUDA 13"
_LOG1P = "float64: log1p of libdevice and of CUDA differ in the last place"


def _rounding(name: str, torch: str, formula: str, value: str, function: Callable[[float], float], **row: Any) -> Op:
    """floor, ceil, ...: the identity on integers.

    Built on trunc: `tl.floor` and `libdevice.floor` flush denormals, and floor(-1e-40) is -1.
    """
    *steps, last = (WIDE + value).splitlines()
    body = "".join(f"    {line}\n" for line in [*steps, f"result = {last}"])
    return Op(
        name,
        torch,
        formula,
        steps="result = x\nif x.dtype.is_floating():\n" + body + "result",
        classes=NUMERIC,
        at=integral(function),
        exact=True,
        source=CUDA + "UnaryFractionKernels.cu",
        **row,
    )


def _denormals_kept(value: str, function: str) -> str:
    """`function` of `value`, which is `value` itself where that is denormal (function(v) = v + O(v^2))."""
    return f"{{tl}}.where({{tl}}.abs({value}) < {SMALLEST_NORMAL}, {value}, {{libdevice}}.{function}({value}))"


_MIN = Parameter("min", None, optional=True)
_MAX = Parameter("max", None, optional=True)

UNARY: tuple[Op, ...] = (
    # ---- exact ops
    Op(
        "relu",
        "torch.relu",
        "max(x, 0)",
        inline="{tl}.maximum({x}, 0, " + NAN + ")",
        steps="{tl}.maximum(x, 0, " + NAN + ")",
        classes=NUMERIC,
        integer_result="",
        keeps_dtype=False,
        commutes=always,
        at=lambda x: maximum(x, 0.0),
        exact=True,
        source=CUDA + "TensorCompare.cu",
    ),
    Op(
        "relu6",
        NN + "relu6",
        "min(max(x, 0), 6)",
        steps="positive = {tl}.maximum(x, 0, " + NAN + ")\n{tl}.minimum(positive, 6, " + NAN + ")",
        classes=NUMERIC,
        integer_result="",
        commutes=always,
        at=lambda x: clamp(x, 0.0, 6.0),
        exact=True,
        source=CUDA + "TensorCompare.cu",
    ),
    Op(
        "hardtanh",
        NN + "hardtanh",
        "min(max(x, min_val), max_val)",
        steps="low = {tl}.full((), min_val, x.dtype)\n"
        "high = {tl}.full((), max_val, x.dtype)\n"
        "raised = {tl}.maximum(x, low, " + NAN + ")\n"
        "{tl}.minimum(raised, high, " + NAN + ")",
        parameters=(Parameter("min_val", -1), Parameter("max_val", 1)),
        variant=_hardtanh_variant,
        classes=NUMERIC,
        integer_result="",
        defined=integer_bounds(promotes=False),
        commutes=bounds_are_exact,
        at=lambda x, min_val, max_val: clamp(x, min_val, max_val),
        exact=True,
        source=CUDA + "TensorCompare.cu",
    ),
    Op(
        "clamp",
        "torch.clamp",
        "min(max(x, min), max)",
        steps="low = {tl}.full((), min, x.dtype)\n"
        "high = {tl}.full((), max, x.dtype)\n"
        "raised = {tl}.maximum(x, low, " + NAN + ")\n"
        "{tl}.minimum(raised, high, " + NAN + ")",
        parameters=(_MIN, _MAX),
        aliases=("clip",),
        variant=_clamp_variant,
        classes=NUMERIC,
        defined=integer_bounds(promotes=True),
        commutes=bounds_are_exact,
        at=lambda x, min, max: clamp(x, min, max),
        exact=True,
        source=CUDA + "TensorCompare.cu",
    ),
    Op(
        "clamp_min",
        "torch.clamp",
        "max(x, min)",
        steps="{tl}.maximum(x, {tl}.full((), min, x.dtype), " + NAN + ")",
        parameters=(Parameter("min"),),
        classes=NUMERIC,
        defined=integer_bounds(promotes=True),
        commutes=bounds_are_exact,
        at=lambda x, min: maximum(x, min),
        exact=True,
        source=CUDA + "TensorCompare.cu",
    ),
    Op(
        "clamp_max",
        "torch.clamp",
        "min(x, max)",
        steps="{tl}.minimum(x, {tl}.full((), max, x.dtype), " + NAN + ")",
        parameters=(Parameter("max"),),
        classes=NUMERIC,
        defined=integer_bounds(promotes=True),
        commutes=bounds_are_exact,
        at=lambda x, max: minimum(x, max),
        exact=True,
        source=CUDA + "TensorCompare.cu",
    ),
    Op(
        "abs",
        "torch.abs",
        "|x|",
        inline="{tl}.abs({x})",
        aliases=("absolute",),
        classes=NUMERIC,
        integer_result="",
        commutes=always,
        at=lambda x: abs(x),
        exact=True,
        nan="stays NaN, its sign bit cleared",
        source=CUDA + "AbsKernel.cu",
    ),
    Op(
        "neg",
        "torch.neg",
        "-x",
        inline="{x} * -1",  # `-x` is 0 - x up to Triton 3.8, which loses the sign of -(+0.0)
        aliases=("negative",),
        classes=NUMERIC,
        integer_result="",
        defined=_signed_only,
        commutes=always,
        at=lambda x: -x,
        exact=True,
        source=CUDA + "UnarySignKernels.cu",
    ),
    Op(
        "sign",
        "torch.sign",
        "1 for x > 0, -1 for x < 0, else 0",
        steps="(x > 0).to(x.dtype) - (x < 0).to(x.dtype)",
        classes=NUMERIC,
        at=lambda x: float((x > 0) - (x < 0)),
        exact=True,
        nan="becomes 0, as in torch",
        source=CUDA + "UnarySignKernels.cu",
    ),
    Op(
        "square",
        "torch.square",
        "x * x",
        steps="x * x",
        classes=NUMERIC,
        integer_result="",
        at=lambda x: x * x,
        product=True,
        source=CUDA + "PowKernel.cu",
    ),
    _rounding(
        "floor",
        "torch.floor",
        "the integer at or below x",
        "whole = {libdevice}.trunc(wide)\n{tl}.where(whole > wide, whole - 1.0, whole)",
        math.floor,
    ),
    _rounding(
        "ceil",
        "torch.ceil",
        "the integer at or above x",
        "whole = {libdevice}.trunc(wide)\n{tl}.where(whole < wide, whole + 1.0, whole)",
        math.ceil,
    ),
    _rounding(
        "round",
        "torch.round",
        "the nearest integer, ties to even",
        "{libdevice}.nearbyint(wide)",
        round,
        helper="round_half_even",
    ),
    _rounding("trunc", "torch.trunc", "the integer part of x", "{libdevice}.trunc(wide)", math.trunc, aliases=("fix",)),
    # ---- activations
    Op(
        "leaky_relu",
        NN + "leaky_relu",
        "x where x > 0, else x * negative_slope",
        steps=WIDE + "{tl}.where(wide > 0, wide, wide * negative_slope)",
        parameters=(Parameter("negative_slope", 0.01),),
        integer_result="",
        at=lambda x, negative_slope: x if x > 0 else x * negative_slope,
        product=True,
        source=CUDA + "ActivationLeakyReluKernel.cu",
    ),
    Op(
        "elu",
        NN + "elu",
        "x where x > 0, else alpha * (exp(x) - 1)",
        steps=WIDE + f"below = {_denormals_kept('wide', 'expm1')}\n" + "{tl}.where(wide > 0, wide, below * alpha)",
        parameters=(Parameter("alpha", 1.0),),
        integer_result="",
        at=guarded(elu),
        product=True,
        source=CUDA + "ActivationEluKernel.cu",
    ),
    Op(
        "celu",
        NN + "celu",
        "x where x > 0, else alpha * (exp(x / alpha) - 1)",
        steps=WIDE
        + "scaled = wide * (1.0 / alpha)\n"
        + f"below = {_denormals_kept('scaled', 'expm1')}\n"
        + "{tl}.where(wide > 0, wide, below * alpha)",
        parameters=(Parameter("alpha", 1.0, divides=True),),
        integer_result="",
        at=guarded(lambda x, alpha: x if x > 0 else alpha * math.expm1(x / alpha)),
        product=True,
        source=CUDA + "ActivationEluKernel.cu",
    ),
    Op(
        "selu",
        NN + "selu",
        "1.0507... * (x where x > 0, else 1.6732... * (exp(x) - 1))",
        steps=WIDE
        + f"below = {_denormals_kept('wide', 'expm1')}\n"
        + "{tl}.where(wide > 0, wide * 1.0507009873554805, below * 1.7580993408473766)",
        integer_result="",
        at=guarded(lambda x: 1.0507009873554805 * elu(x, 1.6732632423543772)),
        product=True,
        source=CUDA + "ActivationEluKernel.cu",
    ),
    Op(
        "gelu",
        NN + "gelu",
        "0.5 * x * (1 + erf(x / sqrt(2)))",
        steps=WIDE + "wide * 0.5 * (1.0 + {libdevice}.erf(wide * 0.7071067811865476))",
        parameters=(Parameter("approximate", "none", ArgumentKind.CHOICE, ("none", "tanh")),),
        variant=_gelu_variant,
        integer_result="",
        at=guarded(lambda x: x * 0.5 * (1.0 + math.erf(x * math.sqrt(0.5)))),
        differs=f"float16, bfloat16, float32: {_ERF}",
        product=True,
        source=CUDA + "ActivationGeluKernel.cu",
    ),
    Op(
        "gelu_tanh",
        NN + "gelu",
        "0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))",
        steps=WIDE
        + "kappa = {tl}.full((), 0.044715, wide.dtype)\n"  # a bare number is a float32 to tl.fma
        + "inner = 0.7978845608028654 * {tl}.fma(wide * wide * wide, kappa, wide)\n"
        + "0.5 * wide * (1.0 + {libdevice}.tanh(inner))",
        fixed=(("approximate", "tanh"),),
        integer_result="",
        at=guarded(lambda x: 0.5 * x * (1.0 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))),
        product=True,
        source=CUDA + "ActivationGeluKernel.cu",
    ),
    Op(
        "sigmoid",
        "torch.sigmoid",
        "1 / (1 + exp(-x))",
        steps=WIDE
        + "total = 1.0 + {libdevice}.exp(-wide)\n"
        + "1.0 / total if x.dtype == {tl}.float64 else {tl}.div_rn(1.0, total)",
        at=guarded(lambda x: 1.0 / (1.0 + exp(-x))),
        source=CUDA + "UnarySpecialOpsKernel.cu",
    ),
    Op(
        "silu",
        NN + "silu",
        "x / (1 + exp(-x))",
        steps=WIDE
        + "total = 1.0 + {libdevice}.exp(-wide)\n"
        + "wide / total if x.dtype == {tl}.float64 else {tl}.div_rn(wide, total)",
        aliases=("swish",),
        integer_result="",
        at=guarded(lambda x: x / (1.0 + exp(-x))),
        nan="stays NaN; -inf becomes NaN, as in torch",
        source=CUDA + "ActivationSiluKernel.cu",
    ),
    Op(
        "mish",
        NN + "mish",
        "x * tanh(log(1 + exp(x)))",
        steps=WIDE
        + "grown = {libdevice}.exp(wide)\n"
        + f"softplus = {_denormals_kept('grown', 'log1p')}\n"
        + f"wide * {_denormals_kept('softplus', 'tanh')}",
        integer_result="",
        at=guarded(lambda x: x * math.tanh(math.log1p(exp(x)))),
        differs=_LOG1P,
        product=True,
        source=CUDA + "ActivationMishKernel.cu",
    ),
    Op(
        "softplus",
        NN + "softplus",
        "log(1 + exp(beta * x)) / beta, x itself where beta * x > threshold",
        steps=WIDE
        + "grown = {libdevice}.exp(wide * beta)\n"
        + f"bent = {_denormals_kept('grown', 'log1p')}\n"
        + "curve = bent / beta if x.dtype == {tl}.float64 else {tl}.div_rn(bent, beta)\n"
        + "{tl}.where(wide * beta > threshold, wide, curve)",
        parameters=(Parameter("beta", 1.0, divides=True), Parameter("threshold", 20.0)),
        integer_result="",
        at=guarded(lambda x, beta, threshold: x if x * beta > threshold else math.log1p(exp(x * beta)) / beta),
        differs=_LOG1P,
        source=CUDA + "ActivationSoftplusKernel.cu",
    ),
    Op(
        "logsigmoid",
        NN + "logsigmoid",
        "log(1 / (1 + exp(-x)))",
        steps=WIDE
        + "decayed = {libdevice}.exp(-{tl}.abs(wide))\n"
        + f"bent = {_denormals_kept('decayed', 'log1p')}\n"
        + "{tl}.minimum(wide, 0.0) - bent",
        aliases=("log_sigmoid",),
        integer_result="",
        at=guarded(lambda x: (0.0 if x >= 0 else x) - math.log1p(exp(-abs(x)))),
        differs=_LOG1P,
        source=CUDA + "ActivationLogSigmoidKernel.cu",
    ),
    Op(
        "hardswish",
        NN + "hardswish",
        "x * min(max(x + 3, 0), 6) / 6",
        steps=WIDE + "gate = {tl}.minimum({tl}.maximum(wide + 3.0, 0.0), 6.0)\n" + f"wide * gate * {_ONE_SIXTH}",
        integer_result="",
        at=guarded(lambda x: x * clamp(x + 3.0, 0.0, 6.0) / 6.0),
        float32_constants=True,
        product=True,
        adds=True,
        source=CUDA + "ActivationHardswishKernel.cu",
    ),
    Op(
        "hardsigmoid",
        NN + "hardsigmoid",
        "min(max(x + 3, 0), 6) / 6",
        steps=WIDE
        + "gate = {tl}.maximum(wide + 3.0, 0.0, "
        + NAN
        + ")\n"
        + "gate = {tl}.minimum(gate, 6.0, "
        + NAN
        + ")\n"
        + f"gate * {_ONE_SIXTH}",
        integer_result="",
        at=guarded(lambda x: clamp(x + 3.0, 0.0, 6.0) / 6.0),
        float32_constants=True,
        product=True,
        adds=True,
        source=CUDA + "ActivationHardsigmoidKernel.cu",
    ),
    Op(
        "softsign",
        NN + "softsign",
        "x / (1 + |x|)",
        steps=WIDE
        + "total = ({tl}.abs(wide) + 1.0).to(x.dtype).to(wide.dtype)\n"
        + "wide / total if x.dtype == {tl}.float64 else {tl}.div_rn(wide, total)",
        at=guarded(lambda x: x / (1.0 + abs(x))),
        stepwise=True,
        nan="stays NaN; infinities become NaN, as in torch",
        adds=True,
        source="torch/nn/functional.py: input / (input.abs() + 1)",
    ),
    Op(
        "tanhshrink",
        NN + "tanhshrink",
        "x - tanh(x)",
        steps=WIDE + f"bent = {_denormals_kept('wide', 'tanh')}.to(x.dtype)\n" + "wide - bent.to(wide.dtype)",
        at=guarded(lambda x: x - math.tanh(x)),
        stepwise=True,
        adds=True,
        source="torch/nn/functional.py: input - input.tanh()",
    ),
    # ---- elementary functions
    Op(
        "tanh",
        "torch.tanh",
        "tanh(x)",
        steps=WIDE + _denormals_kept("wide", "tanh"),
        at=guarded(math.tanh),
        source=CUDA + "UnaryGeometricTanhKernel.cu",
    ),
    Op(
        "exp",
        "torch.exp",
        "e**x",
        steps=WIDE + "{libdevice}.exp(wide)",
        at=guarded(exp),
        source=CUDA + "UnaryOpsKernel.cu",
    ),
    Op(
        "exp2",
        "torch.exp2",
        "2**x",
        steps=WIDE
        + "result = {libdevice}.exp2(wide)\n"
        + "if x.dtype != {tl}.float64:\n"
        + "    root = {libdevice}.exp2(wide * 0.5)\n"
        + "    result = {tl}.where(wide < -126.0, root * root, result)\n"
        + "result",
        at=guarded(lambda x: 2.0**x),
        product=True,
        source=CUDA + "UnaryOpsKernel.cu",
    ),
    Op(
        "expm1",
        "torch.expm1",
        "e**x - 1",
        steps=WIDE + _denormals_kept("wide", "expm1"),
        at=guarded(math.expm1),
        adds=True,
        source=CUDA + "UnaryOpsKernel.cu",
    ),
    Op(
        "log",
        "torch.log",
        "the natural logarithm",
        steps=WIDE + "{libdevice}.log(wide)",
        at=guarded(lambda x: -math.inf if x == 0.0 else math.log(x)),
        nan="stays NaN; negative x becomes NaN",
        source=CUDA + "UnaryLogKernels.cu",
    ),
    Op(
        "log2",
        "torch.log2",
        "the base-2 logarithm",
        steps=WIDE + "{libdevice}.log2(wide)",
        at=guarded(lambda x: -math.inf if x == 0.0 else math.log2(x)),
        nan="stays NaN; negative x becomes NaN",
        source=CUDA + "UnaryLogKernels.cu",
    ),
    Op(
        "log1p",
        "torch.log1p",
        "log(1 + x)",
        steps=WIDE + _denormals_kept("wide", "log1p"),
        at=guarded(lambda x: -math.inf if x == -1.0 else math.log1p(x)),
        nan="stays NaN; x below -1 becomes NaN",
        differs=_LOG1P,
        adds=True,
        source=CUDA + "UnaryLogKernels.cu",
    ),
    Op(
        "sqrt",
        "torch.sqrt",
        "the square root, correctly rounded",
        steps=WIDE + "{tl}.sqrt(wide) if x.dtype == {tl}.float64 else {tl}.sqrt_rn(wide)",
        at=guarded(lambda x: x if x == 0.0 else math.sqrt(x)),
        nan="stays NaN; negative x becomes NaN, -0.0 stays",
        source=CUDA + "UnaryOpsKernel.cu",
    ),
    Op(
        "rsqrt",
        "torch.rsqrt",
        "1 / sqrt(x)",
        steps=WIDE
        + "result = {libdevice}.rsqrt(wide)\n"
        + "if x.dtype != {tl}.float64:\n"
        + "    scaled = {libdevice}.rsqrt(wide * 16777216.0)\n"
        + f"    result = {{tl}}.where({{tl}}.abs(wide) < {SMALLEST_NORMAL}, scaled * 4096.0, result)\n"
        + "result",
        at=guarded(lambda x: math.copysign(math.inf, x) if x == 0.0 else 1.0 / math.sqrt(x)),
        nan="stays NaN; negative x becomes NaN",
        product=True,
        source=CUDA + "UnaryOpsKernel.cu",
    ),
    Op(
        "reciprocal",
        "torch.reciprocal",
        "1 / x",
        steps=WIDE + "1.0 / wide if x.dtype == {tl}.float64 else {tl}.div_rn(1.0, wide)",
        at=guarded(lambda x: math.copysign(math.inf, x) if x == 0.0 else 1.0 / x),
        source=CUDA + "UnaryFractionKernels.cu",
    ),
    Op(
        "sin",
        "torch.sin",
        "sin(x)",
        steps=WIDE + _denormals_kept("wide", "sin"),
        at=guarded(math.sin),
        nan="stays NaN; infinities become NaN",
        source=CUDA + "UnaryGeometricSinKernel.cu",
    ),
    Op(
        "cos",
        "torch.cos",
        "cos(x)",
        steps=WIDE + "{libdevice}.cos(wide)",
        at=guarded(math.cos),
        nan="stays NaN; infinities become NaN",
        source=CUDA + "UnaryGeometricCosKernel.cu",
    ),
    Op(
        "tan",
        "torch.tan",
        "tan(x)",
        steps=WIDE + _denormals_kept("wide", "tan"),
        at=guarded(math.tan),
        nan="stays NaN; infinities become NaN",
        source=CUDA + "UnaryGeometricTanKernel.cu",
    ),
    Op(
        "erf",
        "torch.erf",
        "the error function",
        steps=WIDE
        + "result = {libdevice}.erf(wide)\n"
        + "if x.dtype != {tl}.float64:\n"
        + f"    tiny = {{tl}}.abs(wide) < {SMALLEST_NORMAL}\n"
        + "    result = {tl}.where(tiny, wide * 1.1283791670955126, result)\n"
        + "result",
        at=guarded(math.erf),
        differs=f"float32: {_ERF}",
        product=True,
        source=CUDA + "UnarySpecialOpsKernel.cu",
    ),
    Op(
        "frac",
        "torch.frac",
        "x - trunc(x)",
        steps=WIDE + "wide - {libdevice}.trunc(wide)",
        integer_result="",
        at=guarded(lambda x: math.nan if math.isinf(x) else math.fmod(x, 1.0) + 0.0),
        exact=True,
        nan="stays NaN; infinities become NaN",
        adds=True,
        source=CUDA + "UnaryFractionKernels.cu",
    ),
)
