"""The operands of an epilogue in a call: kept from the original kernel's launcher, which does not know them, and given to the
torch op in the shapes that torch broadcasts."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kernel_rewrite.model import Operand, OperandKind

HANDED = "__with_operands__"
"""The name that stands in a call for the function that decides on the operands of the one it calls."""


@dataclass(slots=True)
class Operands:
    """The operands that a fused file declares, and what one evaluation gives for them. `dense`: without the gaps that the
    other tensors are drawn with, since a fused file assumes how its operands lie in memory."""

    declared: Mapping[str, Operand]
    dense: bool = False
    values: dict[str, Any] = field(default_factory=dict)

    def handed(self, call: str) -> str:
        """`call` with every call that passes an operand by keyword made through `HANDED`. The arguments are evaluated in
        the same order, so that they draw the same numbers."""
        tree = ast.parse(call.strip(), mode="eval")
        return ast.unparse(ast.fix_missing_locations(_Handing(self.declared).visit(tree)))

    def hand_on(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call `function` with the operands."""
        for name in self.declared.keys() & named.keys() if self.dense else ():
            if self.declared[name].strided:
                continue
            named[name] = named[name].clone() if hasattr(named[name], "clone") else named[name]
        return function(*arguments, **named)

    def withhold(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call `function` without the operands, which are kept."""
        for name in self.declared:
            if name in named:
                self.values[name] = named.pop(name)
        return function(*arguments, **named)


class _Handing(ast.NodeTransformer):
    def __init__(self, declared: Mapping[str, Operand]) -> None:
        self._declared = declared

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if any(keyword.arg in self._declared for keyword in node.keywords):
            return ast.Call(ast.Name(HANDED, ast.Load()), [node.func, *node.args], node.keywords)
        return node


def shaped(operands: Iterable[Operand], values: Mapping[str, Any], tensor: Any) -> dict[str, Any]:
    """What the torch op takes for each operand beside the output `tensor`: one value a row stands on the last axis but one.

    Raises ValueError for an operand that the call does not pass, or whose index is written in the kernel's names.
    """
    found = {}
    for operand in operands:
        if operand.kind is OperandKind.INDEXED:
            raise ValueError(
                f"`{operand.name}[{operand.index}]` is read at an index of the kernel, which torch does not have"
            )
        if operand.name not in values:
            raise ValueError(f"the call does not pass `{operand.name}`")
        value = values[operand.name]
        if operand.kind in (OperandKind.TILE, OperandKind.STORED) and value.shape != tensor.shape:
            value = value.reshape(tensor.shape)
        if operand.kind is OperandKind.COLUMN:
            rows = tensor.shape[:-1]
            value = value.reshape(*rows, 1) if value.numel() == rows.numel() else value.unsqueeze(-1)
        found[operand.name] = value
    return found
