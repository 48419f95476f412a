"""Functions that build a text are computed without running them, or not at all."""

from __future__ import annotations

import ast
from textwrap import dedent

import pytest

from kernel_rewrite.source.texts import NotComputable, computed

ASSEMBLY = '''
def assembly(count):
    """For so many registers."""
    template = "mov ${out}, ${input};\\n"
    text = ""
    for i in range(count):
        text += "{" + template.format(out=i, input=i + count) + "}\\n"
    text = " ".join(text.split("\\n"))
    return text
'''


def function(text: str) -> ast.FunctionDef:
    node = ast.parse(dedent(text)).body[0]
    assert isinstance(node, ast.FunctionDef)
    return node


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        (ASSEMBLY, (1,)),
        (ASSEMBLY, (3,)),
        (ASSEMBLY, (0,)),
        ('def f(n): return ",".join("=r" for i in range(n)) + "," + ",".join("r" for i in range(n))', (2,)),
        ('def f(n): return ",".join([f"{i}:{n * 2 - i}" for i in range(n)])', (4,)),
        ('def f(n): return str(n) + "x".replace("x", "yy").strip()', (4,)),
        ('def f(a, b):\n    parts = ["p", a]\n    return b.join(parts)', ("q", "-")),
        ('def f(): return "{0}{1}{0}".format("a", 1)', ()),
        ("def f(): return 4", ()),
        ("def f(n): return len('abc') + n", (2,)),
    ],
)
def test_the_text_is_what_python_would_build(text: str, arguments: tuple[object, ...]) -> None:
    names: dict[str, object] = {}
    exec(dedent(text), names)  # written here, above
    (made,) = (value for name, value in names.items() if name != "__builtins__")
    assert callable(made)
    assert computed(function(text), arguments) == made(*arguments)


@pytest.mark.parametrize(
    "text",
    [
        "def f(n): return open('x')",
        "def f(n): return GLOBAL",
        "def f(n): return n.attribute",
        "def f(n): return '{0.__class__}'.format(n)",
        "def f(n): return '{:>99999999}'.format(n)",
        "def f(n): return f'{n:>9}'",
        "def f(n): return f'{n!r}'",
        "def f(n): return 'x' * 10**9",
        "def f(n):\n    while True:\n        pass",
        "def f(n):\n    s = 'x'\n    for i in range(4000):\n        s = s + s\n    return s",
        "def f(n):\n    for i in range(4000):\n        for j in range(4000):\n            s = 'x'\n    return s",
        "def f(n):\n    import os\n    return os.name",
        "def f(n):\n    if n:\n        return 'a'\n    return 'b'",
        "def f(n): pass",
        "def f(n, m): return 'x'",
        "def f(*n): return 'x'",
        "@cached\ndef f(n): return 'x'",
        "def f(n): return unknown",
        "def f(n, str=None): return str(n)",
        "def f(n): return 'a'.join(n)",
        "def f(n): return 'a'.join('bc')",
        "def f(n): return 'a' + 1",
        "def f(n): return True",
    ],
)
def test_anything_else_is_not_computed(text: str) -> None:
    with pytest.raises(NotComputable):
        computed(function(text), (1,))
