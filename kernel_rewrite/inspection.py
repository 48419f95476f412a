"""`inspect`: what the tool sees in each kernel of a file, and what it would let you fuse."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kernel_rewrite.analysis import Analysis, View, analyse
from kernel_rewrite.checks import CHECKS_WITHOUT_OP
from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.input_checks import INPUT_CHECKS_WITHOUT_OP
from kernel_rewrite.model import MemoryEffect, Span
from kernel_rewrite.request import InputRequest, OutputRequest
from kernel_rewrite.results import AccessReport, InputReport, Inspection, KernelReport, OutputReport
from kernel_rewrite.retyped import element_types_of
from kernel_rewrite.selection import choose_kernel, read_source
from kernel_rewrite.source.closure import KernelDefinition, kernels
from kernel_rewrite.source.files import Project
from kernel_rewrite.source.signatures import parse_overrides
from kernel_rewrite.ttir.lower import compiler
from kernel_rewrite.vouched import answered


def inspect(
    source: Any,
    *,
    kernel: str | None = None,
    constexprs: Iterable[str] = (),
    dtypes: Iterable[str] = (),
    path: str | None = None,
    project: Project | None = None,
) -> Inspection:
    """A report on `kernel`, or on every kernel of `source` (a path, a text or a JITFunction).

    Raises FusionRefused when the file cannot be read (KR101, KR113) or has no such kernel (KR102).
    """
    build = compiler()
    build.start()
    project, file, kernel = read_source(source, path, kernel, project)
    every = kernels(file, project)
    chosen = [k for k in every if k.entry] or list(every)
    if kernel is not None or not chosen:
        chosen = [choose_kernel(file, project, kernel)]
    reports = tuple(_report(definition, project, constexprs, dtypes) for definition in chosen)
    return Inspection(file.path, reports, project.sources())


def _report(
    definition: KernelDefinition, project: Project, constexprs: Iterable[str], dtypes: Iterable[str]
) -> KernelReport:
    try:
        analysis = analyse(
            definition, project, compiler(), lambda function: parse_overrides(function, constexprs, dtypes)
        )
    except FusionRefused as refusal:
        return KernelReport(definition.name, definition.definition_line, problems=refusal.diagnostics)
    return KernelReport(
        definition.name,
        definition.definition_line,
        analysis.facts,
        analysis.parameters_with(MemoryEffect.READ),
        tuple(_output(analysis, name) for name in written_parameters(analysis)),
        tuple(_accesses(analysis)),
        tuple(_origin(view) for view in analysis.views),
        analysis.complete,
        tuple((f.specialization.origin, f.message) for f in analysis.failures),
        tuple(assumed.statement for assumed in analysis.closure.assumed_names),
        prologue_inputs=tuple(_input(analysis, name) for name in analysis.parameters_with(MemoryEffect.READ)),
    )


def written_parameters(analysis: Analysis) -> tuple[str, ...]:
    """The parameters some access may change."""
    return analysis.parameters_with(MemoryEffect.WRITE, MemoryEffect.ACCUMULATE, MemoryEffect.UNKNOWN)


def _output(analysis: Analysis, name: str) -> OutputReport:
    request = OutputRequest.without_op(name)
    found = tuple(dict.fromkeys(d for check in CHECKS_WITHOUT_OP for d in check(analysis, request)))
    reasons, _, _ = answered(analysis, found)
    touched = [view for view in analysis.views if any(name in access.roots for access in view.accesses)]
    clean = [view for view in touched if analysis.write_only(name, [view]).ok]
    return OutputReport(
        name,
        tuple(sorted(element_types_of(analysis, name))),
        not reasons,
        analysis.write_only(name).stores,
        reasons,
        tuple(_origin(view) for view in clean),
        tuple(_origin(view) for view in touched),
    )


def _input(analysis: Analysis, name: str) -> InputReport:
    request = InputRequest.without_op(name)
    found = tuple(dict.fromkeys(d for check in INPUT_CHECKS_WITHOUT_OP for d in check(analysis, request)))
    reasons, _, _ = answered(analysis, found)
    types = tuple(sorted(element_types_of(analysis, name)))
    return InputReport(name, types, not reasons, analysis.read_only(name).loads, reasons)


def _origin(view: View) -> str:
    return view.specialization.origin or "as inferred"


def _accesses(analysis: Analysis) -> Iterable[AccessReport]:
    roots: dict[Span, set[str]] = {}
    effects: dict[Span, str] = {}
    for access in analysis.accesses:
        span = analysis.span_of(access.location, access.operation)
        if span is not None:
            roots.setdefault(span, set()).update(access.roots)
            effects[span] = access.effect.value
    for call in analysis.calls.memory_calls:
        if call.span not in roots:
            roots[call.span] = set()
            effects[call.span] = min(effect.value for effect in call.effects)
    texts = {file.path: file for file in analysis.project.files()}
    for span in sorted(roots):
        text = " ".join(texts[span.file].slice(span).split()) if span.file in texts else ""
        yield AccessReport(effects[span], tuple(sorted(roots[span])), span, text, bool(roots[span]))
