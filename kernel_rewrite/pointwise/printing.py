"""Graph -> text: the epilogue that `parse_epilogue` reads as this very graph."""

from __future__ import annotations

import ast

from kernel_rewrite.pointwise.casts import SAME
from kernel_rewrite.pointwise.graph import Apply, Input, Node, Number, X
from kernel_rewrite.pointwise.op import REQUIRED
from kernel_rewrite.pointwise.torch_side import INFIX, infix_tree, literal_text


def epilogue_text(node: Node) -> str:
    """The expression of `node` in the language of epilogues: `gelu(x + bias) + residual`."""
    return ast.unparse(ast.fix_missing_locations(ast.Expression(_tree(node)))).replace("'", '"')


def _tree(node: Node) -> ast.expr:
    if isinstance(node, Number):
        return _parsed("inf" if node.value == float("inf") else literal_text(node.value))
    if isinstance(node, Input):
        return _parsed(node.key)
    operands = [_tree(operand) for operand in node.operands]
    if node.op == "to":
        dtype = str(dict(node.arguments)["dtype"])
        return ast.Call(ast.Attribute(operands[0], "to", ast.Load()), [_parsed(_dtype_text(dtype))], [])
    if node.row.infix:
        return infix_tree(INFIX[node.row.infix][0], operands)
    return ast.Call(ast.Name(node.op, ast.Load()), operands, _keywords(node))


def _dtype_text(dtype: str) -> str:
    return f"{X}.dtype" if dtype == SAME else dtype


def _keywords(node: Apply) -> list[ast.keyword]:
    """The arguments that are not the defaults."""
    defaults = {parameter.name: parameter.default for parameter in node.row.parameters}
    return [
        ast.keyword(name, _parsed(literal_text(value)))
        for name, value in node.arguments
        if defaults[name] is REQUIRED or value != defaults[name]
    ]


def _parsed(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body
