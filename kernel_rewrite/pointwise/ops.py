"""OPS: one row per op. All that the tool knows about an op stands in its row.

A row gives the torch meaning (`torch`, `fixed`, `parameters`), the Triton spelling (`inline` and/or `steps`), the
element classes it is defined for, and its behaviour on rounding, NaN and fill values.

Templates are `str.format` texts over `{x}` (inline only; `steps` use the helper's own `x`), `{tl}`, `{libdevice}` and
a type parameter. In `steps`, `wide` is x in the type torch computes in: float32 for the 16-bit types, x's own
otherwise.
"""

from __future__ import annotations

import enum
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# ------------------------------------------------------------------------------------------------------- element types


class ElementClass(enum.Enum):
    """The element types of a buffer, as far as the meaning of an op depends on them."""

    FLOAT = "float"
    SIGNED = "signed integer"
    UNSIGNED = "unsigned integer"
    BOOL = "bool"


_ELEMENT_CLASSES: Mapping[str, ElementClass] = {
    **dict.fromkeys(("fp16", "float16", "f16", "bf16", "bfloat16"), ElementClass.FLOAT),
    **dict.fromkeys(("fp32", "float32", "f32", "fp64", "float64", "f64"), ElementClass.FLOAT),
    **dict.fromkeys(("i8", "int8", "i16", "int16", "i32", "int32", "i64", "int64"), ElementClass.SIGNED),
    **dict.fromkeys(("u8", "uint8"), ElementClass.UNSIGNED),
    **dict.fromkeys(("i1", "u1", "int1", "bool"), ElementClass.BOOL),
}


def element_class(dtype: str) -> ElementClass | None:
    """The class of a Triton, TTIR or torch element type name; None for those torch has (almost) no arithmetic on: the
    8-bit floats and the unsigned integers wider than 8 bits."""
    return _ELEMENT_CLASSES.get(dtype)


FLOAT_ONLY = frozenset({ElementClass.FLOAT})
NUMBERS = frozenset({ElementClass.FLOAT, ElementClass.SIGNED, ElementClass.UNSIGNED})
ANY = NUMBERS | {ElementClass.BOOL}

_FLOAT_TYPES: Mapping[str, str] = {
    **dict.fromkeys(("fp16", "float16", "half", "f16"), "float16"),
    **dict.fromkeys(("bf16", "bfloat16"), "bfloat16"),
    **dict.fromkeys(("fp32", "float32", "float", "f32"), "float32"),
    **dict.fromkeys(("fp64", "float64", "double", "f64"), "float64"),
}


def float_type(name: str) -> str | None:
    """`fp16` -> `float16`: the name both torch and Triton use, None when `name` is no float type of 16 bits or more."""
    return _FLOAT_TYPES.get(name)


# ---------------------------------------------------------------------------------------------------------------- rows


class ArgumentKind(enum.Enum):
    NUMBER = "a number"
    CHOICE = "one of a few words"
    DTYPE = "a float type"


REQUIRED = object()
"""The default of a parameter that must be given."""

Arguments = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of an op beside x. `torch_name` is its keyword in torch when that differs."""

    name: str
    default: Any = REQUIRED
    kind: ArgumentKind = ArgumentKind.NUMBER
    choices: tuple[str, ...] = ()
    torch_name: str = ""
    optional: bool = False  # None is a value of it
    divides: bool = False  # zero is no value of it


class Position(enum.Enum):
    """Where an inline template puts x, so what the caller must guard with parentheses."""

    ARGUMENT = "inside the parentheses of a call: nothing to guard"
    FACTOR = "left of a product: guard anything that binds weaker than `*`"
    POSTFIX = "before a dot: guard anything but a name, a call, an attribute or a subscript"


@dataclass(frozen=True, slots=True)
class Op:
    """One op.

    `torch` is the dotted torch function, called as f(x, **parameters, **fixed). `inline` is the expression for use in
    the store itself; `steps` the body of the helper function, whose last line is the value (without `return`); an op
    has an inline form when its spelling is short and mentions x once. `keeps_dtype` says that the inline form has x's
    type for every element type; one that has not (`tl.maximum` widens bfloat16 and int8) becomes a helper when it is
    not outermost. `at` is the op's value at a Python float; `exact` says that the op never rounds. `classes` are the
    element classes whose torch result has the type of the input. `differs` is what measuring found
    (docs/numerics.md).
    """

    name: str
    torch: str
    formula: str
    steps: str = ""
    inline: str = ""
    position: Position = Position.ARGUMENT
    parameters: tuple[Parameter, ...] = ()
    fixed: tuple[tuple[str, Any], ...] = ()
    aliases: tuple[str, ...] = ()
    classes: frozenset[ElementClass] = FLOAT_ONLY
    integer_result: str = "float32"  # torch's result type for an integer tensor, "" when torch rejects it
    defined: Callable[[Arguments, ElementClass, str], str] | None = None  # "" or why not, beyond `classes`
    variant: Callable[[dict[str, Any]], tuple[str, dict[str, Any]]] | None = None  # another row, by the arguments
    helper: str = ""
    keeps_dtype: bool = True
    commutes: Callable[[Arguments], bool] = lambda arguments: False
    at: Callable[..., float] = lambda x, **arguments: math.nan
    exact: bool = False
    stepwise: bool = False  # torch computes it from several ops, each of which rounds
    float32_constants: bool = False  # torch's CUDA kernel has its constants as float32, in float64 too
    nan: str = "stays NaN"
    differs: str = ""  # "float32, float64: why", where a GPU's bits are known not to be those of torch's CUDA kernel
    source: str = ""

    @property
    def needs_libdevice(self) -> bool:
        return "{libdevice}" in self.inline + self.steps

    @property
    def helper_name(self) -> str:
        return self.helper or self.name


# ------------------------------------------------------------------------------------------- values at a Python float


def _guarded(function: Callable[..., float]) -> Callable[..., float]:
    """`function` with IEEE results where Python raises: NaN for a domain error, infinity for an overflow."""

    def at(x: float, **arguments: Any) -> float:
        try:
            return float(function(x, **arguments))
        except OverflowError:
            return math.inf
        except (ValueError, ZeroDivisionError):
            return math.nan

    return at


def _exp(x: float) -> float:
    return math.inf if x > 709.0 else math.exp(x)


def _maximum(x: float, bound: float) -> float:
    """max as the GPU does it: NaN stays, +0 is above -0."""
    if math.isnan(x) or (x == bound == 0.0 and math.copysign(1.0, bound) < 0.0):
        return x
    return x if x > bound else float(bound)


def _minimum(x: float, bound: float) -> float:
    return -_maximum(-x, -bound)


def _clamp(x: float, low: float, high: float) -> float:
    return _minimum(_maximum(x, low), high)


def _elu(x: float, alpha: float = 1.0) -> float:
    return x if x > 0.0 else alpha * math.expm1(x)


def _integral(function: Callable[[float], float]) -> Callable[..., float]:
    """`function` of a finite x with the sign of x on a zero result; NaN and infinities stay."""

    def at(x: float, **arguments: Any) -> float:
        if math.isnan(x) or math.isinf(x):
            return x
        value = float(function(x))
        return math.copysign(0.0, x) if value == 0.0 else value

    return at


def representable_everywhere(value: float) -> bool:
    """Whether `value` is exact, and not denormal, in float16 and bfloat16 (so in every float type); infinities are."""
    if math.isnan(value):
        return False
    if value == 0.0 or math.isinf(value):
        return True
    if not 2.0**-14 <= abs(value) <= 65504.0:
        return False
    bits: int = struct.unpack("<I", struct.pack("<f", value))[0]
    half: float = struct.unpack("<e", struct.pack("<e", value))[0]
    return bits & 0xFFFF == 0 and half == value and struct.unpack("<f", struct.pack("<f", value))[0] == value


def same_value(left: float, right: float) -> bool:
    """Equal to the bit, up to the payload of a NaN."""
    if math.isnan(left) or math.isnan(right):
        return math.isnan(left) and math.isnan(right)
    return left == right and math.copysign(1.0, left) == math.copysign(1.0, right)


# ------------------------------------------------------------------------------------------------ conditions of a row


def _always(arguments: Arguments) -> bool:
    return True


def _bounds(arguments: Arguments) -> tuple[Any, ...]:
    return tuple(v for v in arguments.values() if v is not None)


def _bounds_are_exact(arguments: Arguments) -> bool:
    """Rounding is monotone, so it commutes with a clamp whose bounds it leaves alone."""
    return all(representable_everywhere(float(b)) and not same_value(float(b), -0.0) for b in _bounds(arguments))


_INTEGER_RANGES: Mapping[str, tuple[int, int]] = {
    **{name: (-(2**7), 2**7 - 1) for name in ("i8", "int8")},
    **{name: (-(2**15), 2**15 - 1) for name in ("i16", "int16")},
    **{name: (-(2**31), 2**31 - 1) for name in ("i32", "int32")},
    **{name: (-(2**63), 2**63 - 1) for name in ("i64", "int64")},
    **{name: (0, 2**8 - 1) for name in ("u8", "uint8")},
}


def _integer_bounds(promotes: bool) -> Callable[[Arguments, ElementClass, str], str]:
    """On integers a bound must be an integer of the element type; `promotes` says what torch does with a float one."""

    def reason(arguments: Arguments, kind: ElementClass, dtype: str) -> str:
        if kind is ElementClass.FLOAT:
            return ""
        if promotes and any(isinstance(b, float) for b in _bounds(arguments)):
            return "a bound written as a float makes torch's result float32; write the bounds as integers"
        least, most = _INTEGER_RANGES.get(dtype, (0, 127))
        outside = [b for b in _bounds(arguments) if isinstance(b, float) or not least <= b <= most]
        return f"the bound {outside[0]} is not a value of {dtype}" if outside else ""

    return reason


def _no_double_rounding(arguments: Arguments, kind: ElementClass, dtype: str) -> str:
    if dtype in ("fp64", "float64", "f64") and arguments["dtype"] in ("float16", "bfloat16"):
        return "torch rounds a float64 to a 16-bit type in two steps, Triton in one"
    return ""


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

_WIDE = "wide = x if x.dtype.primitive_bitwidth >= 32 else x.to({tl}.float32)\n"
_NAN = "propagate_nan={tl}.PropagateNan.ALL"
# libdevice is compiled to flush float32 denormals inside Triton; torch's CUDA build keeps them.
_SMALLEST_NORMAL = "1.1754943508222875e-38"
# torch's CUDA kernels multiply by 1 / 6 as a float32 has it, in float64 too.
_ONE_SIXTH = "0.1666666716337204"

_ERF = "erf of Triton's libdevice up to 3.7 is not that of CUDA 13"
_LOG1P = "float64: log1p of libdevice and of CUDA differ in the last place"

_NN = "torch.nn.functional."
_CUDA = "aten/src/ATen/native/cuda/"


def _rounding(name: str, torch: str, formula: str, value: str, function: Callable[[float], float], **row: Any) -> Op:
    """floor, ceil, ...: the identity on integers.

    Built on trunc: `tl.floor` and `libdevice.floor` flush denormals, and floor(-1e-40) is -1.
    """
    *steps, last = (_WIDE + value).splitlines()
    body = "".join(f"    {line}\n" for line in [*steps, f"result = {last}"])
    return Op(
        name,
        torch,
        formula,
        steps="result = x\nif x.dtype.is_floating():\n" + body + "result",
        classes=NUMBERS,
        at=_integral(function),
        exact=True,
        source=_CUDA + "UnaryFractionKernels.cu",
        **row,
    )


def _denormals_kept(value: str, function: str) -> str:
    """`function` of `value`, which is `value` itself where that is denormal (function(v) = v + O(v^2))."""
    return f"{{tl}}.where({{tl}}.abs({value}) < {_SMALLEST_NORMAL}, {value}, {{libdevice}}.{function}({value}))"


_MIN = Parameter("min", None, optional=True)
_MAX = Parameter("max", None, optional=True)

_ROWS: tuple[Op, ...] = (
    # ---- exact ops
    Op(
        "relu",
        "torch.relu",
        "max(x, 0)",
        inline="{tl}.maximum({x}, 0, " + _NAN + ")",
        steps="{tl}.maximum(x, 0, " + _NAN + ")",
        classes=NUMBERS,
        integer_result="",
        keeps_dtype=False,
        commutes=_always,
        at=lambda x: _maximum(x, 0.0),
        exact=True,
        source=_CUDA + "TensorCompare.cu",
    ),
    Op(
        "relu6",
        _NN + "relu6",
        "min(max(x, 0), 6)",
        steps="positive = {tl}.maximum(x, 0, " + _NAN + ")\n{tl}.minimum(positive, 6, " + _NAN + ")",
        classes=NUMBERS,
        integer_result="",
        commutes=_always,
        at=lambda x: _clamp(x, 0.0, 6.0),
        exact=True,
        source=_CUDA + "TensorCompare.cu",
    ),
    Op(
        "hardtanh",
        _NN + "hardtanh",
        "min(max(x, min_val), max_val)",
        steps="low = {tl}.full((), min_val, x.dtype)\n"
        "high = {tl}.full((), max_val, x.dtype)\n"
        "raised = {tl}.maximum(x, low, " + _NAN + ")\n"
        "{tl}.minimum(raised, high, " + _NAN + ")",
        parameters=(Parameter("min_val", -1), Parameter("max_val", 1)),
        variant=_hardtanh_variant,
        classes=NUMBERS,
        integer_result="",
        defined=_integer_bounds(promotes=False),
        commutes=_bounds_are_exact,
        at=lambda x, min_val, max_val: _clamp(x, min_val, max_val),
        exact=True,
        source=_CUDA + "TensorCompare.cu",
    ),
    Op(
        "clamp",
        "torch.clamp",
        "min(max(x, min), max)",
        steps="low = {tl}.full((), min, x.dtype)\n"
        "high = {tl}.full((), max, x.dtype)\n"
        "raised = {tl}.maximum(x, low, " + _NAN + ")\n"
        "{tl}.minimum(raised, high, " + _NAN + ")",
        parameters=(_MIN, _MAX),
        aliases=("clip",),
        variant=_clamp_variant,
        classes=NUMBERS,
        defined=_integer_bounds(promotes=True),
        commutes=_bounds_are_exact,
        at=lambda x, min, max: _clamp(x, min, max),
        exact=True,
        source=_CUDA + "TensorCompare.cu",
    ),
    Op(
        "clamp_min",
        "torch.clamp",
        "max(x, min)",
        steps="{tl}.maximum(x, {tl}.full((), min, x.dtype), " + _NAN + ")",
        parameters=(Parameter("min"),),
        classes=NUMBERS,
        defined=_integer_bounds(promotes=True),
        commutes=_bounds_are_exact,
        at=lambda x, min: _maximum(x, min),
        exact=True,
        source=_CUDA + "TensorCompare.cu",
    ),
    Op(
        "clamp_max",
        "torch.clamp",
        "min(x, max)",
        steps="{tl}.minimum(x, {tl}.full((), max, x.dtype), " + _NAN + ")",
        parameters=(Parameter("max"),),
        classes=NUMBERS,
        defined=_integer_bounds(promotes=True),
        commutes=_bounds_are_exact,
        at=lambda x, max: _minimum(x, max),
        exact=True,
        source=_CUDA + "TensorCompare.cu",
    ),
    Op(
        "abs",
        "torch.abs",
        "|x|",
        inline="{tl}.abs({x})",
        aliases=("absolute",),
        classes=NUMBERS,
        integer_result="",
        commutes=_always,
        at=lambda x: abs(x),
        exact=True,
        nan="stays NaN, its sign bit cleared",
        source=_CUDA + "AbsKernel.cu",
    ),
    Op(
        "neg",
        "torch.neg",
        "-x",
        inline="{x} * -1",  # `-x` is 0 - x up to Triton 3.8, which loses the sign of -(+0.0)
        position=Position.FACTOR,
        aliases=("negative",),
        classes=NUMBERS,
        integer_result="",
        defined=_signed_only,
        commutes=_always,
        at=lambda x: -x,
        exact=True,
        source=_CUDA + "UnarySignKernels.cu",
    ),
    Op(
        "sign",
        "torch.sign",
        "1 for x > 0, -1 for x < 0, else 0",
        steps="(x > 0).to(x.dtype) - (x < 0).to(x.dtype)",
        classes=NUMBERS,
        at=lambda x: float((x > 0) - (x < 0)),
        exact=True,
        nan="becomes 0, as in torch",
        source=_CUDA + "UnarySignKernels.cu",
    ),
    Op(
        "square",
        "torch.square",
        "x * x",
        steps="x * x",
        classes=NUMBERS,
        integer_result="",
        at=lambda x: x * x,
        source=_CUDA + "PowKernel.cu",
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
    Op(
        "to",
        "",
        "x rounded through a float type, then back to the type of x",
        inline="{x}.to({tl}.{dtype})",
        position=Position.POSTFIX,
        keeps_dtype=False,
        parameters=(Parameter("dtype", kind=ArgumentKind.DTYPE),),
        integer_result="a float type",
        defined=_no_double_rounding,
        at=lambda x, dtype: x,
        exact=True,
        source="torch.Tensor.to",
    ),
    # ---- activations
    Op(
        "leaky_relu",
        _NN + "leaky_relu",
        "x where x > 0, else x * negative_slope",
        steps=_WIDE + "{tl}.where(wide > 0, wide, wide * negative_slope)",
        parameters=(Parameter("negative_slope", 0.01),),
        integer_result="",
        at=lambda x, negative_slope: x if x > 0 else x * negative_slope,
        source=_CUDA + "ActivationLeakyReluKernel.cu",
    ),
    Op(
        "elu",
        _NN + "elu",
        "x where x > 0, else alpha * (exp(x) - 1)",
        steps=_WIDE + f"below = {_denormals_kept('wide', 'expm1')}\n" + "{tl}.where(wide > 0, wide, below * alpha)",
        parameters=(Parameter("alpha", 1.0),),
        integer_result="",
        at=_guarded(_elu),
        source=_CUDA + "ActivationEluKernel.cu",
    ),
    Op(
        "celu",
        _NN + "celu",
        "x where x > 0, else alpha * (exp(x / alpha) - 1)",
        steps=_WIDE
        + "scaled = wide * (1.0 / alpha)\n"
        + f"below = {_denormals_kept('scaled', 'expm1')}\n"
        + "{tl}.where(wide > 0, wide, below * alpha)",
        parameters=(Parameter("alpha", 1.0, divides=True),),
        integer_result="",
        at=_guarded(lambda x, alpha: x if x > 0 else alpha * math.expm1(x / alpha)),
        source=_CUDA + "ActivationEluKernel.cu",
    ),
    Op(
        "selu",
        _NN + "selu",
        "1.0507... * (x where x > 0, else 1.6732... * (exp(x) - 1))",
        steps=_WIDE
        + f"below = {_denormals_kept('wide', 'expm1')}\n"
        + "{tl}.where(wide > 0, wide * 1.0507009873554805, below * 1.7580993408473766)",
        integer_result="",
        at=_guarded(lambda x: 1.0507009873554805 * _elu(x, 1.6732632423543772)),
        source=_CUDA + "ActivationEluKernel.cu",
    ),
    Op(
        "gelu",
        _NN + "gelu",
        "0.5 * x * (1 + erf(x / sqrt(2)))",
        steps=_WIDE + "wide * 0.5 * (1.0 + {libdevice}.erf(wide * 0.7071067811865476))",
        parameters=(Parameter("approximate", "none", ArgumentKind.CHOICE, ("none", "tanh")),),
        variant=_gelu_variant,
        integer_result="",
        at=_guarded(lambda x: x * 0.5 * (1.0 + math.erf(x * math.sqrt(0.5)))),
        differs=f"float16, bfloat16, float32: {_ERF}",
        source=_CUDA + "ActivationGeluKernel.cu",
    ),
    Op(
        "gelu_tanh",
        _NN + "gelu",
        "0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))",
        steps=_WIDE
        + "kappa = {tl}.full((), 0.044715, wide.dtype)\n"  # a bare number is a float32 to tl.fma
        + "inner = 0.7978845608028654 * {tl}.fma(wide * wide * wide, kappa, wide)\n"
        + "0.5 * wide * (1.0 + {libdevice}.tanh(inner))",
        fixed=(("approximate", "tanh"),),
        integer_result="",
        at=_guarded(lambda x: 0.5 * x * (1.0 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))),
        source=_CUDA + "ActivationGeluKernel.cu",
    ),
    Op(
        "sigmoid",
        "torch.sigmoid",
        "1 / (1 + exp(-x))",
        steps=_WIDE
        + "total = 1.0 + {libdevice}.exp(-wide)\n"
        + "1.0 / total if x.dtype == {tl}.float64 else {tl}.div_rn(1.0, total)",
        at=_guarded(lambda x: 1.0 / (1.0 + _exp(-x))),
        source=_CUDA + "UnarySpecialOpsKernel.cu",
    ),
    Op(
        "silu",
        _NN + "silu",
        "x / (1 + exp(-x))",
        steps=_WIDE
        + "total = 1.0 + {libdevice}.exp(-wide)\n"
        + "wide / total if x.dtype == {tl}.float64 else {tl}.div_rn(wide, total)",
        aliases=("swish",),
        integer_result="",
        at=_guarded(lambda x: x / (1.0 + _exp(-x))),
        nan="stays NaN; -inf becomes NaN, as in torch",
        source=_CUDA + "ActivationSiluKernel.cu",
    ),
    Op(
        "mish",
        _NN + "mish",
        "x * tanh(log(1 + exp(x)))",
        steps=_WIDE
        + "grown = {libdevice}.exp(wide)\n"
        + f"softplus = {_denormals_kept('grown', 'log1p')}\n"
        + f"wide * {_denormals_kept('softplus', 'tanh')}",
        integer_result="",
        at=_guarded(lambda x: x * math.tanh(math.log1p(_exp(x)))),
        differs=_LOG1P,
        source=_CUDA + "ActivationMishKernel.cu",
    ),
    Op(
        "softplus",
        _NN + "softplus",
        "log(1 + exp(beta * x)) / beta, x itself where beta * x > threshold",
        steps=_WIDE
        + "grown = {libdevice}.exp(wide * beta)\n"
        + f"bent = {_denormals_kept('grown', 'log1p')}\n"
        + "curve = bent / beta if x.dtype == {tl}.float64 else {tl}.div_rn(bent, beta)\n"
        + "{tl}.where(wide * beta > threshold, wide, curve)",
        parameters=(Parameter("beta", 1.0, divides=True), Parameter("threshold", 20.0)),
        integer_result="",
        at=_guarded(lambda x, beta, threshold: x if x * beta > threshold else math.log1p(_exp(x * beta)) / beta),
        differs=_LOG1P,
        source=_CUDA + "ActivationSoftplusKernel.cu",
    ),
    Op(
        "logsigmoid",
        _NN + "logsigmoid",
        "log(1 / (1 + exp(-x)))",
        steps=_WIDE
        + "decayed = {libdevice}.exp(-{tl}.abs(wide))\n"
        + f"bent = {_denormals_kept('decayed', 'log1p')}\n"
        + "{tl}.minimum(wide, 0.0) - bent",
        aliases=("log_sigmoid",),
        integer_result="",
        at=_guarded(lambda x: (0.0 if x >= 0 else x) - math.log1p(_exp(-abs(x)))),
        differs=_LOG1P,
        source=_CUDA + "ActivationLogSigmoidKernel.cu",
    ),
    Op(
        "hardswish",
        _NN + "hardswish",
        "x * min(max(x + 3, 0), 6) / 6",
        steps=_WIDE + "gate = {tl}.minimum({tl}.maximum(wide + 3.0, 0.0), 6.0)\n" + f"wide * gate * {_ONE_SIXTH}",
        integer_result="",
        at=_guarded(lambda x: x * _clamp(x + 3.0, 0.0, 6.0) / 6.0),
        float32_constants=True,
        source=_CUDA + "ActivationHardswishKernel.cu",
    ),
    Op(
        "hardsigmoid",
        _NN + "hardsigmoid",
        "min(max(x + 3, 0), 6) / 6",
        steps=_WIDE
        + "gate = {tl}.maximum(wide + 3.0, 0.0, "
        + _NAN
        + ")\n"
        + "gate = {tl}.minimum(gate, 6.0, "
        + _NAN
        + ")\n"
        + f"gate * {_ONE_SIXTH}",
        integer_result="",
        at=_guarded(lambda x: _clamp(x + 3.0, 0.0, 6.0) / 6.0),
        float32_constants=True,
        source=_CUDA + "ActivationHardsigmoidKernel.cu",
    ),
    Op(
        "softsign",
        _NN + "softsign",
        "x / (1 + |x|)",
        steps=_WIDE
        + "total = ({tl}.abs(wide) + 1.0).to(x.dtype).to(wide.dtype)\n"
        + "wide / total if x.dtype == {tl}.float64 else {tl}.div_rn(wide, total)",
        at=_guarded(lambda x: x / (1.0 + abs(x))),
        stepwise=True,
        nan="stays NaN; infinities become NaN, as in torch",
        source="torch/nn/functional.py: input / (input.abs() + 1)",
    ),
    Op(
        "tanhshrink",
        _NN + "tanhshrink",
        "x - tanh(x)",
        steps=_WIDE + f"bent = {_denormals_kept('wide', 'tanh')}.to(x.dtype)\n" + "wide - bent.to(wide.dtype)",
        at=_guarded(lambda x: x - math.tanh(x)),
        stepwise=True,
        source="torch/nn/functional.py: input - input.tanh()",
    ),
    # ---- elementary functions
    Op(
        "tanh",
        "torch.tanh",
        "tanh(x)",
        steps=_WIDE + _denormals_kept("wide", "tanh"),
        at=_guarded(math.tanh),
        source=_CUDA + "UnaryGeometricTanhKernel.cu",
    ),
    Op(
        "exp",
        "torch.exp",
        "e**x",
        steps=_WIDE + "{libdevice}.exp(wide)",
        at=_guarded(_exp),
        source=_CUDA + "UnaryOpsKernel.cu",
    ),
    Op(
        "exp2",
        "torch.exp2",
        "2**x",
        steps=_WIDE
        + "result = {libdevice}.exp2(wide)\n"
        + "if x.dtype != {tl}.float64:\n"
        + "    root = {libdevice}.exp2(wide * 0.5)\n"
        + "    result = {tl}.where(wide < -126.0, root * root, result)\n"
        + "result",
        at=_guarded(lambda x: 2.0**x),
        source=_CUDA + "UnaryOpsKernel.cu",
    ),
    Op(
        "expm1",
        "torch.expm1",
        "e**x - 1",
        steps=_WIDE + _denormals_kept("wide", "expm1"),
        at=_guarded(math.expm1),
        source=_CUDA + "UnaryOpsKernel.cu",
    ),
    Op(
        "log",
        "torch.log",
        "the natural logarithm",
        steps=_WIDE + "{libdevice}.log(wide)",
        at=_guarded(lambda x: -math.inf if x == 0.0 else math.log(x)),
        nan="stays NaN; negative x becomes NaN",
        source=_CUDA + "UnaryLogKernels.cu",
    ),
    Op(
        "log2",
        "torch.log2",
        "the base-2 logarithm",
        steps=_WIDE + "{libdevice}.log2(wide)",
        at=_guarded(lambda x: -math.inf if x == 0.0 else math.log2(x)),
        nan="stays NaN; negative x becomes NaN",
        source=_CUDA + "UnaryLogKernels.cu",
    ),
    Op(
        "log1p",
        "torch.log1p",
        "log(1 + x)",
        steps=_WIDE + _denormals_kept("wide", "log1p"),
        at=_guarded(lambda x: -math.inf if x == -1.0 else math.log1p(x)),
        nan="stays NaN; x below -1 becomes NaN",
        differs=_LOG1P,
        source=_CUDA + "UnaryLogKernels.cu",
    ),
    Op(
        "sqrt",
        "torch.sqrt",
        "the square root, correctly rounded",
        steps=_WIDE + "{tl}.sqrt(wide) if x.dtype == {tl}.float64 else {tl}.sqrt_rn(wide)",
        at=_guarded(lambda x: x if x == 0.0 else math.sqrt(x)),
        nan="stays NaN; negative x becomes NaN, -0.0 stays",
        source=_CUDA + "UnaryOpsKernel.cu",
    ),
    Op(
        "rsqrt",
        "torch.rsqrt",
        "1 / sqrt(x)",
        steps=_WIDE
        + "result = {libdevice}.rsqrt(wide)\n"
        + "if x.dtype != {tl}.float64:\n"
        + "    scaled = {libdevice}.rsqrt(wide * 16777216.0)\n"
        + f"    result = {{tl}}.where({{tl}}.abs(wide) < {_SMALLEST_NORMAL}, scaled * 4096.0, result)\n"
        + "result",
        at=_guarded(lambda x: math.copysign(math.inf, x) if x == 0.0 else 1.0 / math.sqrt(x)),
        nan="stays NaN; negative x becomes NaN",
        source=_CUDA + "UnaryOpsKernel.cu",
    ),
    Op(
        "reciprocal",
        "torch.reciprocal",
        "1 / x",
        steps=_WIDE + "1.0 / wide if x.dtype == {tl}.float64 else {tl}.div_rn(1.0, wide)",
        at=_guarded(lambda x: math.copysign(math.inf, x) if x == 0.0 else 1.0 / x),
        source=_CUDA + "UnaryFractionKernels.cu",
    ),
    Op(
        "sin",
        "torch.sin",
        "sin(x)",
        steps=_WIDE + _denormals_kept("wide", "sin"),
        at=_guarded(math.sin),
        nan="stays NaN; infinities become NaN",
        source=_CUDA + "UnaryGeometricSinKernel.cu",
    ),
    Op(
        "cos",
        "torch.cos",
        "cos(x)",
        steps=_WIDE + "{libdevice}.cos(wide)",
        at=_guarded(math.cos),
        nan="stays NaN; infinities become NaN",
        source=_CUDA + "UnaryGeometricCosKernel.cu",
    ),
    Op(
        "tan",
        "torch.tan",
        "tan(x)",
        steps=_WIDE + _denormals_kept("wide", "tan"),
        at=_guarded(math.tan),
        nan="stays NaN; infinities become NaN",
        source=_CUDA + "UnaryGeometricTanKernel.cu",
    ),
    Op(
        "erf",
        "torch.erf",
        "the error function",
        steps=_WIDE
        + "result = {libdevice}.erf(wide)\n"
        + "if x.dtype != {tl}.float64:\n"
        + f"    tiny = {{tl}}.abs(wide) < {_SMALLEST_NORMAL}\n"
        + "    result = {tl}.where(tiny, wide * 1.1283791670955126, result)\n"
        + "result",
        at=_guarded(math.erf),
        differs=f"float32: {_ERF}",
        source=_CUDA + "UnarySpecialOpsKernel.cu",
    ),
    Op(
        "frac",
        "torch.frac",
        "x - trunc(x)",
        steps=_WIDE + "wide - {libdevice}.trunc(wide)",
        integer_result="",
        at=_guarded(lambda x: math.nan if math.isinf(x) else math.fmod(x, 1.0) + 0.0),
        exact=True,
        nan="stays NaN; infinities become NaN",
        source=_CUDA + "UnaryFractionKernels.cu",
    ),
)

OPS: Mapping[str, Op] = {row.name: row for row in _ROWS}
ALIASES: Mapping[str, str] = {alias: row.name for row in _ROWS for alias in row.aliases}
