"""Items put among others, or taken out, keep what stands there, comments and all, in any layout."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from kernel_rewrite.model import Edit
from kernel_rewrite.rewrite.brackets import (
    call_bracket,
    definition_bracket,
    inserted,
    list_bracket,
    removed,
    span_between,
)
from kernel_rewrite.rewrite.edits import apply_edits, composed
from kernel_rewrite.source.files import SourceFile, source_from_text

ITEMS = ("a", "(a)", "f(a, b)", "[a, (b)]", "'x, (é'", "a if b else c", "-1", "f'{a}, {b}('", "lambda x, y: (x)")
SPACES = ("", " ", "\n    ", "  # a, (comment\n    ", "\n\n        ", "  # é\n\n    # )\n    ", "\\\n    ")


@st.composite
def brackets(draw: st.DrawFn, items: tuple[str, ...]) -> tuple[str, int, int]:
    """The inside of parentheses, the number of items, and where to insert."""
    count = draw(st.integers(0, 4))
    text = draw(st.sampled_from(SPACES))
    for number in range(count):
        item = draw(st.sampled_from(items)).replace("NUMBER", str(number))
        text += item + draw(st.sampled_from(SPACES))
        if number < count - 1 or draw(st.booleans()):
            text += "," + draw(st.sampled_from(SPACES))
    return text, count, draw(st.integers(0, count))


def tokens(text: str) -> Iterator[str]:
    """The tokens and comments of a text, without layout."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER):
            yield token.string


def comments(text: str) -> list[tuple[str, str]]:
    """Each comment with the token before it that is no comma."""
    found, before = [], ""
    for token in tokens(text):
        if token.startswith("#"):
            found.append((token, before))
        elif token != ",":
            before = token
    return found


@settings(max_examples=400, deadline=None)
@given(brackets(ITEMS), st.lists(st.sampled_from(["new=1", "other=f(2)"]), min_size=1, max_size=2, unique=True))
def test_calls(drawn: tuple[str, int, int], new: list[str]) -> None:
    inside, count, _ = drawn
    file = source_from_text(f"g(1); k[grid(1)]({inside}); h()\n")
    statement = file.tree.body[1]
    assert isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
    bracket = call_bracket(file, statement.value)
    assert len(bracket.items) == count
    text = apply_edits(file, inserted(file, bracket, count, new, ""))
    call = ast.parse(text).body[1].value  # type: ignore[attr-defined]
    assert [ast.dump(a) for a in call.args] == [ast.dump(a) for a in statement.value.args]
    assert [f"{k.arg}={ast.unparse(k.value)}" for k in call.keywords] == new
    assert [c for c, _ in comments(text)] == [c for c, _ in comments(file.text)]


@settings(max_examples=400, deadline=None)
@given(brackets(("aNUMBER", "aNUMBER: 'x, ('", "aNUMBER: (int)")), st.sampled_from(["\n", "\r\n"]))
def test_definitions(drawn: tuple[str, int, int], newline: str) -> None:
    inside, count, index = drawn
    body = "def outer():\n    def é[T](\x00)->(int): return (1)\n".replace("[T]", "").replace("\x00", inside)
    file = source_from_text(body.replace("\n", newline))
    function = file.tree.body[0].body[0]  # type: ignore[attr-defined]
    bracket = definition_bracket(file, function)
    assert len(bracket.items) == count
    text = apply_edits(file, inserted(file, bracket, index, ["new", "other"], ""))
    names = [a.arg for a in ast.parse(text).body[0].body[0].args.args]  # type: ignore[attr-defined]
    own = [f"a{number}" for number in range(count)]
    assert names == [*own[:index], "new", "other", *own[index:]]
    assert [c for c, _ in comments(text)] == [c for c, _ in comments(file.text)]
    assert newline == "\n" or "\n" not in text.replace("\r\n", "")


def test_a_comment_stays_beside_its_item() -> None:
    file = source_from_text("k(\n    a,  # one\n    b  # two\n)\n")
    call = file.tree.body[0].value  # type: ignore[attr-defined]
    for index in (1, 2):
        text = apply_edits(file, inserted(file, call_bracket(file, call), index, ["new"], ""))
        assert comments(text) == [("# one", "a"), ("# two", "b")]


@settings(max_examples=150, deadline=None)
@given(brackets(ITEMS), st.sets(st.integers(0, 3)), st.sampled_from(["\n", "\r\n"]))
def test_items_are_taken_out(drawn: tuple[str, int, int], chosen: set[int], newline: str) -> None:
    inside, count, _ = drawn
    gone = {index for index in chosen if index < count}
    file = source_from_text(f"g(1); k[grid(1)]({inside}); h()\n".replace("\n", newline))
    statement = file.tree.body[1]
    assert isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
    text = apply_edits(file, removed(file, call_bracket(file, statement.value), gone, ""))
    call = ast.parse(text).body[1].value  # type: ignore[attr-defined]
    left = [ast.dump(a) for index, a in enumerate(statement.value.args) if index not in gone]
    assert [ast.dump(a) for a in call.args] == left
    if not gone:
        assert text == file.text


def test_what_is_taken_out_takes_its_own_line_and_comment_along() -> None:
    texts = {
        "f(a, b, c)": ("f(b, c)", "f(a, c)", "f(a, b)"),
        "f(a, b, c,)": ("f(b, c,)", "f(a, c,)", "f(a, b,)"),
        "f(\n    a,  # 1\n    b,  # 2\n    # 3\n    c,\n)": (
            "f(\n    b,  # 2\n    # 3\n    c,\n)",
            "f(\n    a,  # 1\n    # 3\n    c,\n)",
            "f(\n    a,  # 1\n    b,  # 2\n    # 3\n)",
        ),
        "f(a, b,  # 1\n  c)": ("f(b,  # 1\n  c)", "f(a,  # 1\n  c)", "f(a, b,  # 1\n  )"),
        "[\n    a,\n    b,\n    c\n]": ("[\n    b,\n    c\n]", "[\n    a,\n    c\n]", "[\n    a,\n    b,\n]"),
    }
    for before, after in texts.items():
        file = source_from_text(before)
        node = file.tree.body[0].value  # type: ignore[attr-defined]
        bracket = list_bracket(file, node) if isinstance(node, ast.List) else call_bracket(file, node)
        assert bracket is not None
        found = tuple(apply_edits(file, removed(file, bracket, {index}, "")) for index in range(3))
        assert found == after


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_edits_of_edited_text_are_edits_of_the_text(data: st.DataObject) -> None:
    """Two rounds of edits, as one."""

    def drawn(file: SourceFile) -> list[Edit]:
        size = len(file.text)
        cuts = sorted(data.draw(st.lists(st.integers(0, size), max_size=6, unique=True)))
        pairs = [(a, b) for a, b in zip(cuts[::2], cuts[1::2], strict=False)]
        new = st.text("xy\né", max_size=4)
        return [Edit(span_between(file, a, b), data.draw(new)) for a, b in pairs]

    def of(text: str) -> SourceFile:
        return SourceFile(
            "f.py", text, ast.Module([], []), line_starts=tuple([0, *(m.end() for m in re.finditer("\n", text))])
        )

    file = of(data.draw(st.text("ab\né", max_size=20)))
    first = drawn(file)
    between = of(apply_edits(file, first))
    second = drawn(between)
    both = composed(file, first, between, second)
    assert apply_edits(file, both) == apply_edits(between, second)
