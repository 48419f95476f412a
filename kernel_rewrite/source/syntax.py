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


def expansions(node: ast.expr) -> list[tuple[ast.expr | None, ...]]:
    """Every `[None, :]` in an expression: its parts, with None for the colon."""
    found = []
    for part in ast.walk(node):
        if isinstance(part, ast.Subscript) and isinstance(part.slice, ast.Tuple):
            parts = part.slice.elts
            colons = [isinstance(p, ast.Slice) and not (p.lower or p.upper or p.step) for p in parts]
            nones = [isinstance(p, ast.Constant) and p.value is None for p in parts]
            if sum(colons) == 1 and sum(nones) == len(parts) - 1:
                found.append(tuple(None if colon else p for p, colon in zip(parts, colons, strict=True)))
    return found
