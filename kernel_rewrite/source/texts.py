"""Functions that build a text, such as inline assembly for so many registers, computed without running them.

Only what needs no guess is followed: literals, the function's own names, `range` loops and plain methods of strings.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping

MAXIMUM_STEPS = 5000
MAXIMUM_LENGTH = 20_000


class NotComputable(Exception):
    """The function does something else too."""


class _Return(Exception):
    def __init__(self, value: object) -> None:
        super().__init__()
        self.value = value


Scope = dict[str, object]


def computed(function: ast.FunctionDef, arguments: tuple[object, ...]) -> object:
    """What `function` returns for `arguments`. Raises NotComputable."""
    given = function.args
    names = [a.arg for a in (*given.posonlyargs, *given.args)]
    if len(names) != len(arguments) or given.vararg or given.kwarg or given.kwonlyargs or function.decorator_list:
        raise NotComputable("its arguments")
    try:
        _Text().block(function.body, dict(zip(names, arguments, strict=True)))
    except _Return as result:
        return result.value
    except (TypeError, ValueError, LookupError, ArithmeticError) as error:
        raise NotComputable(str(error)) from error
    raise NotComputable("it returns nothing")


class _Text:
    def __init__(self) -> None:
        self.steps = 0

    def block(self, body: list[ast.stmt], scope: Scope) -> None:
        for statement in body:
            self.statement(statement, scope)

    def statement(self, node: ast.stmt, scope: Scope) -> None:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                scope[name] = self.value(value, scope)
            case ast.AugAssign(target=ast.Name(id=name), op=ast.Add(), value=value):
                scope[name] = _sum(scope[name], self.value(value, scope))
            case ast.For(target=ast.Name(id=name), iter=iterator, body=body, orelse=[]):
                for item in self.items(iterator, scope):
                    scope[name] = item
                    self.block(body, scope)
            case ast.Return(value=ast.expr() as value):
                raise _Return(self.value(value, scope))
            case ast.Expr(value=ast.Constant()):
                return
            case _:
                raise NotComputable(f"line {node.lineno}")

    def value(self, node: ast.expr, scope: Scope) -> object:
        self.steps += 1
        if self.steps > MAXIMUM_STEPS:
            raise NotComputable("it takes long")
        match node:
            case ast.Constant(value=str() | int() as value) if not isinstance(value, bool):
                return value
            case ast.Name(id=name):
                return scope[name]
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return _sum(self.value(left, scope), self.value(right, scope))
            case ast.BinOp(left=left, op=ast.Sub() | ast.Mult() as op, right=right):
                one, other = self.value(left, scope), self.value(right, scope)
                if isinstance(one, int) and isinstance(other, int) and max(abs(one), abs(other)) < MAXIMUM_LENGTH:
                    return one - other if isinstance(op, ast.Sub) else one * other
            case ast.JoinedStr(values=parts):
                return "".join(self.part(part, scope) for part in parts)
            case ast.Call(func=ast.Attribute(value=owner, attr=method), args=arguments, keywords=keywords):
                text = self.value(owner, scope)
                named = {k.arg: self.value(k.value, scope) for k in keywords if k.arg is not None}
                if isinstance(text, str) and method in _METHODS and len(named) == len(keywords):
                    lists = (ast.GeneratorExp, ast.ListComp, ast.List, ast.Tuple)
                    positional = [
                        list(self.items(a, scope)) if isinstance(a, lists) else self.value(a, scope) for a in arguments
                    ]
                    return _bounded(_METHODS[method](text, positional, named))
            case ast.Call(func=ast.Name(id="str" | "len" as name), args=[argument], keywords=[]) if name not in scope:
                asked = self.value(argument, scope)
                if name == "str" and isinstance(asked, (str, int)):
                    return str(asked)
                if isinstance(asked, str):
                    return len(asked)
            case ast.List() | ast.ListComp():
                return list(self.items(node, scope))
        raise NotComputable(f"`{ast.unparse(node)[:60]}`")

    def part(self, node: ast.expr, scope: Scope) -> str:
        if isinstance(node, ast.FormattedValue):
            value = self.value(node.value, scope)
            if node.conversion != -1 or node.format_spec is not None or not isinstance(value, (str, int)):
                raise NotComputable("a format")
            return str(value)
        return str(self.value(node, scope))

    def items(self, node: ast.expr, scope: Scope) -> Iterator[object]:
        """The elements of a `range`, a written list or a comprehension."""
        match node:
            case ast.Call(func=ast.Name(id="range"), args=arguments, keywords=[]) if "range" not in scope:
                bounds = [self.value(argument, scope) for argument in arguments]
                if all(isinstance(bound, int) and abs(bound) < MAXIMUM_STEPS for bound in bounds):
                    yield from range(*(bound for bound in bounds if isinstance(bound, int)))
                    return
            case ast.List(elts=elements) | ast.Tuple(elts=elements):
                yield from [self.value(element, scope) for element in elements]
                return
            case ast.GeneratorExp(elt=element, generators=[each]) | ast.ListComp(elt=element, generators=[each]):
                if isinstance(each.target, ast.Name) and not each.ifs and not each.is_async:
                    for item in self.items(each.iter, scope):
                        yield self.value(element, {**scope, each.target.id: item})
                    return
            case ast.Name(id=name) if isinstance(scope.get(name), list):
                yield from list(scope[name])  # type: ignore[call-overload]
                return
        raise NotComputable(f"a loop over `{ast.unparse(node)[:60]}`")


def _sum(one: object, other: object) -> object:
    if isinstance(one, str) and isinstance(other, str):
        return _bounded(one + other)
    if isinstance(one, int) and isinstance(other, int):
        return one + other
    raise NotComputable("a sum")


def _bounded(value: object) -> object:
    if isinstance(value, str) and len(value) > MAXIMUM_LENGTH:
        raise NotComputable("a long text")
    return value


def _format(text: str, positional: list[object], named: Mapping[str, object]) -> object:
    if re.search(r"\{\w*[^\w{}]", text):  # {x:>1000000}, {x.attribute}, {x!r}
        raise NotComputable("a format")
    if not all(isinstance(value, (str, int)) for value in (*positional, *named.values())):
        raise NotComputable("a format")
    return text.format(*positional, **named)


def _join(text: str, positional: list[object], named: Mapping[str, object]) -> object:
    (parts,) = positional
    if named or not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise NotComputable("a join")
    return text.join(parts)


def _split(text: str, positional: list[object], named: Mapping[str, object]) -> object:
    (separator,) = positional
    if named or not isinstance(separator, str):
        raise NotComputable("a split")
    return text.split(separator)


def _replace(text: str, positional: list[object], named: Mapping[str, object]) -> object:
    old, new = positional
    if named or not isinstance(old, str) or not isinstance(new, str) or not old:
        raise NotComputable("a replacement")
    return text.replace(old, new)


def _strip(text: str, positional: list[object], named: Mapping[str, object]) -> object:
    if positional or named:
        raise NotComputable("a strip")
    return text.strip()


_METHODS: Mapping[str, Callable[[str, list[object], Mapping[str, object]], object]] = {
    "format": _format,
    "join": _join,
    "split": _split,
    "replace": _replace,
    "strip": _strip,
}
