"""Whether a launcher's buffer still holds nothing when the kernel is launched."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from kernel_rewrite.source.launches import Allocation, Launch
from kernel_rewrite.source.syntax import children, nodes_in, walk

# Facts about a tensor, and comparisons with None, leave its elements alone.
_FACTS = frozenset(
    {
        *("shape", "stride", "size", "numel", "dim", "ndim", "dtype", "device", "element_size", "itemsize"),
        *("is_contiguous", "is_cuda", "requires_grad", "layout", "nbytes"),
    }
)


def is_fresh(launch: Launch, parameter: str) -> bool:
    """Whether the buffer passed for `parameter` is uninitialised and nothing else of the launching function touches it
    between its allocation and the launch."""
    fact, argument = launch.facts.get(parameter), launch.arguments.get(parameter)
    if fact is None or argument is None or not fact.allocations or not fact.allocations <= {Allocation.EMPTY}:
        return False
    root = _root(argument)
    if launch.function is None or root is None:
        return False
    bound = [node for node in nodes_in(launch.function) if isinstance(node, ast.Name) and node.id == root]
    if not any(isinstance(node.ctx, ast.Store) for node in bound):
        return isinstance(argument, ast.Call)  # kernel[grid](torch.empty(...))
    return _has_names_of_its_own(launch.function, root) and not any(_uses_before(launch, root))


def allocated_dtype(launch: Launch, parameter: str) -> str:
    """X of `out = torch.empty(..., dtype=torch.X)`, when that is the one thing that the name passed is ever bound to."""
    argument = launch.arguments.get(parameter)
    if launch.function is None or not isinstance(argument, ast.Name):
        return ""
    name = argument.id
    stores = [n for n in nodes_in(launch.function) if isinstance(n, ast.Name) and n.id == name and not _is_load(n)]
    made = [
        node.value
        for node in nodes_in(launch.function)
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and node.targets[0] in stores
    ]
    if len(stores) != 1 or len(made) != 1 or name in _parameters(launch.function) or not isinstance(made[0], ast.Call):
        return ""
    dtype = next((k.value for k in made[0].keywords if k.arg == "dtype"), None)
    makers = {f"torch.{maker}" for maker in ("empty", "zeros", "ones", "full", "empty_like", "zeros_like")}
    if ast.unparse(made[0].func) not in makers or not isinstance(dtype, ast.Attribute):
        return ""
    return dtype.attr if ast.unparse(dtype.value) == "torch" else ""


def _root(expression: ast.expr) -> str | None:
    """`y` of `y`, `y.view(-1)`, `y[0]`; `torch` of `torch.empty(n)`."""
    while isinstance(expression, (ast.Attribute, ast.Subscript, ast.Call)):
        expression = expression.func if isinstance(expression, ast.Call) else expression.value
    return expression.id if isinstance(expression, ast.Name) else None


def _is_load(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Load)


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    return {node.arg for node in walk(function.args) if isinstance(node, ast.arg)}


def _has_names_of_its_own(function: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> bool:
    """Whether what `name` is bound to gets no second name at once: `y = z = torch.empty(n)`, `f(y := torch.empty(n))`."""
    for node in nodes_in(function):
        if isinstance(node, ast.NamedExpr) and node.target.id == name:
            return False
        if isinstance(node, ast.Assign) and len(node.targets) > 1:
            targets = [inner for target in node.targets for inner in walk(target)]
            if any(isinstance(inner, ast.Name) and inner.id == name for inner in targets):
                return False
    return True


def _uses_before(launch: Launch, name: str) -> Iterator[ast.Name]:
    """The uses of `name` that may read or write the tensor before the launch, or in an earlier round of its loop."""
    assert launch.function is not None
    parents = {child: node for node in nodes_in(launch.function) for child in children(node)}
    here = launch.span
    loops = [
        node
        for node in nodes_in(launch.function)
        if isinstance(node, (ast.For, ast.While)) and node.lineno <= here.line <= (node.end_lineno or node.lineno)
    ]
    last = max([here.end_line, *(loop.end_lineno or loop.lineno for loop in loops)])
    for node in nodes_in(launch.function):
        if not isinstance(node, ast.Name) or node.id != name or not isinstance(node.ctx, ast.Load):
            continue
        in_launch = (here.line, here.column) <= (node.lineno, node.col_offset) < (here.end_line, here.end_column)
        if node.lineno <= last and not in_launch and not _is_harmless(node, parents):
            yield node


def _is_harmless(node: ast.Name, parents: dict[ast.AST, ast.AST]) -> bool:
    parent = parents.get(node)
    if isinstance(parent, ast.Attribute):
        return parent.attr in _FACTS
    if isinstance(parent, ast.Compare):
        return all(isinstance(op, (ast.Is, ast.IsNot)) for op in parent.ops)
    return isinstance(parent, ast.Return)
