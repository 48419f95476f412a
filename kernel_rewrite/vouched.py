"""What the user answers for in a comment: `# kernel-rewrite: ignore[KR208] reason`.

Ignoring a diagnostic never weakens the proof. A code can be ignored only if it rests on something that the caller can
know; then the ignore stands for the assumption of that name, at this one place, and the fused file records it. Every other
code says that the fused kernel would be wrong, or could not be shown to be right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

from kernel_rewrite.analysis import Analysis
from kernel_rewrite.checks import FULLY_WRITTEN, INPUT_APART, NO_ALIAS, run_checks
from kernel_rewrite.diagnostics import CODES, Diagnostic, Label, Severity
from kernel_rewrite.input_checks import run_input_checks
from kernel_rewrite.model import Span
from kernel_rewrite.request import InputRequest, OutputRequest, Request
from kernel_rewrite.source.closure import KernelDefinition, kernels
from kernel_rewrite.source.comments import IGNORE, Control, controls

VOUCHABLE: dict[str, str] = {
    "KR208": NO_ALIAS,
    "KR209": FULLY_WRITTEN,
    "KR211": FULLY_WRITTEN,
    "KR229": INPUT_APART,
}
"""The codes that can be ignored, and the assumption that each then becomes."""


AnyRequest = TypeVar("AnyRequest", OutputRequest, InputRequest)


def judged(analysis: Analysis, request: AnyRequest) -> tuple[AnyRequest, tuple[Diagnostic, ...]]:
    """The request, with the assumptions that comments make, and every reason not to fuse that is left."""
    problems = (
        run_input_checks(analysis, request) if isinstance(request, InputRequest) else run_checks(analysis, request)
    )
    left, names, used = answered(analysis, problems)
    if not used:
        return request, problems
    return replace(request, assumed=request.assumed | names, ignoring=used), left


def answered(
    analysis: Analysis, problems: tuple[Diagnostic, ...]
) -> tuple[tuple[Diagnostic, ...], frozenset[str], frozenset[Span]]:
    """The problems that no comment answers for; the assumptions that the others become; the comments that do it."""
    ignores = [c for c in controls(analysis.kernel.file, analysis.project) if c.directive == IGNORE and not c.wrong]
    left, names, used = [], set(), set()
    for problem in problems:
        answers = [c for c in ignores if problem.code in c.codes and _is_about(c, problem)]
        if answers and problem.code in VOUCHABLE:
            used |= {c.span for c in answers}
            names.add(VOUCHABLE[problem.code])
        else:
            left.append(problem)
    return tuple(left), frozenset(names), frozenset(used)


def _is_about(control: Control, problem: Diagnostic) -> bool:
    spans = [label.span for label in problem.labels]
    return any(s.file == control.span.file and s.line <= control.line <= s.end_line for s in spans)


def forbidden_ignores(analysis: Analysis) -> Iterator[Diagnostic]:
    """KR607 for each comment that ignores what no caller can answer for."""
    for control in controls(analysis.kernel.file, analysis.project):
        for code in control.codes if not control.wrong else ():
            if code not in VOUCHABLE:
                yield Diagnostic(
                    "KR607",
                    f"{code} cannot be ignored: that {_because(code)}",
                    (Label(control.span, CODES[code]),),
                    help=f"mend what it reports (`kernel-rewrite explain {code}`); "
                    f"what can be ignored: {', '.join(VOUCHABLE)}",
                )


def _because(code: str) -> str:
    if code.startswith("KR2"):
        return "leaves the output without a proof, and nothing the caller knows about the arguments can make up for it"
    return "leaves nothing that could be fused"


def unused_ignores(analysis: Analysis, requests: Iterable[Request]) -> tuple[Diagnostic, ...]:
    """KR608, a warning, for each comment at this kernel and its launches, or at none at all, that ignores nothing."""
    used = frozenset(span for request in requests for span in request.ignoring)
    file, kernel = analysis.kernel.file, analysis.kernel
    others = [k for k in kernels(file, analysis.project) if k.node is not kernel.node]
    elsewhere = {line for other in others for line in _lines(other)} - set(_lines(kernel))
    return tuple(
        Diagnostic(
            "KR608",
            f"nothing is ignored here: {' and '.join(control.codes)} {'is' if len(control.codes) == 1 else 'are'} "
            f"not reported for `{kernel.name}`",
            (Label(control.span),),
            help="remove the comment",
            severity=Severity.WARNING,
        )
        for control in controls(file, analysis.project)
        if control.directive == IGNORE and control.span not in used and control.line not in elsewhere
    )


def _lines(kernel: KernelDefinition) -> Iterator[int]:
    """The lines of the kernel, its decorators and its launches."""
    node = kernel.node
    first = min([node.lineno, *(decorator.lineno for decorator in kernel.decorators)])
    yield from range(first, (node.end_lineno or node.lineno) + 1)
    for call in kernel.launches:
        yield from range(call.lineno, (call.end_lineno or call.lineno) + 1)
