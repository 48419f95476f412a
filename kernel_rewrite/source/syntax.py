"""Small questions about syntax trees and expressions that many readers ask."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache

# fields that hold text, numbers, or the marks that `walk` leaves out
_NO_NODES = frozenset(
    "arg asname attr conversion ctx id is_async kind level lineno module op ops simple tag type_comment".split()
)


class _Fields(dict[type[ast.AST], tuple[str, ...]]):
    """The fields of each kind of node that may hold nodes; filled as it is asked."""

    def __missing__(self, kind: type[ast.AST]) -> tuple[str, ...]:
        found = self[kind] = tuple(field for field in kind._fields if field not in _NO_NODES)
        return found


_fields = _Fields()


def children(node: ast.AST) -> Iterator[ast.AST]:
    """As `ast.iter_child_nodes`, but for the operators and contexts (`ast.Add`, `ast.Load`): they hold nothing, and
    stand in many places at once."""
    for field in _fields[node.__class__]:
        value = getattr(node, field, None)
        if isinstance(value, list):
            for item in value:
                if isinstance(item, ast.AST):
                    yield item
        elif isinstance(value, ast.AST):
            yield value


def walk(node: ast.AST) -> list[ast.AST]:
    """As `ast.walk`, in its order and in a quarter of its time, but for the operators and contexts."""
    found = [node]
    add = found.append
    for current in found:  # grows while it is read
        for field in _fields[current.__class__]:
            value = getattr(current, field, None)
            if isinstance(value, list):
                for item in value:
                    if isinstance(item, ast.AST):
                        add(item)
            elif isinstance(value, ast.AST):
                add(value)
    return found


@lru_cache(maxsize=64)
def nodes_in(tree: ast.AST) -> tuple[ast.AST, ...]:
    """What `walk` gives for a tree that many ask about and nobody changes: kept."""
    return tuple(walk(tree))


PURE_NODES = (
    *(ast.Name, ast.Constant, ast.BinOp, ast.UnaryOp, ast.Compare, ast.BoolOp, ast.IfExp, ast.Subscript, ast.Slice),
    *(ast.Tuple, ast.List, ast.Attribute, ast.Call, ast.keyword, ast.Starred),
)
"""What an expression that only computes is made of; its calls are still to be judged."""


def blocks_of(node: ast.AST) -> Iterator[list[ast.stmt]]:
    """The lists of statements that `node` holds itself."""
    for name in ("body", "orelse", "finalbody"):
        block = getattr(node, name, None)
        if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
            yield block
    for handler in getattr(node, "handlers", ()):
        yield handler.body
    for case in getattr(node, "cases", ()):
        yield case.body


def last_name(node: ast.expr) -> str:
    """`f` of `f`, `a.f` and `a.b.f`; "" of anything else."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def mentions(node: ast.expr, name: str) -> bool:
    """Whether `name` stands anywhere in `node`."""
    return any(isinstance(part, ast.Name) and part.id == name for part in walk(node))


def expansions(node: ast.expr) -> list[tuple[ast.expr | None, ...]]:
    """Every `[None, :]` in an expression: its parts, with None for the colon."""
    found = []
    for part in walk(node):
        if isinstance(part, ast.Subscript) and isinstance(part.slice, ast.Tuple):
            parts = part.slice.elts
            colons = [isinstance(p, ast.Slice) and not (p.lower or p.upper or p.step) for p in parts]
            nones = [isinstance(p, ast.Constant) and p.value is None for p in parts]
            if sum(colons) == 1 and sum(nones) == len(parts) - 1:
                found.append(tuple(None if colon else p for p, colon in zip(parts, colons, strict=True)))
    return found
