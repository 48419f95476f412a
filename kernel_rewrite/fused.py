"""The fused file: its header, its diff, its proofs."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from kernel_rewrite import __version__
from kernel_rewrite.analysis import Analysis
from kernel_rewrite.checks import ASSUMPTIONS, assumptions
from kernel_rewrite.model import Assumption, Operand, Span, WriteOnlyProof
from kernel_rewrite.request import OutputRequest, element_type_of
from kernel_rewrite.results import Fused
from kernel_rewrite.rewrite.edits import unified_diff
from kernel_rewrite.rewrite.header import digest, with_header

EAGER, FUSED = "eager", "fused"
NUMERICS = (EAGER, FUSED)


def quoted(text: str) -> str:
    """`text` as one word of a shell command."""
    return shlex.quote(text) if re.search(r"""["\\$`!]""", text) else f'"{text}"'


def declaration(operand: Operand) -> str:
    """`bias=row`, `residual=tile:float32`: an operand as `--operand` takes it."""
    return f"{operand.name}={operand.kind.value}" + (f":{operand.dtype}" if operand.dtype else "")


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

    @property
    def command_line(self) -> list[str]:
        """The options as `kernel-rewrite fuse` takes them."""
        numerics = [f"--numerics {self.numerics}"] if self.numerics != EAGER else []
        fixed = [*(f"--set {quoted(t)}" for t in self.constexprs), *(f"--dtype {quoted(t)}" for t in self.dtypes)]
        read = [f"--operand {quoted(declaration(operand))}" for operand in self.operands]
        alone = [] if self.launcher else ["--no-launcher"]
        return [*read, *numerics, *fixed, *(f"--assume {name}" for name in sorted(self.assumed)), *alone]


def fused_file(
    analysis: Analysis,
    requests: Sequence[OutputRequest],
    options: Options,
    text: str,
    assumed: Sequence[Assumption] = (),
    contract: Sequence[str] = (),
) -> Fused:
    """The confirmed `text` with its header, diff and proofs; `assumed` is what the operands take from the caller, `contract`
    what callers must now pass."""
    file, kernel = analysis.kernel.file, analysis.kernel.name
    proofs = tuple(proof_of(analysis, request) for request in requests)
    name = os.path.basename(file.path)
    epilogues = [f"--epilogue {quoted(f'{request.output}={request.text}')}" for request in requests]
    taken = (*_taken_together(proofs), *assumed)
    headed = with_header(
        text,
        version=__version__,
        source=f"{name}::{kernel}",
        source_digest=digest(file.text),
        command=" ".join(["kernel-rewrite fuse", name, "--kernel", kernel, *epilogues, *options.command_line]),
        proved=[statement(proof) for proof in proofs],
        assumptions=taken,
    )
    return Fused(
        source=headed,
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
