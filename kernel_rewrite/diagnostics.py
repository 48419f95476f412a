"""Coded findings: every reason the tool has for not fusing, and how one is shown.

`CODES` is append-only: a code is never renumbered or reused. Each has a page in `explanations/`.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kernel_rewrite.model import Span


class Severity(enum.Enum):
    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


CODES: dict[str, str] = {
    # KR1xx: reading the source
    "KR101": "the file is not valid Python",
    "KR102": "no such kernel",
    "KR103": "several kernels to choose from",
    "KR104": "a name cannot be resolved without running code",
    "KR105": "no such parameter",
    "KR106": "several outputs to choose from",
    "KR107": "unknown op",
    "KR108": "wrong arguments for an op",
    "KR109": "a compile-time value could not be found",
    "KR110": "Triton rejects the kernel",
    "KR111": "the Triton compiler crashed or hung",
    "KR112": "this Triton no longer has block pointers",
    "KR113": "the file cannot be read",
    "KR114": "the kernel is defined in a way that cannot be rewritten",
    "KR115": "unknown assumption",
    "KR116": "one output is given two epilogues",
    "KR117": "a helper has several definitions",
    "KR118": "not a function of single elements",
    "KR119": "an operand is declared and not used",
    "KR120": "a function cannot be read as an epilogue",
    "KR121": "an operand is declared wrongly",
    "KR122": "what is to be kept is named wrongly",
    "KR123": "a kernel cannot be inlined as an epilogue",
    "KR124": "a kernel to inline stores another element type than it loads",
    "KR125": "a kernel to inline is compiled with other options",
    # KR2xx: the write-only proof
    "KR201": "the output is read by the kernel",
    "KR202": "the output is updated atomically",
    "KR203": "the output's pointer reaches an operation whose effect is unknown",
    "KR204": "the kernel writes through a pointer that is not an argument",
    "KR205": "the output is written through a pointer cast to another type",
    "KR206": "a store is seen in no specialization",
    "KR207": "the output may be read in a branch that was not lowered",
    "KR208": "a launch passes the output also as an input",
    "KR209": "elements that are never written would miss the op",
    "KR210": "the kernel does not write this parameter",
    "KR211": "the autotuner resets or restores the output",
    "KR212": "one store call writes several buffers",
    "KR213": "the store stands in code that cannot be edited",
    "KR214": "the kernel reads through a pointer that is not an argument",
    "KR215": "the buffer is not changed element by element",
    # KR22x: the read-only proof
    "KR220": "the kernel does not read this parameter",
    "KR221": "the input is written by the kernel",
    "KR222": "the input's pointer reaches an operation whose effect is unknown",
    "KR223": "the kernel accesses memory through a pointer that is not an argument",
    "KR224": "one load call reads several buffers",
    "KR225": "the input is read in a way that a prologue cannot follow",
    "KR226": "a load is seen in no specialization",
    "KR227": "the input may be written in a branch that was not lowered",
    "KR228": "the load stands in code that cannot be edited",
    "KR229": "a launch passes the input also as something that is written",
    # KR30x: where an operand is read
    "KR301": "the row or column that a store writes could not be derived",
    "KR302": "an index uses a name that has no value at the store",
    "KR303": "an operand cannot be read where the output is stored",
    "KR304": "the mask of an index could not be told from the rest",
    "KR305": "the place of an operand could not be confirmed",
    "KR306": "the original value cannot be stored where the output is",
    "KR307": "what another output gets is not at hand where the output is stored",
    # KR31x: parameters and launchers
    "KR310": "the kernel's signature cannot grow",
    "KR311": "the name of an operand is taken",
    "KR312": "the kernel is launched outside any function",
    "KR313": "an autograd function launches the kernel",
    "KR314": "the launcher's signature is fixed",
    "KR315": "it is not certain what is launched",
    "KR316": "a function that prunes configurations cannot take the operands",
    "KR317": "the output's allocation cannot be changed",
    "KR318": "a caller of the launcher lacks the operands",
    "KR319": "one buffer would keep what several launches store",
    # KR32x: outputs that are dropped
    "KR320": "the kernel cannot do without an output",
    "KR321": "what launches the kernel cannot do without an output",
    "KR322": "the rest of an epilogue cannot stand where the output is returned",
    # KR4xx: the meaning of the op
    "KR401": "the op has no meaning for this element type",
    "KR402": "the op would change the lanes that a load leaves off",
    "KR403": "the input cannot get the element type that it is given",
    "KR404": "a prologue of a matrix product is computed again for many tiles",
    "KR410": "the output cannot get the element type that the epilogue gives it",
    # KR5xx: equivalence
    "KR501": "the fused kernel and the unfused pair differ",
    "KR502": "the equivalence run could not be made",
    "KR503": "the fused kernel spills more registers to memory",
    "KR504": "a configuration no longer fits the device with the op",
    "KR505": "the measurement could not be made",
    # KR6xx: files of the project
    "KR601": "the output file was not generated by kernel-rewrite",
    "KR602": "the output file cannot be written",
    "KR603": "the configuration is wrong",
    "KR604": "the fused file is stale",
    "KR605": "the fused file was edited by hand",
    "KR606": "the kernel is marked to be skipped",
    "KR607": "a comment to kernel-rewrite is wrong",
    "KR608": "a comment to kernel-rewrite ignores nothing",
    # KR9xx: bugs of kernel-rewrite
    "KR901": "internal error",
    "KR902": "the rewritten file is not what was planned",
}


@dataclass(frozen=True, slots=True)
class Label:
    """A place and what to say about it."""

    span: Span
    text: str = ""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding. `message` is a lower-case sentence without a full stop; `labels[0]` is the primary place; `help` is
    the way out."""

    code: str
    message: str
    labels: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    help: str = ""
    severity: Severity = Severity.ERROR

    def __post_init__(self) -> None:
        assert self.code in CODES, self.code


class FusionRefused(Exception):
    """The request cannot be met, for the reasons in `diagnostics` (never empty)."""

    def __init__(self, diagnostics: tuple[Diagnostic, ...]) -> None:
        assert diagnostics
        self.diagnostics = diagnostics
        super().__init__("\n".join(f"{d.code}: {d.message}" for d in diagnostics))


def explanation(code: str) -> str:
    """The page of `code` (Markdown). Raises KeyError for an unknown code."""
    if code not in CODES:
        raise KeyError(code)
    return (Path(__file__).parent / "explanations" / f"{code}.md").read_text(encoding="utf-8")


_COLORS = {Severity.ERROR: "31", Severity.WARNING: "33", Severity.NOTE: "36"}


def render(diagnostic: Diagnostic, sources: Mapping[str, str], *, color: bool = False) -> str:
    """`diagnostic` as text, with the user's lines and carets; `sources` maps each file name to its text. `color` uses
    the escape sequences of a terminal."""
    text = _text(diagnostic, sources)
    if not color:
        return text
    shade = f"\033[1;{_COLORS[diagnostic.severity]}m"
    head, *rest = text.split("\n")
    name, _, message = head.partition(": ")
    lines = [f"{shade}{name}\033[0m\033[1m: {message}\033[0m"]
    for line in rest:
        marks = re.fullmatch(r"( +\| +)([\^]+|-+)(.*)", line)
        lines.append(f"{marks[1]}{shade}{marks[2]}{marks[3]}\033[0m" if marks else line)
    return "\n".join(lines)


def _text(diagnostic: Diagnostic, sources: Mapping[str, str]) -> str:
    lines = [f"{diagnostic.severity.value}[{diagnostic.code}]: {diagnostic.message}"]
    width = max((len(str(label.span.line)) for label in diagnostic.labels), default=1)
    previous_file = None
    for index, label in enumerate(diagnostic.labels):
        lines += _excerpt(label, sources, width, primary=index == 0, show_file=label.span.file != previous_file)
        previous_file = label.span.file
    margin = " " * (width + 1)
    lines += [f"{margin}= note: {note}" for note in diagnostic.notes]
    if diagnostic.help:
        lines.append(f"{margin}= help: {diagnostic.help}")
    if diagnostic.severity is Severity.ERROR:
        lines.append(f"{margin}= explain: kernel-rewrite explain {diagnostic.code}")
    return "\n".join(lines)


def _excerpt(label: Label, sources: Mapping[str, str], width: int, *, primary: bool, show_file: bool) -> list[str]:
    span = label.span
    text = sources.get(span.file)
    arrow = f"{' ' * width}{'-->' if primary else ':::'} {span.file}:{span.line}:{span.column + 1}"
    lines = [arrow] if primary or show_file else [f"{' ' * (width + 1)}..."]
    source_lines = text.splitlines() if text is not None else []
    if not 1 <= span.line <= len(source_lines):
        return [*lines, f"{' ' * (width + 1)}= {label.text}"] if label.text else lines
    raw = source_lines[span.line - 1]
    encoded = raw.encode()
    before = encoded[: span.column].decode(errors="replace")
    end = span.end_column if span.end_line == span.line else len(encoded)
    marked = encoded[span.column : end].decode(errors="replace")
    padding = "".join(c if c == "\t" else " " for c in before)
    mark = ("^" if primary else "-") * max(1, len(marked.rstrip()))
    return [
        *lines,
        f"{span.line:>{width}} | {raw.rstrip()}",
        f"{' ' * width} | {padding}{mark}{' ' + label.text if label.text else ''}",
    ]
