"""Where new imports and functions go, and the blank lines around them."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kernel_rewrite.model import Edit
from kernel_rewrite.rewrite.edits import insertion
from kernel_rewrite.rewrite.spelling import Surroundings, import_statements, module_level
from kernel_rewrite.source.files import SourceFile, newline_of


@dataclass(frozen=True, slots=True)
class Addition:
    """Text to insert before `line`, indented by `indent`. A definition is set apart by blank lines; an import is not."""

    line: int
    indent: str
    text: str
    is_import: bool = False


def added_imports(file: SourceFile, around: Surroundings, lines: Iterable[str], above: int) -> Iterator[Addition]:
    """Imports beside the one of triton.language that stands above line `above`, or beside the last import there.

    An unguarded import is preferred: one in a `try` or an `if` may not run.
    """
    visible = [node for node in import_statements(around.body) if (node.end_lineno or node.lineno) < above]
    alone = [node for node in visible if node in around.body]
    triton = [node for node in alone or visible if "triton" in ast.unparse(node)]
    triton = triton or [node for node in visible if "triton" in ast.unparse(node)]
    language = [node for node in triton if "language" in ast.unparse(node)]
    choice = language or triton or visible
    for text in dict.fromkeys(lines):
        if not choice:
            yield Addition(above, indent_of(file, around.body[0]), text, is_import=True)
        else:
            yield Addition(_line_below(around, choice[-1]), indent_of(file, choice[-1]), text, is_import=True)


def _line_below(around: Surroundings, statement: ast.stmt) -> int:
    """The first line below every statement that starts on the last line of `statement`: `import a; x = 1`."""
    last = statement.end_lineno or statement.lineno
    for other in module_level(around.body):
        if other.lineno == last and not isinstance(other, (ast.If, ast.Try, ast.With, ast.For, ast.While)):
            last = max(last, other.end_lineno or other.lineno)
    return last + 1


def indent_of(file: SourceFile, statement: ast.stmt) -> str:
    """The white space that the line of `statement` starts with."""
    line = file.line(statement.lineno)
    return line[: len(line) - len(line.lstrip(" \t"))]


def stands_alone(file: SourceFile, statement: ast.stmt) -> bool:
    """Whether nothing else stands on the lines of a statement: no `if` before it, no `;` around it."""
    start = file.offset(statement.lineno, statement.col_offset)
    before = file.text[file.offset(statement.lineno, 0) : start]
    end = file.offset(statement.end_lineno or 0, statement.end_col_offset or 0)
    after = file.text[end:].split("\n", 1)[0].strip()
    return not before.strip() and (not after or after.startswith("#"))


def added_above(
    file: SourceFile, around: Surroundings, definition: ast.FunctionDef, texts: Iterable[str]
) -> Iterator[Addition]:
    """Functions above the statement that holds `definition`, in the same block, comments and decorators included."""
    statement = _holder(around.body, definition)
    line = first_line(file, statement)
    yield from (Addition(line, indent_of(file, statement), text) for text in texts)


def added_below(file: SourceFile, definition: ast.FunctionDef, text: str) -> Addition:
    """A function below `definition`, in the same block."""
    return Addition((definition.end_lineno or definition.lineno) + 1, indent_of(file, definition), text)


def first_line(file: SourceFile, statement: ast.stmt) -> int:
    """The line a statement starts on, with its decorators and the comment lines that stand directly above them."""
    decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
    line = min([statement.lineno, *(decorator.lineno for decorator in decorators)])
    while line > 1 and file.line(line - 1).lstrip().startswith("#") and "kernel-rewrite" not in file.line(line - 1):
        line -= 1
    return line


def anchor_line(file: SourceFile, around: Surroundings, definition: ast.FunctionDef) -> int:
    """The line above which additions for `definition` go."""
    return first_line(file, _holder(around.body, definition))


def _holder(body: list[ast.stmt], definition: ast.FunctionDef) -> ast.stmt:
    """The statement around `definition` that running `body` reaches: itself, or the class or function it is made in."""
    for statement in body:
        if not statement.lineno <= definition.lineno <= (statement.end_lineno or statement.lineno):
            continue
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            return statement
        blocks = [getattr(statement, name, []) for name in ("body", "orelse", "finalbody")]
        blocks += [handler.body for handler in getattr(statement, "handlers", [])]
        for block in blocks:
            if any(inner.lineno <= definition.lineno <= (inner.end_lineno or inner.lineno) for inner in block):
                return _holder(block, definition)
        return statement
    return definition


def addition_edits(file: SourceFile, additions: Iterable[Addition]) -> Iterator[Edit]:
    """One edit for each line that something is put before: imports first, then definitions, in the order given."""
    by_line: dict[int, list[Addition]] = {}
    for addition in additions:
        by_line.setdefault(addition.line, []).append(addition)
    newline = newline_of(file.text)
    for line, group in by_line.items():
        ordered = [a for a in group if a.is_import] + [a for a in group if not a.is_import]
        text = _composed(file, line, ordered)
        if line > len(file.line_starts):  # below a last line that does not end
            end_line, column = len(file.line_starts), len(file.line(len(file.line_starts)).encode())
            yield insertion(file.path, end_line, column, ("\n" + text.rstrip("\n")).replace("\n", newline))
        else:
            yield insertion(file.path, line, 0, text.replace("\n", newline))


def _composed(file: SourceFile, line: int, additions: list[Addition]) -> str:
    blank = _blank_lines_before(file, line)
    text = ""
    for addition in additions:
        wanted = 0 if addition.is_import else _separation(addition)
        if not text and _opens_block(file, line - 1 - blank):
            wanted = 0
        missing = max(0, wanted - blank)
        text += "\n" * missing + _indented(addition.text.strip("\n"), addition.indent) + "\n"
        blank = 0
    last = additions[-1]
    follows = file.line(line)
    if not last.is_import and follows.strip():
        text += "\n" * _separation(last)
    return text


def _separation(addition: Addition) -> int:
    return 1 if addition.indent else 2


def _blank_lines_before(file: SourceFile, line: int) -> int:
    count = 0
    while line - 1 - count >= 1 and not file.line(line - 1 - count).strip():
        count += 1
    return count if line - 1 - count >= 1 else 2  # the start of a file needs no space above


def _opens_block(file: SourceFile, line: int) -> bool:
    return line >= 1 and file.line(line).rstrip().endswith(":")


def _indented(text: str, indent: str) -> str:
    return "\n".join(indent + line if line else line for line in text.split("\n")) if indent else text
