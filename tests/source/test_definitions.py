"""What a name holds at a statement: only what it must hold there, whatever runs before."""

from __future__ import annotations

import ast
from textwrap import dedent, indent

import pytest

from kernel_rewrite.source.definitions import Definitions

# (body, what `p` holds at the last `store(p)`), "" for what cannot be told
BODIES = {
    "added to": ("p = q + a\np += b\nstore(p)", "q + a + b"),
    "advanced": ("p = f(q)\np = advance(p, step)\nstore(p)", "advance(f(q), step)"),
    "advanced twice by itself": ("p = f(q)\np = p * p\nstore(p)", ""),
    "advanced in a loop": ("p = f(q)\nfor i in range(n):\n    p = advance(p, step)\nstore(p)", ""),
    "set again": ("p = q + a\np = q + b\nstore(p)", "q + b"),
    "set in two loops": ("for i in range(n):\n    p = i + a\nfor i in range(n):\n    p = i + b\n    store(p)", "i + b"),
    "set behind, in the same loop": ("p = a\nfor i in range(n):\n    store(p)\n    p = b", ""),
    "set behind, in no loop": ("p = a\nstore(p)\np = b", "a"),
    "set before it in the same loop": ("p = a\nfor i in range(n):\n    p = b\n    store(p)\n    p = c", "b"),
    "set under a test": ("p = a\nif n > 1:\n    p = b\nstore(p)", ""),
    "set under the same flag": ("if FLAG:\n    p = q + a\nif FLAG:\n    store(p)", "q + a"),
    "added to under the same flag": ("p = q\nif FLAG:\n    p += a\nif FLAG:\n    store(p)", "q + a"),
    "under the same flags": ("if FLAG:\n  if OTHER:\n    p = a\nif OTHER:\n  if FLAG:\n    store(p)", "a"),
    "under another flag": ("if FLAG:\n    p = a\nif OTHER:\n    store(p)", ""),
    "under one flag of two": ("if FLAG:\n  if OTHER:\n    p = a\nif OTHER:\n    store(p)", ""),
    "under the opposite flag": ("if FLAG:\n    p = a\nelse:\n    store(p)", ""),
    "behind the flag": ("if FLAG:\n    p = a\nstore(p)", ""),
    "under a flag that changes": ("if FLAG:\n    p = a\nFLAG = not FLAG\nif FLAG:\n    store(p)", ""),
    "under a test at run time": ("if n:\n    p = a\nif n:\n    store(p)", ""),
    "on both sides of a flag": ("if FLAG:\n    p = a\nelse:\n    p = b\nif FLAG:\n    store(p)", ""),
    "of names that change": ("p = q + a\na = b\nstore(p)", ""),
}


@pytest.mark.parametrize("body", BODIES)
def test_what_a_name_holds(body: str) -> None:
    text, expected = BODIES[body]
    function = ast.parse(f"def k(q, a, b, c, n, FLAG, OTHER):\n{indent(dedent(text), '    ')}").body[0]
    assert isinstance(function, ast.FunctionDef)
    definitions = Definitions(function, {"FLAG", "OTHER"})
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call) and ast.unparse(node) == "store(p)"]
    found = definitions.value_at("p", definitions.statement_of(calls[-1]))
    assert (ast.unparse(found) if found is not None else "") == expected


def test_a_name_that_is_set_behind_is_not_followed() -> None:
    function = ast.parse("def k(a, b):\n    p = a\n    store(p)\n    p = b\n    store(p)").body[0]
    assert isinstance(function, ast.FunctionDef)
    definitions = Definitions(function)
    assert not definitions.is_followed("p", function.body[1])
    assert definitions.is_followed("p", function.body[3])
