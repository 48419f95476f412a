"""Whether a launcher's buffer still holds nothing when the kernel is launched."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from kernel_rewrite.source.launches import Allocation, Launch

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
    names = {node.id for node in ast.walk(argument) if isinstance(node, ast.Name)}
    if not isinstance(argument, ast.Name):
        return not names or isinstance(argument, ast.Call)
    return launch.function is not None and not any(_uses_before(launch, argument.id))


def _uses_before(launch: Launch, name: str) -> Iterator[ast.Name]:
    """The uses of `name` that may read or write the tensor before the launch, or in an earlier round of its loop."""
    assert launch.function is not None
    parents = {child: node for node in ast.walk(launch.function) for child in ast.iter_child_nodes(node)}
    here = launch.span
    loops = [
        node
        for node in ast.walk(launch.function)
        if isinstance(node, (ast.For, ast.While)) and node.lineno <= here.line <= (node.end_lineno or node.lineno)
    ]
    last = max([here.end_line, *(loop.end_lineno or loop.lineno for loop in loops)])
    for node in ast.walk(launch.function):
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
