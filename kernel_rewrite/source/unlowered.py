"""What the source may do to a buffer beyond what the lowered specializations show.

TTIR is the proof for what it holds. This is the check for the rest: every call, by every way of helper calls, that the
source may hand the buffer's pointer to, whatever branch is taken.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from kernel_rewrite.diagnostics import Diagnostic, Label
from kernel_rewrite.model import MemoryAccess, MemoryEffect, Span, TritonObject, Unresolved
from kernel_rewrite.source.accesses import HelperCall, MemoryCall, SourceCalls, calls_in
from kernel_rewrite.source.dead_code import is_dead
from kernel_rewrite.source.names import callee
from kernel_rewrite.source.pointer_flow import MAXIMUM_PATHS, PointerFlow, Reached

_OPAQUE = {"inline_asm_elementwise", "map_elementwise"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One call that may do to a buffer what no lowered specialization does.

    `kind`: "missed" (an access of the one kind asked for, left without the op), "other" (an access of another kind, or a
    call whose effect the source does not show) or "shared" (an access that may also go to `others`). `open`: the code is
    compiled in some specialization, or stands under no test; it is then no dead code, however many combinations were
    lowered. `elements`: the elements of tuples that it accesses where it is compiled, if those are all.
    """

    kind: str
    reached: Reached
    others: frozenset[str] = frozenset()
    open: bool = False
    elements: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Uncovered:
    """The findings on one buffer; `countless` when there are too many ways to follow."""

    findings: tuple[Finding, ...]
    countless: bool = False

    @property
    def missed(self) -> tuple[Reached, ...]:
        return tuple(finding.reached for finding in self.findings if finding.kind == "missed")


def uncovered(
    buffer: str,
    effect: MemoryEffect,
    accesses: Iterable[MemoryAccess],
    calls: SourceCalls,
    flow: PointerFlow,
    buffers: frozenset[str],
) -> Uncovered:
    """What the source may do to `buffer` beyond `accesses`, by every way of helper calls, where nothing but `effect` (READ
    or WRITE) is wanted; `buffers` are the parameters that are pointers."""
    compiled, wanted = _lowered(buffer, effect, accesses, calls)
    memory_calls = {id(call.node): call for call in calls.memory_calls}
    findings, count = [], 0
    for reached in flow.reached(buffer):
        count += 1
        if is_dead(reached, calls.closure):
            continue
        key = (reached.path, id(reached.call))
        is_open = key in compiled or not _is_guarded(reached)
        call = memory_calls.get(id(reached.call))
        if call is None:
            if _is_opaque(reached, calls):
                findings.append(Finding("other", reached, open=is_open))
            continue
        roots = _pointed_at(call, reached, flow) & buffers
        if buffer not in roots:
            continue
        if effect not in call.effects:
            found = compiled.get(key, frozenset())
            elements = found if all("[" in root for root in found) else frozenset()
            findings.append(Finding("other", reached, open=is_open, elements=elements))
        elif key not in wanted:
            findings.append(Finding("missed", reached, open=is_open))
        elif roots != {buffer}:
            findings.append(Finding("shared", reached, roots - {buffer}, is_open))
    return Uncovered(tuple(findings), count >= MAXIMUM_PATHS)


_Keys = set[tuple[tuple[HelperCall, ...], int]]
_Roots = dict[tuple[tuple[HelperCall, ...], int], frozenset[str]]


def _lowered(
    buffer: str, effect: MemoryEffect, accesses: Iterable[MemoryAccess], calls: SourceCalls
) -> tuple[_Roots, _Keys]:
    """The (way, call) pairs that some specialization compiles, each with the buffers that it then accesses, and those of them
    that have `effect` on the buffer."""
    compiled: _Roots = {}
    wanted: _Keys = set()
    for access in accesses:
        call, path = calls.memory_call(access.location, access.operation), calls.path_of(access)
        if call is None or path is None:
            continue
        key = path, id(call.node)
        compiled[key] = compiled.get(key, frozenset()) | access.roots
        if access.effect is effect and any(root.split("[")[0] == buffer for root in access.roots):
            wanted.add(key)
    return compiled, wanted


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
    """Whether the effect of a call that is handed the buffer cannot be told from the source."""
    node = reached.call
    bound = callee(node, reached.function, calls.closure)
    if isinstance(bound, Unresolved) or getattr(bound, "attribute", "") in _OPAQUE:
        return True
    return bound is None and not isinstance(node.func, ast.Attribute)


def unlowered_code(
    buffer: str,
    found: Uncovered,
    complete: bool,
    overridden: bool,
    effect: MemoryEffect = MemoryEffect.WRITE,
    element: str = "",
) -> Iterator[Diagnostic]:
    """KR206, KR207 and KR212 for an output, KR224, KR226 and KR227 for an input: what is `uncovered`.

    With both sides of every test taken in every combination that a launch can have (`complete`), what was not compiled
    and stands under a test is dead code. With values given by the user (`overridden`), a launch can have others: an access
    that only those reach would be left without the op. `element` is the one of a tuple that is asked about: the source does
    not tell its elements apart, TTIR does.
    """
    words = _WORDS[effect]
    if found.countless:
        code, _, _ = words["other"]
        yield Diagnostic(code, f"`{buffer}` is handed on in more ways than can be followed", help=_FIX)
    for finding in dict.fromkeys(found.findings):
        if complete and not overridden and finding.elements and element not in finding.elements:
            continue
        if complete and not finding.open and (finding.kind == "other" or not overridden):
            continue
        if complete and overridden and finding.kind == "other":
            continue  # other values than the user's may do so, and are not asked for
        others = " and ".join(f"`{name}`" for name in sorted(finding.others))
        code, message, label = (text.format(b=buffer, others=others) for text in words[finding.kind])
        call = "store" if effect is MemoryEffect.WRITE else "load"
        yield Diagnostic(code, message, _labels(finding.reached, label), help=_HELP[finding.kind].format(call=call))


def pointer_casts(buffer: str, calls: SourceCalls, flow: PointerFlow) -> Iterator[Span]:
    """`out.to(tl.pointer_type(...))`, `tl.cast(out, PT)`: the casts of the buffer's pointer."""
    for function in calls.closure.functions:
        for node in calls_in(function):
            bound = callee(node, function, calls.closure)
            if isinstance(node.func, ast.Attribute) and node.func.attr == "to" and bound is None:
                cast = node.func.value
            elif isinstance(bound, TritonObject) and bound.dotted == "triton.language.cast" and node.args:
                cast = node.args[0]
            else:
                continue
            if buffer in flow.roots(cast, node, function):
                yield Span.of(function.ref.file, node)


_FIX = "fix the compile-time values that are in use with `--set NAME=VALUE`"


def _labels(reached: Reached, text: str) -> tuple[Label, ...]:
    ways = tuple(Label(call.span, "by this call") for call in reversed(reached.path))
    return (Label(Span.of(reached.function.ref.file, reached.call), text), *ways)


_NEVER = "never compiled with the values found for the compile-time parameters"
_NOT_LOWERED = "under compile-time values that were not lowered"
_WORDS: Mapping[MemoryEffect, Mapping[str, tuple[str, str, str]]] = {
    MemoryEffect.WRITE: {
        "missed": ("KR206", "this store may write `{b}`, but no specialization reaches it", _NEVER),
        "other": ("KR207", f"`{{b}}` may be read here, {_NOT_LOWERED}", "may read through `{b}`"),
        "shared": (
            "KR212",
            f"one store call may write `{{b}}` and also {{others}}, {_NOT_LOWERED}",
            "stores to `{b}`, and may store to {others}",
        ),
    },
    MemoryEffect.READ: {
        "missed": ("KR226", "this load may read `{b}`, but no specialization reaches it", _NEVER),
        "other": ("KR227", f"`{{b}}` may be written here, {_NOT_LOWERED}", "may write through `{b}`"),
        "shared": (
            "KR224",
            f"one load call may read `{{b}}` and also {{others}}, {_NOT_LOWERED}",
            "loads from `{b}`, and may load from {others}",
        ),
    },
}
"""Code, message and label of each finding, by the effect that the buffer is to have alone."""

_HELP = {
    "missed": "give a value that reaches it, e.g. `--set FLAG=True`, or delete the dead branch",
    "other": _FIX,
    "shared": "give each buffer a {call} call of its own, or fix the values with `--set NAME=VALUE`",
}
