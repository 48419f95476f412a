"""What a row of the op table is, and what rows are made of.

A row gives the torch meaning (`torch`, `infix`, `fixed`, `parameters`), the Triton spelling (`inline` and/or `steps`), the
element classes it is defined for, the type of its result, and its behaviour on rounding, NaN and fill values.

Templates are `str.format` texts over the operands' names (`{x}`, in `inline` only; `steps` use the helper's own `x`),
`{tl}` and `{libdevice}`. In `steps`, `wide` is x in the type torch computes in: float32 for the 16-bit types, x's own
otherwise.
"""

from __future__ import annotations

import enum
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kernel_rewrite.pointwise.element_types import FLOAT_ONLY, ElementClass, integer_range

# ---------------------------------------------------------------------------------------------------------------- rows


class ArgumentKind(enum.Enum):
    NUMBER = "a number"
    CHOICE = "one of a few words"
    DTYPE = "an element type"


REQUIRED = object()
"""The default of a parameter that must be given."""

Arguments = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of an op beside its operands. `torch_name` is its keyword in torch when that differs."""

    name: str
    default: Any = REQUIRED
    kind: ArgumentKind = ArgumentKind.NUMBER
    choices: tuple[str, ...] = ()
    torch_name: str = ""
    optional: bool = False  # None is a value of it
    divides: bool = False  # zero is no value of it


class Result(enum.Enum):
    """The element type of what torch returns."""

    PROMOTED = "the operands' types, promoted"
    FLOAT = "the operands' types, promoted; float32 for integers"
    BOOL = "bool"
    SELECTED = "the types of the operands after the first, promoted"
    ARGUMENT = "the type that is given"


class Numbers(enum.Enum):
    """What torch makes of a Python number among the operands."""

    REJECTED = "torch wants a tensor"
    WIDE = "computed with in float32 beside a 16-bit tensor"
    ROUNDED = "rounded to the tensor's type first"


@dataclass(frozen=True, slots=True)
class Op:
    """One op.

    `torch` is the dotted torch function, called as f(*operands, **parameters, **fixed); `infix` the operator that means
    the same. `inline` is the expression for use in the store itself; `steps` the body of the helper function, whose last
    line is the value (without `return`); an op has an inline form when its spelling is short and mentions each operand
    once. `keeps_dtype` says that the inline form has the result's type for every element type; one that has not
    (`tl.maximum` widens bfloat16 and int8) becomes a helper when it is not outermost. `at` is the op's value at Python
    floats, None where it is not known; `exact` says that the op never rounds. `classes` are the element classes whose
    torch result has the type of the input (for several operands: the classes of the promoted type). `product` says that
    the value may be a product, which a sum that follows would swallow into one rounding; `adds` that x itself is added
    to. `differs` is what measuring found (docs/numerics.md).
    """

    name: str
    torch: str
    formula: str
    steps: str = ""
    inline: str = ""
    infix: str = ""
    operands: tuple[str, ...] = ("x",)
    numbers: Numbers = Numbers.REJECTED
    result: Result = Result.PROMOTED
    unified: bool = True  # the spelling wants its operands in one type
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
    at: Callable[..., float | None] = lambda *values, **arguments: None
    exact: bool = False
    stepwise: bool = False  # torch computes it from several ops, each of which rounds
    float32_constants: bool = False  # torch's CUDA kernel has its constants as float32, in float64 too
    product: bool = False
    adds: bool = False
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


def guarded(function: Callable[..., float]) -> Callable[..., float]:
    """`function` with IEEE results where Python raises: NaN for a domain error, infinity for an overflow."""

    def at(x: float, **arguments: Any) -> float:
        try:
            return float(function(x, **arguments))
        except OverflowError:
            return math.inf
        except (ValueError, ZeroDivisionError):
            return math.nan

    return at


def exp(x: float) -> float:
    return math.inf if x > 709.0 else math.exp(x)


def maximum(x: float, bound: float) -> float:
    """max as the GPU does it: NaN stays, +0 is above -0."""
    if math.isnan(x) or (x == bound == 0.0 and math.copysign(1.0, bound) < 0.0):
        return x
    return x if x > bound else float(bound)


def minimum(x: float, bound: float) -> float:
    return -maximum(-x, -bound)


def clamp(x: float, low: float, high: float) -> float:
    return minimum(maximum(x, low), high)


def elu(x: float, alpha: float = 1.0) -> float:
    return x if x > 0.0 else alpha * math.expm1(x)


def integral(function: Callable[[float], float]) -> Callable[..., float]:
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


def always(arguments: Arguments) -> bool:
    return True


def bounds(arguments: Arguments) -> tuple[Any, ...]:
    return tuple(v for v in arguments.values() if v is not None)


def bounds_are_exact(arguments: Arguments) -> bool:
    """Rounding is monotone, so it commutes with a clamp whose bounds it leaves alone."""
    return all(representable_everywhere(float(b)) and not same_value(float(b), -0.0) for b in bounds(arguments))


def integer_bounds(promotes: bool) -> Callable[[Arguments, ElementClass, str], str]:
    """On integers a bound must be an integer of the element type; `promotes` says what torch does with a float one."""

    def reason(arguments: Arguments, kind: ElementClass, dtype: str) -> str:
        if kind is ElementClass.FLOAT:
            return ""
        if promotes and any(isinstance(b, float) for b in bounds(arguments)):
            return "a bound written as a float makes torch's result float32; write the bounds as integers"
        least, most = integer_range(dtype)
        outside = [b for b in bounds(arguments) if isinstance(b, float) or not least <= b <= most]
        return f"the bound {outside[0]} is not a value of {dtype}" if outside else ""

    return reason


# ------------------------------------------------------------------------------------------ what spellings are made of

WIDE = "wide = x if x.dtype.primitive_bitwidth >= 32 else x.to({tl}.float32)\n"
NAN = "propagate_nan={tl}.PropagateNan.ALL"
# libdevice is compiled to flush float32 denormals inside Triton; torch's CUDA build keeps them.
SMALLEST_NORMAL = "1.1754943508222875e-38"

NN = "torch.nn.functional."
CUDA = "aten/src/ATen/native/cuda/"
