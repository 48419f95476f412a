"""What the source may do to an output beyond what the lowered specializations show.

TTIR is the proof for what it holds. This is the check for the rest: every call, by every way of helper calls, that the
source may hand the output's pointer to, whatever branch is taken.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kernel_rewrite.diagnostics import Diagnostic, Label
from kernel_rewrite.model import MemoryAccess, MemoryEffect, Span, TritonObject, Unresolved
from kernel_rewrite.source.accesses import HelperCall, MemoryCall, SourceCalls, calls_in
from kernel_rewrite.source.names import callee
from kernel_rewrite.source.pointer_flow import MAXIMUM_PATHS, PointerFlow, Reached

_OPAQUE = {"inline_asm_elementwise", "map_elementwise"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One call that may do to an output what no lowered specialization does.

    `kind`: "store" (to the output, left without the op), "read" (a load, an atomic, a call whose effect the source does not
    show) or "shared" (a store to the output that may also go to `others`). `open`: the code is compiled in some
    specialization, or stands under no test; it is then no dead code, however many combinations were lowered.
    """

    kind: str
    reached: Reached
    others: frozenset[str] = frozenset()
    open: bool = False


@dataclass(frozen=True, slots=True)
class Uncovered:
    """The findings on one output; `countless` when there are too many ways to follow."""

    findings: tuple[Finding, ...]
    countless: bool = False

    @property
    def stores(self) -> tuple[Reached, ...]:
        return tuple(finding.reached for finding in self.findings if finding.kind == "store")


def uncovered(
    output: str,
    accesses: Iterable[MemoryAccess],
    calls: SourceCalls,
    flow: PointerFlow,
    buffers: frozenset[str],
) -> Uncovered:
    """What the source may do to `output` beyond `accesses`, by every way of helper calls; `buffers` are the parameters
    that are pointers."""
    compiled, stored = _lowered(output, accesses, calls)
    memory_calls = {id(call.node): call for call in calls.memory_calls}
    findings, count = [], 0
    for reached in flow.reached(output):
        count += 1
        key = (reached.path, id(reached.call))
        is_open = key in compiled or not _is_guarded(reached)
        call = memory_calls.get(id(reached.call))
        if call is None:
            if _is_opaque(reached, calls):
                findings.append(Finding("read", reached, open=is_open))
            continue
        roots = _pointed_at(call, reached, flow) & buffers
        if output not in roots:
            continue
        if MemoryEffect.WRITE not in call.effects:
            findings.append(Finding("read", reached, open=is_open))
        elif key not in stored:
            findings.append(Finding("store", reached, open=is_open))
        elif roots != {output}:
            findings.append(Finding("shared", reached, roots - {output}, is_open))
    return Uncovered(tuple(findings), count >= MAXIMUM_PATHS)


_Keys = set[tuple[tuple[HelperCall, ...], int]]


def _lowered(output: str, accesses: Iterable[MemoryAccess], calls: SourceCalls) -> tuple[_Keys, _Keys]:
    """The (way, call) pairs that some specialization compiles, and those of them that store to the output."""
    compiled: _Keys = set()
    stored: _Keys = set()
    for access in accesses:
        call, path = calls.memory_call(access.location, access.operation), calls.path_of(access)
        if call is None or path is None:
            continue
        compiled.add((path, id(call.node)))
        if access.effect is MemoryEffect.WRITE and any(root.split("[")[0] == output for root in access.roots):
            stored.add((path, id(call.node)))
    return compiled, stored


def _pointed_at(call: MemoryCall, reached: Reached, flow: PointerFlow) -> frozenset[str]:
    """The parameters that the pointer of a memory call, rather than its value or offsets, may point into."""
    pointers = [pointer for form in call.forms if (pointer := call.pointer(form)) is not None]
    return frozenset().union(*(flow.roots_at(reached, pointer) for pointer in pointers))


def _is_guarded(reached: Reached) -> bool:
    """Whether a test decides if the call is compiled: its own statement or that of a helper call on the way is under
    one."""
    callers = [*(function for function in reached.callers), reached.function]
    calls = [*(helper_call.node for helper_call in reached.path), reached.call]
    return any(_under_test(caller.node, call) for caller, call in zip(callers, calls, strict=True))


def _under_test(function: ast.FunctionDef, call: ast.Call) -> bool:
    """Whether `call` stands in a branch of an `if`, a conditional expression or a `while` of `function`, or behind a
    `return` that an `if` holds."""
    for node in ast.walk(function):
        if isinstance(node, (ast.If, ast.IfExp, ast.While)):
            if node.lineno <= call.lineno <= (node.end_lineno or node.lineno) and any(
                n is call for n in ast.walk(node)
            ):
                return True
            returns = any(isinstance(inner, ast.Return) for inner in ast.walk(node))
            if returns and node.lineno < call.lineno:
                return True
    return False


def _is_opaque(reached: Reached, calls: SourceCalls) -> bool:
    """Whether the effect of a call that is handed the output cannot be told from the source."""
    node = reached.call
    bound = callee(node, reached.function, calls.closure)
    if isinstance(bound, Unresolved) or getattr(bound, "attribute", "") in _OPAQUE:
        return True
    return bound is None and not isinstance(node.func, ast.Attribute)


def unlowered_code(output: str, found: Uncovered, complete: bool, overridden: bool) -> Iterator[Diagnostic]:
    """KR206, KR207 and KR212 for what is `uncovered`.

    With both sides of every test taken in every combination that a launch can have (`complete`), what was not compiled
    and stands under a test is dead code. With values given by the user (`overridden`), a launch can have others: a store
    that only those reach would be left without the op.
    """
    if found.countless:
        yield Diagnostic("KR207", f"`{output}` is handed on in more ways than can be followed", help=_FIX)
    for finding in dict.fromkeys(found.findings):
        if complete and not finding.open and (finding.kind == "read" or not overridden):
            continue
        if complete and overridden and finding.kind == "read":
            continue  # other values than the user's may read, and are not asked for
        yield _DIAGNOSTICS[finding.kind](finding, output)


def pointer_casts(output: str, calls: SourceCalls, flow: PointerFlow) -> Iterator[Span]:
    """`out.to(tl.pointer_type(...))`, `tl.cast(out, PT)`: the casts of the output's pointer."""
    for function in calls.closure.functions:
        for node in calls_in(function):
            bound = callee(node, function, calls.closure)
            if isinstance(node.func, ast.Attribute) and node.func.attr == "to" and bound is None:
                cast = node.func.value
            elif isinstance(bound, TritonObject) and bound.dotted == "triton.language.cast" and node.args:
                cast = node.args[0]
            else:
                continue
            if output in flow.roots(cast, node, function):
                yield Span.of(function.ref.file, node)


_FIX = "fix the compile-time values that are in use with `--set NAME=VALUE`"


def _labels(reached: Reached, text: str) -> tuple[Label, ...]:
    ways = tuple(Label(call.span, "by this call") for call in reversed(reached.path))
    return (Label(Span.of(reached.function.ref.file, reached.call), text), *ways)


def _unseen_store(finding: Finding, output: str) -> Diagnostic:
    return Diagnostic(
        "KR206",
        f"this store may write `{output}`, but no specialization reaches it",
        _labels(finding.reached, "never compiled with the values found for the compile-time parameters"),
        help="give a value that reaches it, e.g. `--set FLAG=True`, or delete the dead branch",
    )


def _possible_read(finding: Finding, output: str) -> Diagnostic:
    return Diagnostic(
        "KR207",
        f"`{output}` may be read here, under compile-time values that were not lowered",
        _labels(finding.reached, f"may read through `{output}`"),
        help=_FIX,
    )


def _shared_store(finding: Finding, output: str) -> Diagnostic:
    names = " and ".join(f"`{name}`" for name in sorted(finding.others))
    return Diagnostic(
        "KR212",
        f"one store call may write `{output}` and also {names}, under compile-time values that were not lowered",
        _labels(finding.reached, f"stores to `{output}`, and may store to {names}"),
        help="give each buffer a store call of its own, or fix the values with `--set NAME=VALUE`",
    )


_DIAGNOSTICS = {"store": _unseen_store, "read": _possible_read, "shared": _shared_store}
