"""How many programs a launch starts along one axis, in the words of the launch."""

from __future__ import annotations

import ast

from kernel_rewrite.source.launches import Launch
from kernel_rewrite.source.syntax import walk


def programs_along(launch: Launch, axis: int) -> str:
    """`triton.cdiv(N, 32)` of `grid = (triton.cdiv(M, 32), triton.cdiv(N, 32))` for axis 1; "" where the launch does not
    show it plainly."""
    if launch.call is None or not isinstance(launch.call.func, ast.Subscript):
        return ""
    grid: ast.expr | None = launch.call.func.slice
    if isinstance(grid, ast.Name):
        grid = _bound_once(grid.id, launch.body)
    if isinstance(grid, ast.Lambda):
        grid = grid.body
    if not isinstance(grid, ast.Tuple) or axis >= len(grid.elts):
        return ""
    if any(isinstance(part, ast.Starred) for part in grid.elts):
        return ""
    return ast.unparse(grid.elts[axis])


def _bound_once(name: str, body: tuple[ast.stmt, ...]) -> ast.expr | None:
    """What `name` is bound to by the one statement of `body` that binds it."""
    nodes = [node for statement in body for node in walk(statement)]
    stores = [n for n in nodes if isinstance(n, ast.Name) and n.id == name and not isinstance(n.ctx, ast.Load)]
    others = any(isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n.name == name for n in nodes)
    values = [n.value for n in nodes if isinstance(n, ast.Assign) and n.targets == stores]
    return values[0] if len(stores) == 1 and len(values) == 1 and not others else None
