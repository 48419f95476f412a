"""What an epilogue is in torch: the expression as text, and its value, every step rounded by torch itself."""

from __future__ import annotations

import ast
import functools
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from kernel_rewrite.model import OperandKind
from kernel_rewrite.pointwise.casts import SAME
from kernel_rewrite.pointwise.graph import Apply, Input, Node, Number, X

INFIX: Mapping[str, tuple[type[ast.operator | ast.cmpop | ast.unaryop], Callable[..., Any]]] = {
    "+": (ast.Add, operator.add),
    "-": (ast.Sub, operator.sub),
    "*": (ast.Mult, operator.mul),
    "/": (ast.Div, operator.truediv),
    "//": (ast.FloorDiv, operator.floordiv),
    "%": (ast.Mod, operator.mod),
    "**": (ast.Pow, operator.pow),
    "&": (ast.BitAnd, operator.and_),
    "|": (ast.BitOr, operator.or_),
    "^": (ast.BitXor, operator.xor),
    "<<": (ast.LShift, operator.lshift),
    ">>": (ast.RShift, operator.rshift),
    "~": (ast.Invert, operator.invert),
    "==": (ast.Eq, operator.eq),
    "!=": (ast.NotEq, operator.ne),
    "<": (ast.Lt, operator.lt),
    "<=": (ast.LtE, operator.le),
    ">": (ast.Gt, operator.gt),
    ">=": (ast.GtE, operator.ge),
}
"""The operators of the language, as Python's syntax tree has them and as Python applies them."""


def torch_arguments(node: Apply) -> dict[str, Any]:
    """The keyword arguments of the torch call."""
    names = {p.name: p.torch_name or p.name for p in node.row.parameters}
    return {names[name]: value for name, value in node.arguments} | dict(node.row.fixed)


def torch_text(node: Node, x: str = X) -> str:
    """The eager torch expression over the text of x; operands stand under their own names and indices."""
    return ast.unparse(ast.fix_missing_locations(ast.Expression(_tree(node, x)))).replace("'", '"')


def literal_text(value: Any) -> str:
    """A number or a word as source."""
    if isinstance(value, float) and math.isinf(value):
        return 'float("inf")' if value > 0 else 'float("-inf")'
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _parsed(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def _tree(node: Node, x: str) -> ast.expr:
    if isinstance(node, Number):
        return _parsed(literal_text(node.value))
    if isinstance(node, Input):
        return _parsed(x if node.name == X else node.key)
    operands = [_tree(operand, x) for operand in node.operands]
    if node.op == "to":
        dtype = str(dict(node.arguments)["dtype"])
        target = _parsed(f"({x}).dtype" if dtype == SAME else f"torch.{dtype}")
        return ast.Call(ast.Attribute(operands[0], "to", ast.Load()), [target], [])
    if node.row.infix:
        symbol, _ = INFIX[node.row.infix]
        return infix_tree(symbol, operands)
    keywords = [ast.keyword(name, _parsed(literal_text(value))) for name, value in torch_arguments(node).items()]
    return ast.Call(_parsed(node.row.torch), operands, keywords)


def infix_tree(symbol: type[ast.AST], operands: list[ast.expr]) -> ast.expr:
    """`operands` joined by an operator of `INFIX`."""
    if issubclass(symbol, ast.unaryop):
        return ast.UnaryOp(symbol(), operands[0])
    if issubclass(symbol, ast.cmpop):
        return ast.Compare(operands[0], [symbol()], [operands[1]])
    assert issubclass(symbol, ast.operator)
    return ast.BinOp(operands[0], symbol(), operands[1])


def evaluate(node: Node, x: Any, operands: Mapping[str, Any], kinds: Mapping[str, OperandKind]) -> Any:
    """The torch tensor of `node`; `operands` by key, or by name where that is clear. A SCALAR tensor is taken as one of
    shape (1,), so that it promotes like any tensor."""
    values: dict[Node, Any] = {}

    def value(node: Node) -> Any:
        if node not in values:
            values[node] = compute(node)
        return values[node]

    def compute(node: Node) -> Any:
        if isinstance(node, Number):
            return node.value
        if isinstance(node, Input):
            return x if node.name == X else _operand(node, operands, kinds)
        found = [value(operand) for operand in node.operands]
        if node.op == "to":
            return found[0].to(_dtype(str(dict(node.arguments)["dtype"]), x))
        if node.row.infix:
            return INFIX[node.row.infix][1](*found)
        return torch_attribute(node.row.torch)(*found, **torch_arguments(node))

    return value(node)


def _operand(node: Input, operands: Mapping[str, Any], kinds: Mapping[str, OperandKind]) -> Any:
    given = operands[node.key] if node.key in operands else operands[node.name]
    if kinds.get(node.key) is OperandKind.SCALAR and hasattr(given, "reshape"):
        return given.reshape(1)
    return given


def _dtype(name: str, x: Any) -> Any:
    import torch

    return x.dtype if name == SAME else getattr(torch, name)


def torch_attribute(dotted: str) -> Any:
    """What torch has under a name: `torch.nn.functional.gelu`, `torch.float16`."""
    import torch

    found: Any = functools.reduce(getattr, dotted.split(".")[1:], torch)
    return found
