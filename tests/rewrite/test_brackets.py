"""Items put among others keep what stands there, comments and all, in any layout."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from kernel_rewrite.rewrite.brackets import call_bracket, definition_bracket, inserted
from kernel_rewrite.rewrite.edits import apply_edits
from kernel_rewrite.source.files import source_from_text

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
