"""Edits are values; this applies them, and nothing outside their spans changes."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from dataclasses import replace

from kernel_rewrite.model import Edit, InternalError, Span
from kernel_rewrite.source.files import SourceFile


def apply_edits(file: SourceFile, edits: Iterable[Edit], within: Span | None = None) -> str:
    """The text of `file` (or of its part `within`) with every edit made. Raises InternalError on overlapping edits."""
    start = file.offset(within.line, within.column) if within else 0
    end = file.offset(within.end_line, within.end_column) if within else len(file.text)
    pieces, position = [], start
    for edit in in_order(edits):
        first = file.offset(edit.span.line, edit.span.column)
        last = file.offset(edit.span.end_line, edit.span.end_column)
        if first < position or last > end:
            raise InternalError(f"edits overlap at {edit.span.start}")
        pieces += [file.text[position:first], edit.replacement]
        position = last
    return "".join([*pieces, file.text[position:end]])


def nested(file: SourceFile, edits: Iterable[Edit]) -> list[Edit]:
    """`edits`, those that stand inside another one made within it. Each replacement of an outer one must have the text that
    it replaces in it, once."""
    found: list[Edit] = []
    for edit in sorted(edits, key=lambda e: (e.span.start, -e.span.end_line, -e.span.end_column), reverse=True):
        inside = [inner for inner in found if inner.span != edit.span and edit.span.contains_span(inner.span)]
        if inside:
            text = file.slice(edit.span)
            if edit.replacement.count(text) != 1:
                raise InternalError(f"edits overlap at {edit.span.start}")
            edit = replace(edit, replacement=edit.replacement.replace(text, apply_edits(file, inside, edit.span)))
        found = [other for other in found if other not in inside] + [edit]
    return found


def in_order(edits: Iterable[Edit]) -> list[Edit]:
    """Each edit once, as they follow each other in the file."""
    return sorted(set(edits), key=lambda edit: (edit.span, edit.replacement))


def insertion(file: str, line: int, column: int, text: str, why: str = "the epilogue needs it") -> Edit:
    """An edit that puts `text` before (line, column)."""
    return Edit(Span(file, line, column, line, column), text, why)


def unified_diff(file: SourceFile, text: str) -> str:
    """The unified diff from `file` to `text`, both under the file's own name."""
    name = os.path.basename(file.path)
    lines = difflib.unified_diff(
        file.text.splitlines(keepends=True), text.splitlines(keepends=True), f"a/{name}", f"b/{name}", n=2
    )
    return "".join(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in lines)
