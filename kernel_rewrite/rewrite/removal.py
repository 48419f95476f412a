"""Statements taken out of the text, with the comments and the blank lines that were theirs alone."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence

from kernel_rewrite.model import Edit, Span
from kernel_rewrite.rewrite.additions import RemovedStatement
from kernel_rewrite.rewrite.placement import stands_alone
from kernel_rewrite.source.files import SourceFile
from kernel_rewrite.source.syntax import blocks_of

_WHY = "nothing takes this any more"


def removed_statements(
    file: SourceFile, function: ast.AST, gone: Iterable[ast.stmt]
) -> tuple[tuple[Edit, ...], tuple[RemovedStatement, ...]]:
    """The edits that take the statements `gone` out of the blocks of `function`, and what they take out.

    A block that would be left empty, or a statement that shares its line, gets a `pass`.
    """
    wanted = {id(statement) for statement in gone}
    edits: list[Edit] = []
    removals: list[RemovedStatement] = []
    pending: list[ast.AST] = [function]
    while pending:
        node = pending.pop()
        for block in blocks_of(node):
            pending += [statement for statement in block if id(statement) not in wanted]
            away = [statement for statement in block if id(statement) in wanted]
            kept = [s for s in away if not stands_alone(file, s)]
            if len(away) == len(block) and not kept:
                kept = away[:1]
            removals += [RemovedStatement(s, instead="pass" if s in kept else "") for s in away]
            edits += [Edit(Span.of(file.path, s), "pass", _WHY) for s in kept]
            edits += _without(file, block, [s for s in away if s not in kept])
    return tuple(edits), tuple(removals)


def _without(file: SourceFile, block: Sequence[ast.stmt], away: Sequence[ast.stmt]) -> Iterator[Edit]:
    """The edits that take whole lines away, one for each row of statements."""
    for index, statement in enumerate(block):
        if statement not in away or (index and block[index - 1] in away):
            continue
        last = index
        while last + 1 < len(block) and block[last + 1] in away:
            last += 1
        first_line, end_line = statement.lineno, block[last].end_lineno or statement.lineno
        is_end = last + 1 == len(block)
        if is_end or not file.line(end_line + 1).strip():  # a paragraph of its own
            while _is_comment(file.line(first_line - 1)) and first_line - 1 > (
                0 if not index else _end(block[index - 1])
            ):
                first_line -= 1
            blank_above = not file.line(first_line - 1).strip()
            while blank_above and first_line > 1 and not file.line(first_line - 1).strip():
                first_line -= 1
            if not blank_above and not is_end and file.line(first_line - 1).rstrip().endswith(":"):
                while not file.line(end_line + 1).strip() and end_line < len(file.line_starts):
                    end_line += 1
        yield Edit(_lines(file, first_line, end_line), "", _WHY)


def _end(statement: ast.stmt) -> int:
    return statement.end_lineno or statement.lineno


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#") and "kernel-rewrite" not in line


def _lines(file: SourceFile, first: int, last: int) -> Span:
    """The span of whole lines, the end of the last one included."""
    if last < len(file.line_starts):
        return Span(file.path, first, 0, last + 1, 0)
    return Span(file.path, first, 0, last, len(file.line(last).encode()))
