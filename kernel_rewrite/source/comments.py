"""Comments to this tool: `# kernel-rewrite: skip`, `# kernel-rewrite: ignore[KR208] reason`; and its own mark for what a
launcher computes in torch, `# kernel-rewrite: not fused`."""

from __future__ import annotations

import ast
import difflib
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass

from kernel_rewrite.diagnostics import CODES, Diagnostic, Label
from kernel_rewrite.model import Span
from kernel_rewrite.source.files import Project, SourceFile

SKIP, IGNORE, NOT_FUSED = "skip", "ignore", "not fused"

_COMMENT = re.compile(r"#\s*kernel-rewrite:\s*(.*)")
_IGNORE = re.compile(r"ignore\s*\[([^\]]*)\]\s*(.*)")
_HELP = "write `# kernel-rewrite: skip` or `# kernel-rewrite: ignore[CODE] reason`"


@dataclass(frozen=True, slots=True)
class Control:
    """One comment. `line` is the line it is about: its own, or the next one with code if it stands alone; 0 for a `skip`
    above everything, which is about the file. `wrong` says what cannot be understood."""

    directive: str
    span: Span
    line: int
    codes: tuple[str, ...] = ()
    wrong: str = ""


def mark(directive: str) -> str:
    """The comment that says `directive`."""
    return f"# kernel-rewrite: {directive}"


def controls(file: SourceFile, project: Project) -> tuple[Control, ...]:
    """Every comment to this tool in `file`."""
    key = ("controls", file)
    known = project.memory.get(key)
    if not isinstance(known, tuple):
        known = project.memory[key] = tuple(_controls(file)) if "kernel-rewrite:" in file.text else ()
    return known


def _controls(file: SourceFile) -> Iterator[Control]:
    comments: list[tuple[tokenize.TokenInfo, str, bool]] = []
    code_lines: list[int] = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(file.text).readline):
            if token.type == tokenize.COMMENT:
                found = _COMMENT.match(token.string)
                if found:
                    alone = not token.line[: token.start[1]].strip()
                    comments.append((token, found[1].strip(), alone))
            elif token.string.strip() and token.type not in (tokenize.NL, tokenize.NEWLINE):
                code_lines += range(token.start[0], token.end[0] + 1)
    except (tokenize.TokenError, IndentationError):
        return
    first = min(code_lines, default=0)
    for token, text, alone in comments:
        line = token.start[0]
        about = min((number for number in code_lines if number > line), default=line) if alone else line
        column = len(token.line[: token.start[1]].encode())
        span = Span(file.path, line, column, line, column + len(token.string.encode()))
        yield _control(text, span, 0 if alone and line < first and text.startswith(SKIP) else about)


def _control(text: str, span: Span, line: int) -> Control:
    if re.fullmatch(r"skip\b.*", text):
        return Control(SKIP, span, line)
    if text == NOT_FUSED:
        return Control(NOT_FUSED, span, line)
    found = _IGNORE.fullmatch(text)
    if found is None:
        word = re.match(r"\w*", text)
        asked = word[0] if word else ""
        close = difflib.get_close_matches(asked, (SKIP, IGNORE), 1)
        missing = "a code is missing: `ignore[CODE] reason`" if asked == IGNORE else ""
        hint = f"; did you mean `{close[0]}`?" if close else ""
        return Control(IGNORE, span, line, wrong=missing or f"`{asked}` is neither `skip` nor `ignore[CODE]`{hint}")
    codes = tuple(code.strip().upper() for code in found[1].split(","))
    unknown = [code for code in codes if code not in CODES]
    if unknown:
        return Control(IGNORE, span, line, codes, f"there is no diagnostic `{unknown[0]}`")
    if not found[2].strip():
        return Control(IGNORE, span, line, codes, f"the reason is missing: `ignore[{found[1].strip()}] reason`")
    return Control(IGNORE, span, line, codes)


def is_skipped(node: ast.FunctionDef, file: SourceFile, project: Project) -> bool:
    """Whether a comment says to leave the function alone: at one of its decorators, at its `def`, or above the file."""
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    head = range(first, max(node.lineno + 1, node.body[0].lineno))
    return any(c.directive == SKIP and (c.line == 0 or c.line in head) for c in controls(file, project))


def wrong_controls(file: SourceFile, project: Project) -> Iterator[Diagnostic]:
    """KR607 for each comment that cannot be understood."""
    for control in controls(file, project):
        if control.wrong:
            message = f"this comment to kernel-rewrite cannot be understood: {control.wrong}"
            yield Diagnostic("KR607", message, (Label(control.span),), help=_HELP)
