"""Edits are values; this applies them, and nothing outside their spans changes."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from dataclasses import replace

from kernel_rewrite.model import Edit, InternalError, Span
from kernel_rewrite.rewrite.brackets import span_between
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


def composed(file: SourceFile, first: Iterable[Edit], between: SourceFile, second: Iterable[Edit]) -> tuple[Edit, ...]:
    """The edits of `file` that do what `first`, which make the text of `between` of it, and then `second` do."""
    first, second = in_order(first), in_order(second)
    touched: list[tuple[int, int, tuple[Edit, ...]]] = []  # stretches of the text between
    pieces: list[tuple[int, int, int]] = []  # (offset there, offset in the file, length) of what `first` keeps
    position = there = 0
    for edit in first:
        start, end = _offsets(file, edit.span)
        pieces.append((there, position, start - position))
        there += start - position
        touched.append((there, there + len(edit.replacement), (edit,)))
        there, position = there + len(edit.replacement), end
    pieces.append((there, position, len(file.text) - position))
    touched += [(*_offsets(between, edit.span), (edit,)) for edit in second]
    joined: list[tuple[int, int, tuple[Edit, ...]]] = []
    for start, end, edits in sorted(touched, key=lambda stretch: stretch[:2]):
        if joined and start <= joined[-1][1]:
            before = joined.pop()
            start, end, edits = before[0], max(before[1], end), (*before[2], *edits)
        joined.append((start, end, edits))
    found = []
    for start, end, edits in joined:
        opening = next(o + start - t for t, o, length in pieces if t <= start <= t + length)
        closing = next(o + end - t for t, o, length in reversed(pieces) if t <= end <= t + length)
        inside = [edit for edit in second if any(edit is one for one in edits)]
        text = apply_edits(between, inside, span_between(between, start, end))
        whys = "; ".join(dict.fromkeys(edit.why for edit in edits if edit.why))
        found.append(Edit(span_between(file, opening, closing), text, whys))
    return tuple(found)


def _offsets(file: SourceFile, span: Span) -> tuple[int, int]:
    return file.offset(span.line, span.column), file.offset(span.end_line, span.end_column)


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
