"""Applications as torch would make them: rewrites that torch itself makes (`2 / x`, `x ** 2`), arguments in their order.

Parsing and tracing both build their graphs here, so that one epilogue has one graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kernel_rewrite.pointwise.graph import Apply, Node, Number
from kernel_rewrite.pointwise.op import Op
from kernel_rewrite.pointwise.ops import OPS

BINARY: Mapping[str, str] = {row.infix: row.name for row in OPS.values() if row.infix and len(row.operands) == 2}
"""The op of every operator with two sides."""


def binary(infix: str, left: Node, right: Node) -> Node:
    """`left infix right`, with Python's own arithmetic on two literals. Raises ArithmeticError, TypeError, ValueError as
    Python does."""
    if isinstance(left, Number) and isinstance(right, Number):
        return Number.of(_PYTHON[infix](left.value, right.value))
    return applied(OPS[BINARY[infix]], (left, right))


def negated(node: Node) -> Node:
    """`-node`."""
    return Number.of(-node.value) if isinstance(node, Number) else Apply("neg", (node,))


def applied(row: Op, operands: Sequence[Node], arguments: Mapping[str, Any] | None = None) -> Node:
    """`row` applied, in the form in which torch computes it."""
    operands = tuple(operands)
    if row.name == "div" and isinstance(operands[0], Number):  # Tensor.__rtruediv__
        inverse = Apply("reciprocal", operands[1:])
        return inverse if operands[0].value == 1 else Apply("mul", (inverse, operands[0]))
    if row.name == "pow" and isinstance(operands[1], Number):
        special = _POWERS.get(float(operands[1].value))
        if special is not None:
            return special(operands[0])
    return Apply(row.name, operands, tuple((arguments or {}).items()))


def _cube(x: Node) -> Node:
    return Apply("mul", (Apply("square", (x,)), x))


# The exponents that torch's CUDA kernels do not leave to pow().
_POWERS: Mapping[float, Callable[[Node], Node]] = {
    2.0: lambda x: Apply("square", (x,)),
    3.0: _cube,
    0.5: lambda x: Apply("sqrt", (x,)),
    -0.5: lambda x: Apply("rsqrt", (x,)),
    -1.0: lambda x: Apply("reciprocal", (x,)),
    -2.0: lambda x: Apply("reciprocal", (Apply("square", (x,)),)),
    1.0: lambda x: x,
}

_PYTHON: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "**": lambda a, b: a**b,
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
    "<<": lambda a, b: a << b,
    ">>": lambda a, b: a >> b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
