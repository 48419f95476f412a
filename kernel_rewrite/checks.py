"""CHECKS: one short function for each reason not to fuse an epilogue into an output. All run, all are reported.

A check yields diagnostics; it never touches syntax trees. What only the caller can know is not a check but an
`Assumption`, printed and recorded in the fused file.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator

from kernel_rewrite.analysis import Analysis, View
from kernel_rewrite.called import objections
from kernel_rewrite.diagnostics import Diagnostic, Label
from kernel_rewrite.epilogue_kernel_proof import inlining_objections, taken_from_the_launch
from kernel_rewrite.model import (
    ANYWHERE,
    Assumption,
    Evidence,
    FunctionRef,
    MemoryEffect,
    Span,
)
from kernel_rewrite.pointwise.language import Epilogue, TritonCall
from kernel_rewrite.probes import is_certain, may_store_integers
from kernel_rewrite.request import OutputRequest, Request
from kernel_rewrite.retyped import changes, element_types_of
from kernel_rewrite.source.aliasing import Conditions
from kernel_rewrite.source.freshness import is_fresh
from kernel_rewrite.source.launches import Allocation, Launch, aliases
from kernel_rewrite.source.unlowered import pointer_casts, unlowered_code
from kernel_rewrite.ttir.in_place import objection_to_change

NO_ALIAS = "no-alias"
FULLY_WRITTEN = "fully-written"
FLOAT_ELEMENTS = "float-elements"
ELEMENT_TYPE = "element-type"
INPUT_APART = "input-apart"
IN_PLACE = "in-place"

ASSUMPTIONS: dict[str, str] = {
    NO_ALIAS: "no other argument of the kernel overlaps the memory of `{output}`",
    FLOAT_ELEMENTS: "what is stored to `{output}` is floating-point (nothing in this file says so)",
    ELEMENT_TYPE: "the elements of `{output}` have the type it is said to have here (nothing in this file says so)",
    FULLY_WRITTEN: "elements of `{output}` that the kernel does not write are not used (they would miss the op)",
    INPUT_APART: "the kernel writes to nothing that overlaps the memory of `{output}`",
    IN_PLACE: "no two programs of the kernel touch the same element of `{output}`, which it changes in place",
}
"""What `--assume` accepts: name and statement."""

Check = Callable[[Analysis, OutputRequest], Iterator[Diagnostic]]


def only_written(analysis: Analysis, request: OutputRequest) -> Iterator[Diagnostic]:
    """KR201 to KR205, KR210, KR212, KR214: the proof itself, from TTIR. KR215: the kernel reads what it writes, which is
    allowed, and more than what an element held before."""
    for diagnostic in analysis.write_only(request.output).diagnostics:
        if diagnostic.code == "KR201" and IN_PLACE in request.assumed:
            yield from _not_in_place(analysis, request)
        else:
            yield diagnostic


def _not_in_place(analysis: Analysis, request: OutputRequest) -> Iterator[Diagnostic]:
    for view in analysis.views:
        objection = objection_to_change(view.module, view.accesses, request.output)
        if objection is None:
            continue
        place = objection.location
        span = analysis.span_of(place, "tt.load") or analysis.span_of(place, "tt.store") if place is not None else None
        yield Diagnostic(
            "KR215",
            f"`{request.output}` is not changed element by element, so the values it stores cannot be changed",
            (Label(span or analysis.kernel.definition_line, objection.why),),
            help="load every element before any is stored, each store to the place of a load; or store to another buffer",
        )
        return


def unlowered(analysis: Analysis, request: OutputRequest) -> Iterator[Diagnostic]:
    """KR206, KR207: what no lowered specialization shows. What TTIR shows to be read is not said again."""
    shown = {label.span for d in analysis.write_only(request.output).diagnostics for label in d.labels}
    overridden = any(f.kind == "constexpr" and f.evidence is Evidence.OVERRIDE for f in analysis.facts)
    missing = analysis.uncovered(request.parameter)
    found = unlowered_code(request.parameter, missing, analysis.complete, overridden)
    if IN_PLACE in request.assumed:  # reads that were looked at
        shown |= {
            span
            for access in analysis.accesses
            if access.effect is MemoryEffect.READ and (span := analysis.span_of(access.location, access.operation))
        }
    yield from (d for d in found if not d.labels or d.labels[0].span not in shown)


def launched_with_alias(analysis: Analysis, request: OutputRequest) -> Iterator[Diagnostic]:
    """KR208: a launch of the file passes one tensor as the output and as something else the kernel accesses."""
    if NO_ALIAS in request.assumed:
        return
    accessed = analysis.parameters_with(*MemoryEffect)
    pointers = dict.fromkeys((*(root.split("[")[0] for root in accessed), *analysis.accessed_unlowered()))
    for launch in analysis.launches:
        for alias in aliases(launch, pointers):
            if request.parameter not in (alias.left, alias.right):
                continue
            other = alias.right if alias.left == request.parameter else alias.left
            if all(is_harmless(analysis, launch, way, request.parameter, other) for way in alias.ways):
                continue
            verb = "passes" if alias.certain else "may pass"
            yield Diagnostic(
                "KR208",
                f"this launch {verb} `{alias.text}` both as `{request.parameter}` and as `{other}`",
                (Label(alias.span, f"`{request.parameter}` and `{other}` overlap here"),),
                help=f"pass a buffer of its own, or, if they never overlap, `--assume {NO_ALIAS}`",
            )


def is_harmless(analysis: Analysis, launch: Launch, way: Conditions, output: str, other: str) -> bool:
    """Whether a kernel compiled for such a launch accesses one of the two alone: a placeholder for what a flag turns off.
    Only views of all compile-time values can tell, and one of them must be of such a launch."""
    if not way or not analysis.complete:
        return False
    views = [v for v in analysis.views if launch.allows(way, dict(v.specialization.constexprs))]
    return bool(views) and not any(_accesses(view, output) and _accesses(view, other) for view in views)


def _accesses(view: View, parameter: str) -> bool:
    return any(root in (ANYWHERE, parameter) for a in view.accesses for root in (r.split("[")[0] for r in a.roots))


def initial_contents(analysis: Analysis, request: OutputRequest) -> Iterator[Diagnostic]:
    """KR209: a launch passes a filled buffer whose fill the op would change where the kernel does not write."""
    if FULLY_WRITTEN in request.assumed:
        return
    for launch in analysis.launches:
        fact = launch.facts.get(request.parameter)
        if fact is None or Allocation.FILL not in fact.allocations:
            continue
        changed = [fill for fill in fact.fills if not _preserved(request.pointwise, fill)]
        if request.launcher and fact.fills and all(_filled_anew(request.pointwise, fill) for fill in changed):
            continue
        if changed or not fact.fills:
            held = f"is filled with {changed[0]!r}" if changed else "is filled with a value that could not be read"
            yield Diagnostic(
                "KR209",
                f"`{request.parameter}` {held} before the launch, which {request.pointwise.name} would change where "
                "the kernel does not write",
                (Label(launch.span, f"`{request.parameter}` holds a value before this launch"),),
                help=f"allocate it with torch.empty, or, if every element is written, `--assume {FULLY_WRITTEN}`",
            )


def _is_filled(launch: Launch, request: OutputRequest) -> bool:
    """Whether `initial_contents` has judged what the buffer holds."""
    fact = launch.facts.get(request.parameter)
    return fact is not None and fact.allocations == {Allocation.FILL} and FULLY_WRITTEN not in request.assumed


def _preserved(pointwise: Epilogue, fill: object) -> bool:
    return isinstance(fill, (bool, int, float)) and pointwise.preserves(float(fill))


def _filled_anew(pointwise: Epilogue, fill: object) -> bool:
    """Whether the launcher can fill the buffer with E(fill) instead."""
    return isinstance(fill, (bool, int, float)) and pointwise.fill_for(float(fill)) is not None


def new_fills(analysis: Analysis, request: OutputRequest) -> tuple[tuple[float, float], ...]:
    """What the launchers fill the output with, and what they must fill it with instead, for the fills that the op changes."""
    if FULLY_WRITTEN in request.assumed or not request.launcher:
        return ()
    facts = (launch.facts.get(request.parameter) for launch in analysis.launches)
    fills = {fill for fact in facts if fact is not None and Allocation.FILL in fact.allocations for fill in fact.fills}
    numbers = (float(fill) for fill in fills if isinstance(fill, (bool, int, float)))
    found = ((fill, request.pointwise.fill_for(fill)) for fill in numbers if not request.pointwise.preserves(fill))
    return tuple(sorted((fill, value) for fill, value in found if value is not None))


def tuner_resets(analysis: Analysis, request: OutputRequest) -> Iterator[Diagnostic]:
    """KR211: the autotuner zeroes the output before each trial, and the op would change that zero where the kernel does
    not write."""
    tuning = analysis.tuning
    named = request.parameter in tuning.reset_to_zero
    if (
        not (named or tuning.unreadable_resets)
        or FULLY_WRITTEN in request.assumed
        or _preserved(request.pointwise, 0.0)
    ):
        return
    span = tuning.span or analysis.kernel.definition_line
    name = request.pointwise.name
    yield Diagnostic(
        "KR211",
        f"the autotuner resets `{request.parameter}` to zero, which {name} would change where the kernel does not write"
        if named
        else f"the autotuner may reset `{request.parameter}`: its `reset_to_zero` cannot be read without running code",
        (Label(span, "in this decorator"),),
        help=f"leave the output out of `reset_to_zero`, or, if every element is written, `--assume {FULLY_WRITTEN}`",
    )


def element_types(analysis: Analysis, request: OutputRequest) -> Iterator[Diagnostic]:
    """KR401: the op has no meaning for the element type of the output. KR410: its result is of another type, and the output
    cannot get that."""
    elements = sorted(element_types_of(analysis, request.output))
    undefined = [(element, reason) for element in elements if (reason := request.pointwise.undefined_reason(element))]
    for element, reason in undefined:
        fact = next((f for f in analysis.facts if f.name == request.parameter), None)
        notes: tuple[str, ...] = ()
        if fact is not None and fact.evidence in (Evidence.USE, Evidence.NAME, Evidence.GUESS, Evidence.REPAIR):
            notes = (f"`{request.parameter}` was taken for {element} ({fact.evidence.value})",)
        yield Diagnostic(
            "KR401",
            f"{request.pointwise.name} cannot be stored to `{request.parameter}`, which holds {element}",
            (Label(analysis.kernel.definition_line, reason),),
            notes,
            help=f"if the elements are of another type, say so: `--dtype {request.parameter}=fp32`",
        )
    changed = [] if undefined else [e for e in elements if request.pointwise.unheld_reason(e)]
    why = _fixed_type(analysis, request) if changed else None
    if why is not None:
        yield Diagnostic(
            "KR410",
            f"{request.pointwise.name} gives `{request.output}` another element type, and it can only keep the one it has",
            (why,),
            tuple(request.pointwise.unheld_reason(element) for element in changed),
            help="cast back to it at the end of the epilogue, with `.to(x.dtype)`",
        )


def _fixed_type(analysis: Analysis, request: OutputRequest) -> Label | None:
    """Why the output cannot get the type of the op's result; None when it can."""
    line = analysis.kernel.definition_line
    if not changes(analysis, request):
        return Label(line, "in other specializations the result has the output's own type, or yet another one")
    fact = next((f for f in analysis.facts if f.name == request.parameter), None)
    if fact is None or fact.kind != "pointer":
        return Label(line, "it is passed as a descriptor, or in a tuple, whose type the launcher decides")
    if request.output in analysis.parameters_with(MemoryEffect.READ):
        return Label(line, "the kernel reads it too, as the type it has now")
    if "i1" in element_types_of(analysis, request.output):
        return Label(line, "it holds bools, which Triton stores in another way than other elements")
    cast = next(iter(pointer_casts(request.parameter, analysis.calls, analysis.flow)), None)
    return Label(cast, "its pointer is cast here, to the type it has now") if cast is not None else None


def called_function(analysis: Analysis, request: OutputRequest) -> Iterator[Diagnostic]:
    """KR120: the user's function that is called at the store is none of single elements, or Triton rejects it. KR123 to
    KR125: the kernel that is inlined there is not pointwise, or not compiled as this one is."""
    elements = element_types_of(analysis, request.output)
    inlined = tuple(inlining_objections(analysis, request, elements))
    yield from inlined or objections(analysis, request, elements)


def ambiguous_helpers(analysis: Analysis, request: Request) -> Iterator[Diagnostic]:
    """KR117: the output is handed to a helper whose definition is chosen when the module is imported."""
    assumed = {(a.file, a.name) for a in analysis.closure.assumed_names}
    bindings = analysis.closure.bindings
    ambiguous = {(file, name) for file, name in assumed if isinstance(bindings.get(file, {}).get(name), FunctionRef)}
    for function in analysis.closure.functions:
        for call in analysis.calls.calls_of_names(function.ref, ambiguous):
            arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
            if any(request.parameter in analysis.flow.roots(a, call, function) for a in arguments):
                name = ast.unparse(call.func)
                yield Diagnostic(
                    "KR117",
                    f"`{request.parameter}` is handed to `{name}`, which has several definitions",
                    (Label(Span.of(function.ref.file, call), "which definition this calls is decided at import"),),
                    help=f"define `{name}` once, or access the buffer outside of it",
                )


def cast_pointer(analysis: Analysis, request: OutputRequest) -> Iterator[Diagnostic]:
    """KR205: the source casts the output's pointer, and only the cast itself says what the elements are."""
    if has_certain_type(analysis, request.parameter):
        return  # TTIR shows whether the cast changes the type
    for span in pointer_casts(request.parameter, analysis.calls, analysis.flow):
        yield Diagnostic(
            "KR205",
            f"the pointer `{request.parameter}` is cast, and nothing says whether to the type of its elements",
            (Label(span, "cast here"),),
            help=f"say what the elements are: `--dtype {request.parameter}=fp32`",
        )


def used_as_helper(analysis: Analysis, request: Request) -> Iterator[Diagnostic]:
    """KR114: another kernel of the file calls this one, and would change with it."""
    for call in analysis.kernel.calls_as_helper:
        yield Diagnostic(
            "KR114",
            f"`{analysis.kernel.name}` is also called as a helper, by code that would change with it",
            (Label(call, "called here, by another kernel"), Label(analysis.kernel.definition_line)),
            help=f"give that caller a copy of `{analysis.kernel.name}` under another name",
        )


CHECKS_WITHOUT_OP: tuple[Check, ...] = (
    only_written,
    unlowered,
    launched_with_alias,
    ambiguous_helpers,
    cast_pointer,
    used_as_helper,
)
"""What holds or fails whatever the op is: the part `inspect` reports."""

CHECKS: tuple[Check, ...] = (*CHECKS_WITHOUT_OP, initial_contents, tuner_resets, element_types, called_function)


def run_checks(analysis: Analysis, request: OutputRequest) -> tuple[Diagnostic, ...]:
    """Every reason not to fuse, each once."""
    return tuple(dict.fromkeys(d for check in CHECKS for d in check(analysis, request)))


def assumptions(analysis: Analysis, request: OutputRequest) -> tuple[Assumption, ...]:
    """What the fusion takes from the caller, beyond what the file itself shows."""
    names = []
    others = {*analysis.parameters_with(*MemoryEffect), *analysis.accessed_unlowered()} - {request.output}
    if others:
        names.append(NO_ALIAS)
    settled = analysis.launches and all(
        is_fresh(launch, request.parameter) or _is_filled(launch, request) for launch in analysis.launches
    )
    if not settled or analysis.tuning.hooked:
        names.append(FULLY_WRITTEN)
    if request.pointwise.commutes_with_rounding and may_store_integers(analysis, request.output):
        names.append(FLOAT_ELEMENTS)
    if not has_certain_type(analysis, request.parameter) and not gives_what_it_gets(
        request, changes(analysis, request)
    ):
        names.append(ELEMENT_TYPE)
    if IN_PLACE in request.assumed and request.output in analysis.parameters_with(MemoryEffect.READ):
        names.append(IN_PLACE)
    return (*assumed(analysis, request, names), *_of_inlined(analysis, request))


def assumptions_of_dropped(analysis: Analysis, request: OutputRequest) -> tuple[Assumption, ...]:
    """What is taken from the caller where an output is dropped."""
    others = {*analysis.parameters_with(*MemoryEffect), *analysis.accessed_unlowered()} - {request.output}
    return assumed(analysis, request, [NO_ALIAS] if others else [])


def _of_inlined(analysis: Analysis, request: OutputRequest) -> Iterator[Assumption]:
    call = request.pointwise
    if isinstance(call, TritonCall) and call.inlined is not None:
        yield Assumption("epilogue-kernel", taken_from_the_launch(analysis, call, call.inlined, request.output))


def assumed(analysis: Analysis, request: Request, names: Iterable[str]) -> tuple[Assumption, ...]:
    """The assumptions of these names about the request's buffer, behind those about the kernel as a whole."""
    given = tuple(_values_given(analysis))
    return given + tuple(Assumption(name, ASSUMPTIONS[name].format(output=request.buffer)) for name in names)


def gives_what_it_gets(request: Request, changed: str = "") -> bool:
    """Whether the result has a meaning, and the type of the buffer (or the type `changed` in its place), for every float type
    that it may have."""
    types = ("float16", "bfloat16", "float32", "float64")
    if not changed:
        return all(request.pointwise.defined_for(dtype) for dtype in types)
    return all(
        not request.pointwise.undefined_reason(dtype) and request.pointwise.result_dtype(dtype) == changed
        for dtype in types
    )


def _values_given(analysis: Analysis) -> Iterator[Assumption]:
    """What `--set` says holds for every launch."""
    values = dict(analysis.plan.base.constexprs)
    given = [f for f in analysis.facts if f.kind == "constexpr" and f.evidence is Evidence.OVERRIDE]
    if given:
        text = ", ".join(f"{fact.name}={values.get(fact.name)!r}" for fact in given)
        yield Assumption("values-given", f"every launch of the kernel has {text}")


def has_certain_type(analysis: Analysis, parameter: str) -> bool:
    """Whether the element type of `parameter` is known, and not only inferred."""
    fact = next((f for f in analysis.facts if f.name == parameter), None)
    return fact is not None and fact.kind != "tuple" and is_certain(fact)
