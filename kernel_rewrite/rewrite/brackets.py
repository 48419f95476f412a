"""The items between a pair of parentheses as they stand in the text, and how more are put among them in the same layout, or
some are taken out.

The layout of the user is kept: items on one line get their neighbours on that line, items that end their line get lines
of their own; a comment stays with the item it stands beside, and a trailing comma is written where there was one.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from kernel_rewrite.model import Edit, Span
from kernel_rewrite.source.files import SourceFile, newline_of

LINE_LENGTH = 120
"""Columns that a line may have before a list of items goes on in the next one; more where the user's own lines do."""

_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")
_NO_TOKEN = frozenset((tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT))
_REST_OF_LINE = re.compile(r"[ \t\f]*(?:#[^\r\n]*)?(?=\r|\n|\Z)")
_PARTING = frozenset((tokenize.OP, tokenize.NAME))
_LONE_RETURN = re.compile(r"\r(?!\n)")
_BLANK = re.compile(r"[ \t\f]*")


@dataclass(frozen=True, slots=True)
class Item:
    """One item: where it starts and ends in the file's text, and where its comma ends (None for a last item without)."""

    start: int
    end: int
    comma: int | None


@dataclass(frozen=True, slots=True)
class Bracket:
    """A pair of parentheses: the offsets of both in the file's text, and the items between them, in order."""

    opening: int
    closing: int
    items: tuple[Item, ...]

    def index(self, offset: int) -> int:
        """The position of the item that holds `offset`."""
        return next(i for i, item in enumerate(self.items) if item.start <= offset < item.end)


def call_bracket(file: SourceFile, call: ast.Call) -> Bracket:
    """The arguments of `call`."""
    start, end = _offset(file, call), file.offset(call.end_lineno or 0, call.end_col_offset or 0)
    return next(b for b in _brackets(file.text[start:end], start, "(") if b.closing == end - 1)


def definition_bracket(file: SourceFile, function: ast.FunctionDef | ast.AsyncFunctionDef) -> Bracket:
    """The parameters of `function`, its `*` and `/` among the items."""
    start, end = _offset(file, function), file.offset(function.body[0].lineno, function.body[0].col_offset)
    return next(_brackets(file.text[start:end], start, "("))


def list_bracket(file: SourceFile, node: ast.List | ast.Tuple) -> Bracket | None:
    """The elements of a list, or of a tuple in parentheses; None for one without."""
    start, end = _offset(file, node), file.offset(node.end_lineno or 0, node.end_col_offset or 0)
    opening = file.text[start]
    return next(_brackets(file.text[start:end], start, opening), None) if opening in "([" else None


def inserted(file: SourceFile, bracket: Bracket, index: int, texts: Sequence[str], why: str) -> tuple[Edit, ...]:
    """The edits that put the items `texts` before item `index` of `bracket`; `index` may be the number of items."""
    return tuple(
        Edit(span_between(file, offset, offset), text, why)
        for offset, text in _insertions(file, bracket, index, list(texts))
    )


def removed(file: SourceFile, bracket: Bracket, indices: Collection[int], why: str) -> tuple[Edit, ...]:
    """The edits that take the items at `indices` out of `bracket`, with the comments beside them."""
    edits = []
    for first in (i for i in sorted(indices) if i - 1 not in indices):
        last = first
        while last + 1 in indices:
            last += 1
        edits.append(Edit(span_between(file, *_removal(file.text, bracket.items, first, last)), "", why))
    return tuple(edits)


def _removal(text: str, items: Sequence[Item], first: int, last: int) -> tuple[int, int]:
    """From where to where the items `first` to `last` go, with one of the commas around them."""
    start, end = items[first].start, items[last]
    ends_line = _ends_line(text, end)
    if ends_line and _starts_line(text, start):
        below = _line_end(text, end.comma or end.end)
        return _line_start(text, start), below + (2 if text.startswith("\r\n", below) else 1)
    if last + 1 < len(items) and (first == 0 or not ends_line):
        return start, items[last + 1].start
    if first == 0:
        return start, end.comma or end.end
    before = items[first - 1]
    assert before.comma is not None
    if end.comma is not None:
        return before.comma, end.comma
    return (before.end if "#" not in text[before.comma : start] else start), end.end


def span_between(file: SourceFile, start: int, end: int) -> Span:
    """The span between two offsets of the file's text."""
    return Span(file.path, *_position(file, start), *_position(file, end))


def _insertions(file: SourceFile, bracket: Bracket, index: int, texts: list[str]) -> Iterator[tuple[int, str]]:
    text, items = file.text, bracket.items
    if not texts:
        return
    if not items:
        yield bracket.opening + 1, ", ".join(texts)
        return
    if index == 0:
        first = items[0]
        alone = _starts_line(text, first.start)
        separator = f",{newline_of(text)}{_indent(text, first.start)}" if alone and _ends_line(text, first) else ", "
        yield first.start, "".join(f"{new}{separator}" for new in texts)
        return
    before = items[index - 1]
    if not _ends_line(text, before):
        yield before.end, _beside(file, bracket, before, texts)
        return
    single = _starts_line(text, before.start) and (len(items) > 1 or before.comma is not None)
    lines = texts if single else [", ".join(texts)]
    indent = _indent(text, before.start)
    commas = [","] * (len(lines) - (before.comma is None)) + [""]
    below = _line_end(text, before.comma or before.end)
    added = "".join(f"{newline_of(text)}{indent}{line}{comma}" for line, comma in zip(lines, commas, strict=False))
    if before.comma is None and below == before.end:
        yield below, f",{added}"
        return
    if before.comma is None:
        yield before.end, ","
    yield below, added


def _beside(file: SourceFile, bracket: Bracket, before: Item, texts: list[str]) -> str:
    """`texts` after `before` on its line, or below the items when that line would grow longer than lines may be."""
    text = file.text
    start, end = _line_start(text, before.end), _line_end(text, before.end)
    longest = max(len(line) for line in text[_line_start(text, bracket.opening) : end].splitlines() or [""])
    together = "".join(f", {new}" for new in texts)
    if end - start + len(together) <= max(LINE_LENGTH, longest):
        return together
    first = bracket.items[0].start
    column = first - _line_start(text, first) if not _starts_line(text, first) else len(_indent(text, first))
    return f",{newline_of(text)}{' ' * column}" + ", ".join(texts)


def _ends_line(text: str, item: Item) -> bool:
    """Whether nothing but a comment follows `item` and its comma on their line."""
    return _REST_OF_LINE.match(text, item.comma or item.end) is not None


def _starts_line(text: str, offset: int) -> bool:
    return not text[_line_start(text, offset) : offset].strip()


def _indent(text: str, offset: int) -> str:
    """The white space in front of the line of `offset`."""
    start = _line_start(text, offset)
    found = _BLANK.match(text, start)
    return found.group() if found else ""


def _line_start(text: str, offset: int) -> int:
    return max(text.rfind("\n", 0, offset), text.rfind("\r", 0, offset)) + 1


def _line_end(text: str, offset: int) -> int:
    found = re.compile(r"\r|\n|\Z").search(text, offset)
    assert found is not None
    return found.start()


def _offset(file: SourceFile, node: ast.expr | ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return file.offset(node.lineno, node.col_offset)


def _position(file: SourceFile, offset: int) -> tuple[int, int]:
    line = bisect_right(file.line_starts, offset)
    return line, len(file.text[file.line_starts[line - 1] : offset].encode())


def _brackets(text: str, base: int, opening: str) -> Iterator[Bracket]:
    """The outermost pairs of `opening` in `text`, offsets counted from `base`."""
    text = _LONE_RETURN.sub("\n", text)  # the tokenizer ends no line there, `ast` does
    lines = [0, *(match.end() for match in re.finditer("\n", text))]
    stream = io.StringIO(text)
    depth, start, items = 0, -1, _Items()
    try:
        for token in tokenize.generate_tokens(stream.readline):
            if token.type in _NO_TOKEN or token.type == tokenize.ENDMARKER:
                continue
            first, last = (base + lines[line - 1] + column for line, column in (token.start, token.end))
            if token.type == tokenize.OP and token.string in _CLOSING:
                depth -= 1
                if depth == 0 and start >= 0:
                    yield Bracket(start, first, items.closed())
                    start = -1
                    continue
            if start >= 0:
                items.take(token.string if depth == 1 and token.type in _PARTING else "", first, last)
            if token.type == tokenize.OP and token.string in _OPENING:
                if depth == 0 and token.string == opening:
                    start, items = first, _Items()
                depth += 1
    except (tokenize.TokenError, IndentationError):
        return  # what follows the last bracket is no statement of its own


class _Items:
    """Collects the items of one bracket from its tokens."""

    def __init__(self) -> None:
        self._found: list[Item] = []
        self._start = self._end = -1
        self._lambdas = 0

    def take(self, token: str, first: int, last: int) -> None:
        """One more token; "" for one that parts nothing."""
        if token == "lambda":  # the commas up to its colon are its own
            self._lambdas += 1
        elif token == ":" and self._lambdas:
            self._lambdas -= 1
        elif token == "," and not self._lambdas:
            self._found.append(Item(self._start, self._end, last))
            self._start = -1
            return
        if self._start < 0:
            self._start = first
        self._end = last

    def closed(self) -> tuple[Item, ...]:
        if self._start >= 0:
            self._found.append(Item(self._start, self._end, None))
        return tuple(self._found)
