"""Where the loads that a rewrite changed stand in the fused tree: found by laying the two trees side by side."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from kernel_rewrite.rewrite.additions import AddedStatements
from kernel_rewrite.rewrite.epilogue import Rewrite
from kernel_rewrite.rewrite.loads import LoadPlan
from kernel_rewrite.rewrite.unchanged import Plan


@dataclass(frozen=True)
class LoadedSite:
    """A load that the rewrite changed: `value` stands where the user's load stood. That is P of the `call`; or the call
    itself, where `guard` (`a = tl.where(mask, P(a), a)`) stands behind its statement."""

    input: str
    call: ast.Call
    value: ast.expr
    function: ast.FunctionDef
    guard: ast.Assign | None = None


def loaded_sites(
    rewrite: Rewrite, function: ast.FunctionDef, original: ast.FunctionDef, copy_of: Plan | None
) -> Iterator[LoadedSite]:
    """The changed loads of `function` of the fused tree, which is `original` of the user's: in place, or the copy that was
    made for the plan `copy_of`."""
    found = _Alignment(rewrite, copy_of)
    assert found.same(original.body, function.body), function.name
    for input, call, value in found.pairs:
        yield LoadedSite(input, call, value, function, _guard(function, call) if call is value else None)


def _guard(function: ast.FunctionDef, call: ast.Call) -> ast.Assign:
    for node in ast.walk(function):
        for body in (getattr(node, name, None) for name in ("body", "orelse")):
            for index, statement in enumerate(body if isinstance(body, list) else ()):
                if isinstance(statement, ast.Assign) and statement.value is call:
                    name = ast.unparse(statement.targets[0])
                    behind = (s for s in body[index + 1 :] if isinstance(s, ast.Assign))
                    return next(s for s in behind if ast.unparse(s.targets[0]) == name)
    raise AssertionError(ast.unparse(call))


class _Alignment:
    def __init__(self, rewrite: Rewrite, copy_of: Plan | None) -> None:
        self.pairs: list[tuple[str, ast.Call, ast.expr]] = []
        self._loads: dict[int, str] = {}
        self._stored: set[int] = set()
        self._replaced = {id(a.node) for a in rewrite.additions if not isinstance(a, AddedStatements)}
        for clone in rewrite.clones:
            self._replaced |= {id(a.node) for a in clone.additions if not isinstance(a, AddedStatements)}
        for plan in rewrite.plans if copy_of is None else [copy_of]:
            here = lambda call, plan=plan: (call.function in plan.clones) is (copy_of is not None)  # noqa: E731
            self._replaced |= {id(call.node.func) for call in plan.redirected if here(call)}
            if isinstance(plan, LoadPlan):
                self._loads |= {id(site.call.node): plan.input for site in plan.sites if here(site.call)}
            else:
                self._stored |= {id(value) for call, value in plan.changes if value is not None and here(call)}

    def same(self, one: object, other: object, inside: frozenset[int] = frozenset()) -> bool:
        """Whether the trees are alike but for what was changed; the changed loads are noted. `inside`: the changed nodes
        of which the unchanged part is looked for."""
        if isinstance(one, list) and isinstance(other, list):
            return self._lists(one, other)
        if not isinstance(one, ast.AST):
            return type(one) is type(other) and one == other
        if id(one) in self._replaced:
            return True
        if id(one) in self._stored | self._loads.keys() and id(one) not in inside and isinstance(other, ast.expr):
            return self._within(one, other, inside | {id(one)})
        if type(one) is not type(other):
            return False
        return all(self._tried(value, getattr(other, name), inside) for name, value in ast.iter_fields(one))

    def _within(self, one: ast.AST, other: ast.expr, inside: frozenset[int]) -> bool:
        for node in ast.walk(other):
            if self._tried(one, node, inside):
                if id(one) in self._loads:
                    assert isinstance(node, ast.Call)
                    self.pairs.append((self._loads[id(one)], node, other))
                return True
        return False

    def _lists(self, one: list[object], other: list[object]) -> bool:
        """Statements were added: those that are like none of the user's in their place."""
        if not (one and isinstance(one[0], ast.stmt)) and len(one) != len(other):
            return False
        rest = iter(other)
        return all(any(self._tried(item, candidate) for candidate in rest) for item in one)

    def _tried(self, one: object, other: object, inside: frozenset[int] = frozenset()) -> bool:
        """`same`, nothing noted where it is not."""
        before = len(self.pairs)
        if self.same(one, other, inside):
            return True
        del self.pairs[before:]
        return False
