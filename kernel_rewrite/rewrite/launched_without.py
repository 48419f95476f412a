"""What launches a kernel, when an output of it is dropped: the argument goes, and the buffer with it.

gate = torch.empty_like(x)                  # goes: nothing else takes it
kernel[grid](x, gate, c, n)                 # kernel[grid](x, c, n)
return gate, c                              # return None, c
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kernel_rewrite.diagnostics import Diagnostic, Label
from kernel_rewrite.model import Edit, Span
from kernel_rewrite.rewrite.additions import Addition, RemovedItems, RemovedStatement, Replaced
from kernel_rewrite.rewrite.allocations import FACTS, VIEWS, allocates, behind_views, is_view, viewed
from kernel_rewrite.rewrite.brackets import call_bracket, removed
from kernel_rewrite.rewrite.launcher import OPERATORS, is_autograd, qualified, uncertain_uses
from kernel_rewrite.rewrite.parameters import LaunchedKernel
from kernel_rewrite.rewrite.placement import stands_alone
from kernel_rewrite.rewrite.removal import removed_statements
from kernel_rewrite.source.callers import Callers, HostDefinition
from kernel_rewrite.source.launches import Launch
from kernel_rewrite.source.syntax import PURE_NODES, last_name, walk

WAY_OUT = "drop it from the kernel alone with `--no-launcher`, and change the launches and what they return by hand"

_WHY = "the kernel does not take it any more"

_PURE_CALLS = FACTS | {"element_size", "cdiv", "len", "min", "max", "Size", "float", "int"}


@dataclass(frozen=True, slots=True)
class HostPlan:
    """The edits of what launches the kernel, what they add and take out, what changes for callers, in sentences, and why
    something cannot be changed (KR315, KR321). `parameters` are those that launches no longer pass."""

    parameters: tuple[str, ...] = ()
    edits: tuple[Edit, ...] = ()
    additions: tuple[Addition, ...] = ()
    removals: tuple[RemovedStatement, ...] = ()
    contract: tuple[str, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()


def launches_without(
    kernel: LaunchedKernel, outputs: Sequence[str], idle: Collection[str], like: Mapping[str, str] = {}
) -> HostPlan:
    """The plan by which no launch of the file passes `outputs`, nor those of the parameters `idle`, which the kernel has no
    use for, that are asked of their buffers. `like` names for an output another one whose buffer lies in memory as its own,
    so that it can be asked for shape and strides instead."""
    return _Planner(kernel, tuple(outputs), idle, like).plan()


def contract_without(kernel: LaunchedKernel, outputs: Sequence[str]) -> Iterator[str]:
    """What launches must do when they are left alone, in sentences."""
    names = " and ".join(f"`{output}`" for output in outputs)
    places = [f"line {launch.span.line}: " for launch in kernel.launches] or [""]
    yield from (f"{place}`{kernel.node.name}` is launched without {names}" for place in places)


@dataclass(slots=True)
class _Planner:
    kernel: LaunchedKernel
    outputs: tuple[str, ...]
    idle: Collection[str]
    like: Mapping[str, str]
    callers: Callers = field(init=False)
    edits: list[Edit] = field(default_factory=list)
    additions: list[Addition] = field(default_factory=list)
    contract: list[str] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    passed: set[int] = field(default_factory=set)  # the arguments that go, by identity
    gone: dict[HostDefinition, dict[int, ast.stmt]] = field(default_factory=dict)
    fewer: dict[int, tuple[ast.Assign, set[int]]] = field(default_factory=dict)  # a, b = f(x), g(x): what goes of it
    returned: dict[HostDefinition, dict[int, ast.expr]] = field(default_factory=dict)  # what gives way to None
    places: dict[HostDefinition, set[tuple[int, int]]] = field(default_factory=dict)  # (position, of how many)

    def __post_init__(self) -> None:
        self.callers = Callers(self.kernel.file.tree)

    def plan(self) -> HostPlan:
        why = "a launch through this would still pass what is dropped"
        self.diagnostics += uncertain_uses(self.kernel, self.callers, why, WAY_OUT)
        names = (*self.outputs, *self._idle_with_outputs())
        for launch in self.kernel.launches:
            self._arguments(launch, names)
        for launch in self.kernel.launches:
            for output in self.outputs:
                self._buffer(launch, output)
        for function in list(self.returned):
            self._returned_by(function, self.returned[function])
        removals: list[RemovedStatement] = []
        for function, statements in self.gone.items():
            edits, taken = removed_statements(self.kernel.file, function, statements.values())
            self.edits += edits
            removals += taken
        for statement, indices in self.fewer.values():
            removals.append(self._shortened(statement, indices))
            self.edits.append(Edit(Span.of(self.kernel.file.path, statement), removals[-1].instead, _WHY))
        away = [Span.of(self.kernel.file.path, removal.statement) for removal in removals]
        inside = [e for e in self.edits for span in away if span.contains_span(e.span) and span.start < e.span.start]
        return HostPlan(
            names,
            tuple(dict.fromkeys(edit for edit in self.edits if edit not in inside)),
            tuple(self.additions),
            tuple(removals),
            tuple(dict.fromkeys(self.contract)),
            tuple(dict.fromkeys(self.diagnostics)),
        )

    def _idle_with_outputs(self) -> Iterator[str]:
        """The idle parameters that every launch passes by itself, and that some launch asks of a buffer that goes."""
        for name in self.kernel.parameters:
            arguments = [launch.arguments.get(name) for launch in self.kernel.launches]
            if name not in self.idle or not all(
                argument is not None and self._stands_in(launch, argument) and _is_pure(argument)
                for launch, argument in zip(self.kernel.launches, arguments, strict=True)
            ):
                continue
            for launch, argument in zip(self.kernel.launches, arguments, strict=True):
                buffers = {_name_of(launch.arguments.get(output)) for output in self.outputs} - {""}
                if argument is not None and buffers & _names(argument):
                    yield name
                    break

    def _stands_in(self, launch: Launch, argument: ast.expr) -> bool:
        call = launch.call
        return call is not None and (argument in call.args or argument in [k.value for k in call.keywords])

    def _arguments(self, launch: Launch, names: Sequence[str]) -> None:
        """Take the arguments out of one launch."""
        if not launch.certain:
            self._refuse(launch.span, f"this launch may be of another kernel than `{self.kernel.node.name}`", "KR315")
            return
        found = [launch.arguments[name] for name in names if name in launch.arguments]
        missing = any(name not in launch.arguments for name in self.outputs) and not launch.complete
        if missing or not all(self._stands_in(launch, argument) for argument in found):
            self._refuse(launch.span, "what this launch passes for it stands in `*` or `**`")
            return
        if launch.call is None or not found:
            return
        file, call = self.kernel.file, launch.call
        bracket = call_bracket(file, call)
        nodes = [next((k for k in call.keywords if k.value is argument), argument) for argument in found]
        indices = {bracket.index(file.offset(node.lineno, node.col_offset)) for node in nodes}
        self.edits += removed(file, bracket, indices, _WHY)
        self.additions.append(RemovedItems(call, tuple(found)))
        self.passed |= {id(argument) for argument in found}

    # one buffer ------------------------------------------------------------------------------------------------------

    def _buffer(self, launch: Launch, output: str) -> None:
        """Follow what one launch passes for an output to where it is made."""
        passed = launch.arguments.get(output)
        if passed is None or _is_made(argument := behind_views(passed)):
            return
        function = launch.function
        if not isinstance(argument, ast.Name) or function is None:
            self._refuse(
                launch.span, f"others may still look at `{ast.unparse(argument)}`, which it passes for `{output}`"
            )
            return
        name = argument.id
        uses = [n for n in walk(function) if isinstance(n, ast.Name) and n.id == name]
        bound = [n for n in uses if not isinstance(n.ctx, ast.Load)]
        asked = False
        for use in uses:
            if isinstance(use.ctx, ast.Load):
                asked |= self._use(launch, function, use, output, given=not bound)
        if name in {a.arg for a in walk(function.args) if isinstance(a, ast.arg)}:
            self._given(function, name, output, bound)
            return
        statement, value, index = self._made(bound[0]) if len(bound) == 1 else (None, None, None)
        if statement is None or value is None or not _is_made(value):
            where = Span.of(self.kernel.file.path, bound[-1]) if bound else launch.span
            self._refuse(where, f"`{name}` is not bound by one plain allocation in the launcher")
            return
        if not asked and index is None:
            self.gone.setdefault(function, {})[id(statement)] = statement
        elif not asked and index is not None:
            assert isinstance(statement, ast.Assign)
            indices = self.fewer.setdefault(id(statement), (statement, set()))[1]
            indices.add(index)
            if len(indices) == len(statement.targets[0].elts):  # type: ignore[attr-defined]
                self.gone.setdefault(function, {})[id(statement)] = self.fewer.pop(id(statement))[0]
        else:
            self.contract.append(
                f"`{self._named(function)}` still allocates `{name}`, whose shape or strides it asks for"
            )

    def _made(self, name: ast.Name) -> tuple[ast.stmt | None, ast.expr | None, int | None]:
        """The plain assignment that binds a name, the value it gives, and the position in `a, b = f(x), g(x)`."""
        statement = self.callers.parents[name]
        match statement:
            case ast.Assign(targets=[target], value=value) if target is name:
                return statement, value, None
            case ast.AnnAssign(target=target, value=value) if target is name:
                return statement, value, None
            case ast.Tuple(elts=names):
                outer = self.callers.parents[statement]
                match outer:
                    case ast.Assign(targets=[ast.Tuple()], value=ast.Tuple(elts=values)) if len(names) == len(values):
                        index = names.index(name)
                        alone = outer.lineno == outer.end_lineno and stands_alone(self.kernel.file, outer)
                        starred = any(isinstance(e, ast.Starred) for e in (*names, *values))
                        return (outer, values[index], index) if alone and not starred else (None, None, None)
        return None, None, None

    def _shortened(self, statement: ast.Assign, indices: set[int]) -> RemovedStatement:
        """`a, b, c = f(x), g(x), h(x)` without some of these."""
        sides = [
            ", ".join(
                self.kernel.file.slice(Span.of(self.kernel.file.path, e))
                for i, e in enumerate(side.elts)
                if i not in indices
            )
            for side in (statement.targets[0], statement.value)
            if isinstance(side, ast.Tuple)
        ]
        return RemovedStatement(statement, " = ".join(sides))

    def _given(self, function: HostDefinition, name: str, output: str, bound: Sequence[ast.Name]) -> None:
        """A buffer that the launcher's callers give it: it is left as it is."""
        if bound:
            self._refuse(
                Span.of(self.kernel.file.path, bound[0]), f"the caller may give `{name}`, which is bound here too"
            )
        for call in self.callers.calls(function):
            self._refuse(Span.of(self.kernel.file.path, call), f"this call gives `{name}`, and may look at it later")
        self.contract.append(f"`{self._named(function)}` leaves `{name}` as it is: nothing is written to it")

    def _use(self, launch: Launch, function: HostDefinition, use: ast.Name, output: str, *, given: bool) -> bool:
        """Judge a use of the buffer; whether it needs the buffer to be there."""
        current: ast.AST = use
        while not isinstance(current, ast.stmt):
            if id(current) in self.passed:
                return False
            current = self.callers.parents[current]
        parent = self.callers.parents[use]
        if isinstance(parent, ast.Attribute) and parent.attr in FACTS:
            other = self._asked_instead(launch, function, use, output) if not given else ""
            if other:
                self.edits.append(Edit(Span.of(self.kernel.file.path, use), other, "it has the same shape and strides"))
                self.additions.append(Replaced(use, other))
            return not other
        item: ast.AST = use
        while _views(parent, item):
            item, parent = parent, self.callers.parents[parent]
        outer = self.callers.parents.get(parent)
        if isinstance(parent, ast.Tuple) and isinstance(outer, ast.Return) and not given and len(parent.elts) > 1:
            assert isinstance(item, ast.expr)
            if self.callers.function(outer) is function:
                self.returned.setdefault(function, {})[id(item)] = item
                self.places.setdefault(function, set()).add((parent.elts.index(item), len(parent.elts)))
                return False
        what = "is all that is returned" if isinstance(parent, ast.Return) else "is used here too"
        self._refuse(Span.of(self.kernel.file.path, use), f"`{use.id}`, which is passed for `{output}`, {what}")
        return True

    def _asked_instead(self, launch: Launch, function: HostDefinition, use: ast.Name, output: str) -> str:
        """The name of a buffer that lies in memory as the one of `output`, and is there at a use of that; "" without one."""
        other = launch.arguments.get(self.like.get(output, ""))
        if not isinstance(other, ast.Name) or len(self.kernel.launches) > 1:
            return ""
        uses = [n for n in walk(function) if isinstance(n, ast.Name) and n.id == other.id]
        bound = [n for n in uses if not isinstance(n.ctx, ast.Load)]
        statement = self.callers.parents[bound[0]] if len(bound) == 1 else None
        is_there = statement in function.body and bound[0].lineno < use.lineno
        return other.id if is_there or (not bound and other.id in {a.arg for a in function.args.args}) else ""

    # what is returned ------------------------------------------------------------------------------------------------

    def _returned_by(self, function: HostDefinition, items: dict[int, ast.expr]) -> None:
        """Return None in the place of the buffers of a launcher, if its callers in the file bear that."""
        for item in items.values():
            self.edits.append(Edit(Span.of(self.kernel.file.path, item), "None", "nothing is stored there any more"))
            self.additions.append(Replaced(item, "None"))
        texts = " and ".join(dict.fromkeys(f"`{ast.unparse(item)}`" for item in items.values()))
        self.contract.append(f"`{self._named(function)}` returns None in the place of {texts}")
        self._bear(function, self.places[function], set())

    def _bear(self, function: HostDefinition, places: set[tuple[int, int]], seen: set[HostDefinition]) -> None:
        """Refuse where a caller in the file may look at what `function` returns at `places`."""
        owner = self.callers.owner(function)
        if owner is not None and is_autograd(owner, self.kernel.file.tree):
            why = f"`{self._named(function)}` is part of an autograd function, whose outputs its backward counts"
            self._refuse(self._line(function), why)
        for decorator in function.decorator_list:
            if last_name(decorator.func if isinstance(decorator, ast.Call) else decorator) in OPERATORS:
                why = "the schema of this operator says what is returned"
                self._refuse(Span.of(self.kernel.file.path, decorator), why)
        seen.add(function)
        for call in self.callers.calls(function):
            parent, caller = self.callers.parents[call], self.callers.function(call)
            if isinstance(parent, ast.Return) and caller is not None:
                if caller not in seen:
                    self.contract.append(f"`{self._named(caller)}` returns what `{self._named(function)}` does")
                    self._bear(caller, places, seen)
            elif not all(_is_unused(parent, call, caller or self.callers.tree, *place) for place in places):
                self._refuse(Span.of(self.kernel.file.path, call), "what is dropped is used by this call's function")

    def _line(self, function: HostDefinition) -> Span:
        line = function.lineno
        return Span(self.kernel.file.path, line, function.col_offset, line, function.col_offset + 3)

    def _named(self, function: HostDefinition) -> str:
        return qualified(function, self.callers)

    def _refuse(self, span: Span, why: str, code: str = "KR321") -> None:
        names = " and ".join(f"`{output}`" for output in self.outputs)
        message = f"what launches `{self.kernel.node.name}` cannot do without {names}"
        self.diagnostics.append(Diagnostic(code, message, (Label(span, why),), help=WAY_OUT))


def _views(node: ast.AST, inner: ast.AST) -> bool:
    """Whether `node` is, or is about to be, a view of `inner`: `x.T`, `x.view`, `x.view(...)`."""
    if isinstance(node, ast.Attribute):
        return node.attr in VIEWS
    return isinstance(node, ast.Call) and node.func is inner and is_view(node)


def _is_unused(parent: ast.AST, call: ast.Call, scope: ast.AST, position: int, count: int) -> bool:
    """Whether nobody looks at what a call returns at a position: `_, c = f(x)`, `gate, c = f(x)` and no `gate`, `f(x)[1]`."""
    match parent:
        case ast.Expr():
            return True
        case ast.Assign(targets=[ast.Tuple(elts=elements)], value=value) if value is call and len(elements) == count:
            target = elements[position]
            if not isinstance(target, ast.Name) or any(isinstance(e, ast.Starred) for e in elements):
                return False
            return not any(
                isinstance(n, ast.Name) and n.id == target.id and isinstance(n.ctx, ast.Load) for n in walk(scope)
            )
        case ast.Subscript(value=value, slice=ast.Constant(value=int(index))) if value is call:
            return index % count != position
    return False


def _is_made(value: ast.expr) -> bool:
    """Whether a value is an allocation, or None, or one of these by a test, and nothing else is done on the way."""
    if isinstance(value, ast.IfExp):
        return _is_pure(value.test) and _is_made(value.body) and _is_made(value.orelse)
    if isinstance(value, ast.Constant):
        return value.value is None
    while (inner := viewed(value)) is not None:
        if isinstance(value, ast.Call) and not all(map(_is_pure, value.args)):
            return False
        value = inner
    if not isinstance(value, ast.Call) or not allocates(value):
        return False
    function = value.func
    return all(map(_is_pure, (*value.args, *(k.value for k in value.keywords)))) and (
        isinstance(function, ast.Attribute) and _is_pure(function.value)
    )


def _is_pure(value: ast.expr) -> bool:
    """Whether an expression of the launcher only computes sizes and the like."""
    return all(
        isinstance(node, PURE_NODES) and (not isinstance(node, ast.Call) or last_name(node.func) in _PURE_CALLS)
        for node in walk(value)
    )


def _name_of(argument: ast.expr | None) -> str:
    buffer = behind_views(argument) if argument is not None else None
    return buffer.id if isinstance(buffer, ast.Name) else ""


def _names(node: ast.expr) -> set[str]:
    return {n.id for n in walk(node) if isinstance(n, ast.Name)}
