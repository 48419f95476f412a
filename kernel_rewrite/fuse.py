"""The story of a fusion: read, choose the kernel, analyse, check, plan, rewrite, confirm."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernel_rewrite import __version__
from kernel_rewrite.analysis import Analysis, analyse
from kernel_rewrite.checks import ASSUMPTIONS, OutputRequest, assumptions, element_types_of, run_checks
from kernel_rewrite.diagnostics import Diagnostic, FusionRefused, Label
from kernel_rewrite.model import Assumption, MemoryEffect, WriteOnlyProof
from kernel_rewrite.pointwise.language import parse_epilogue
from kernel_rewrite.rewrite.confirm import confirm
from kernel_rewrite.rewrite.edits import apply_edits
from kernel_rewrite.rewrite.epilogue import epilogue_edits, references
from kernel_rewrite.rewrite.header import digest, with_header
from kernel_rewrite.rewrite.stores import StorePlan, plan_stores
from kernel_rewrite.source.closure import KernelDefinition, kernels
from kernel_rewrite.source.files import Project, SourceFile, source_from_text
from kernel_rewrite.source.signatures import parse_overrides
from kernel_rewrite.ttir.lower import Compiler, compiler

EAGER, FUSED = "eager", "fused"
NUMERICS = (EAGER, FUSED)


@dataclass(frozen=True, slots=True)
class Fused:
    """A fused kernel file.

    `source` is its whole text, `diff` the unified diff from the original (without the header), `proofs` one write-only
    proof an output, `name` the short name of what was fused ("relu"), `encoding` that of the original file.
    """

    source: str
    diff: str
    kernel: str
    name: str
    proofs: tuple[WriteOnlyProof, ...]
    epilogues: tuple[tuple[str, str], ...]
    path: str = "<string>"
    encoding: str = "utf-8"

    @property
    def proof(self) -> WriteOnlyProof:
        """The proof of the first output."""
        return self.proofs[0]

    @property
    def assumptions(self) -> tuple[Assumption, ...]:
        return tuple(dict.fromkeys(a for proof in self.proofs for a in proof.assumptions))


def fuse(
    source: Any,
    epilogues: str | Mapping[str, str] | Iterable[str],
    *,
    kernel: str | None = None,
    numerics: str = EAGER,
    constexprs: Iterable[str] = (),
    dtypes: Iterable[str] = (),
    assume: Iterable[str] = (),
    path: str | None = None,
) -> Fused:
    """The file of `source` with each epilogue inlined into every store of its output, proved.

    `source` is a path, the text of a file, or a `triton.JITFunction`. `epilogues` is an op ("relu", when the kernel has
    one eligible output), "OUT=OP" texts, or {output: op}. `numerics`: "eager" rounds to the output's type between kernel
    and op, as the unfused pair does; "fused" keeps the precision of the stored value. `constexprs` ("NAME=VALUE") and
    `dtypes` ("PARAM=fp16") fix what is otherwise inferred. Raises FusionRefused with every reason, or InternalError.
    """
    build = compiler()
    build.start()
    requested = tuple(_requested(epilogues))
    for _, text in requested:
        parse_epilogue(text)
    assumed = _checked_assumptions(assume)
    project, file, kernel = read_source(source, path, kernel)
    definition = choose_kernel(file, project, kernel)
    analysis = analyse(definition, project, build, lambda function: parse_overrides(function, constexprs, dtypes))
    return fuse_outputs(analysis, requested, assumed=assumed, numerics=numerics)


def fuse_outputs(
    analysis: Analysis,
    requested: Iterable[tuple[str | None, str]],
    *,
    assumed: frozenset[str] = frozenset(),
    numerics: str = EAGER,
) -> Fused:
    """What `fuse` does once the kernel is analysed: check, plan, rewrite, confirm each (output, op) of `requested`."""
    definition, project, build = analysis.kernel, analysis.project, analysis.compiler
    file = definition.file
    requests = [_request(analysis, output, text, assumed) for output, text in requested]
    plans = [(plan_output(analysis, request), request.pointwise) for request in requests]
    edits = epilogue_edits(
        plans, analysis.closure, analysis.flow, file, project, jit=definition.jit_spelling, numerics=numerics
    )
    text = apply_edits(file, edits)
    confirm(file, text, analysis, requests, numerics)
    proofs = tuple(_proof(analysis, request) for request in requests)
    return Fused(
        source=_headed(text, file, definition, requests, proofs, numerics),
        diff=unified_diff(file, text),
        kernel=definition.name,
        name="_".join(request.pointwise.name for request in requests),
        proofs=proofs,
        epilogues=tuple((request.output, request.text) for request in requests),
        path=file.path,
        encoding=file.encoding,
    )


# ---------------------------------------------------------------------------------------------------- what is asked for

_OUTPUT_AND_OP = re.compile(r"\s*([A-Za-z_]\w*(?:\[\d+\])?)\s*=(?!=)(.*)", re.DOTALL)


def _requested(epilogues: str | Mapping[str, str] | Iterable[str]) -> Iterable[tuple[str | None, str]]:
    """(output or None, text of the epilogue) of each request."""
    if isinstance(epilogues, Mapping):
        yield from epilogues.items()
        return
    for text in [epilogues] if isinstance(epilogues, str) else epilogues:
        named = _OUTPUT_AND_OP.fullmatch(text)
        yield (named[1], named[2].strip()) if named else (None, text.strip())


def _checked_assumptions(names: Iterable[str]) -> frozenset[str]:
    unknown = [name for name in names if name not in ASSUMPTIONS]
    if unknown:
        close = difflib.get_close_matches(unknown[0], ASSUMPTIONS, 1)
        hint = f"did you mean `{close[0]}`? " if close else ""
        raise FusionRefused(
            (Diagnostic("KR115", f"unknown assumption `{unknown[0]}`", help=f"{hint}known: {', '.join(ASSUMPTIONS)}"),)
        )
    return frozenset(names)


def read_source(source: Any, path: str | None, kernel: str | None) -> tuple[Project, SourceFile, str | None]:
    """The file behind a path, a text or a JITFunction, in a project of its own."""
    project = Project()
    if hasattr(source, "fn"):  # a JITFunction, or an Autotuner or Heuristics around one
        function = source
        while not callable(getattr(function, "__code__", None)) and hasattr(function, "fn"):
            function = function.fn
        return project, project.read(function.__code__.co_filename), kernel or function.__name__
    if isinstance(source, Path) or (isinstance(source, str) and "\n" not in source and _is_path(source)):
        return project, project.read(source), kernel
    if isinstance(source, str):
        return project, project.add(source_from_text(source, path or "<string>")), kernel
    raise TypeError(f"source must be a path, a text or a JITFunction, not {type(source).__name__}")


def _is_path(text: str) -> bool:
    return text.endswith(".py") or os.path.exists(text)


def choose_kernel(file: SourceFile, project: Project, name: str | None) -> KernelDefinition:
    """The kernel called `name`, or the file's only one. Raises FusionRefused (KR102, KR103)."""
    defined = kernels(file, project)
    if name is not None:
        found = [k for k in defined if name == k.name or name in k.aliases]
        if not found:
            close = difflib.get_close_matches(name, [k.name for k in defined], 1)
            names = ", ".join(f"`{k.name}`" for k in defined) or "none"
            raise FusionRefused(
                (
                    Diagnostic(
                        "KR102",
                        f"{file.path} has no kernel `{name}`",
                        notes=(f"kernels of this file: {names}",),
                        help=f"did you mean `{close[0]}`?" if close else "",
                    ),
                )
            )
        return found[-1]
    entries = [k for k in defined if k.entry] or list(defined)
    if not entries:
        help_text = "kernels are functions decorated with `@triton.jit`, in any spelling"
        raise FusionRefused((Diagnostic("KR102", f"{file.path} defines no Triton kernel", help=help_text),))
    if len(entries) > 1:
        labels = tuple(Label(k.definition_line, f"`--kernel {k.name}`") for k in entries[:6])
        raise FusionRefused((Diagnostic("KR103", f"{file.path} defines {len(entries)} kernels", labels, help=_NAME_ONE),))
    return entries[0]


_NAME_ONE = "name the one to rewrite with `--kernel NAME`"


def _request(analysis: Analysis, output: str | None, text: str, assumed: frozenset[str]) -> OutputRequest:
    """The output meant: the one named, or the only eligible one. Raises FusionRefused with every reason."""
    pointwise = parse_epilogue(text)
    if output is not None:
        if output.split("[")[0] not in analysis.kernel_parameters:
            raise FusionRefused((_no_such_parameter(analysis, output),))
        request = OutputRequest(output, text, pointwise, assumed)
        problems = run_checks(analysis, request)
        if problems:
            raise FusionRefused(problems)
        return request
    written = analysis.parameters_with(MemoryEffect.WRITE, MemoryEffect.ACCUMULATE, MemoryEffect.UNKNOWN)
    requests = [OutputRequest(name, text, pointwise, assumed) for name in written]
    problems_of = {request.output: run_checks(analysis, request) for request in requests}
    eligible = [request for request in requests if not problems_of[request.output]]
    if len(eligible) == 1:
        return eligible[0]
    if eligible:
        choices = " or ".join(f"`--epilogue {r.output}={text}`" for r in eligible)
        message = f"`{analysis.kernel.name}` has {len(eligible)} outputs that can take {text}"
        raise FusionRefused(
            (Diagnostic("KR106", message, (Label(analysis.kernel.definition_line),), help=f"choose {choices}"),)
        )
    if not written:
        raise FusionRefused((_writes_nothing(analysis),))
    raise FusionRefused(tuple(dict.fromkeys(d for problems in problems_of.values() for d in problems)))


def _no_such_parameter(analysis: Analysis, output: str) -> Diagnostic:
    close = difflib.get_close_matches(output, analysis.kernel_parameters, 1)
    written = ", ".join(f"`{name}`" for name in analysis.parameters_with(MemoryEffect.WRITE)) or "none"
    return Diagnostic(
        "KR105",
        f"`{analysis.kernel.name}` has no parameter `{output}`",
        (Label(analysis.kernel.definition_line),),
        (f"outputs of this kernel: {written}",),
        f"did you mean `{close[0]}`?" if close else "",
    )


def _writes_nothing(analysis: Analysis) -> Diagnostic:
    message = f"`{analysis.kernel.name}` stores to none of its parameters"
    return Diagnostic("KR210", message, (Label(analysis.kernel.definition_line),))


# ---------------------------------------------------------------------------------------------------- plan and proof


def plan_output(analysis: Analysis, request: OutputRequest) -> StorePlan:
    """The calls to rewrite for one output. Raises FusionRefused (KR212, KR213)."""
    uses = references(analysis.kernel.file, analysis.closure)
    accesses = analysis.accesses
    if not request.pointwise.commutes_with_rounding:
        accesses += analysis.stored_under_other_type(request.output, analysis.write_only(request.output).stores)
    planned = plan_stores(request.output, accesses, analysis.calls, uses)
    if not isinstance(planned, StorePlan):
        raise FusionRefused(planned)
    return planned


def _proof(analysis: Analysis, request: OutputRequest) -> WriteOnlyProof:
    return WriteOnlyProof(
        request.output,
        tuple(view.specialization for view in analysis.views),
        analysis.write_only(request.output).stores,
        assumptions(analysis, request),
    )


# ------------------------------------------------------------------------------------------------------------ the file


def _headed(
    text: str,
    file: SourceFile,
    definition: KernelDefinition,
    requests: Iterable[OutputRequest],
    proofs: tuple[WriteOnlyProof, ...],
    numerics: str,
) -> str:
    name = os.path.basename(file.path)
    epilogues = " ".join(f'--epilogue "{r.output}={r.text}"' for r in requests)
    assumed = " ".join(f"--assume {name}" for request in requests for name in sorted(request.assumed))
    options = " ".join(filter(None, [epilogues, f"--numerics {numerics}" if numerics != EAGER else "", assumed]))
    return with_header(
        text,
        version=__version__,
        source=f"{name}::{definition.name}",
        source_digest=digest(file.text),
        command=f"kernel-rewrite fuse {name} --kernel {definition.name} {options}",
        proved=[_statement(proof) for proof in proofs],
        assumptions=dict.fromkeys(a for proof in proofs for a in proof.assumptions),
    )


def _statement(proof: WriteOnlyProof) -> str:
    count, stores = len(proof.specializations), len(proof.stores)
    ways = "1 specialization" if count == 1 else f"{count} specializations"
    calls = "1 store" if stores == 1 else f"{stores} stores"
    return f"`{proof.output}` is only written, by {calls}, in {ways}"


def unified_diff(file: SourceFile, text: str) -> str:
    """The unified diff from `file` to `text`, both under the file's own name."""
    name = os.path.basename(file.path)
    lines = difflib.unified_diff(
        file.text.splitlines(keepends=True), text.splitlines(keepends=True), f"a/{name}", f"b/{name}", n=2
    )
    return "".join(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in lines)
