"""Everything outside the planned edits is the user's, to the last node of the syntax tree.

TTIR shows only what a specialization compiles: decorators, configurations, launchers and branches that were not lowered
are held here. The two trees are walked side by side; they may part only at the value of a planned store and at a
planned load, where the user's expression must still stand inside the new one, at the callee of a planned redirection,
where a definition or an import under a new name was added, and at the planned additions and removals (parameters,
arguments, statements, one expression for another), where exactly what was planned must stand. What is added may run no code
of its own when the file is imported: its decorators are ones that the file uses already.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from kernel_rewrite.model import FunctionRef, InternalError
from kernel_rewrite.rewrite.additions import AddedStatements, Addition, RemovedStatement
from kernel_rewrite.rewrite.loads import LoadPlan
from kernel_rewrite.rewrite.spelling import bound_names
from kernel_rewrite.rewrite.stores import StorePlan
from kernel_rewrite.source.syntax import nodes_in

Plan = StorePlan | LoadPlan


@dataclass(frozen=True, slots=True)
class Clone:
    """A copy of `helper` called `name`, made for the buffer of `plan`, with `additions`."""

    plan: Plan
    helper: FunctionRef
    name: str
    additions: tuple[Addition | AddedStatements, ...] = ()


@dataclass(frozen=True, slots=True)
class _Allowed:
    """Where the trees may part: the identities of stored values and of callees in the original, the names that no
    addition and no added import may take, the decorators that an added function may have, as text, and what must be
    added to which node."""

    values: frozenset[int]
    callees: frozenset[int] = frozenset()
    taken: frozenset[str] = frozenset()
    imported: frozenset[str] = frozenset()
    decorators: frozenset[str] = frozenset()
    additions: Mapping[int, tuple[Addition, ...]] = field(default_factory=dict)
    statements: Mapping[int, tuple[AddedStatements, ...]] = field(default_factory=dict)
    removed: Mapping[int, RemovedStatement] = field(default_factory=dict)


def check_unchanged(
    original: ast.Module,
    rewritten: ast.Module,
    plans: Iterable[Plan],
    additions: Iterable[Addition | AddedStatements] = (),
    removals: Iterable[RemovedStatement] = (),
) -> None:
    """Raise InternalError (KR902) if `rewritten` differs from `original` outside what `plans` name, lacks one of
    `additions`, or still has one of `removals`."""
    plans = tuple(plans)
    values, callees = _planned_values(plans, in_clones=False), _planned_callees(plans, in_clones=False)
    here = frozenset(bound_names(original.body)) | frozenset(dir(builtins))
    taken = here | {n.name for n in nodes_in(original) if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    allowed = _Allowed(
        frozenset(values),
        frozenset(callees),
        taken,
        here,
        frozenset(_decorators(original)),
        *_by_node(additions, original),
        {id(removal.statement): removal for removal in removals},
    )
    difference = _difference(original, rewritten, allowed)
    if difference is not None:
        raise InternalError(f"KR902: {difference} is not what was planned")


def check_clone(clone: Clone, helper: ast.FunctionDef, rewritten: ast.Module) -> None:
    """Raise InternalError (KR902) if the copy is not the helper under another name, but for what its plan names and what is
    added to it."""
    copies = [n for n in nodes_in(rewritten) if isinstance(n, ast.FunctionDef) and n.name == clone.name]
    if len(copies) != 1:
        raise InternalError(f"KR902: `{clone.name}` is defined {len(copies)} times in the rewritten file")
    values, callees = _planned_values([clone.plan], in_clones=True), _planned_callees([clone.plan], in_clones=True)
    spelled = {id(_called(decorator)) for decorator in helper.decorator_list}  # jit, as this file spells it
    added, statements = _by_node(clone.additions, helper)
    allowed = _Allowed(frozenset(values), frozenset(callees) | spelled, additions=added, statements=statements)
    fields = [name for name in helper._fields if name != "name"]
    for name in fields:
        difference = _difference(getattr(helper, name), getattr(copies[0], name), allowed)
        if difference is not None:
            raise InternalError(f"KR902: {difference} of `{clone.helper.name}` is not kept in its copy `{clone.name}`")


def _by_node(
    additions: Iterable[Addition | AddedStatements], original: ast.AST
) -> tuple[Mapping[int, tuple[Addition, ...]], Mapping[int, tuple[AddedStatements, ...]]]:
    """What is added to each node, and what around each statement. Raises InternalError when a statement that is added does
    anything but bind names that `original` does not have, or the one that is bound just before it where that is planned."""
    names = {node.id for node in nodes_in(original) if isinstance(node, ast.Name)}
    names |= {node.arg for node in nodes_in(original) if isinstance(node, ast.arg)}
    found: dict[int, tuple[Addition, ...]] = {}
    statements: dict[int, tuple[AddedStatements, ...]] = {}
    for addition in additions:
        key = id(addition.node)
        if not isinstance(addition, AddedStatements):
            found[key] = (*found.get(key, ()), addition)
            continue
        before, behind = addition.added()
        if addition.repeats:
            if not _is_such_a_call(before.pop(), addition.statement, names):
                raise InternalError("KR902: what is stored first is not stored as the output is")
        for statement in (*before, *behind):
            bound = set(_bound_by(statement))
            again = addition.rebinds and bound == set(_bound_by(addition.statement))
            if not bound or (bound & names and not again):
                raise InternalError(f"KR902: `{ast.unparse(statement)}` does more than bind a new name")
        statements[key] = (*statements.get(key, ()), addition)
    return found, statements


def _is_such_a_call(one: ast.stmt, other: ast.stmt, names: Collection[str]) -> bool:
    """Whether two statements call the same function, or `one` the same method of what is none of `names`, with arguments
    of the same form."""
    if not isinstance(one, ast.Expr) or not isinstance(other, ast.Expr):
        return False
    called, twin = one.value, other.value
    if not isinstance(called, ast.Call) or not isinstance(twin, ast.Call):
        return False
    same = ast.dump(called.func) == ast.dump(twin.func)
    match called.func, twin.func:
        case ast.Attribute(value=value, attr=method), ast.Attribute(attr=twins) if method == twins:
            same |= any(isinstance(node, ast.Name) and node.id not in names for node in ast.walk(value))
    keywords = [[keyword.arg for keyword in call.keywords] for call in (called, twin)]
    return same and len(called.args) == len(twin.args) and keywords[0] == keywords[1]


def _bound_by(statement: ast.stmt) -> Iterator[str]:
    """The names that a plain assignment binds; none for any other statement."""
    match statement:
        case (
            ast.Assign(targets=[ast.Name(id=name)])
            | ast.AugAssign(target=ast.Name(id=name))
            | ast.AnnAssign(target=ast.Name(id=name))
        ):
            yield name


def _planned_values(plans: Iterable[Plan], *, in_clones: bool) -> Iterator[int]:
    """The identities of the expressions that the plans change, in copies of helpers or in place."""
    for plan in plans:
        for call, changed in plan.changes:
            if changed is not None and (call.function in plan.clones) is in_clones:
                yield id(changed)


def _planned_callees(plans: Iterable[Plan], *, in_clones: bool) -> Iterator[int]:
    """The identities of the callees that the plans change, in copies of helpers or in place."""
    for plan in plans:
        for call in plan.redirected:
            if (call.function in plan.clones) is in_clones:
                yield id(call.node.func)


def _decorators(module: ast.Module) -> Iterator[str]:
    """The decorators of the file, and the functions they call: `@triton.jit(...)` lets a helper be `@triton.jit`."""
    for node in nodes_in(module):
        for decorator in getattr(node, "decorator_list", ()):
            yield ast.unparse(decorator)
            if isinstance(decorator, ast.Call):
                yield ast.unparse(decorator.func)
    yield "triton.jit"  # kernel = triton.jit(body)


def _called(decorator: ast.expr) -> ast.expr:
    return decorator.func if isinstance(decorator, ast.Call) else decorator


def _is_addition(node: object, allowed: _Allowed) -> bool:
    """An import or a function that binds only new names, and runs nothing but a decorator that the file has."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return all((alias.asname or alias.name).split(".")[0] not in allowed.imported | {"*"} for alias in node.names)
    if not isinstance(node, ast.FunctionDef) or node.name in allowed.taken:
        return False
    return all(ast.unparse(decorator) in allowed.decorators for decorator in node.decorator_list)


def _difference(one: object, other: object, allowed: _Allowed) -> str | None:
    """The first place where the trees part and may not, in words; None when there is none."""
    if isinstance(one, ast.AST):
        if id(one) in allowed.additions:
            expected, place = one, _place(one) or "what was added"
            for addition in allowed.additions[id(one)]:
                expected = addition.applied(expected)
            left = {node: planned for node, planned in allowed.additions.items() if node != id(one)}
            return None if _difference(expected, other, replace(allowed, additions=left)) is None else place
        if id(one) in allowed.callees:
            return None if isinstance(other, (ast.Name, ast.Attribute)) else _place(one)
        if id(one) in allowed.values:
            return None if _holds(other, one, replace(allowed, values=allowed.values - {id(one)})) else _place(one)
        if type(one) is not type(other):
            return _place(one)
        for name, value in ast.iter_fields(one):
            found = _difference(value, getattr(other, name), allowed)
            if found is not None:
                return found or _place(one)
        return None
    if isinstance(one, list) and isinstance(other, list):
        return _list_difference(one, other, allowed)
    return None if type(one) is type(other) and one == other else ""


def _holds(expression: object, value: ast.AST, allowed: _Allowed) -> bool:
    """Whether the user's `value` stands somewhere in the new `expression`."""
    inside = ast.walk(expression) if isinstance(expression, ast.expr) else ()
    return any(_difference(value, node, allowed) is None for node in inside)


def _list_difference(one: list[object], other: list[object], allowed: _Allowed) -> str | None:
    one = [expected for item in one for expected in _with_statements(item, allowed)]
    remaining = list(other)
    for item in one:
        found: str | None = ""
        while remaining:
            candidate = remaining.pop(0)
            found = _difference(item, candidate, allowed)
            if found is None or not _is_addition(candidate, allowed):
                break
        if found is not None:
            return found or _place(item)
    extra = next((item for item in remaining if not _is_addition(item, allowed)), None)
    return None if extra is None else _place(extra)


def _with_statements(item: object, allowed: _Allowed) -> list[object]:
    """A statement among those that must be added around it; what must stand instead of one that must be gone."""
    if id(item) in allowed.removed:
        return [*allowed.removed[id(item)].left]
    around: list[object] = [item]
    for addition in allowed.statements.get(id(item), ()):
        before, behind = addition.added()
        around = [*before, *around, *behind]
    return around


def _place(node: object) -> str:
    line = getattr(node, "lineno", None)
    return f"the {type(node).__name__} at line {line}" if line else ""
