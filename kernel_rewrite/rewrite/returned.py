"""What a launcher returns, with the rest of an epilogue in torch around the output.

return c          return torch.softmax(c, dim=-1)  # kernel-rewrite: not fused
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from kernel_rewrite.diagnostics import Diagnostic, Label
from kernel_rewrite.model import Edit, Span
from kernel_rewrite.pointwise.remainder import Remainder, unreadable_operand
from kernel_rewrite.rewrite.additions import Addition, Replaced
from kernel_rewrite.rewrite.allocations import FACTS, allocates, behind_views, is_view, torch_name_in
from kernel_rewrite.rewrite.brackets import span_between
from kernel_rewrite.rewrite.edits import insertion
from kernel_rewrite.rewrite.parameters import LaunchedKernel
from kernel_rewrite.source.callers import Callers, HostDefinition, bound_in
from kernel_rewrite.source.comments import NOT_FUSED, mark
from kernel_rewrite.source.launches import Launch
from kernel_rewrite.source.syntax import nodes_in

_END_OF_LINE = re.compile(r"[ \t\f,;)\]]*(?:#[^\r\n]*)?(?=\r|\n|\Z)")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


@dataclass(slots=True)
class ReturnPlan:
    """The edits of what launchers return, what they add, what changes for callers, and what speaks against it (KR322)."""

    edits: list[Edit] = field(default_factory=list)
    additions: list[Addition] = field(default_factory=list)
    contract: list[str] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)


def return_edits(kernel: LaunchedKernel, rests: Mapping[str, Remainder]) -> ReturnPlan:
    """The plan by which every launcher of the file returns the rest of each output's epilogue in the output's place.

    KR322 where no launcher of the file does, or one does not allocate the output itself, uses it for something else too, or
    does not return it everywhere.
    """
    plan = ReturnPlan()
    callers = Callers(kernel.file.tree)
    for output, rest in rests.items():
        done: set[tuple[ast.AST, str]] = set()
        plan.diagnostics += _unreadable(kernel, output, rest)
        if not kernel.launches:
            label = Label(Span.of(kernel.file.path, kernel.node))
            plan.diagnostics.append(_refused(output, label, "no function of the file launches the kernel"))
        for launch in kernel.launches:
            buffer = _buffer(kernel, launch, output, callers)
            if isinstance(buffer, Diagnostic):
                plan.diagnostics.append(buffer)
            elif (buffer.function, buffer.name) not in done:
                done.add((buffer.function, buffer.name))
                _Returns(kernel, output, rest, buffer, callers, plan).plan_all(launch.launcher)
    return plan


def _refused(output: str, label: Label, why: str) -> Diagnostic:
    message = f"the rest of the epilogue of `{output}` cannot be computed where a launcher returns it"
    help_text = (
        "allocate the output in the launching function, for this kernel alone, and return it; or write the rest in "
    )
    return Diagnostic("KR322", message, (Label(label.span, why),), help=f"{help_text}torch yourself, where it is used")


def _unreadable(kernel: LaunchedKernel, output: str, rest: Remainder) -> Iterator[Diagnostic]:
    operand = unreadable_operand(rest)
    if operand is not None:
        why = f"`{operand.name}` ({operand.kind.value}) is no number and no tensor that torch broadcasts as it is"
        yield _refused(output, Label(Span.of(kernel.file.path, kernel.node)), why)


# ------------------------------------------------------------------------------------------------------------- the buffer


@dataclass(frozen=True, slots=True)
class _Buffer:
    """The variable `name` of `function`, which is never bound to anything but a new tensor."""

    function: HostDefinition
    name: str


def _buffer(kernel: LaunchedKernel, launch: Launch, output: str, callers: Callers) -> _Buffer | Diagnostic:
    """What a launch passes for the output, if the launching function has it for this alone."""

    def refused(node: ast.AST | None, why: str) -> Diagnostic:
        span = Span.of(kernel.file.path, node) if isinstance(node, (ast.expr, ast.stmt)) else launch.span
        return _refused(output, Label(span), why)

    function = launch.function
    if function is None:
        return refused(None, "it is launched outside any function")
    if isinstance(function, ast.AsyncFunctionDef) or callers.function(function) is not None:
        return refused(None, f"`{function.name}` is no plain function or method of the file")
    own = list(_own_nodes(function))
    if any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in own):
        return refused(None, f"`{function.name}` is a generator")
    argument = launch.arguments.get(output)
    argument = behind_views(argument) if argument is not None else None
    if not isinstance(argument, ast.Name):
        return refused(argument, "this is no variable of the launching function")
    name = argument.id
    if name in {node.arg for node in ast.walk(function.args) if isinstance(node, ast.arg)}:
        return refused(argument, f"`{name}` is the caller's")
    uses = [node for node in ast.walk(function) if isinstance(node, ast.Name) and node.id == name]
    bound = [node for node in uses if not isinstance(node.ctx, ast.Load)]
    if not bound or any(_binds_otherwise(node, name) for node in ast.walk(function)):
        return refused(argument, f"`{name}` is no variable of the launching function alone")
    for target in bound:
        made = _assigned(target, callers)
        if made is None or target not in own:
            return refused(target, f"`{name}` is bound here by more than a plain assignment")
        either = [made.body, made.orelse] if isinstance(made, ast.IfExp) else [made]
        for value in either:
            if not (isinstance(value, ast.Call) and allocates(value)):
                return refused(value, "this is not an allocation")
    passed = {id(other.arguments.get(output)) for other in kernel.launches}
    for use in uses:
        if use not in bound and not _is_harmless(use, function, passed, callers):
            return refused(use, f"`{name}` is used here too")
    return _Buffer(function, name)


def _assigned(target: ast.Name, callers: Callers) -> ast.expr | None:
    """What a plain assignment binds a name to: `c = VALUE`, `c, d = VALUE, OTHER`."""
    outer = callers.parents.get(target)
    around = callers.parents.get(outer) if isinstance(outer, ast.Tuple) else None
    match outer, around:
        case ast.Assign(targets=[_], value=value), None:
            return value
        case ast.Tuple(elts=targets), ast.Assign(targets=[_], value=ast.Tuple(elts=values)):
            starred = any(isinstance(item, ast.Starred) for item in (*targets, *values))
            return None if starred or len(targets) != len(values) else values[targets.index(target)]
    return None


def _binds_otherwise(node: ast.AST, name: str) -> bool:
    """Whether a node gives a name a meaning without an `ast.Name`, or one that others share."""
    match node:
        case ast.Global(names=names) | ast.Nonlocal(names=names):
            return name in names
        case ast.alias(name=imported, asname=asname):
            return name == (asname or imported.split(".")[0])
        case ast.FunctionDef(name=bound) | ast.AsyncFunctionDef(name=bound) | ast.ClassDef(name=bound):
            return name == bound
        case ast.ExceptHandler(name=bound) | ast.MatchAs(name=bound) | ast.MatchStar(name=bound):
            return name == bound
        case ast.MatchMapping(rest=bound) | ast.arg(arg=bound):
            return name == bound
    return False


def _own_nodes(function: HostDefinition) -> Iterator[ast.AST]:
    """The nodes of a function's body, but for those of functions and classes inside it."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, _FUNCTIONS):
            waiting += ast.iter_child_nodes(node)


def _is_harmless(use: ast.Name, function: HostDefinition, passed: set[int], callers: Callers) -> bool:
    """Whether a use of the buffer is a question about its shape, a launch's own, or part of what `function` returns."""
    current: ast.AST = use
    parent = callers.parents[current]
    if isinstance(parent, ast.Attribute) and parent.attr in FACTS:
        return True
    while isinstance(parent, ast.expr) and (is_view(parent) or isinstance(parent, ast.Attribute)):
        if id(current) in passed:
            return True
        current, parent = parent, callers.parents[parent]
    while isinstance(parent, (ast.Tuple, ast.List)) or (isinstance(parent, ast.IfExp) and current is not parent.test):
        current, parent = parent, callers.parents[parent]
    return (isinstance(parent, ast.Return) and callers.function(parent) is function) or id(current) in passed


# ------------------------------------------------------------------------------------------------------------ the returns


@dataclass(frozen=True, slots=True)
class _Returns:
    """Plans the returns of one launching function."""

    kernel: LaunchedKernel
    output: str
    rest: Remainder
    buffer: _Buffer
    callers: Callers
    out: ReturnPlan

    def plan_all(self, launcher: str) -> None:
        function, name = self.buffer.function, self.buffer.name
        returns = [node for node in _own_nodes(function) if isinstance(node, ast.Return)]
        returns.sort(key=lambda node: node.lineno)
        torch = torch_name_in(self.kernel.file.tree)
        if self.rest.needs_torch and not torch:
            self._refuse(function, "the file has no name for torch")
        elif self.rest.needs_torch and torch.split(".")[0] in bound_in(function) | {o.name for o in self.rest.operands}:
            self._refuse(function, f"`{torch}` is something else here")
        elif not returns:
            self._refuse(function, f"`{function.name}` returns nothing")
        else:
            for statement in returns:
                self._plan(statement, torch or "torch")
            text = self.rest.torch_text(name, torch or "torch")
            self.out.contract.append(f"`{launcher}` returns `{text}` for `{name}`")

    def _refuse(self, node: ast.stmt | ast.expr, why: str) -> None:
        self.out.diagnostics.append(_refused(self.output, Label(Span.of(self.kernel.file.path, node)), why))

    def _plan(self, statement: ast.Return, torch: str) -> None:
        file, name = self.kernel.file, self.buffer.name
        value = statement.value
        elements = value.elts if isinstance(value, (ast.Tuple, ast.List)) else [value] if value is not None else []
        found = [element for element in elements if self._mentions(element)]
        if len(found) != 1 or not self._is_the_buffer(found[0]):
            self._refuse(statement, f"`{name}` is not returned here, once and by itself")
            return
        (element,) = found
        ends = (file.offset(node.end_lineno or 0, node.end_col_offset or 0) for node in (element, statement))
        line = next(filter(None, (_END_OF_LINE.match(file.text, end) for end in ends)), None)
        if line is None:
            self._refuse(statement, "something else stands behind it on its line")
            return
        if isinstance(element, ast.IfExp) and self.rest.uses_of_x > 1:
            self._refuse(statement, "which of two it is would be asked several times")
            return
        text = self.rest.torch_text(ast.unparse(element), torch)
        self.out.edits.append(Edit(Span.of(file.path, element), text, "the rest of the epilogue, in torch"))
        self.out.additions.append(Replaced(element, text))
        place = span_between(file, line.end(), line.end())
        comment = insertion(file.path, place.line, place.column, f"  {mark(NOT_FUSED)}", "what torch computes still")
        if comment not in self.out.edits:
            self.out.edits.append(comment)

    def _mentions(self, element: ast.expr) -> bool:
        """Whether the buffer itself is in an element, and not only its shape."""
        return any(
            isinstance(node, ast.Name) and node.id == self.buffer.name and not self._is_asked(node)
            for node in nodes_in(element)
        )

    def _is_asked(self, node: ast.Name) -> bool:
        parent = self.callers.parents[node]
        return isinstance(parent, ast.Attribute) and parent.attr in FACTS

    def _is_the_buffer(self, element: ast.expr) -> bool:
        """`c`, `c.view(M, N)`, `c.squeeze(0) if flat else c`"""
        if isinstance(element, ast.IfExp):
            return self._is_the_buffer(element.body) and self._is_the_buffer(element.orelse)
        buffer = behind_views(element)
        return isinstance(buffer, ast.Name) and buffer.id == self.buffer.name
