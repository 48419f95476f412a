"""The graph of an epilogue: what comes in, numbers, and ops applied to them.

The graph knows nodes only; everything about an op is in its OPS row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kernel_rewrite.model import Operand, OperandKind
from kernel_rewrite.pointwise.element_types import PYTHON_BOOL, PYTHON_FLOAT, PYTHON_INT
from kernel_rewrite.pointwise.op import Op
from kernel_rewrite.pointwise.ops import OPS

X = "x"
"""The name of the stored value."""

LARGEST = 200
"""How many nodes an expression may have that a function comes to."""


@dataclass(frozen=True, slots=True)
class Input:
    """A value that comes from outside: `x` is the one being stored, any other name an operand, read at `index` when one
    is written."""

    name: str = X
    index: str = ""

    @property
    def key(self) -> str:
        """What tells this value from the others: two reads of one operand at two indices are two values."""
        return f"{self.name}[{self.index}]" if self.index else self.name


@dataclass(frozen=True, slots=True)
class Number:
    """A literal. Its kind is told apart from its value: 1 and 1.0 promote differently."""

    value: int | float | bool
    kind: str

    @classmethod
    def of(cls, value: int | float | bool) -> Number:
        kind = PYTHON_BOOL if isinstance(value, bool) else PYTHON_INT if isinstance(value, int) else PYTHON_FLOAT
        return cls(value, kind)


@dataclass(frozen=True, slots=True)
class Apply:
    """`op` applied to `operands`; `arguments` holds every parameter's value, in the row's order."""

    op: str
    operands: tuple[Node, ...]
    arguments: tuple[tuple[str, Any], ...] = ()

    @property
    def row(self) -> Op:
        return OPS[self.op]


Node = Input | Number | Apply


def key_of(operand: Operand) -> str:
    """What an operand is called in `emit` and `evaluate`: its name, with its index when it has one."""
    return Input(operand.name, operand.index if operand.kind is OperandKind.INDEXED else "").key


def nodes(node: Node) -> Iterator[Node]:
    """Every node, operands before the applications that use them; one that is used twice comes twice."""
    if isinstance(node, Apply):
        for operand in node.operands:
            yield from nodes(operand)
    yield node


def applications(node: Node) -> Iterator[Apply]:
    """Every application below `node`, operands before the applications that use them."""
    return (found for found in nodes(node) if isinstance(found, Apply))


def inputs(node: Node) -> Iterator[Input]:
    """Every use of a value from outside, in the order of the text."""
    return (found for found in nodes(node) if isinstance(found, Input))


def size(node: Node) -> int:
    """How many nodes the expression has when it is written out: one that is used twice counts twice."""
    sizes: dict[int, int] = {}

    def of(found: Node) -> int:
        if id(found) not in sizes:
            operands = found.operands if isinstance(found, Apply) else ()
            sizes[id(found)] = 1 + sum(of(operand) for operand in operands)
        return sizes[id(found)]

    return of(node)
