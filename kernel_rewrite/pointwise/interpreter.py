"""libdevice, exactly rounded operations and bfloat16 for Triton's interpreter, which has none of them right.

Under TRITON_INTERPRET=1 a libdevice function is an empty stub or an error, `tl.fma` rounds twice, `tl.maximum` keeps
NaN whether asked to or not, and bfloat16 is a uint16 that casts truncate to and arithmetic takes for an integer.
`stand_ins()` puts functions in their places: float32 is computed in float64 and rounded once, so nearly every result is
the correctly rounded one (the GPU's own functions are within a few units in the last place of it); float64 is computed
by numpy as it stands; bfloat16 is computed in float32 and rounded to nearest even.

For `verify` and tests; nothing of `fuse` runs kernels.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

Array = Any  # numpy.ndarray; its type parameters say nothing here


def _scalar(function: Callable[..., float]) -> Callable[..., Array]:
    """`function` of Python floats over arrays."""

    def guarded(*values: float) -> float:
        try:
            return float(function(*(float(v) for v in values)))
        except OverflowError:
            return math.inf
        except (ValueError, ZeroDivisionError):
            return math.nan

    return np.vectorize(guarded, otypes=[np.float64])


def _reciprocal(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda x: 1.0 / function(x)


def _round_half_away(x: Array) -> Array:
    return np.copysign(np.floor(np.abs(x) + 0.5), x)


# Functions of float64 arrays; a float32 argument is widened first and its result rounded back.
FUNCTIONS: Mapping[str, Callable[..., Array]] = {
    **{
        name: getattr(np, numpy_name)
        for name, numpy_name in {
            **{n: n for n in ("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "cbrt", "hypot")},
            **{n: n for n in ("sin", "cos", "tan", "sinh", "cosh", "tanh", "floor", "ceil", "trunc", "rint")},
            **{f"a{n}": f"arc{n}" for n in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
            **{"atan2": "arctan2", "abs": "abs", "nearbyint": "rint", "fmax": "fmax", "fmin": "fmin"},
            **{"pow": "power", "fmod": "fmod", "copysign": "copysign", "nextafter": "nextafter"},
            **{"fast_expf": "exp", "fast_logf": "log", "fast_log2f": "log2", "fast_log10f": "log10"},
            **{"fast_sinf": "sin", "fast_cosf": "cos", "fast_tanf": "tan", "fast_tanhf": "tanh", "fast_powf": "power"},
            **{"div_rn": "divide", "fast_dividef": "divide", "sqrt_rn": "sqrt", "ldexp": "ldexp"},
            **{"add_rn": "add", "sub_rn": "subtract", "mul_rn": "multiply"},
        }.items()
    },
    "erf": _scalar(math.erf),
    "erfc": _scalar(math.erfc),
    "lgamma": _scalar(math.lgamma),
    "tgamma": _scalar(math.gamma),
    "exp10": lambda x: np.power(10.0, x),
    "fast_exp10f": lambda x: np.power(10.0, x),
    "rsqrt": _reciprocal(np.sqrt),
    "rsqrt_rn": _reciprocal(np.sqrt),
    "rcbrt": _reciprocal(np.cbrt),
    "rcp_rn": lambda x: 1.0 / x,
    "round": _round_half_away,
    "sinpi": lambda x: np.sin(np.pi * x),
    "cospi": lambda x: np.cos(np.pi * x),
    "saturatef": lambda x: np.clip(np.nan_to_num(x, nan=0.0), 0.0, 1.0),
}

PREDICATES: Mapping[str, Callable[[Array], Array]] = {
    "isnan": np.isnan,
    "isinf": np.isinf,
    "isnand": np.isnan,
    "isinfd": np.isinf,
    "finitef": np.isfinite,
    "isfinited": np.isfinite,
    "signbit": np.signbit,
}


def fused_multiply_add(x: Array, y: Array, z: Array) -> Array:
    """x * y + z rounded once. float32: exact (the sum is rounded to odd in float64 first); float64: through the
    widest type numpy has."""
    if x.dtype == np.float32:
        product = x.astype(np.float64) * y.astype(np.float64)  # exact: 48 bits
        addend = z.astype(np.float64)
        total = product + addend
        back = total - product
        error = (product - (total - back)) + (addend - back)
        inexact = np.isfinite(total) & (error != 0.0)
        even = (total.view(np.int64) & 1) == 0
        toward = np.where(error > 0.0, np.inf, -np.inf)
        return np.where(inexact & even, np.nextafter(total, toward), total).astype(np.float32)
    if x.dtype == np.float64:
        wide = np.longdouble
        return (x.astype(wide) * y.astype(wide) + z.astype(wide)).astype(np.float64)
    return (x.astype(np.float64) * y.astype(np.float64) + z.astype(np.float64)).astype(x.dtype)


def maximum(x: Array, y: Array) -> Array:
    """IEEE 754-2019 maximum, as `max.NaN` on the GPU: NaN stays and +0 is above -0."""
    zeros = (x == 0) & (y == 0)
    return np.where(zeros, np.where(np.signbit(x) & np.signbit(y), x, np.zeros_like(x)), np.maximum(x, y))


def minimum(x: Array, y: Array) -> Array:
    """IEEE 754-2019 minimum."""
    return -maximum(-x, -y)


def bfloat16_to_float32(bits: Array) -> Array:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def float32_to_bfloat16(values: Array) -> Array:
    """The bits of `values` rounded to nearest even."""
    values = np.ascontiguousarray(values, dtype=np.float32)
    bits = values.view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0) | ((bits >> 16) & 0x8000).astype(np.uint16), rounded)


def _float8_values(name: str) -> Array:
    """The finite values of an 8-bit float from 0 upwards, by code."""
    if name == "fp8e5":
        return (np.arange(0x7C, dtype=np.uint16) << 8).view(np.float16).astype(np.float64)
    codes = np.arange(0x7F)
    exponent, mantissa = codes >> 3, codes & 7
    return np.where(exponent == 0, mantissa * 2.0**-9, (1 + mantissa / 8) * 2.0 ** (exponent - 7.0))


def float_to_float8(values: Array, name: str) -> Array:
    """The codes of `values` in "fp8e4nv" or "fp8e5", as the GPU's instruction gives them: rounded to nearest even, and the
    largest finite value for what is above it, infinity too."""
    table = _float8_values(name)
    middles = (table[:-1] + table[1:]) / 2
    size = np.abs(values.astype(np.float64))
    code = np.searchsorted(middles, size)
    tie = size == middles[np.minimum(code, len(middles) - 1)]
    code = np.where(tie & (code < len(middles)) & (code % 2 == 1), code + 1, code)
    code = np.where(np.isnan(size), 0x7F, code)
    return (code | np.where(np.signbit(values), 0x80, 0)).astype(np.uint8)


def _rounded(function: Callable[..., Array]) -> Callable[..., Array]:
    """`function` computed in float64 and rounded to the type of its first argument."""

    def rounded(*arguments: Array) -> Array:
        with np.errstate(all="ignore"):
            result = function(*(a.astype(np.float64) if a.dtype == np.float32 else a for a in arguments))
            return np.asarray(result).astype(arguments[0].dtype)

    return rounded


def _libdevice_stand_in(function: Callable[..., Array], *, predicate: bool) -> Callable[..., Any]:
    """A function of interpreter tensors and Python numbers in the place of a libdevice function."""
    compute = function if predicate else _rounded(function)

    def stand_in(*arguments: Any, _semantic: Any = None, **ignored: Any) -> Any:
        import triton.language as tl
        from triton.runtime.interpreter import TensorHandle

        tensors = [a for a in arguments if isinstance(a, tl.tensor)]
        if not tensors:
            raise TypeError("a libdevice function needs a tensor")
        like = tensors[0].handle.data.dtype
        arrays = [
            a.handle.data if isinstance(a, tl.tensor) else np.asarray(getattr(a, "value", a), dtype=like)
            for a in arguments
        ]
        result = np.asarray(compute(*np.broadcast_arrays(*arrays)))
        element = tl.int32 if predicate else tensors[0].type.scalar
        kind = tl.block_type(element, list(result.shape)) if tensors[0].type.is_block() else element
        return tl.tensor(TensorHandle(result.astype(np.int32) if predicate else result, element), kind)

    return stand_in


def _operation_stand_ins() -> dict[str, Callable[..., Any]]:
    """Methods of the interpreter's builder for single operations."""
    from triton.runtime.interpreter import TensorHandle

    def unary(name: str) -> Callable[..., Any]:
        compute = _rounded(FUNCTIONS[name])
        return lambda self, arg: TensorHandle(compute(arg.data), arg.dtype.scalar)

    def binary(compute: Callable[..., Array]) -> Callable[..., Any]:
        return lambda self, left, right: self.binary_op(left, right, compute)

    def fma(self: Any, x: Any, y: Any, z: Any) -> Any:
        with np.errstate(all="ignore"):
            return TensorHandle(fused_multiply_add(x.data, y.data, z.data), z.dtype.scalar)

    names = {f"create_{n}": unary(n) for n in ("exp", "exp2", "log", "log2", "sin", "cos", "sqrt", "rsqrt", "erf")}
    return names | {
        "create_precise_sqrt": unary("sqrt"),
        "create_precise_divf": binary(_rounded(np.divide)),
        "create_fma": fma,
        "create_maximumf": binary(maximum),
        "create_minimumf": binary(minimum),
        "create_maxnumf": binary(np.fmax),
        "create_minnumf": binary(np.fmin),
    }


def _bfloat16_stand_ins() -> dict[str, Callable[..., Any]]:
    """Methods of the interpreter's builder that take a bfloat16 for the uint16 it is stored in."""
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    original_binary_op, original_cast = InterpreterBuilder.binary_op, InterpreterBuilder.cast_impl
    original_fp_to_fp, original_dot = InterpreterBuilder.create_fp_to_fp, InterpreterBuilder.create_dot
    ordinary = (tl.float16, tl.bfloat16, tl.float32, tl.float64)

    def widened(handle: Any) -> Any:
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        return TensorHandle(bfloat16_to_float32(handle.data), tl.float32)

    def narrowed(data: Array) -> Any:
        return TensorHandle(float32_to_bfloat16(data), tl.bfloat16)

    def binary_op(self: Any, left: Any, right: Any, operation: Callable[..., Array]) -> Any:
        with np.errstate(all="ignore"):
            if left.dtype.scalar != tl.bfloat16:
                return original_binary_op(self, left, right, operation)
            data = operation(widened(left).data, widened(right).data)
        return TensorHandle(data, tl.int1) if data.dtype == np.bool_ else narrowed(data)

    def cast_impl(self: Any, source: Any, kind: Any) -> Any:
        with np.errstate(all="ignore"):
            source = widened(source)
            if kind.scalar == tl.bfloat16:
                return narrowed(source.data.astype(np.float32))
            return original_cast(self, source, kind)

    def fp_to_fp(self: Any, source: Any, kind: Any, rounding: Any) -> Any:
        nearest = rounding is None or "RTNE" in str(rounding)
        if nearest and source.dtype.scalar in ordinary and str(kind.scalar) in ("fp8e4nv", "fp8e5"):
            return TensorHandle(float_to_float8(widened(source).data, str(kind.scalar)), kind.scalar)
        if nearest and source.dtype.scalar in ordinary and kind.scalar in ordinary:
            return cast_impl(self, source, kind)
        return original_fp_to_fp(self, source, kind, rounding)

    def dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return original_dot(self, widened(a), widened(b), *rest)

    return {
        "binary_op": binary_op,
        "cast_impl": cast_impl,
        "create_fp_to_fp": fp_to_fp,
        "create_dot": dot,
        "get_bf16": lambda self, value: narrowed(np.array([value], dtype=np.float32)),
    }


def _float_arguments(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`convert`, which makes tensors of a kernel's arguments, for floats too: a compiled kernel gets them as float32, and
    the interpreter leaves them Python numbers, which promote in another way."""
    import triton.language as tl
    from triton.runtime.interpreter import TensorHandle

    def converted(argument: Any) -> Any:
        if type(argument) is float:
            return tl.tensor(TensorHandle(np.array([argument], dtype=np.float32), tl.float32), tl.float32)
        return convert(argument)

    return converted


@contextlib.contextmanager
def stand_ins() -> Iterator[None]:
    """Kernels launched inside run with libdevice and correctly rounded operations; put back afterwards.

    Import the module that holds the kernels inside too: `from ...libdevice import exp` binds at import.
    """
    from triton.language.extra import libdevice
    from triton.language.extra.cuda import libdevice as cuda_libdevice
    from triton.runtime import interpreter
    from triton.runtime.interpreter import InterpreterBuilder

    functions = {name: _libdevice_stand_in(f, predicate=False) for name, f in FUNCTIONS.items()}
    functions |= {name: _libdevice_stand_in(f, predicate=True) for name, f in PREDICATES.items()}
    places: list[tuple[Any, str, Any]] = [
        (module, name, function)
        for module in (libdevice, cuda_libdevice)
        for name, function in functions.items()
        if hasattr(module, name)
    ]
    places += [(InterpreterBuilder, name, f) for name, f in (_operation_stand_ins() | _bfloat16_stand_ins()).items()]
    places.append((interpreter, "_implicit_cvt", _float_arguments(interpreter._implicit_cvt)))
    previous = [(place, name, place.__dict__.get(name)) for place, name, _ in places]
    for place, name, function in places:
        setattr(place, name, function)
    try:
        yield
    finally:
        for place, name, function in previous:
            if function is None:
                delattr(place, name)
            else:
                setattr(place, name, function)
