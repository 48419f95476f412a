"""Right fusions to spoil: an analysed kernel, the epilogue, and the rewritten text that the tool would confirm."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kernel_rewrite.analysis import Analysis, View, analyse
from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.functions import in_words
from kernel_rewrite.fuse import plan_output
from kernel_rewrite.model import Operand
from kernel_rewrite.pointwise.declarations import declared_operands, used_in
from kernel_rewrite.pointwise.language import called_name, parse_epilogue
from kernel_rewrite.request import OutputRequest
from kernel_rewrite.rewrite.confirm import (
    References,
    check_compiled,
    check_source,
    lower_rewritten,
    read_rewritten,
    views_to_confirm,
)
from kernel_rewrite.rewrite.edits import apply_edits
from kernel_rewrite.rewrite.epilogue import Rewrite, fusion_edits
from kernel_rewrite.selection import checked_assumptions, choose_kernel, choose_outputs, requested_ops
from kernel_rewrite.source.files import Project, source_from_text
from kernel_rewrite.source.signatures import parse_overrides
from kernel_rewrite.ttir.lower import Lowered, LoweringFailure, compiler

FIXTURES = Path(__file__).parent.parent.parent / "fixtures" / "rewrites"


@dataclass(frozen=True)
class Request:
    """The arguments of a fixture's `request.txt`."""

    epilogues: tuple[str, ...]
    numerics: str = "eager"
    kernel: str | None = None
    constexprs: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    operands: tuple[str, ...] = ()
    launcher: str = "rewrite"

    @classmethod
    def read(cls, text: str) -> Request:
        parser = argparse.ArgumentParser()
        parser.add_argument("--epilogue", action="append")
        parser.add_argument("--numerics", default="eager")
        parser.add_argument("--kernel")
        parser.add_argument("--no-launcher", dest="launcher", action="store_const", const="leave", default="rewrite")
        for name in ("--set", "--dtype", "--assume", "--operand"):
            parser.add_argument(name, action="append", default=[])
        o = parser.parse_args(shlex.split(text))
        fixed = tuple(o.set), tuple(o.dtype), tuple(o.assume)
        return cls(tuple(o.epilogue), o.numerics, o.kernel, *fixed, tuple(o.operand), o.launcher)

    @property
    def declared(self) -> dict[str, Operand]:
        return in_words(self.epilogues, (), declared_operands(self.operands), Project())[2]

    def requested(self) -> list[tuple[str | None, str]]:
        words, _, declared = in_words(self.epilogues, (), declared_operands(self.operands), Project())
        return list(requested_ops(words, (), declared)[0])

    @property
    def is_more_than_an_op(self) -> bool:
        """Whether an epilogue reads operands, or is a function of the user's."""
        return any(
            called_name(text) is not None or parse_epilogue(text, used_in(text, self.declared)).operands
            for _, text in self.requested()
        )

    def outputs(self) -> tuple[str | None, ...]:
        return tuple(output for output, _ in self.requested())


@contextlib.contextmanager
def standing_in(folder: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@dataclass(frozen=True)
class Case:
    """One right fusion. `text` is the rewritten file without its header."""

    name: str
    analysis: Analysis
    requests: tuple[OutputRequest, ...]
    rewrite: Rewrite
    text: str
    numerics: str
    references: References
    lowered: list[str] = field(default_factory=list)

    @property
    def views(self) -> tuple[View, ...]:
        return views_to_confirm(self.analysis, self.requests)

    def compiled(self) -> list[str]:
        """The TTIR of the right rewrite, a text a specialization."""
        if not self.lowered:
            results = self.lower(self.text)
            assert all(isinstance(result, Lowered) for result in results)
            self.lowered.extend(result.text for result in results if isinstance(result, Lowered))
        return self.lowered

    def lower(self, text: str) -> list[Lowered | LoweringFailure]:
        """What Triton makes of `text` in the place of the rewritten file, an answer a view."""
        rewritten = read_rewritten(text, self.analysis)
        return lower_rewritten(rewritten, self.analysis, self.views, self.rewrite, self.requests)

    def accept(self) -> None:
        """Both judges accept the right rewrite."""
        check_source(read_rewritten(self.text, self.analysis), self.rewrite, self.analysis)
        check_compiled(self.lower(self.text), self.views, self.references, self.requests)


def analysed(path: Path, kernel: str | None, request: Request) -> Analysis:
    project = Project()
    file = project.read(path)
    definition = choose_kernel(file, project, kernel)
    return analyse(
        definition, project, compiler(), lambda function: parse_overrides(function, request.constexprs, request.dtypes)
    )


def analysed_text(text: str, request: Request, path: str = "kernels.py") -> Analysis:
    project = Project()
    location = os.path.abspath(path) if os.path.exists(path) else ""
    file = project.add(source_from_text(text, path, location=location))
    definition = choose_kernel(file, project, request.kernel)
    return analyse(
        definition, project, compiler(), lambda function: parse_overrides(function, request.constexprs, request.dtypes)
    )


def fused_case(name: str, analysis: Analysis, epilogues: list[tuple[str | None, str]], request: Request) -> Case:
    """The right fusion of `epilogues` into `analysis`. Raises FusionRefused."""
    operands = request.declared.values()
    requests = choose_outputs(analysis, epilogues, checked_assumptions(request.assumed), operands)
    rewrite, text = rewritten(analysis, requests, request.numerics, request.launcher)
    references = References(analysis, request.numerics, rewrite)
    return Case(name, analysis, requests, rewrite, text, request.numerics, references)


def rewritten(
    analysis: Analysis, requests: tuple[OutputRequest, ...], numerics: str, launcher: str = "rewrite"
) -> tuple[Rewrite, str]:
    plans = [(plan_output(analysis, request), request.pointwise) for request in requests]
    rewrite = fusion_edits(plans, analysis, numerics, launcher=launcher == "rewrite")
    return rewrite, apply_edits(analysis.kernel.file, rewrite.edits)


def fixture_cases(folder: Path, ops: tuple[str, ...]) -> Iterator[Case]:
    """A fixture with each of `ops` in place of the epilogue it asks for, where that op can be fused; with operands or a
    function of the user's, that epilogue too."""
    request = Request.read((folder / "request.txt").read_text())
    analysis = analysed(Path("before.py"), request.kernel, request)
    for op in ops:
        epilogues = [(output, op) for output in request.outputs()]
        with contextlib.suppress(FusionRefused):
            yield fused_case(f"{folder.name}/{op}", analysis, epilogues, request)
    if request.is_more_than_an_op:
        yield fused_case(f"{folder.name}/as requested", analysis, request.requested(), request)
