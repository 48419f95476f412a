"""What `fuse` and `inspect` return: values that need nothing heavy to be read back from the cache."""

from __future__ import annotations

from dataclasses import dataclass

from kernel_rewrite.diagnostics import Diagnostic
from kernel_rewrite.model import Assumption, ParameterFact, ReadOnlyProof, Span, WriteOnlyProof


@dataclass(frozen=True, slots=True)
class TextEdit:
    """One replacement in the text of the original file: characters `start` to `end` (from 0, end exclusive, as Python
    counts them), which are `span`, give way to `replacement`; `why` says what for."""

    start: int
    end: int
    span: Span
    replacement: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Fused:
    """A fused kernel file.

    `source` is its whole text, `diff` the unified diff from the original (without the header), `proofs` one write-only
    proof an output, `input_proofs` one read-only proof an input, `statements` the same in words, `assumptions` what is taken
    from the caller, `contract` what callers must now pass, in sentences, `name` the short name of what was fused ("relu"),
    `encoding` that of the original file. `edits` make `source`, but for its header, of the original; they are in order and
    do not overlap. `warnings` are no reason to refuse. `dropped` are the outputs that the fused kernel does without; their
    proofs stand behind the others.
    """

    source: str
    diff: str
    kernel: str
    name: str
    proofs: tuple[WriteOnlyProof, ...]
    epilogues: tuple[tuple[str, str], ...]
    statements: tuple[str, ...] = ()
    assumptions: tuple[Assumption, ...] = ()
    contract: tuple[str, ...] = ()
    path: str = "<string>"
    encoding: str = "utf-8"
    edits: tuple[TextEdit, ...] = ()
    warnings: tuple[Diagnostic, ...] = ()
    prologues: tuple[tuple[str, str], ...] = ()
    input_proofs: tuple[ReadOnlyProof, ...] = ()
    dropped: tuple[str, ...] = ()

    @property
    def proof(self) -> WriteOnlyProof:
        """The proof of the first output."""
        return self.proofs[0]


@dataclass(frozen=True, slots=True)
class AccessReport:
    """One call that touches memory: what it does, to which parameters, and whether any specialization has it."""

    effect: str
    parameters: tuple[str, ...]
    span: Span
    text: str
    lowered: bool


@dataclass(frozen=True, slots=True)
class OutputReport:
    """One written parameter: whether it can take an epilogue, or every reason why not. `write_only_in` names the
    specializations in which TTIR shows it only written, `written_in` those in which it is touched at all."""

    name: str
    element_types: tuple[str, ...]
    write_only: bool
    stores: tuple[Span, ...]
    reasons: tuple[Diagnostic, ...]
    write_only_in: tuple[str, ...] = ()
    written_in: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class InputReport:
    """One parameter that is read: whether it can take a prologue, or every reason why not."""

    name: str
    element_types: tuple[str, ...]
    read_only: bool
    loads: tuple[Span, ...]
    reasons: tuple[Diagnostic, ...]


@dataclass(frozen=True, slots=True)
class KernelReport:
    """What is known about one kernel. `problems` is not empty when it could not be lowered at all. `inputs` are the
    parameters that are read, `prologue_inputs` the same in full."""

    name: str
    span: Span
    parameters: tuple[ParameterFact, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[OutputReport, ...] = ()
    accesses: tuple[AccessReport, ...] = ()
    specializations: tuple[str, ...] = ()
    complete: bool = False
    rejected: tuple[tuple[str, str], ...] = ()
    assumed_names: tuple[str, ...] = ()
    problems: tuple[Diagnostic, ...] = ()
    prologue_inputs: tuple[InputReport, ...] = ()


@dataclass(frozen=True, slots=True)
class Inspection:
    """The kernels of one file, in order."""

    path: str
    kernels: tuple[KernelReport, ...]
    sources: dict[str, str]
