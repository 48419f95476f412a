"""The fused file: its header, its diff, its proofs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kernel_rewrite import __version__
from kernel_rewrite.analysis import Analysis
from kernel_rewrite.arguments import given
from kernel_rewrite.checks import ASSUMPTIONS, assumptions
from kernel_rewrite.diagnostics import Diagnostic
from kernel_rewrite.model import Assumption, Edit, Operand, Span, WriteOnlyProof
from kernel_rewrite.pointwise.declarations import STRIDED
from kernel_rewrite.request import OutputRequest, element_type_of
from kernel_rewrite.results import Fused, TextEdit
from kernel_rewrite.rewrite.edits import in_order, unified_diff
from kernel_rewrite.rewrite.header import Header, digest, with_header
from kernel_rewrite.source.files import SourceFile
from kernel_rewrite.source.fingerprint import fingerprint

EAGER, FUSED = "eager", "fused"
NUMERICS = (EAGER, FUSED)


def declaration(operand: Operand) -> str:
    """`bias=row`, `residual=tile:strided:float32`: an operand as `--operand` takes it."""
    parts = (operand.kind.value, STRIDED if operand.strided else "", operand.dtype)
    return f"{operand.name}={':'.join(filter(None, parts))}"


@dataclass(frozen=True, slots=True)
class Options:
    """How to fuse. `constexprs` ("NAME=VALUE") and `dtypes` ("PARAM=fp16") fix what is otherwise inferred; `assumed` are
    the names of statements taken from the user."""

    numerics: str = EAGER
    constexprs: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    assumed: frozenset[str] = frozenset()
    operands: tuple[Operand, ...] = ()
    launcher: bool = True


def fused_file(
    analysis: Analysis,
    requests: Sequence[OutputRequest],
    options: Options,
    edits: Iterable[Edit],
    text: str,
    warnings: tuple[Diagnostic, ...] = (),
    assumed: Sequence[Assumption] = (),
    contract: Sequence[str] = (),
) -> Fused:
    """The confirmed `text`, which `edits` have made, with its header, diff and proofs. `assumed` is what the operands take
    from the caller, `contract` what callers must now pass."""
    file, kernel = analysis.kernel.file, analysis.kernel.name
    proofs = tuple(proof_of(analysis, request) for request in requests)
    taken = (*_taken_together(proofs), *assumed)
    header = header_of(analysis, requests, options, proofs, taken)
    return Fused(
        source=with_header(text, header),
        diff=unified_diff(file, text),
        kernel=kernel,
        name="_".join(request.pointwise.name for request in requests),
        proofs=proofs,
        epilogues=tuple((request.output, request.text) for request in requests),
        statements=tuple(statement(proof) for proof in proofs),
        assumptions=taken,
        contract=tuple(contract),
        path=file.path,
        encoding=file.encoding,
        edits=tuple(_text_edit(file, edit) for edit in in_order(edits)),
        warnings=warnings,
    )


def _text_edit(file: SourceFile, edit: Edit) -> TextEdit:
    span = edit.span
    start, end = file.offset(span.line, span.column), file.offset(span.end_line, span.end_column)
    return TextEdit(start, end, span, edit.replacement, edit.why)


def header_of(
    analysis: Analysis,
    requests: Sequence[OutputRequest],
    options: Options,
    proofs: Sequence[WriteOnlyProof],
    taken: tuple[Assumption, ...],
) -> Header:
    """The header of a fused file that lies beside its source."""
    file, project, kernel = analysis.kernel.file, analysis.project, analysis.kernel.name
    known = {other.location: other for other in project.files() if other.location}
    closure = fingerprint(file, kernel, project, known)
    folder = os.path.dirname(file.location)
    arguments = {
        "kernel": kernel,
        "epilogues": [f"{request.output}={request.text}" for request in requests],
        "operands": [declaration(operand) for operand in options.operands],
        "launcher": "rewrite" if options.launcher else "leave",
        "numerics": options.numerics,
        "constexprs": options.constexprs,
        "dtypes": options.dtypes,
        "assume": sorted(options.assumed),
    }
    return Header(
        __version__,
        source=os.path.basename(file.path),
        source_digest=digest(file.text),
        kernel=kernel,
        given=given(arguments),
        proved=tuple(statement(proof) for proof in proofs),
        assumed=tuple((assumption.name, assumption.statement) for assumption in taken),
        reads=tuple((os.path.relpath(other, folder), digest(known[other].text)) for other in closure.files),
        closure=closure.digest,
    )


def _taken_together(proofs: Sequence[WriteOnlyProof]) -> tuple[Assumption, ...]:
    """The assumptions of all outputs, each name once."""
    outputs: dict[Assumption, list[str]] = {}
    for proof in proofs:
        for assumption in proof.assumptions:
            known = assumption.name in ASSUMPTIONS
            key = Assumption(assumption.name, ASSUMPTIONS[assumption.name]) if known else assumption
            outputs.setdefault(key, []).append(proof.output)
    return tuple(Assumption(a.name, a.statement.replace("{output}", "` and `".join(o))) for a, o in outputs.items())


def proof_of(analysis: Analysis, request: OutputRequest) -> WriteOnlyProof:
    unreached = [reached for reached in analysis.uncovered(request.parameter).stores if not reached.path]
    return WriteOnlyProof(
        request.output,
        tuple(view.specialization for view in analysis.views),
        analysis.write_only(request.output).stores,
        assumptions(analysis, request),
        tuple(Span.of(reached.function.ref.file, reached.call) for reached in unreached),
    )


def statement(proof: WriteOnlyProof) -> str:
    """`c_ptr` (fp16) is only written, by 1 store, in 2 specializations."""
    count, stores = len(proof.specializations), len(proof.stores)
    ways = "1 specialization" if count == 1 else f"{count} specializations"
    calls = "1 store" if stores == 1 else f"{stores} stores"
    types = "/".join(sorted({element_type_of(s, proof.output) for s in proof.specializations} - {""}))
    dead = (
        f" (line {', '.join(str(s.line) for s in proof.unreached)}: no launch compiles it)" if proof.unreached else ""
    )
    return f"`{proof.output}` ({types}) is only written, by {calls}{dead}, in {ways}"
