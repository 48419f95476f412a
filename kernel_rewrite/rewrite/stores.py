"""Which calls of the source are rewritten so that every store to one output, and no other store, changes.

A store in a helper is rewritten in place when the helper is only ever reached on the way to this output; otherwise the
helper is cloned, and the calls on the way are redirected to the clone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kernel_rewrite.diagnostics import Diagnostic, Label
from kernel_rewrite.model import (
    Function,
    FunctionRef,
    Location,
    MemoryAccess,
    MemoryEffect,
    Span,
    TritonObject,
    Unresolved,
)
from kernel_rewrite.source.accesses import AccessForm, HelperCall, MemoryCall, SourceCalls, calls_in
from kernel_rewrite.source.names import callee
from kernel_rewrite.source.pointer_flow import PointerFlow


@dataclass(frozen=True, slots=True)
class StoreSite:
    """One store call to rewrite. `casts` are the TTIR operations by which the store converts its value to the buffer's
    type in some specialization (empty when the value has that type already)."""

    call: MemoryCall
    form: AccessForm
    casts: frozenset[str]

    @property
    def rounds(self) -> bool:
        return bool(self.casts)

    @property
    def only_narrows_floats(self) -> bool:
        return self.casts <= {"arith.truncf", "arith.extf"}


@dataclass(frozen=True, slots=True)
class StorePlan:
    """The stores of one output: `sites` to edit, helpers to clone first, calls to redirect to the clones."""

    output: str
    sites: tuple[StoreSite, ...]
    clones: tuple[FunctionRef, ...]
    redirected: tuple[HelperCall, ...]


def plan_stores(
    output: str,
    accesses: Iterable[MemoryAccess],
    calls: SourceCalls,
    references: frozenset[tuple[FunctionRef, int, int]],
) -> StorePlan | tuple[Diagnostic, ...]:
    """The rewrite of every store to `output`, or the reasons it cannot be made.

    `accesses` are those of every specialization; `references` are the places (line, column) of the kernel's file where
    a helper's name is used at all, by any code.
    """
    accesses = tuple(accesses)
    stores = [a for a in accesses if a.effect is MemoryEffect.WRITE]
    to_output = [a for a in stores if output in a.roots]
    problems: list[Diagnostic] = []
    sites: dict[MemoryCall, set[str]] = {}
    forms: dict[MemoryCall, AccessForm] = {}
    paths: set[tuple[HelperCall, ...]] = set()
    keys = set()
    for access in to_output:
        call = calls.memory_call(access.location, access.operation)
        path = _source_path(access, calls)
        form = call.form_for(access.operation) if call else None
        if call is None or path is None or form is None or call.value(form) is None:
            problems.append(_uneditable(access.location, output))
            continue
        sites.setdefault(call, set())
        forms[call] = form
        if access.implicit_cast:
            sites[call].add(access.implicit_cast)
        elif access.element_type.startswith("i"):
            # TTIR's integers have no sign: storing uint8 to an int8 buffer shows no cast, and yet changes the value
            sites[call].add("change of sign")
        paths.add(path)
        keys.add((path, call))
    for access in stores:
        if output in access.roots:
            continue
        call, path = calls.memory_call(access.location, access.operation), _source_path(access, calls)
        if call is not None and path is not None and (path, call) in keys:
            problems.append(_shared(call, output, access.roots))
    if problems:
        return tuple(dict.fromkeys(problems))
    on_path = {helper_call for path in paths for helper_call in path}
    clones = _clones(calls, on_path, references)
    redirected = tuple(sorted((c for c in on_path if c.callee in clones), key=lambda c: c.span))
    planned = (StoreSite(call, forms[call], frozenset(casts)) for call, casts in sites.items())
    return StorePlan(output, tuple(sorted(planned, key=lambda s: s.call.span)), clones, redirected)


def _source_path(access: MemoryAccess, calls: SourceCalls) -> tuple[HelperCall, ...] | None:
    """The helper calls that lead to `access`, outermost first; None when one cannot be found in the source."""
    places = (*access.call_path, access.location)
    path = []
    for location, inner in zip(places, places[1:], strict=False):
        target = calls.function_at(inner)
        helper_call = calls.helper_call(location, target.ref) if target else None
        if helper_call is None:
            return None
        path.append(helper_call)
    return tuple(path)


def _clones(
    calls: SourceCalls, on_path: set[HelperCall], references: frozenset[tuple[FunctionRef, int, int]]
) -> tuple[FunctionRef, ...]:
    """The helpers on the way that something else uses too, or that live in another file: those need a copy."""
    kernel = calls.closure.kernel.ref
    helpers = {call.callee for call in on_path}
    rewritten_uses = {(c.callee, c.node.func.lineno, _name_column(c.node.func)) for c in on_path}
    cloned = {
        helper
        for helper in helpers
        if helper.file != kernel.file
        or any(reference[0] == helper and reference not in rewritten_uses for reference in references)
    }
    while True:
        # The original of a cloned helper goes on calling the originals of its own helpers.
        more = {c.callee for c in on_path if c.function in cloned} - cloned
        if not more:
            return tuple(function.ref for function in calls.closure.functions if function.ref in cloned)
        cloned |= more


def _name_column(function: ast.expr) -> int:
    """The column of the last name of a dotted name, which is where a reference to the helper is recorded."""
    assert function.end_col_offset is not None
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return function.end_col_offset - len(name.encode())


def _uneditable(location: Location, output: str) -> Diagnostic:
    span = Span(location.file, location.line, location.column, location.line, location.column + 1)
    return Diagnostic(
        "KR213",
        f"`{output}` is stored by code that cannot be edited",
        (Label(span, "the store is here, but no call of the source could be matched to it"),),
        help="write the store as `tl.store(pointer, value, ...)`, with the value as an argument of its own",
    )


def _shared(call: MemoryCall, output: str, others: frozenset[str]) -> Diagnostic:
    names = ", ".join(f"`{name}`" for name in sorted(others))
    return Diagnostic(
        "KR212",
        f"one store call writes `{output}` and also {names}",
        (Label(call.span, f"stores to `{output}` and to {names}"),),
        help="give each buffer a store call of its own",
    )


def unlowered_code(
    output: str,
    calls: SourceCalls,
    flow: PointerFlow,
    lowered: Iterable[Location],
    complete: bool,
    overridden: bool,
) -> tuple[Diagnostic, ...]:
    """What the source may do to `output` beyond what the lowered specializations show.

    Unless they hold every combination of compile-time values that a launch can have (`complete`), a store that none of
    them has would be left without the op, and another combination may compile a load, an atomic or an unknown call that
    the source gives the output. With values given by the user (`overridden`), a launch can have others: a store that
    only those reach is still left without the op.
    """
    if complete and not overridden:
        return ()
    problems = [_unseen_store(call, output) for call in unreached_stores(output, calls, flow, lowered)]
    if complete:
        return tuple(problems)
    for function in calls.closure.functions:
        for call in calls.memory_calls_of(function.ref):
            if MemoryEffect.WRITE not in call.effects and _may_touch(call, output, function, flow):
                problems.append(_possible_read(call.span, output))
        problems += _possible_escapes(output, function, calls, flow)
    return tuple(problems)


def unreached_stores(
    output: str, calls: SourceCalls, flow: PointerFlow, lowered: Iterable[Location]
) -> tuple[MemoryCall, ...]:
    """The store calls that may write `output` and are in no lowered specialization."""
    places = _Places(calls, lowered)
    return tuple(
        call
        for function in calls.closure.functions
        for call in calls.memory_calls_of(function.ref)
        if MemoryEffect.WRITE in call.effects
        and _may_touch(call, output, function, flow)
        and not places.cover(call.span)
    )


def _may_touch(call: MemoryCall, output: str, function: Function, flow: PointerFlow) -> bool:
    pointers = [pointer for form in call.forms if (pointer := call.pointer(form)) is not None]
    return any(output in flow.roots(pointer, call.node, function) for pointer in pointers)


def _possible_escapes(output: str, function: Function, calls: SourceCalls, flow: PointerFlow) -> Iterator[Diagnostic]:
    """Calls that are given the output and whose effect the source does not show."""
    for node in calls_in(function):
        bound = callee(node, function, calls.closure)
        unknown = isinstance(bound, Unresolved) or (bound is None and not isinstance(node.func, ast.Attribute))
        if not unknown and getattr(bound, "attribute", "") not in _OPAQUE:
            continue
        if any(output in flow.roots(argument, node, function) for argument in node.args):
            yield _possible_read(Span.of(function.ref.file, node), output)


def pointer_casts(output: str, calls: SourceCalls, flow: PointerFlow) -> Iterator[Span]:
    """`out.to(tl.pointer_type(...))`, `tl.cast(out, tl.pointer_type(...))`: the casts of the output's pointer."""
    for function in calls.closure.functions:
        for node in calls_in(function):
            inner = [a for a in (*node.args, *(k.value for k in node.keywords)) if isinstance(a, ast.Call)]
            bound = [callee(call, function, calls.closure) for call in inner]
            if not any(isinstance(b, TritonObject) and b.attribute == "pointer_type" for b in bound):
                continue
            if output in flow.roots(node.func, node, function) or (
                node.args and output in flow.roots(node.args[0], node, function)
            ):
                yield Span.of(function.ref.file, node)


_OPAQUE = {"inline_asm_elementwise", "map_elementwise"}


class _Places:
    """Which spans of the source some lowered module has an operation in."""

    def __init__(self, calls: SourceCalls, lowered: Iterable[Location]) -> None:
        self._by_line: dict[tuple[str, int], set[int]] = {}
        for location in lowered:
            function = calls.function_at(location)
            nesting = function.nesting if function else 0
            self._by_line.setdefault((location.file, location.line), set()).add(location.column + nesting)

    def cover(self, span: Span) -> bool:
        for line in range(span.line, span.end_line + 1):
            for column in self._by_line.get((span.file, line), ()):
                if span.contains(Location(span.file, line, column)):
                    return True
        return False


def _unseen_store(call: MemoryCall, output: str) -> Diagnostic:
    return Diagnostic(
        "KR206",
        f"this store may write `{output}`, but no specialization reaches it",
        (Label(call.span, "never compiled with the values found for the compile-time parameters"),),
        help="give a value that reaches it, e.g. `--set FLAG=True`, or delete the dead branch",
    )


def _possible_read(span: Span, output: str) -> Diagnostic:
    return Diagnostic(
        "KR207",
        f"`{output}` may be read here, under compile-time values that were not lowered",
        (Label(span, f"may read through `{output}`"),),
        help="fix the compile-time values that are in use with `--set NAME=VALUE`",
    )
