"""INPUT_CHECKS: one short function for each reason not to fuse a prologue into an input. All run, all are reported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from kernel_rewrite.analysis import Analysis
from kernel_rewrite.checks import (
    ELEMENT_TYPE,
    INPUT_APART,
    ambiguous_helpers,
    assumed,
    gives_what_it_gets,
    has_certain_type,
    is_harmless,
    used_as_helper,
)
from kernel_rewrite.diagnostics import Diagnostic, Label
from kernel_rewrite.model import Assumption, Evidence, MemoryEffect
from kernel_rewrite.pointwise.element_types import torch_name
from kernel_rewrite.request import InputRequest
from kernel_rewrite.retyped import element_types_of
from kernel_rewrite.source.freshness import allocated_like
from kernel_rewrite.source.launches import aliases
from kernel_rewrite.source.unlowered import pointer_casts, unlowered_code

Check = Callable[[Analysis, InputRequest], Iterator[Diagnostic]]


def only_read(analysis: Analysis, request: InputRequest) -> Iterator[Diagnostic]:
    """KR220 to KR225: the proof itself, from TTIR."""
    yield from analysis.read_only(request.input).diagnostics


def unlowered(analysis: Analysis, request: InputRequest) -> Iterator[Diagnostic]:
    """KR224, KR226, KR227: what no lowered specialization shows. What TTIR shows to be written is not said again."""
    shown = {label.span for d in analysis.read_only(request.input).diagnostics for label in d.labels}
    overridden = any(f.kind == "constexpr" and f.evidence is Evidence.OVERRIDE for f in analysis.facts)
    missing = analysis.uncovered(request.parameter, MemoryEffect.READ)
    found = unlowered_code(request.parameter, missing, analysis.complete, overridden, MemoryEffect.READ, request.input)
    failed = tuple(
        f"Triton rejects the kernel with {failure.specialization.origin}: {failure.message}"
        for failure in analysis.failures[:3]
        if failure.specialization.origin
    )
    for diagnostic in found:
        if not diagnostic.labels or diagnostic.labels[0].span not in shown:
            yield replace(diagnostic, notes=(*diagnostic.notes, *failed)) if diagnostic.code == "KR226" else diagnostic


def written_under_another_name(analysis: Analysis, request: InputRequest) -> Iterator[Diagnostic]:
    """KR229: a launch of the file passes one tensor as the input and as something that the kernel writes."""
    if INPUT_APART in request.assumed:
        return
    changed = analysis.parameters_with(MemoryEffect.WRITE, MemoryEffect.ACCUMULATE, MemoryEffect.UNKNOWN)
    written = {*(root.split("[")[0] for root in changed), *analysis.accessed_unlowered()} - {request.parameter}
    for launch in analysis.launches:
        for alias in aliases(launch, dict.fromkeys((request.parameter, *sorted(written)))):
            if request.parameter not in (alias.left, alias.right):
                continue
            other = alias.right if alias.left == request.parameter else alias.left
            if all(is_harmless(analysis, launch, way, request.parameter, other) for way in alias.ways):
                continue
            verb = "passes" if alias.certain else "may pass"
            yield Diagnostic(
                "KR229",
                f"this launch {verb} `{alias.text}` both as `{request.parameter}` and as `{other}`, which the kernel writes",
                (Label(alias.span, f"`{request.parameter}` and `{other}` overlap here"),),
                help=f"pass a buffer of its own, or, if they never overlap, `--assume {INPUT_APART}`",
            )
    yield from _written_in_its_tuple(analysis, request, changed)


def _written_in_its_tuple(analysis: Analysis, request: InputRequest, changed: Iterable[str]) -> Iterator[Diagnostic]:
    """KR229 for an element of a tuple, and another one that the kernel writes."""
    others = [root for root in changed if root.startswith(f"{request.parameter}[") and root != request.input]
    for launch in analysis.launches if "[" in request.input else ():
        fact = launch.facts.get(request.parameter)
        items = {f"{request.parameter}[{index}]": item.roots for index, item in enumerate(fact.items)} if fact else {}
        for other in others:
            if items.get(other, frozenset()) & items.get(request.input, frozenset()):
                yield Diagnostic(
                    "KR229",
                    f"this launch passes one tensor both as `{request.input}` and as `{other}`, which the kernel writes",
                    (Label(launch.span, f"`{request.input}` and `{other}` overlap here"),),
                    help=f"pass a buffer of its own, or, if they never overlap, `--assume {INPUT_APART}`",
                )


def element_types(analysis: Analysis, request: InputRequest) -> Iterator[Diagnostic]:
    """KR401: the op's result does not have the element type that the kernel has the input with."""
    for element in sorted(element_types_of(analysis, request.input)):
        reason = request.pointwise.undefined_reason(request.holds or element) or _other_result(request, element)
        if "bool" in (request.holds, torch_name(element)) and not reason:
            reason = "a bool is loaded as a byte, which the proof cannot follow into the op"
        if reason:
            yield Diagnostic(
                "KR401",
                f"{request.pointwise.name} cannot give the values of `{request.parameter}`, which holds {element}",
                (Label(analysis.kernel.definition_line, reason),),
                help=f"cast the result, `.to({torch_name(element)})`; if the kernel has another type, say so: "
                f"`--dtype {request.parameter}=fp32`; if what it is given has another one: "
                f"`--prologue {request.input}:int8=...`",
            )


def _other_result(request: InputRequest, element: str) -> str:
    """How the result differs from `element`, the type that the kernel has the input with."""
    found = request.pointwise.result_dtype(request.holds or element)
    given = request.holds or element
    return "" if found == torch_name(element) else f"the result is {found} where x is {given}"


def given_another_type(analysis: Analysis, request: InputRequest) -> Iterator[Diagnostic]:
    """KR403: the input gets another element type, which something else depends on."""
    if not request.holds:
        return
    fact = next((f for f in analysis.facts if f.name == request.parameter), None)
    if fact is None or fact.kind != "pointer":
        label = Label(analysis.kernel.definition_line, "it is passed as a descriptor, or in a tuple")
        yield _fixed_type(request, label)
    for span in pointer_casts(request.parameter, analysis.calls, analysis.flow):
        yield _fixed_type(request, Label(span, "its pointer is cast here"))
    for launch in analysis.launches:
        others = (name for name in launch.facts if request.parameter in allocated_like(launch, name))
        for name in dict.fromkeys(others):
            yield _fixed_type(request, Label(launch.span, f"`{name}` is allocated with its element type here"))


def _fixed_type(request: InputRequest, label: Label) -> Diagnostic:
    return Diagnostic(
        "KR403",
        f"`{request.input}` cannot get the element type {request.holds}",
        (label,),
        help="name the type where it is asked for, or cast before the kernel",
    )


def cast_pointer(analysis: Analysis, request: InputRequest) -> Iterator[Diagnostic]:
    """KR225: the source casts the input's pointer, and only the cast itself says what the elements are."""
    if has_certain_type(analysis, request.parameter):
        return  # TTIR shows whether the cast changes the type
    for span in pointer_casts(request.parameter, analysis.calls, analysis.flow):
        yield Diagnostic(
            "KR225",
            f"the pointer `{request.parameter}` is cast, and nothing says whether to the type of its elements",
            (Label(span, "cast here"),),
            help=f"say what the elements are: `--dtype {request.parameter}=fp32`",
        )


def tuner_resets(analysis: Analysis, request: InputRequest) -> Iterator[Diagnostic]:
    """KR211: the autotuner zeroes the input before each trial, and the op would change that zero."""
    tuning = analysis.tuning
    if request.parameter in tuning.reset_to_zero and not request.pointwise.preserves(0.0):
        yield Diagnostic(
            "KR211",
            f"the autotuner resets `{request.parameter}` to zero, which {request.pointwise.name} would change",
            (Label(tuning.span or analysis.kernel.definition_line, "in this decorator"),),
            help="leave the input out of `reset_to_zero`",
        )


INPUT_CHECKS_WITHOUT_OP: tuple[Check, ...] = (
    only_read,
    unlowered,
    written_under_another_name,
    ambiguous_helpers,
    cast_pointer,
    used_as_helper,
)
"""What holds or fails whatever the op is: the part `inspect` reports."""

INPUT_CHECKS: tuple[Check, ...] = (*INPUT_CHECKS_WITHOUT_OP, element_types, given_another_type, tuner_resets)


def run_input_checks(analysis: Analysis, request: InputRequest) -> tuple[Diagnostic, ...]:
    """Every reason not to fuse, each once."""
    return tuple(dict.fromkeys(d for check in INPUT_CHECKS for d in check(analysis, request)))


def input_assumptions(analysis: Analysis, request: InputRequest) -> tuple[Assumption, ...]:
    """What the fusion takes from the caller, beyond what the file itself shows."""
    names = [INPUT_APART]
    if not has_certain_type(analysis, request.parameter) and (request.holds or not gives_what_it_gets(request)):
        names.append(ELEMENT_TYPE)
    return assumed(analysis, request, names)
