"""What the source may do to an output beyond what the lowered specializations show.

TTIR is the proof for what it holds. This is the check for the rest: every call, by every way of helper calls, that the
source may hand the output's pointer to, whatever branch is taken.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kernel_rewrite.diagnostics import Diagnostic, Label
from kernel_rewrite.model import Function, MemoryAccess, MemoryEffect, Span, TritonObject, Unresolved
from kernel_rewrite.source.accesses import MemoryCall, SourceCalls, calls_in
from kernel_rewrite.source.names import callee
from kernel_rewrite.source.pointer_flow import MAXIMUM_PATHS, PointerFlow, Reached

_OPAQUE = {"inline_asm_elementwise", "map_elementwise"}


@dataclass(frozen=True, slots=True)
class Uncovered:
    """What the source may do to an output that no lowered specialization does: `stores` to it and `reads` of it (loads,
    atomics, calls whose effect the source does not show). `countless` when there are too many ways to follow."""

    stores: tuple[Reached, ...]
    reads: tuple[Reached, ...]
    countless: bool = False


def uncovered(output: str, accesses: Iterable[MemoryAccess], calls: SourceCalls, flow: PointerFlow) -> Uncovered:
    """The stores that none of `accesses` makes to `output` by the same way, and all that may read it."""
    lowered = set()
    for access in accesses:
        if access.effect is MemoryEffect.WRITE and any(root.split("[")[0] == output for root in access.roots):
            call = calls.memory_call(access.location, access.operation)
            path = calls.path_of(access)
            if call is not None and path is not None:
                lowered.add((path, id(call.node)))
    memory_calls = {id(call.node): call for call in calls.memory_calls}
    stores, reads, count = [], [], 0
    for reached in flow.reached(output):
        count += 1
        call = memory_calls.get(id(reached.call))
        if call is None:
            if _is_opaque(reached, calls):
                reads.append(reached)
        elif output not in _pointed_at(call, reached, flow):
            continue
        elif MemoryEffect.WRITE not in call.effects:
            reads.append(reached)
        elif (reached.path, id(reached.call)) not in lowered:
            stores.append(reached)
    return Uncovered(tuple(stores), tuple(reads), count >= MAXIMUM_PATHS)


def _pointed_at(call: MemoryCall, reached: Reached, flow: PointerFlow) -> frozenset[str]:
    """The parameters that the pointer of a memory call, rather than its value or offsets, may point into."""
    pointers = [pointer for form in call.forms if (pointer := call.pointer(form)) is not None]
    return frozenset().union(*(flow.roots(pointer, call.node, reached.function) for pointer in pointers))


def _is_opaque(reached: Reached, calls: SourceCalls) -> bool:
    """Whether the effect of a call that is handed the output cannot be told from the source."""
    node = reached.call
    bound = callee(node, reached.function, calls.closure)
    if isinstance(bound, Unresolved) or getattr(bound, "attribute", "") in _OPAQUE:
        return True
    return bound is None and not isinstance(node.func, ast.Attribute)


def unlowered_code(output: str, found: Uncovered, complete: bool, overridden: bool) -> Iterator[Diagnostic]:
    """KR206 and KR207 for what is `uncovered`.

    With every combination of compile-time values that a launch can have lowered (`complete`), it is dead code. With values
    given by the user (`overridden`), a launch can have others: a store that only those reach would be left without the op.
    """
    if found.countless:
        yield Diagnostic("KR207", f"`{output}` is handed on in more ways than can be followed", help=_FIX)
    if complete and not overridden:
        return
    yield from dict.fromkeys(_unseen_store(reached, output) for reached in found.stores)
    if not complete:
        yield from dict.fromkeys(_possible_read(reached, output) for reached in found.reads)


def pointer_casts(output: str, calls: SourceCalls, flow: PointerFlow) -> Iterator[Span]:
    """`out.to(tl.pointer_type(...))`, `tl.cast(out, tl.pointer_type(...))`: the casts of the output's pointer."""
    for function in calls.closure.functions:
        for node in calls_in(function):
            if not _names_pointer_type(node, function, calls):
                continue
            if output in flow.roots(node.func, node, function) or (
                node.args and output in flow.roots(node.args[0], node, function)
            ):
                yield Span.of(function.ref.file, node)


def _names_pointer_type(node: ast.Call, function: Function, calls: SourceCalls) -> bool:
    inner = [a for a in (*node.args, *(k.value for k in node.keywords)) if isinstance(a, ast.Call)]
    bound = [callee(call, function, calls.closure) for call in inner]
    return any(isinstance(b, TritonObject) and b.attribute == "pointer_type" for b in bound)


_FIX = "fix the compile-time values that are in use with `--set NAME=VALUE`"


def _labels(reached: Reached, text: str) -> tuple[Label, ...]:
    ways = tuple(Label(call.span, "by this call") for call in reversed(reached.path))
    return (Label(Span.of(reached.function.ref.file, reached.call), text), *ways)


def _unseen_store(reached: Reached, output: str) -> Diagnostic:
    return Diagnostic(
        "KR206",
        f"this store may write `{output}`, but no specialization reaches it",
        _labels(reached, "never compiled with the values found for the compile-time parameters"),
        help="give a value that reaches it, e.g. `--set FLAG=True`, or delete the dead branch",
    )


def _possible_read(reached: Reached, output: str) -> Diagnostic:
    return Diagnostic(
        "KR207",
        f"`{output}` may be read here, under compile-time values that were not lowered",
        _labels(reached, f"may read through `{output}`"),
        help=_FIX,
    )
