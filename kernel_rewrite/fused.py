"""The fused file: its header, its diff, its proofs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kernel_rewrite import __version__
from kernel_rewrite.analysis import Analysis
from kernel_rewrite.arguments import given, name_without, names_a_kernel, with_paths
from kernel_rewrite.checks import ASSUMPTIONS, IN_PLACE, assumptions, assumptions_of_dropped
from kernel_rewrite.diagnostics import Diagnostic
from kernel_rewrite.input_checks import input_assumptions
from kernel_rewrite.model import (
    Assumption,
    Edit,
    MemoryEffect,
    Operand,
    ReadOnlyProof,
    Span,
    Specialization,
    WriteOnlyProof,
)
from kernel_rewrite.pointwise.calls import Inlined, TritonCall, called_functions
from kernel_rewrite.pointwise.declarations import declaration
from kernel_rewrite.request import InputRequest, OutputRequest, Request, element_type_of
from kernel_rewrite.results import Fused, TextEdit
from kernel_rewrite.retyped import changes
from kernel_rewrite.rewrite.drop import Without
from kernel_rewrite.rewrite.edits import composed, in_order, unified_diff
from kernel_rewrite.rewrite.epilogue import Rewrite
from kernel_rewrite.rewrite.header import Header, digest, with_header
from kernel_rewrite.source.files import SourceFile
from kernel_rewrite.source.fingerprint import fingerprint

EAGER, FUSED = "eager", "fused"
NUMERICS = (EAGER, FUSED)


@dataclass(frozen=True, slots=True)
class Options:
    """How to fuse. `constexprs` ("NAME=VALUE") and `dtypes` ("PARAM=fp16") fix what is otherwise inferred; `assumed` are
    the names of statements taken from the user, `kept` each (output, new parameter that gets its original value). `dropped`
    are the outputs to do without; of `operands`, those of `implied` need no declaration for it. `partial`: what cannot be
    fused of an epilogue is left to torch, in the launchers."""

    numerics: str = EAGER
    constexprs: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    assumed: frozenset[str] = frozenset()
    operands: tuple[Operand, ...] = ()
    launcher: bool = True
    kept: tuple[tuple[str, str], ...] = ()
    dropped: tuple[str, ...] = ()
    implied: frozenset[str] = frozenset()
    partial: bool = False


def fused_file(
    analysis: Analysis,
    outputs: Sequence[OutputRequest],
    inputs: Sequence[InputRequest],
    options: Options,
    rewrite: Rewrite,
    text: str,
    warnings: tuple[Diagnostic, ...] = (),
    dropped: Sequence[OutputRequest] = (),
    without: Without | None = None,
) -> Fused:
    """The confirmed `text`, which `rewrite` has made, with its header, diff and proofs; behind it `without`, which has done
    away with the outputs `dropped`."""
    file, kernel = analysis.kernel.file, analysis.kernel.name
    proofs = (
        *(proof_of(analysis, request) for request in outputs),
        *(proof_of_dropped(analysis, request) for request in dropped),
    )
    input_proofs = tuple(input_proof_of(analysis, request) for request in inputs)
    requests: tuple[Request, ...] = (*inputs, *outputs)
    every: tuple[Proof, ...] = (*proofs, *input_proofs)
    statements = tuple(map(statement, every))
    taken = (*_taken_together(every), *rewrite.assumptions, *(without.assumptions if without is not None else ()))
    header = header_of(analysis, outputs, inputs, options, statements, taken)
    edits = rewrite.edits if without is None else composed(file, rewrite.edits, without.file, without.edits)
    return Fused(
        source=with_header(text, header),
        diff=unified_diff(file, text),
        kernel=kernel,
        name="_".join(request.name for request in requests) or name_without(request.output for request in dropped),
        proofs=proofs,
        epilogues=tuple((request.output, request.text) for request in outputs),
        statements=statements,
        assumptions=taken,
        contract=(*rewrite.contract, *(without.contract if without is not None else ())),
        path=file.path,
        encoding=file.encoding,
        edits=tuple(_text_edit(file, edit) for edit in in_order(edits)),
        warnings=warnings,
        prologues=tuple((request.named, request.text) for request in inputs),
        input_proofs=input_proofs,
        dropped=tuple(request.output for request in dropped),
    )


def _text_edit(file: SourceFile, edit: Edit) -> TextEdit:
    span = edit.span
    start, end = file.offset(span.line, span.column), file.offset(span.end_line, span.end_column)
    return TextEdit(start, end, span, edit.replacement, edit.why)


def header_of(
    analysis: Analysis,
    outputs: Sequence[OutputRequest],
    inputs: Sequence[InputRequest],
    options: Options,
    statements: Sequence[str],
    taken: tuple[Assumption, ...],
) -> Header:
    """The header of a fused file that lies beside its source."""
    file, project, kernel = analysis.kernel.file, analysis.project, analysis.kernel.name
    known = {other.location: other for other in project.files() if other.location}
    called = called_functions(request.text for request in outputs)
    inlined = [found for request in outputs if (found := _inlined(request)) is not None]
    beside = [(other, each.kernel) for each in inlined if (other := project.file(each.path)) is not None]
    closure = fingerprint(file, kernel, project, known, called, beside)
    folder = os.path.dirname(file.location)
    texts = [(f"{request.output}={request.text}", names_a_kernel(request.text)) for request in outputs]
    arguments: dict[str, str | bool | Iterable[str]] = {
        "kernel": kernel,
        "epilogues": [text for text, is_kernel in texts if not is_kernel],
        "epilogue_kernels": [
            with_paths(text, lambda path: _from(folder, path)) for text, is_kernel in texts if is_kernel
        ],
        "prologues": [f"{request.named}={request.text}" for request in inputs],
        "operands": [declaration(o) for o in options.operands if o.name not in options.implied],
        "keep_original": [f"{request.output}={request.kept}" for request in outputs if request.kept],
        "drop": list(dict.fromkeys(options.dropped)),
        "partial": options.partial,
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
        proved=tuple(statements),
        assumed=tuple((assumption.name, assumption.statement) for assumption in taken),
        reads=tuple((os.path.relpath(other, folder), digest(known[other].text)) for other in closure.files),
        closure=closure.digest,
    )


def _inlined(request: OutputRequest) -> Inlined | None:
    return request.pointwise.inlined if isinstance(request.pointwise, TritonCall) else None


def _from(folder: str, path: str) -> str:
    """A path of the working directory as it is in `folder`, in a header."""
    return os.path.relpath(path, folder or ".").replace(os.sep, "/")


Proof = WriteOnlyProof | ReadOnlyProof


def _buffer(proof: Proof) -> str:
    return proof.output if isinstance(proof, WriteOnlyProof) else proof.input


def _taken_together(proofs: Sequence[Proof]) -> tuple[Assumption, ...]:
    """The assumptions about all buffers, each name once."""
    buffers: dict[Assumption, list[str]] = {}
    for proof in proofs:
        for assumption in proof.assumptions:
            known = assumption.name in ASSUMPTIONS
            key = Assumption(assumption.name, ASSUMPTIONS[assumption.name]) if known else assumption
            buffers.setdefault(key, []).append(_buffer(proof))
    return tuple(Assumption(a.name, a.statement.replace("{output}", "` and `".join(b))) for a, b in buffers.items())


def proof_of(analysis: Analysis, request: OutputRequest) -> WriteOnlyProof:
    stores = analysis.write_only(request.output).stores
    unreached = _unreached(analysis, request, MemoryEffect.WRITE)
    taken, new = assumptions(analysis, request), changes(analysis, request)
    return WriteOnlyProof(request.output, _lowered(analysis), stores, taken, unreached, new)


def proof_of_dropped(analysis: Analysis, request: OutputRequest) -> WriteOnlyProof:
    stores, taken = analysis.write_only(request.output).stores, assumptions_of_dropped(analysis, request)
    return WriteOnlyProof(request.output, _lowered(analysis), stores, taken, dropped=True)


def input_proof_of(analysis: Analysis, request: InputRequest) -> ReadOnlyProof:
    loads = analysis.read_only(request.input).loads
    unreached = _unreached(analysis, request, MemoryEffect.READ)
    return ReadOnlyProof(request.input, _lowered(analysis), loads, input_assumptions(analysis, request), unreached)


def _lowered(analysis: Analysis) -> tuple[Specialization, ...]:
    return tuple(view.specialization for view in analysis.views)


def _unreached(analysis: Analysis, request: Request, effect: MemoryEffect) -> tuple[Span, ...]:
    """The calls that would have been rewritten, if any launch compiled them."""
    missed = (reached for reached in analysis.uncovered(request.parameter, effect).missed if not reached.path)
    return tuple(Span.of(reached.function.ref.file, reached.call) for reached in missed)


def statement(proof: Proof) -> str:
    """`c_ptr` (fp16) is only written, by 1 store, in 2 specializations."""
    if isinstance(proof, WriteOnlyProof):
        in_place = any(assumption.name == IN_PLACE for assumption in proof.assumptions)
        does = "written after it is read" if in_place else "only written"
        what, sites, new, end = "store", proof.stores, proof.stored_as, ", and dropped" if proof.dropped else ""
    else:
        does, what, sites, new, end = "only read", "load", proof.loads, "", ""
    count = len(proof.specializations)
    ways = "1 specialization" if count == 1 else f"{count} specializations"
    calls = f"1 {what}" if len(sites) == 1 else f"{len(sites)} {what}s"
    types = "/".join(sorted({element_type_of(s, _buffer(proof)) for s in proof.specializations} - {""}))
    dead = (
        f" (line {', '.join(str(s.line) for s in proof.unreached)}: no launch compiles it)" if proof.unreached else ""
    )
    types += f" -> {new}" if new else ""
    return f"`{_buffer(proof)}` ({types}) is {does}, by {calls}{dead}, in {ways}{end}"
