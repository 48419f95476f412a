"""What the source may do to an output in code that no lowered specialization shows."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from kernel_rewrite.diagnostics import Diagnostic, Label
from kernel_rewrite.model import Function, Location, MemoryEffect, Span, TritonObject, Unresolved
from kernel_rewrite.source.accesses import MemoryCall, SourceCalls, calls_in
from kernel_rewrite.source.names import callee
from kernel_rewrite.source.pointer_flow import PointerFlow


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
