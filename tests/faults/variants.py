"""The same kernel, written otherwise: what must not make a fusion fail, nor validation see a difference."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

from tests.faults.generator import independent, is_memory

Variant = Callable[[str, frozenset[str]], str]


def _functions(tree: ast.Module, names: frozenset[str]) -> Iterator[ast.FunctionDef]:
    yield from (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name in names)


def _bodies(function: ast.FunctionDef) -> Iterator[list[ast.stmt]]:
    for node in ast.walk(function):
        for name in ("body", "orelse"):
            body = getattr(node, name, None)
            if isinstance(body, list) and body:
                yield body


def _first_line(function: ast.FunctionDef) -> int:
    """The index of the first statement below the docstring."""
    return int(ast.get_docstring(function) is not None)


def reprinted(text: str, functions: frozenset[str]) -> str:
    return ast.unparse(ast.parse(text)) + "\n"


def renamed(text: str, functions: frozenset[str]) -> str:
    """Every local variable of the functions under another name."""
    tree = ast.parse(text)
    for function in _functions(tree, functions):
        parameters = {a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)}
        names = [n for s in function.body for n in ast.walk(s) if isinstance(n, ast.Name)]
        local = {n.id for n in names if isinstance(n.ctx, ast.Store)} - parameters
        for name in names:
            if name.id in local:
                name.id = f"{name.id}_renamed"
    return ast.unparse(tree) + "\n"


def with_dead_arithmetic(text: str, functions: frozenset[str]) -> str:
    tree = ast.parse(text)
    for function in _functions(tree, functions):
        for count, body in enumerate(list(_bodies(function))):
            at = _first_line(function) if body is function.body else 0
            parameters = [a.arg for a in function.args.args if a.annotation is None]
            operand = next((p for p in parameters if p.startswith(("n", "stride"))), "5")
            body.insert(at, ast.parse(f"_dead_{count} = {operand} * 3 + 1").body[0])
    return ast.unparse(ast.fix_missing_locations(tree)) + "\n"


def reordered(text: str, functions: frozenset[str]) -> str:
    """Neighbouring statements that do not depend on each other, swapped, from the top. Not inside loops and branches:
    the order of assignments there is the order of what the loop carries."""
    tree = ast.parse(text)
    for function in _functions(tree, functions):
        body, index = function.body, _first_line(function)
        while index + 1 < len(body):
            one, other = body[index], body[index + 1]
            if independent(one, other, tree) and not _is_access(one) and not _is_access(other):
                body[index], body[index + 1] = other, one
                index += 1
            index += 1
    return ast.unparse(tree) + "\n"


def _is_access(statement: ast.stmt) -> bool:
    """Swapping these changes nothing either, but moves stores."""
    return isinstance(statement, ast.Expr) or any(isinstance(n, ast.Call) and is_memory(n) for n in ast.walk(statement))


def with_comments(text: str, functions: frozenset[str]) -> str:
    """A comment and an empty line above every statement that starts a line."""
    lines = text.splitlines(keepends=True)
    starts = {}
    for function in _functions(ast.parse(text), functions):
        for body in _bodies(function):
            for statement in body:
                indent = lines[statement.lineno - 1][: statement.col_offset]
                decorators = [d.lineno for d in getattr(statement, "decorator_list", [])]
                above = lines[statement.lineno - 2].rstrip()
                if not indent.strip() and not decorators and not above.endswith("\\") and indent:
                    starts[statement.lineno] = indent
    for line, indent in sorted(starts.items(), reverse=True):
        if not lines[line - 1].lstrip().startswith("elif"):
            lines.insert(line - 1, f"\n{indent}# tl.store(out_ptr, x): says the comment\n")
    return "".join(lines)


VARIANTS: dict[str, Variant] = {
    "reprinted": reprinted,
    "renamed": renamed,
    "dead arithmetic": with_dead_arithmetic,
    "reordered": reordered,
    "comments": with_comments,
}
