"""Element types: their names in torch, Triton and TTIR, their classes, and how torch and Triton promote them.

A type is torch's name ("float16"), or one of `NUMBERS` for a Python number, which takes part in torch's promotion by
its category alone.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterable, Mapping


class ElementClass(enum.Enum):
    """The element types of a buffer, as far as the meaning of an op depends on them."""

    FLOAT = "float"
    SIGNED = "signed integer"
    UNSIGNED = "unsigned integer"
    BOOL = "bool"


FLOAT_ONLY = frozenset({ElementClass.FLOAT})
NUMERIC = frozenset({ElementClass.FLOAT, ElementClass.SIGNED, ElementClass.UNSIGNED})
INTEGRAL = frozenset({ElementClass.SIGNED, ElementClass.UNSIGNED, ElementClass.BOOL})
ANY = NUMERIC | {ElementClass.BOOL}

BITS: Mapping[str, int] = {
    **{"bool": 1, "uint8": 8, "int8": 8, "int16": 16, "int32": 32, "int64": 64},
    **{"float8_e4m3fn": 8, "float8_e5m2": 8, "float16": 16, "bfloat16": 16, "float32": 32, "float64": 64},
}

FLOAT8 = frozenset({"float8_e4m3fn", "float8_e5m2"})
"""Types torch converts to and from and does not compute with."""

COMPUTABLE = tuple(name for name in BITS if name not in FLOAT8)

_NAMES: Mapping[str, str] = {
    **{name: name for name in BITS},
    **dict.fromkeys(("fp16", "f16", "half"), "float16"),
    **dict.fromkeys(("bf16",), "bfloat16"),
    **dict.fromkeys(("fp32", "f32", "float"), "float32"),
    **dict.fromkeys(("fp64", "f64", "double"), "float64"),
    **dict.fromkeys(("i1", "u1", "int1"), "bool"),
    **dict.fromkeys(("u8", "byte"), "uint8"),
    **{"i8": "int8", "i16": "int16", "i32": "int32", "i64": "int64", "short": "int16", "int": "int32", "long": "int64"},
    **dict.fromkeys(("fp8e4nv", "float8e4nv", "f8E4M3FN", "e4m3", "fp8", "float8"), "float8_e4m3fn"),
    **dict.fromkeys(("fp8e5", "float8e5", "f8E5M2", "e5m2"), "float8_e5m2"),
}

_TRITON_NAMES: Mapping[str, str] = {"bool": "int1", "float8_e4m3fn": "float8e4nv", "float8_e5m2": "float8e5"}

PYTHON_FLOAT, PYTHON_INT, PYTHON_BOOL = NUMBERS = ("a Python float", "a Python int", "a Python bool")


def torch_name(dtype: str) -> str | None:
    """`fp16`, `f16`, `half` -> `float16`: torch's name of a Triton, TTIR or torch element type; None for a type that the
    language does not know."""
    return _NAMES.get(dtype)


def triton_name(dtype: str) -> str:
    """The attribute of `triton.language` for a torch type: `bool` -> `int1`."""
    return _TRITON_NAMES.get(dtype, dtype)


def is_number(kind: str) -> bool:
    """Whether a type is that of a Python number."""
    return kind in NUMBERS


def is_float(kind: str) -> bool:
    return kind == PYTHON_FLOAT or kind.startswith(("float", "bfloat"))


def element_class(dtype: str) -> ElementClass | None:
    """The class of a Triton, TTIR or torch element type name; None for those torch has (almost) no arithmetic on: the
    8-bit floats and the unsigned integers wider than 8 bits."""
    name = torch_name(dtype)
    if name is None or name in FLOAT8:
        return None
    if is_float(name):
        return ElementClass.FLOAT
    return {"bool": ElementClass.BOOL, "uint8": ElementClass.UNSIGNED}.get(name, ElementClass.SIGNED)


def integer_range(dtype: str) -> tuple[int, int]:
    """The least and the greatest value of an integer type."""
    name = torch_name(dtype) or ""
    if name == "bool":
        return 0, 1
    bits = BITS[name]
    return (0, 2**bits - 1) if name == "uint8" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


# ----------------------------------------------------------------------------------------------------------- promotion


def category(kind: str) -> int:
    """0 for bool, 1 for an integer, 2 for a float."""
    if is_float(kind):
        return 2
    return 0 if kind in ("bool", PYTHON_BOOL) else 1


def promoted(kinds: Iterable[str]) -> str | None:
    """torch.result_type of tensors and numbers: one of theirs, or a wider type; None where torch has none (the 8-bit
    floats). Numbers alone stay a number."""
    kinds = tuple(kinds)
    tensors = [kind for kind in kinds if not is_number(kind)]
    numbers = [kind for kind in kinds if is_number(kind)]
    if not tensors:
        return max(numbers, key=category)
    result = functools.reduce(lambda left, right: left and _promoted_tensors(left, right), tensors)
    if not result or not numbers:
        return result or None
    strongest = max(map(category, numbers))
    if strongest <= category(result):
        return result
    return "float32" if strongest == 2 else "int64"


def _promoted_tensors(left: str, right: str) -> str:
    if left == right:
        return left
    if FLOAT8 & {left, right}:
        other = right if left in FLOAT8 else left
        return "" if is_float(other) else left if left in FLOAT8 else right
    if category(left) != category(right):
        return max(left, right, key=category)
    if category(left) == 2:
        return "float32" if BITS[left] == BITS[right] else max(left, right, key=BITS.__getitem__)
    if {left, right} == {"uint8", "int8"}:
        return "int16"
    return max(left, right, key=BITS.__getitem__)


def triton_promoted(left: str, right: str) -> str:
    """The type in which Triton computes `left op right`, for + - * and comparisons, by its own rules. At least one is a
    tensor; the number stands for a literal. "" where either is "", a type that is not asked about."""
    if not left or not right:
        return ""
    if is_number(left) != is_number(right):
        number, tensor = (left, right) if is_number(left) else (right, left)
        if category(number) <= category(tensor):
            return tensor
        left, right = tensor, "float32" if number == PYTHON_FLOAT else "int32"
    kinds = {left, right}
    for wide in ("float64", "float32", "float16"):
        if wide in kinds:
            return wide
    if "bfloat16" in kinds:
        return "bfloat16" if kinds == {"bfloat16"} else "float32"
    unsigned = {"bool", "uint8"}
    if (left in unsigned) == (right in unsigned):
        return max(left, right, key=BITS.__getitem__)
    loose, signed = (left, right) if left in unsigned else (right, left)
    return loose if BITS[loose] >= BITS[signed] else signed
