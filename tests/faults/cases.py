"""Right fusions to spoil: an analysed kernel, the epilogue, and the rewritten text that the tool would confirm."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
import re
from pathlib import Path

from kernel_rewrite.analysis import Analysis, View, analyse
from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.fuse import plan_output
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
from kernel_rewrite.rewrite.epilogue import Rewrite, epilogue_edits
from kernel_rewrite.selection import checked_assumptions, choose_kernel, choose_outputs, requested_epilogues
from kernel_rewrite.source.files import Project, source_from_text
from kernel_rewrite.source.signatures import parse_overrides
from kernel_rewrite.ttir.lower import Lowered, compiler

FIXTURES = Path(__file__).parent.parent.parent / "fixtures" / "rewrites"


def unary_fixtures() -> list[Path]:
    """The rewrites whose epilogue reads the stored value alone. Operands are spoiled in `tests/rewrite/test_operands.py`."""
    folders = sorted(path.parent for path in FIXTURES.glob("*/request.txt"))
    return [
        f
        for f in folders
        if not {"--operand", "offsets"} & set(re.split(r"[\s\[\"]+", (f / "request.txt").read_text()))
    ]


@dataclass(frozen=True)
class Request:
    """The arguments of a fixture's `request.txt`."""

    epilogues: tuple[str, ...]
    numerics: str = "eager"
    kernel: str | None = None
    constexprs: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()

    @classmethod
    def read(cls, text: str) -> Request:
        parser = argparse.ArgumentParser()
        parser.add_argument("--epilogue", action="append")
        parser.add_argument("--numerics", default="eager")
        parser.add_argument("--kernel")
        for name in ("--set", "--dtype", "--assume"):
            parser.add_argument(name, action="append", default=[])
        o = parser.parse_args(shlex.split(text))
        return cls(tuple(o.epilogue), o.numerics, o.kernel, tuple(o.set), tuple(o.dtype), tuple(o.assume))

    def outputs(self) -> tuple[str | None, ...]:
        return tuple(output for output, _ in requested_epilogues(self.epilogues))


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
            results = lower_rewritten(read_rewritten(self.text, self.analysis), self.analysis, self.views)
            assert all(isinstance(result, Lowered) for result in results)
            self.lowered.extend(result.text for result in results if isinstance(result, Lowered))
        return self.lowered

    def accept(self) -> None:
        """Both judges accept the right rewrite."""
        rewritten = read_rewritten(self.text, self.analysis)
        check_source(rewritten, self.rewrite, self.analysis)
        results = lower_rewritten(rewritten, self.analysis, self.views)
        check_compiled(results, self.views, self.references, self.requests)


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
    requests = choose_outputs(analysis, epilogues, checked_assumptions(request.assumed))
    rewrite, text = rewritten(analysis, requests, request.numerics)
    return Case(name, analysis, requests, rewrite, text, request.numerics, References(analysis, request.numerics))


def rewritten(analysis: Analysis, requests: tuple[OutputRequest, ...], numerics: str) -> tuple[Rewrite, str]:
    plans = [(plan_output(analysis, request), request.pointwise) for request in requests]
    rewrite = epilogue_edits(plans, analysis, numerics)
    return rewrite, apply_edits(analysis.kernel.file, rewrite.edits)


def fixture_cases(folder: Path, ops: tuple[str, ...]) -> Iterator[Case]:
    """A fixture with each of `ops` in place of the epilogue it asks for, where that op can be fused."""
    request = Request.read((folder / "request.txt").read_text())
    analysis = analysed(Path("before.py"), request.kernel, request)
    for op in ops:
        epilogues = [(output, op) for output in request.outputs()]
        with contextlib.suppress(FusionRefused):
            yield fused_case(f"{folder.name}/{op}", analysis, epilogues, request)
