"""What is added to the user's functions and calls, or taken out of them, as the syntax trees that must then stand there.

Whoever plans an edit beside the stores says so with one of these; `unchanged` holds the rewritten file to it.
"""

from __future__ import annotations

import ast
import copy
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class AddedParameters:
    """`parameters` (texts such as "bias: torch.Tensor" or "bias=None") stand in `arguments` before the positional
    parameter `index`, or before the keyword-only one when `keyword_only`."""

    arguments: ast.arguments
    index: int
    parameters: tuple[str, ...]
    keyword_only: bool = False

    @property
    def node(self) -> ast.AST:
        return self.arguments

    def applied(self, node: ast.AST) -> ast.AST:
        """`node` (the parameters, perhaps with other additions) with these among them."""
        assert isinstance(node, ast.arguments)
        new = _arguments(", ".join(self.parameters))
        result = copy.copy(node)
        if self.keyword_only:
            result.kwonlyargs = _spliced(result.kwonlyargs, self.index, new.args)
            defaults: list[ast.expr | None] = [None] * (len(new.args) - len(new.defaults)) + list(new.defaults)
            result.kw_defaults = _spliced(result.kw_defaults, self.index, defaults)
        else:
            result.args = _spliced(result.args, self.index - len(result.posonlyargs), new.args)
            result.defaults = [*result.defaults, *new.defaults]
        return result


@dataclass(frozen=True, slots=True, eq=False)
class AddedKeywords:
    """`keywords` (name, expression) stand in `call` before its keyword `index`."""

    call: ast.Call
    index: int
    keywords: tuple[tuple[str, str], ...]

    @property
    def node(self) -> ast.AST:
        return self.call

    def applied(self, node: ast.AST) -> ast.AST:
        """`node` (the call, perhaps with other additions) with these among its arguments."""
        assert isinstance(node, ast.Call)
        result = copy.copy(node)
        new = [ast.keyword(name, _expression(text)) for name, text in self.keywords]
        result.keywords = _spliced(result.keywords, self.index, new)
        return result


@dataclass(frozen=True, slots=True, eq=False)
class Replaced:
    """The expression `text` stands in place of the expression `node`."""

    node: ast.expr
    text: str

    def applied(self, node: ast.AST) -> ast.AST:
        """The expression that must stand there."""
        return _expression(self.text)


@dataclass(frozen=True, slots=True, eq=False)
class AddedStatements:
    """`before` and `behind` (assignments to new names, as text) stand around `statement`. `rebinds`: those behind it give
    the name that it binds another value. `repeats`: the last one before it is the call that it is, over other names."""

    statement: ast.stmt
    before: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    rebinds: bool = False
    repeats: bool = False

    @property
    def node(self) -> ast.AST:
        return self.statement

    def added(self) -> tuple[list[ast.stmt], list[ast.stmt]]:
        """The statements before it and behind it."""
        return _statements(self.before), _statements(self.behind)


@dataclass(frozen=True, slots=True, eq=False)
class RemovedParameters:
    """The positional parameters `names` are gone from `arguments`."""

    arguments: ast.arguments
    names: frozenset[str]

    @property
    def node(self) -> ast.AST:
        return self.arguments

    def applied(self, node: ast.AST) -> ast.AST:
        """`node` (the parameters, perhaps with other additions) without these."""
        assert isinstance(node, ast.arguments)
        result = copy.copy(node)
        every = [*node.posonlyargs, *node.args]
        without_default = len(every) - len(node.defaults)
        defaults = zip(every[without_default:], node.defaults, strict=True)
        result.posonlyargs = [a for a in node.posonlyargs if a.arg not in self.names]
        result.args = [a for a in node.args if a.arg not in self.names]
        result.defaults = [default for a, default in defaults if a.arg not in self.names]
        return result


@dataclass(frozen=True, slots=True, eq=False)
class RemovedItems:
    """The expressions `items` are gone from among the arguments of a call, or the elements of a list or a tuple."""

    node: ast.Call | ast.List | ast.Tuple
    items: tuple[ast.expr, ...]

    def applied(self, node: ast.AST) -> ast.AST:
        """`node` (the expression, perhaps with other additions) without these."""
        result = copy.copy(node)
        gone = {id(item) for item in self.items}
        if isinstance(result, ast.Call):
            result.args = [a for a in result.args if id(a) not in gone]
            result.keywords = [k for k in result.keywords if id(k.value) not in gone]
        else:
            assert isinstance(result, (ast.List, ast.Tuple))
            result.elts = [e for e in result.elts if id(e) not in gone]
        return result


@dataclass(frozen=True, slots=True, eq=False)
class RemovedStatement:
    """`statement` is gone; `instead` (as text) stands in its place, if anything."""

    statement: ast.stmt
    instead: str = ""

    @property
    def left(self) -> list[ast.stmt]:
        """What stands in its place."""
        return _statements((self.instead,))


Addition = AddedParameters | AddedKeywords | Replaced | RemovedParameters | RemovedItems
"""What changes one node of the tree."""


def _spliced(items: list, index: int, new: list) -> list:  # type: ignore[type-arg]
    return [*items[:index], *new, *items[index:]]


def _expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def _arguments(text: str) -> ast.arguments:
    function = ast.parse(f"def f({text}): pass").body[0]
    assert isinstance(function, ast.FunctionDef)
    return function.args


def _statements(texts: tuple[str, ...]) -> list[ast.stmt]:
    return [statement for text in texts for statement in ast.parse(text).body]
