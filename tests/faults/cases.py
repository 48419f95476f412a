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
from kernel_rewrite.arguments import names_a_kernel, stored_by_drop
from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.functions import in_words
from kernel_rewrite.fuse import plan_input, plan_output
from kernel_rewrite.model import Operand
from kernel_rewrite.pointwise.declarations import declared_operands, used_in
from kernel_rewrite.pointwise.language import called_name, parse_epilogue
from kernel_rewrite.request import InputRequest, OutputRequest
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
from kernel_rewrite.selection import (
    Requested,
    checked_assumptions,
    choose_inputs,
    choose_kernel,
    choose_outputs,
    kept_names,
    requested_ops,
    with_kept,
)
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
    prologues: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    kernels: tuple[str, ...] = ()
    partial: bool = False

    @classmethod
    def read(cls, text: str) -> Request:
        parser = argparse.ArgumentParser()
        parser.add_argument("--epilogue", action="append", default=[])
        parser.add_argument("--epilogue-kernel", action="append", default=[])
        parser.add_argument("--prologue", action="append", default=[])
        parser.add_argument("--numerics", default="eager")
        parser.add_argument("--kernel")
        parser.add_argument("--partial", action="store_true")
        parser.add_argument("--no-launcher", dest="launcher", action="store_const", const="leave", default="rewrite")
        parser.add_argument("--allow-in-place", dest="assume", action="append_const", const="in-place", default=[])
        for name in ("--set", "--dtype", "--assume", "--operand", "--keep-original", "--drop"):
            parser.add_argument(name, action="append", default=[])
        o = parser.parse_args(shlex.split(text))
        fixed = tuple(o.set), tuple(o.dtype), tuple(o.assume)
        operands = (
            *o.operand,
            *stored_by_drop(o.drop, o.operand, o.epilogue),
        )  # what is dropped behind it is there yet
        ends = operands, o.launcher, tuple(o.prologue), tuple(o.keep_original), tuple(o.epilogue_kernel)
        return cls(tuple(o.epilogue), o.numerics, o.kernel, *fixed, *ends, o.partial)

    @property
    def declared(self) -> dict[str, Operand]:
        return in_words(self.epilogues, (), declared_operands(self.operands), Project(), self.kernels)[2]

    def requested(self) -> list[tuple[str | None, str]]:
        return list(self._asked()[0])

    def before(self) -> list[tuple[str | None, str]]:
        """The prologues."""
        return list(self._asked()[1])

    def _asked(self) -> tuple[Requested, Requested]:
        operands, project = declared_operands(self.operands), Project()
        words, before, declared = in_words(self.epilogues, self.prologues, operands, project, self.kernels)
        return requested_ops(words, before, declared, project, self.partial)

    @property
    def is_more_than_an_op(self) -> bool:
        """Whether an op reads operands, or is a function of the user's."""
        return any(
            names_a_kernel(text)
            or called_name(text) is not None
            or self.partial
            or parse_epilogue(text, used_in(text, self.declared)).operands
            for _, text in (*self.requested(), *self.before())
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
    inputs: tuple[InputRequest, ...] = ()
    lowered: list[str] = field(default_factory=list)

    @property
    def views(self) -> tuple[View, ...]:
        return views_to_confirm(self.analysis, self.requests, self.inputs)

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
        every = (*self.requests, *self.inputs)
        return lower_rewritten(rewritten, self.analysis, self.views, self.rewrite, every)

    def accept(self) -> None:
        """Both judges accept the right rewrite."""
        check_source(read_rewritten(self.text, self.analysis), self.rewrite, self.analysis)
        self.check(self.lower(self.text))

    def check(self, results: list[Lowered | LoweringFailure]) -> None:
        """Raise unless what Triton made of a text is the original but for the ops."""
        check_compiled(results, self.views, self.references, self.requests, self.inputs)


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


def fused_case(
    name: str,
    analysis: Analysis,
    epilogues: list[tuple[str | None, str]],
    request: Request,
    prologues: list[tuple[str | None, str]] | None = None,
) -> Case:
    """The right fusion of `epilogues` and `prologues` into `analysis`. Raises FusionRefused."""
    operands, assumed = request.declared.values(), checked_assumptions(request.assumed)
    chosen = choose_outputs(analysis, epilogues, assumed, operands, request.launcher == "rewrite", request.partial)
    requests = with_kept(analysis, chosen, kept_names(request.kept))
    inputs = choose_inputs(analysis, prologues or (), assumed, operands)
    rewrite, text = rewritten(analysis, requests, request.numerics, request.launcher, inputs)
    references = References(analysis, request.numerics, rewrite)
    return Case(name, analysis, requests, rewrite, text, request.numerics, references, inputs)


def rewritten(
    analysis: Analysis,
    requests: tuple[OutputRequest, ...],
    numerics: str,
    launcher: str = "rewrite",
    inputs: tuple[InputRequest, ...] = (),
) -> tuple[Rewrite, str]:
    stores = [(plan_output(analysis, request), request.pointwise) for request in requests]
    loads = [(plan_input(analysis, request), request.pointwise) for request in inputs]
    kept = {request.output: request.kept for request in requests if request.kept}
    rests = {request.output: request.rest for request in requests if request.rest is not None}
    rewrite = fusion_edits(
        stores, analysis, numerics, loads=loads, launcher=launcher == "rewrite", kept=kept, rests=rests
    )
    return rewrite, apply_edits(analysis.kernel.file, rewrite.edits)


def fixture_cases(folder: Path, ops: tuple[str, ...]) -> Iterator[Case]:
    """A fixture with each of `ops` in place of the epilogue it asks for (of the prologue, where it asks for one), where
    that op can be fused; with operands, prologues or a function of the user's, what it asks for too."""
    request = Request.read((folder / "request.txt").read_text())
    analysis = analysed(Path("before.py"), request.kernel, request)
    asked, before = request.requested(), request.before()
    for op in ops if asked or before else ():  # else an output is dropped: `test_dropped.py`
        epilogues = asked if before else [(output, op) for output, _ in asked]
        with contextlib.suppress(FusionRefused):
            prologues = [(input, op) for input, _ in before]
            yield fused_case(f"{folder.name}/{op}", analysis, epilogues, request, prologues)
    if request.is_more_than_an_op or before:
        yield fused_case(f"{folder.name}/as requested", analysis, asked, request, before)
