"""Which calls of the source are rewritten so that every load of one input, and no other load, changes.

A load in a helper is rewritten in place when the helper is only ever reached on the way to this input; otherwise the
helper is cloned, and the calls on the way are redirected to the clone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from kernel_rewrite.analysis import Analysis
from kernel_rewrite.diagnostics import Diagnostic, Label
from kernel_rewrite.model import FunctionRef, Location, MemoryAccess, MemoryEffect, Span
from kernel_rewrite.pointwise.language import Pointwise
from kernel_rewrite.rewrite.placement import stands_alone
from kernel_rewrite.rewrite.stores import copied_helpers
from kernel_rewrite.source.accesses import AccessForm, HelperCall, MemoryCall
from kernel_rewrite.source.addresses import NotAffine
from kernel_rewrite.source.blocks import literal_dimensions
from kernel_rewrite.source.bounds import Bound, block_bounds
from kernel_rewrite.source.definitions import Definitions
from kernel_rewrite.source.syntax import mentions
from kernel_rewrite.ttir.lanes import OffLanes, loads_at, off_lanes


@dataclass(frozen=True, slots=True)
class LoadSite:
    """One load call to rewrite. `guarded`: lanes that its mask, or the `bounds` of its block, turn off must keep what the
    load gives them. `named`: the call is all that a line of its own gives to a name."""

    call: MemoryCall
    form: AccessForm
    guarded: bool = False
    block_pointer: bool = False
    named: bool = False
    bounds: tuple[Bound, ...] = ()

    @property
    def stays(self) -> bool:
        """Whether the call stays as it is, and a statement goes behind it."""
        return self.guarded and self.named

    @property
    def mask(self) -> ast.expr | None:
        """The mask in the source; None without one."""
        mask = self.call.argument(self.form, "mask") if "mask" in self.form.parameters else None
        return None if isinstance(mask, ast.Constant) and mask.value is None else mask


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """The loads of one input: `sites` to edit, helpers to clone first, calls to redirect to the clones. `path` are all the
    helper calls that lead to the sites. `holds` is torch's name of the element type that the input gets, "" where it keeps
    its own."""

    input: str
    sites: tuple[LoadSite, ...]
    clones: tuple[FunctionRef, ...]
    redirected: tuple[HelperCall, ...]
    path: tuple[HelperCall, ...] = ()
    holds: str = ""

    @property
    def buffer(self) -> str:
        return self.input

    @property
    def changes(self) -> Iterator[tuple[MemoryCall, ast.expr | None]]:
        """Each call to edit, which gives way to an expression that holds it; None where it stays."""
        return ((site.call, None if site.stays else site.call.node) for site in self.sites)


def keeps(pointwise: Pointwise, lanes: OffLanes) -> bool:
    """Whether P behind a load leaves its off lanes what they are, as far as anything can tell."""
    if not lanes.exist or lanes.unused:
        return True
    return lanes.fills is not None and all(map(pointwise.preserves, lanes.fills))


def plan_loads(
    input: str,
    pointwise: Pointwise,
    analysis: Analysis,
    references: frozenset[tuple[FunctionRef, int, int]],
    holds: str = "",
) -> LoadPlan | tuple[Diagnostic, ...]:
    """The rewrite of every load of `input`, or the reasons it cannot be made (KR224, KR228, KR402). `holds` as in the plan.

    `references` are the places (line, column) of the kernel's file where a helper's name is used at all, by any code.
    """
    calls = analysis.calls
    reads = [a for a in analysis.accesses if a.effect is MemoryEffect.READ]
    problems: list[Diagnostic] = []
    sites: dict[MemoryCall, AccessForm] = {}
    block_pointers: set[MemoryCall] = set()
    paths: set[tuple[HelperCall, ...]] = set()
    for access in (a for a in reads if input in a.roots):
        call, path = calls.memory_call(access.location, access.operation), calls.path_of(access)
        form = call.form_for(access.operation) if call else None
        if call is None or path is None or form is None:
            problems.append(_uneditable(calls.surroundings(access.location), access.location, input))
            continue
        sites[call] = form
        if access.block_pointer:
            block_pointers.add(call)
        paths.add(path)
    on_path = {helper_call for path in paths for helper_call in path}
    for access in reads:
        call, path = calls.memory_call(access.location, access.operation), calls.path_of(access)
        if input not in access.roots and call in sites and path is not None and on_path.issuperset(path):
            problems.append(_shared(call, input, access.roots))
    changed = _changed_lanes(input, pointwise, analysis)
    bounds: dict[MemoryCall, tuple[Bound, ...]] = {}
    for call in sites:
        if call not in changed:
            continue
        is_block = call in block_pointers or sites[call].through_descriptor
        try:
            bounds[call] = _bounds(call, sites[call], analysis) if is_block else ()
        except NotAffine as reason:
            problems.append(_no_bounds(call, input, pointwise, str(reason)))
            continue
        if not is_block or not changed[call]:
            problems += _unguardable(call, sites[call], input, pointwise, changed[call], analysis)
    if holds:
        problems += _not_zero(input, pointwise, analysis)
    if problems:
        return tuple(dict.fromkeys(problems))
    clones = copied_helpers(calls, on_path, references)
    redirected = tuple(sorted((c for c in on_path if c.callee in clones), key=lambda c: c.span))
    planned = (
        LoadSite(
            call,
            form,
            call in changed,
            call in block_pointers,
            _is_named(call, form, bounds.get(call, ()), analysis),
            bounds.get(call, ()),
        )
        for call, form in sites.items()
    )
    way = tuple(sorted(on_path, key=lambda c: c.span))
    return LoadPlan(input, tuple(sorted(planned, key=lambda s: s.call.span)), clones, redirected, way, holds)


# x = tl.load(pointer, mask=m)
def _is_named(call: MemoryCall, form: AccessForm, bounds: tuple[Bound, ...], analysis: Analysis) -> bool:
    function, mask = analysis.closure.function(call.function), LoadSite(call, form).mask
    file = analysis.kernel.file if call.function.file == analysis.kernel.file.path else None
    file = file or analysis.project.file(call.function.file)
    assert function is not None and file is not None
    match statement := Definitions(function.node).statement_of(call.node):
        case ast.Assign(targets=[ast.Name(id=name)], value=value) if value is call.node:
            own = any(bound.mentions(name) for bound in bounds) or (mask is not None and mentions(mask, name))
            return stands_alone(file, statement) and not own
    return False


def _bounds(call: MemoryCall, form: AccessForm, analysis: Analysis) -> tuple[Bound, ...]:
    """The bounds of the block that a call loads. Raises NotAffine."""
    function, pointer = analysis.closure.function(call.function), call.pointer(form)
    assert function is not None and pointer is not None
    definitions = Definitions(function.node, analysis.closure.constexpr_parameters(function))
    statement = definitions.statement_of(call.node)
    if form.through_descriptor:
        offsets, checked = call.argument(form, "offsets"), None
        if offsets is None:
            raise NotAffine("has offsets that are not written out")
        return block_bounds(pointer, offsets, checked, statement, definitions)
    dimensions = literal_dimensions(call.argument(form, "boundary_check"))
    return block_bounds(pointer, None, dimensions, statement, definitions)


def _no_bounds(call: MemoryCall, input: str, pointwise: Pointwise, reason: str) -> Diagnostic:
    return Diagnostic(
        "KR402",
        f"{pointwise.name} would change the lanes of `{input}` that this load leaves off",
        (Label(call.span, f"the lanes beyond its bounds cannot be told from here: its block {reason}"),),
        help="make the block in this function, from names and offsets that are computed before the load, load through "
        "pointers with a mask, or choose an op that leaves zero zero",
    )


def _changed_lanes(input: str, pointwise: Pointwise, analysis: Analysis) -> dict[MemoryCall, bool]:
    """The load calls whose off lanes P would change, and whether each has a mask wherever it is compiled."""
    changed: set[MemoryCall] = set()
    masked: dict[MemoryCall, bool] = {}
    for access, lanes in _lanes(input, analysis):
        call = analysis.calls.memory_call(access.location, access.operation)
        if call is not None:
            masked[call] = masked.get(call, True) and lanes.exist
            if not keeps(pointwise, lanes):
                changed.add(call)
    return {call: masked[call] for call in changed}


def _lanes(input: str, analysis: Analysis) -> Iterator[tuple[MemoryAccess, OffLanes]]:
    """Each load of `input` in each specialization, with its off lanes."""
    for view in analysis.views:
        accesses = {(a.operation, a.location): a for a in view.accesses if input in a.roots}
        for operation in loads_at(view.module, accesses):
            assert operation.location is not None
            yield accesses[operation.name, operation.location], off_lanes(view.module, operation)


def _unguardable(
    call: MemoryCall, form: AccessForm, input: str, pointwise: Pointwise, masked: bool, analysis: Analysis
) -> Iterator[Diagnostic]:
    """KR402: the lanes that are off cannot be put right behind the load."""
    mask = LoadSite(call, form).mask
    if mask is not None and masked and not _reads_itself(mask, analysis):
        return
    if not masked:
        why = "it leaves lanes off in some specializations only"
        way_out = "write the load with a mask and the one without as two calls"
    elif mask is None:
        why = "there is no mask in the source to put them right with"
        way_out = "load through pointers with a mask, or choose an op that leaves zero zero"
    else:
        why, way_out = "its mask is read or named in the call", "give the mask a name on a line of its own"
    yield Diagnostic(
        "KR402",
        f"{pointwise.name} would change the lanes of `{input}` that this load leaves off",
        (Label(call.span, why),),
        help=way_out,
    )


def _not_zero(input: str, pointwise: Pointwise, analysis: Analysis) -> Iterator[Diagnostic]:
    """KR402: lanes that are off hold something else than zero, which a load of another type cannot hold as well."""
    for access, lanes in _lanes(input, analysis):
        call = analysis.calls.memory_call(access.location, access.operation)
        if call is not None and lanes.exist and set(lanes.fills or (1.0,)) - {0.0}:
            yield Diagnostic(
                "KR402",
                f"{pointwise.name} would change the lanes of `{input}` that this load leaves off",
                (Label(call.span, "they may hold something else than zero, in the type that the kernel has it with"),),
                help="let the lanes that are off be zero, `other=0.0`, and put them right behind the load",
            )


def _reads_itself(mask: ast.expr, analysis: Analysis) -> bool:
    """Whether a mask cannot be written twice: it reads memory, itself or in a helper, or binds a name."""
    called = {id(call.node) for call in analysis.calls.memory_calls}
    for function in analysis.closure.functions:
        helper_calls = analysis.calls.helper_calls_of(function.ref)
        called |= {id(call.node) for call in helper_calls if _touches_memory(call.callee, analysis, frozenset())}
    return any(id(node) in called or isinstance(node, ast.NamedExpr) for node in ast.walk(mask))


def _touches_memory(helper: FunctionRef, analysis: Analysis, seen: frozenset[FunctionRef]) -> bool:
    if helper in seen or analysis.calls.memory_calls_of(helper):
        return True
    inner = analysis.calls.helper_calls_of(helper)
    return any(_touches_memory(call.callee, analysis, seen | {helper}) for call in inner)


def _uneditable(around: Span | None, location: Location, input: str) -> Diagnostic:
    span = around or Span(location.file, location.line, location.column, location.line, location.column + 1)
    return Diagnostic(
        "KR228",
        f"`{input}` is loaded by code that cannot be edited",
        (Label(span, "the load is here, but no call of the source could be matched to it"),),
        help="write the load as `tl.load(pointer, ...)`",
    )


def _shared(call: MemoryCall, input: str, others: frozenset[str]) -> Diagnostic:
    names = ", ".join(f"`{name}`" for name in sorted(others))
    return Diagnostic(
        "KR224",
        f"one load call reads `{input}` and also {names}",
        (Label(call.span, f"loads from `{input}` and from {names}"),),
        help="give each buffer a load call of its own",
    )
