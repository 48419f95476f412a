"""A file with one kernel and its launchers, rewritten to take operands; and run, with a kernel that takes notes."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import dedent
from types import MappingProxyType

from kernel_rewrite.diagnostics import Diagnostic
from kernel_rewrite.pointwise.remainder import Remainder
from kernel_rewrite.rewrite.additions import Addition
from kernel_rewrite.rewrite.allocations import ChangedBuffer
from kernel_rewrite.rewrite.edits import apply_edits
from kernel_rewrite.rewrite.launcher import launcher_edits
from kernel_rewrite.rewrite.parameters import LaunchedKernel, NewParameter, parameter_edits
from kernel_rewrite.rewrite.unchanged import check_unchanged
from kernel_rewrite.source.closure import close, kernels
from kernel_rewrite.source.files import Project, SourceFile, source_from_text
from kernel_rewrite.source.launches import launches
from kernel_rewrite.source.symbolic import ProjectNames

IMPORTS = "import torch\nimport triton\nimport triton.language as tl\n"
KERNEL = """
@triton.jit
def kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + offsets, tl.load(x_ptr + offsets, mask=offsets < n), mask=offsets < n)
"""
BIAS = NewParameter("bias_ptr", "bias")
SCALE = NewParameter("scale", "scale", number=True)
RESIDUAL = NewParameter("residual_ptr", "residual", (("stride_rm", 0), ("stride_rn", 1)))


def read(text: str, name: str = "kernel") -> LaunchedKernel:
    """The kernel `name` of the file `text`."""
    file = source_from_text(text, "f.py")
    project = Project((file,))
    definition = next(k for k in kernels(file, project) if k.name == name)
    found = launches(definition.node, file.tree, file.path, ProjectNames(file, project))
    return LaunchedKernel.of(definition, close(definition, project), found, project)


@dataclass(frozen=True)
class Outcome:
    """The new text, and what the plans say. The text was held to the plans: nothing else changed."""

    kernel: LaunchedKernel
    text: str
    contract: tuple[str, ...]
    diagnostics: tuple[Diagnostic, ...]
    additions: tuple[Addition, ...]

    @property
    def codes(self) -> list[str]:
        return [d.code for d in self.diagnostics]

    @property
    def file(self) -> SourceFile:
        return self.kernel.file


def rewritten(
    text: str,
    parameters: Sequence[NewParameter] = (BIAS,),
    buffers: Sequence[ChangedBuffer] = (),
    name: str = "kernel",
    rests: Mapping[str, Remainder] = MappingProxyType({}),
) -> Outcome:
    kernel = read(text, name)
    signature = parameter_edits(kernel, parameters)
    launchers = launcher_edits(kernel, parameters, buffers, rests)
    additions = (*signature.additions, *launchers.additions)
    new = apply_edits(kernel.file, [*signature.edits, *launchers.edits])
    check_unchanged(kernel.file.tree, ast.parse(new), (), additions)
    return Outcome(kernel, new, launchers.contract, (*signature.diagnostics, *launchers.diagnostics), additions)


def host(before: str, parameters: Sequence[NewParameter] = (BIAS,), **options: object) -> tuple[str, Outcome]:
    """The launchers `before`, rewritten, without what stands above them."""
    head = IMPORTS + KERNEL + "\n"
    outcome = rewritten(head + dedent(before), parameters, **options)  # type: ignore[arg-type]
    return outcome.text[outcome.text.index("mask=offsets < n)\n\n") + len("mask=offsets < n)\n\n") :], outcome


def codes(diagnostics: Iterable[Diagnostic]) -> list[str]:
    return [d.code for d in diagnostics]
