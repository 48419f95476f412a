"""Small questions about expressions that many readers ask."""

from __future__ import annotations

import ast


def last_name(node: ast.expr) -> str:
    """`f` of `f`, `a.f` and `a.b.f`; "" of anything else."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def mentions(node: ast.expr, name: str) -> bool:
    """Whether `name` stands anywhere in `node`."""
    return any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(node))
