"""The value of an expression that needs no code of the user to run: literals, arithmetic on them, and a few functions
whose meaning is fixed."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kernel_rewrite.model import Constant, Dtype, FunctionRef, TritonObject
from kernel_rewrite.source.texts import NotComputable, computed

MAX_DEPTH = 100
MAX_BITS = 4096
MAX_LENGTH = 10_000


class NotFoldable(Exception):
    """The expression has no value that can be known without running code; the message says why."""

    @property
    def reason(self) -> str:
        return str(self)


@dataclass(frozen=True, slots=True)
class External:
    """An object of a library that is neither triton nor part of the project, by its full name: `torch.float16`."""

    dotted: str


@dataclass(frozen=True, slots=True)
class Assumed:
    """A value that the machine decides when the code runs, as it is on a CUDA machine with a current triton. Given for
    a name, it is the value of the name, and of a call of it without arguments."""

    value: object


# What a name or dotted name means; None for a name that nothing in the file binds (a builtin, or an error).
Lookup = Callable[[ast.expr], object]


def fold(node: ast.expr, lookup: Lookup) -> object:
    """The value of `node`: None, bool, int, float, str, `Dtype`, `FunctionRef`, or a tuple, list or dict of these.
    Raises `NotFoldable`."""
    return fold_constant(node, lookup).value


def fold_constant(node: ast.expr, lookup: Lookup) -> Constant:
    """As `fold`, and says whether Triton would see a `tl.constexpr`. Raises `NotFoldable`."""
    try:
        return _fold(node, lookup, 0)
    except (ArithmeticError, TypeError, ValueError, LookupError, RecursionError) as error:
        raise NotFoldable(f"`{_shown(node)}` fails: {error}") from None


# --------------------------------------------------------------------------------------------------------------- tables

TRITON_DTYPES = frozenset(
    "int1 int8 int16 int32 int64 uint8 uint16 uint32 uint64 float8e5 float8e5b16 float8e4nv float8e4b8 float8e4b15"
    " float16 bfloat16 float32 float64".split()
)

TORCH_DTYPES: Mapping[str, str] = {
    "bool": "int1",
    "int8": "int8",
    "int16": "int16",
    "short": "int16",
    "int32": "int32",
    "int": "int32",
    "int64": "int64",
    "long": "int64",
    "uint8": "uint8",
    "uint16": "uint16",
    "uint32": "uint32",
    "uint64": "uint64",
    "float16": "float16",
    "half": "float16",
    "bfloat16": "bfloat16",
    "float32": "float32",
    "float": "float32",
    "float64": "float64",
    "double": "float64",
    "float8_e5m2": "float8e5",
    "float8_e5m2fnuz": "float8e5b16",
    "float8_e4m3fn": "float8e4nv",
    "float8_e4m3fnuz": "float8e4b8",
}

EXTERNAL_CONSTANTS: Mapping[str, object] = {
    **{f"torch.{name}": Dtype(meaning) for name, meaning in TORCH_DTYPES.items()},
    **{
        f"{module}.{name}": getattr(math, name)
        for module in ("math", "numpy", "torch")
        for name in ("pi", "e", "inf", "nan")
    },
    "math.tau": math.tau,
}

MACHINE_FACTS: Mapping[str, object] = {"torch.version.hip": None, "torch.version.xpu": None}
"""What a CUDA machine answers to questions about itself."""


def _limits(largest: float, epsilon_exponent: int, tiny_exponent: int) -> Mapping[str, float]:
    return {"max": largest, "min": -largest, "eps": 2.0**epsilon_exponent, "tiny": 2.0**tiny_exponent}


_FLOAT_LIMITS: Mapping[str, Mapping[str, float]] = {
    "float16": _limits(65504.0, -10, -14),
    "bfloat16": _limits(2.0**127 * (2 - 2.0**-7), -7, -126),
    "float32": _limits(2.0**127 * (2 - 2.0**-23), -23, -126),
    "float64": _limits(2.0**1023 * (2 - 2.0**-52), -52, -1022),
    "float8e4nv": _limits(448.0, -3, -6),
    "float8e5": _limits(57344.0, -2, -14),
    "float8e4b8": _limits(240.0, -3, -7),
    "float8e5b16": _limits(57344.0, -3, -15),
}

_INTEGER_LIMITS: Mapping[str, Mapping[str, int]] = {
    **{f"int{n}": {"max": 2 ** (n - 1) - 1, "min": -(2 ** (n - 1)), "bits": n} for n in (8, 16, 32, 64)},
    **{f"uint{n}": {"max": 2**n - 1, "min": 0, "bits": n} for n in (8, 16, 32, 64)},
}

_LIMITS: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    f"{module}.{name}": table
    for module in ("torch", "numpy")
    for name, table in (("finfo", _FLOAT_LIMITS), ("iinfo", _INTEGER_LIMITS))
}


def _next_power_of_2(n: int) -> int:
    """As `triton.next_power_of_2`: 0 stays 0, a negative number gives 0."""
    return 1 << (n - 1).bit_length() if n > 0 else 0


def _ceiling_division(x: int, y: int) -> int:
    """As `triton.cdiv`."""
    return (x + y - 1) // y


TRITON_FUNCTIONS: Mapping[str, Callable[..., object]] = {
    "triton.next_power_of_2": _next_power_of_2,
    "triton.cdiv": _ceiling_division,
    "triton.language.cdiv": _ceiling_division,
}

BUILTIN_FUNCTIONS: Mapping[str, Callable[..., object]] = {
    function.__name__: function for function in (min, max, abs, len, int, float, bool, str, round, sum, tuple, list)
}

EXTERNAL_FUNCTIONS: Mapping[str, Callable[..., object]] = {
    f"math.{name}": getattr(math, name) for name in ("sqrt", "log", "log2", "log10", "exp", "ceil", "floor", "gcd")
}

_BINARY: Mapping[type[ast.operator], Callable[[object, object], object]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.BitAnd: operator.and_,
}

_UNARY: Mapping[type[ast.unaryop], Callable[..., object]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Invert: operator.invert,
    ast.Not: operator.not_,
}

_COMPARISON: Mapping[type[ast.cmpop], Callable[..., object]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda item, container: item in container,
    ast.NotIn: lambda item, container: item not in container,
}


# -------------------------------------------------------------------------------------------------------------- folding


def _fold(node: ast.expr, lookup: Lookup, depth: int) -> Constant:
    if depth > MAX_DEPTH:
        raise NotFoldable("the expression is nested too deeply")
    rule = _RULES.get(type(node))
    if rule is None:
        raise NotFoldable(f"`{_shown(node)}` is not a constant expression")
    return rule(node, lookup, depth + 1)


def _literal(node: ast.Constant, lookup: Lookup, depth: int) -> Constant:
    if node.value is None or isinstance(node.value, (bool, int, float, str)):
        return Constant(_bounded(node.value, node))
    raise NotFoldable(f"`{_shown(node)}` is not a value that Triton takes")


def _name(node: ast.Name | ast.Attribute, lookup: Lookup, depth: int) -> Constant:
    meaning = lookup(node)
    if meaning is None and isinstance(node, ast.Attribute):
        return _attribute(node, lookup, depth)
    return _value_of(meaning, node)


def _value_of(meaning: object, node: ast.expr) -> Constant:
    if isinstance(meaning, Constant):
        return meaning
    if isinstance(meaning, FunctionRef):
        return Constant(meaning)
    if isinstance(meaning, Assumed):
        return Constant(meaning.value)
    if isinstance(meaning, TritonObject) and meaning.module == "triton.language" and meaning.attribute in TRITON_DTYPES:
        return Constant(Dtype(meaning.attribute))
    if isinstance(meaning, External) and meaning.dotted in EXTERNAL_CONSTANTS:
        return Constant(EXTERNAL_CONSTANTS[meaning.dotted])
    raise NotFoldable(getattr(meaning, "reason", "") or f"`{_shown(node)}` is not a constant")


def _attribute(node: ast.Attribute, lookup: Lookup, depth: int) -> Constant:
    if isinstance(node.value, ast.Call):
        return _limit(node, node.value, lookup, depth)
    if node.attr == "value":  # BLOCK.value, where BLOCK = tl.constexpr(64)
        owner = _fold(node.value, lookup, depth)
        if owner.constexpr:
            return Constant(owner.value)
    raise NotFoldable(f"`{_shown(node)}` is not a constant")


def _limit(node: ast.Attribute, call: ast.Call, lookup: Lookup, depth: int) -> Constant:
    # torch.finfo(torch.float32).min
    callee = lookup(call.func)
    table = _LIMITS.get(callee.dotted) if isinstance(callee, External) else None
    if table is None or len(call.args) != 1 or call.keywords:
        raise NotFoldable(f"`{_shown(node)}` is not a constant")
    dtype = _fold(call.args[0], lookup, depth).value
    limits = table.get(dtype.name, {}) if isinstance(dtype, Dtype) else {}
    if node.attr not in limits:
        raise NotFoldable(f"`{_shown(node)}` is not a constant")
    return Constant(limits[node.attr])


def _sequence(node: ast.Tuple | ast.List, lookup: Lookup, depth: int) -> Constant:
    values = [_fold(item, lookup, depth).value for item in node.elts]
    return Constant(tuple(values) if isinstance(node, ast.Tuple) else values)


def _dict(node: ast.Dict, lookup: Lookup, depth: int) -> Constant:
    result: dict[object, object] = {}
    for key, value in zip(node.keys, node.values, strict=True):
        if key is None:  # {**other}
            other = _fold(value, lookup, depth).value
            if not isinstance(other, dict):
                raise NotFoldable(f"`{_shown(value)}` is not a dict")
            result.update(other)
        else:
            result[_fold(key, lookup, depth).value] = _fold(value, lookup, depth).value
    return Constant(result)


def _binary(node: ast.BinOp, lookup: Lookup, depth: int) -> Constant:
    left, right = _fold(node.left, lookup, depth), _fold(node.right, lookup, depth)
    operation = _BINARY.get(type(node.op))
    if operation is None:
        raise NotFoldable(f"`{_shown(node)}` is not a constant expression")
    _guard(node.op, left.value, right.value, node)
    value = _bounded(operation(left.value, right.value), node)
    return Constant(value, left.constexpr or right.constexpr)


def _unary(node: ast.UnaryOp, lookup: Lookup, depth: int) -> Constant:
    operand = _fold(node.operand, lookup, depth)
    return Constant(_UNARY[type(node.op)](operand.value), operand.constexpr)


def _boolean(node: ast.BoolOp, lookup: Lookup, depth: int) -> Constant:
    stops_at = isinstance(node.op, ast.Or)
    result = _fold(node.values[0], lookup, depth)
    for value in node.values[1:]:
        if bool(result.value) is stops_at:
            return result
        result = _fold(value, lookup, depth)
    return result


def _compare(node: ast.Compare, lookup: Lookup, depth: int) -> Constant:
    try:
        return _compared(node, lookup, depth)
    except NotFoldable:
        # version.parse(triton.__version__) >= version.parse("3.4.0")
        whole = lookup(node)
        if isinstance(whole, Assumed):
            return Constant(whole.value)
        raise


def _compared(node: ast.Compare, lookup: Lookup, depth: int) -> Constant:
    left = _fold(node.left, lookup, depth)
    constexpr = left.constexpr
    for compare, comparator in zip(node.ops, node.comparators, strict=True):
        right = _fold(comparator, lookup, depth)
        constexpr = constexpr or right.constexpr
        if not _COMPARISON[type(compare)](left.value, right.value):
            return Constant(False, constexpr)
        left = right
    return Constant(True, constexpr)


def _conditional(node: ast.IfExp, lookup: Lookup, depth: int) -> Constant:
    chosen = node.body if _fold(node.test, lookup, depth).value else node.orelse
    return _fold(chosen, lookup, depth)


def _subscript(node: ast.Subscript, lookup: Lookup, depth: int) -> Constant:
    owner = _fold(node.value, lookup, depth).value
    if isinstance(node.slice, ast.Slice) or not isinstance(owner, (tuple, list, dict, str)):
        raise NotFoldable(f"`{_shown(node)}` is not a constant expression")
    return Constant(owner[_fold(node.slice, lookup, depth).value])  # type: ignore[index, call-overload]


def _formatted(node: ast.JoinedStr, lookup: Lookup, depth: int) -> Constant:
    parts = []
    for part in node.values:
        if isinstance(part, ast.FormattedValue):
            value = _fold(part.value, lookup, depth).value
            if part.format_spec is not None or part.conversion != -1 or not isinstance(value, (str, int)):
                raise NotFoldable(f"`{_shown(node)}` is not a constant expression")
            parts.append(str(value))
        else:
            parts.append(str(_fold(part, lookup, depth).value))
    return Constant(_bounded("".join(parts), node))


@dataclass(frozen=True, slots=True)
class HostCode:
    """A plain function of the file: its call can be folded when it only builds a text. `reason` says why not else."""

    node: ast.FunctionDef
    reason: str


def _text_of(node: ast.Call, callee: HostCode, lookup: Lookup, depth: int) -> Constant:
    if node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
        raise NotFoldable(f"`{_shown(node)}` would have to be run")
    arguments = tuple(_fold(argument, lookup, depth).value for argument in node.args)
    try:
        found = computed(callee.node, arguments)
    except NotComputable:
        raise NotFoldable(f"`{_shown(node)}` would have to be run") from None
    if not isinstance(found, (str, int)):
        raise NotFoldable(f"`{_shown(node)}` would have to be run")
    return Constant(_bounded(found, node))


def _call(node: ast.Call, lookup: Lookup, depth: int) -> Constant:
    callee = lookup(node.func)
    if isinstance(callee, TritonObject) and callee.dotted == "triton.language.constexpr":
        return Constant(_only_argument(node, lookup, depth), constexpr=True)
    if isinstance(callee, Assumed) and not node.args and not node.keywords:
        return Constant(callee.value)
    if callee is None and isinstance(node.func, ast.Name) and node.func.id == "hasattr":
        whole = lookup(node)  # hasattr(tl, "gather")
        if isinstance(whole, Assumed):
            return Constant(whole.value)
    if isinstance(callee, HostCode):
        return _text_of(node, callee, lookup, depth)
    function = _function(node.func, callee)
    if function is None and isinstance(node.func, ast.Attribute) and node.func.attr == "bit_length" and not node.args:
        number = _fold(node.func.value, lookup, depth).value  # SIZE.value.bit_length()
        if isinstance(number, int):
            return Constant(number.bit_length())
    if function is None or node.keywords:
        raise NotFoldable(f"`{_shown(node)}` would have to be run")
    if any(isinstance(argument, ast.Starred) for argument in node.args):
        raise NotFoldable(f"`{_shown(node)}` would have to be run")
    arguments = [_fold(argument, lookup, depth).value for argument in node.args]
    return Constant(_bounded(function(*arguments), node))


def _function(func: ast.expr, callee: object) -> Callable[..., object] | None:
    if callee is None:
        return BUILTIN_FUNCTIONS.get(func.id) if isinstance(func, ast.Name) else None
    if isinstance(callee, TritonObject):
        return TRITON_FUNCTIONS.get(callee.dotted)
    return EXTERNAL_FUNCTIONS.get(callee.dotted) if isinstance(callee, External) else None


def _only_argument(node: ast.Call, lookup: Lookup, depth: int) -> object:
    given = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "value")]
    if len(given) != 1 or len(node.args) + len(node.keywords) != 1:
        raise NotFoldable(f"`{_shown(node)}` does not have exactly one argument")
    return _fold(given[0], lookup, depth).value


def _guard(kind: ast.operator, left: object, right: object, node: ast.expr) -> None:
    """Refuses an operation whose result could be huge, before it is computed."""
    if isinstance(kind, ast.Pow) and isinstance(left, int) and isinstance(right, int):
        too_large = abs(right) * max(left.bit_length(), 1) > MAX_BITS
    elif isinstance(kind, ast.LShift) and isinstance(left, int) and isinstance(right, int):
        too_large = left.bit_length() + right > MAX_BITS
    elif isinstance(kind, ast.Mult):
        too_large = _repeated(left, right) > MAX_LENGTH or _repeated(right, left) > MAX_LENGTH
    elif isinstance(kind, ast.Mod):
        too_large = isinstance(left, str)  # "%1000000000d" % 1
    else:
        too_large = False
    if too_large:
        raise NotFoldable(f"`{_shown(node)}` is too large")


def _repeated(sequence: object, times: object) -> int:
    return len(sequence) * times if isinstance(sequence, (str, tuple, list)) and isinstance(times, int) else 0


def _bounded(value: object, node: ast.expr) -> object:
    large = isinstance(value, int) and value.bit_length() > MAX_BITS
    large = large or (isinstance(value, (str, tuple, list)) and len(value) > MAX_LENGTH)
    if large or isinstance(value, complex):
        why = "too large" if large else "not a value that Triton takes"
        raise NotFoldable(f"`{_shown(node)}` is {why}")
    return value


def _shown(node: ast.AST) -> str:
    try:
        text = ast.unparse(node)
    except (RecursionError, ValueError):
        return "..."
    return text if len(text) <= 60 else f"{text[:57]}..."


_RULES: Mapping[type[ast.expr], Callable[..., Constant]] = {
    ast.Constant: _literal,
    ast.Name: _name,
    ast.Attribute: _name,
    ast.Tuple: _sequence,
    ast.List: _sequence,
    ast.Dict: _dict,
    ast.BinOp: _binary,
    ast.UnaryOp: _unary,
    ast.BoolOp: _boolean,
    ast.Compare: _compare,
    ast.IfExp: _conditional,
    ast.Subscript: _subscript,
    ast.JoinedStr: _formatted,
    ast.Call: _call,
}
