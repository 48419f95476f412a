"""Walks over syntax trees: what Python's own walk finds, but for what holds nothing."""

import ast
import inspect

import pytest

from kernel_rewrite.source import closure, names, syntax
from kernel_rewrite.source.syntax import children, nodes_in, walk

MARKS = (ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop)
ODD = """
async def f(a, /, b: int = 1, *c, d=2, **e) -> None:
    global g
    with open(a) as h, i: lambda j, *k: (j if not k else [*k, {**e, 1: 2}][::-1])
    try: x: int = yield
    except ValueError as y: raise y from None
    for z in a: z[0] += -(b and c or 1 < 2 <= 3)
    match a:
        case {"k": 1, **rest} | C(d=[*_, 1]) if (w := b): return f"{a!r:>{b}}"
    async for q in [p async for p in a if p]: del q
"""


@pytest.mark.parametrize("text", [inspect.getsource(closure), inspect.getsource(names), inspect.getsource(syntax), ODD])
def test_walk_is_pythons_walk_without_operators_and_contexts(text: str) -> None:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if not isinstance(node, MARKS):
            assert walk(node) == [n for n in ast.walk(node) if not isinstance(n, MARKS)]
            assert [*children(node)] == [n for n in ast.iter_child_nodes(node) if not isinstance(n, MARKS)]
    assert [*nodes_in(tree)] == walk(tree)
