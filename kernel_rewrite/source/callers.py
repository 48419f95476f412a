"""The functions of a file, what they stand in, and where each is called."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from kernel_rewrite.source.syntax import children, nodes_in, walk

HostDefinition = ast.FunctionDef | ast.AsyncFunctionDef


class Callers:
    """The syntax tree of one file, read from the inside out."""

    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        self.parents: dict[ast.AST, ast.AST] = {}
        for node in nodes_in(tree):
            for child in children(node):
                self.parents[child] = node

    def holder(self, node: ast.AST) -> HostDefinition | ast.ClassDef | None:
        """The innermost function or class whose body holds `node`; None at the top level of the file."""
        inner, outer = node, self.parents.get(node)
        while outer is not None:
            if isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and inner in outer.body:
                return outer
            inner, outer = outer, self.parents.get(outer)
        return None

    def function(self, node: ast.AST) -> HostDefinition | None:
        """The innermost function whose body holds `node`, if no class stands between them."""
        holder = self.holder(node)
        return None if isinstance(holder, ast.ClassDef) else holder

    def owner(self, function: HostDefinition) -> ast.ClassDef | None:
        """The class that `function` is a method of."""
        holder = self.holder(function)
        return holder if isinstance(holder, ast.ClassDef) else None

    def calls(self, function: HostDefinition) -> list[ast.Call]:
        """The calls of `function`, by its name or as `self.name`, in the part of the file where that is its name."""
        mentions = set(self.mentions(function))
        return [
            node for node in nodes_in(self._scope(function)) if isinstance(node, ast.Call) and node.func in mentions
        ]

    def mentions(self, function: HostDefinition) -> Iterator[ast.expr]:
        """Every expression that means `function`: a name, or for a method an attribute of its class or of an instance."""
        owner, scope = self.owner(function), self._scope(function)
        for node in nodes_in(scope):
            match node:
                case ast.Name(id=name, ctx=ast.Load()) if owner is None and name == function.name:
                    if not self._shadowed(node, name, function):
                        yield node
                case ast.Attribute(attr=name, value=ast.Name(id=holder)) if owner and name == function.name:
                    inside = holder in ("self", "cls") and self._class_around(node) is owner
                    if holder == owner.name or inside:
                        yield node

    def _scope(self, function: HostDefinition) -> ast.AST:
        return self.function(function) or self.tree

    def _class_around(self, node: ast.AST) -> ast.ClassDef | None:
        holder = self.holder(node)
        while holder is not None and not isinstance(holder, ast.ClassDef):
            holder = self.holder(holder)
        return holder

    def _shadowed(self, node: ast.AST, name: str, function: HostDefinition) -> bool:
        """Whether a function between `node` and the scope of `function` binds `name` for itself."""
        around = self.function(node)
        while around is not None and around is not self.function(function):
            if name in bound_in(around):
                return True
            around = self.function(around)
        return False


def bound_in(function: HostDefinition) -> set[str]:
    """The names that `function` binds: its parameters and what its body assigns, imports or defines, nested ones too."""
    found = {node.arg for node in walk(function.args) if isinstance(node, ast.arg)}
    for node in (inner for statement in function.body for inner in walk(statement)):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()) | ast.arg(arg=name):
                found.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.alias(name=name, asname=asname):
                found.add(asname or name.split(".")[0])
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                found.add(name)
    return found
