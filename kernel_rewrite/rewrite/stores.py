"""Which calls of the source are rewritten so that every store to one output, and no other store, changes.

A store in a helper is rewritten in place when the helper is only ever reached on the way to this output; otherwise the
helper is cloned, and the calls on the way are redirected to the clone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kernel_rewrite.diagnostics import Diagnostic, Label
from kernel_rewrite.model import FunctionRef, Location, MemoryAccess, MemoryEffect, Span
from kernel_rewrite.source.accesses import AccessForm, HelperCall, MemoryCall, SourceCalls


@dataclass(frozen=True, slots=True)
class StoreSite:
    """One store call to rewrite. `casts` are the TTIR operations by which the store converts its value to the buffer's
    type in some specialization (empty when the value has that type already). A store through a `block_pointer` converts
    nothing."""

    call: MemoryCall
    form: AccessForm
    casts: frozenset[str]
    block_pointer: bool = False

    @property
    def rounds(self) -> bool:
        return bool(self.casts)

    @property
    def only_narrows_floats(self) -> bool:
        return self.casts <= {"arith.truncf", "arith.extf"}


@dataclass(frozen=True, slots=True)
class StorePlan:
    """The stores of one output: `sites` to edit, helpers to clone first, calls to redirect to the clones. `path` are all
    the helper calls that lead to the sites."""

    output: str
    sites: tuple[StoreSite, ...]
    clones: tuple[FunctionRef, ...]
    redirected: tuple[HelperCall, ...]
    path: tuple[HelperCall, ...] = ()

    @property
    def buffer(self) -> str:
        return self.output

    @property
    def changes(self) -> Iterator[tuple[MemoryCall, ast.expr | None]]:
        """Each call to edit, and the expression that gives way to another one that holds it."""
        return ((site.call, site.call.value(site.form)) for site in self.sites)


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
    block_pointers: set[MemoryCall] = set()
    paths: set[tuple[HelperCall, ...]] = set()
    for access in to_output:
        call = calls.memory_call(access.location, access.operation)
        path = calls.path_of(access)
        form = call.form_for(access.operation) if call else None
        if call is None or path is None or form is None or call.value(form) is None:
            problems.append(_uneditable(calls.surroundings(access.location), access.location, output))
            continue
        sites.setdefault(call, set())
        forms[call] = form
        if access.implicit_cast:
            sites[call].add(access.implicit_cast)
        elif access.element_type.startswith("i"):
            # TTIR's integers have no sign: storing uint8 to an int8 buffer shows no cast, and yet changes the value
            sites[call].add("change of sign")
        if access.block_pointer:
            block_pointers.add(call)
        paths.add(path)
    # An edited store is edited for every way that leads to the edited helper.
    on_path = {helper_call for path in paths for helper_call in path}
    for access in stores:
        call, path = calls.memory_call(access.location, access.operation), calls.path_of(access)
        if output not in access.roots and call in sites and path is not None and on_path.issuperset(path):
            problems.append(_shared(call, output, access.roots))
    if problems:
        return tuple(dict.fromkeys(problems))
    clones = copied_helpers(calls, on_path, references)
    redirected = tuple(sorted((c for c in on_path if c.callee in clones), key=lambda c: c.span))
    planned = (StoreSite(call, forms[call], frozenset(c), call in block_pointers) for call, c in sites.items())
    way = tuple(sorted(on_path, key=lambda c: c.span))
    return StorePlan(output, tuple(sorted(planned, key=lambda s: s.call.span)), clones, redirected, way)


def copied_helpers(
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


def _uneditable(around: Span | None, location: Location, output: str) -> Diagnostic:
    span = around or Span(location.file, location.line, location.column, location.line, location.column + 1)
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
