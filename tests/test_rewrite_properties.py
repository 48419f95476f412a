"""Properties of the rewrite, for any value expression and any file: the stored value becomes exactly E(value), and not
a byte outside the planned edits changes."""

from __future__ import annotations

import ast
import copy
import io
import tokenize
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from interpreted import Run, run_all

from kernel_rewrite.fuse import Fused, fuse
from kernel_rewrite.pointwise.language import emit, parse_epilogue
from kernel_rewrite.source.expressions import replace_argument, substitute

# ----------------------------------------------------------------------------------------- expressions, any of Python's

# Between two tokens inside parentheses: spaces, line ends, comments with quotes and brackets in them.
GAPS = st.sampled_from(
    [" ", " ", " ", "  ", "\n        ", '  # it\'s (a "comment", really\n    ', "\n\n  #\n ", "\t", " \\\n "]
)
ATOMS = st.sampled_from(
    [
        "x",
        "y",
        "größe",
        "1",
        "0.5",
        "1e-3",
        "-1",
        "'s'",
        'f"{x!r}, {y:>{z}}"',
        "x.T",
        "x[:, None]",
        "f(x)",
        "f(x, *y, k=z, **w)",
        "tl.load(p + i, mask=m)",
        "(x)",
        "((y))",
        "(x, y)",
        "()",
        "[x, *y]",
        "{x: y}",
        "{x, y}",
        "...",
        "None",
        "x.to(tl.float32)",
        "x if y else z",
        "lambda v: v + x",
        "not x",
        "(v := x)",
        "v := x",
        "[v for v in x if v]",
        "(v for v in x)",
        "x < y <= z",
        "x if y else lambda: z",
    ]
)
BINARY = st.sampled_from([*"+ - * / // % ** @ & | ^ << >> < <= == != and or in is".split(), "not in", "is not"])
UNARY = st.sampled_from(["-", "+", "~", "not "])


@st.composite
def combined(draw: st.DrawFn, parts: st.SearchStrategy[str]) -> str:
    gap = draw(GAPS)
    kind = draw(
        st.sampled_from(
            ["binary", "binary", "unary", "call", "attribute", "subscript", "ternary", "parentheses", "lambda"]
        )
    )
    if kind == "binary":
        return f"{draw(parts)}{gap}{draw(BINARY)}{draw(GAPS)}{draw(parts)}"
    if kind == "unary":
        return f"{draw(UNARY)}{draw(parts)}"
    if kind == "call":
        return f"tl.where({draw(parts)},{gap}{draw(parts)})"
    if kind == "attribute":
        return f"({gap}{draw(parts)}){gap}.T"
    if kind == "subscript":
        return f"({draw(parts)})[{gap}{draw(parts)}, :]"
    if kind == "ternary":
        return f"{draw(parts)} if{gap}{draw(parts)} else {draw(parts)}"
    if kind == "lambda":
        return f"lambda v, *w, k=({draw(parts)}):{gap}{draw(parts)}"
    return f"({gap}{draw(parts)}{gap})"


EXPRESSIONS = st.recursive(ATOMS, combined, max_leaves=6)
OPS = [
    "relu",
    "neg",
    "abs",
    "square",
    "gelu",
    "leaky_relu(0.2)",
    "clamp(0, 6)",
    "sigmoid(relu(x))",
    "neg(neg(x))",
    "abs(neg(x))",
]
CASTS = ["", "__value__.to(out.dtype.element_ty)", "tl.cast(__value__, out.dtype.element_ty)"]

# The value's place in the call: before and after it.
CALLS = {
    "positional": ("tl.store(out + i, ", ", m)", 1),
    "last": ("tl.store(out + i,", ")", 1),
    "trailing_comma": ("tl.store(\n    out + i,  # where\n    ", ",  # what\n    mask=m,\n)", 1),
    "keyword": ("tl.store(mask = m, value = ", ", pointer=out+i)", "value"),
    "method": ("d.store([i, j], ", ")", 1),
}


class _Substitute(ast.NodeTransformer):
    def __init__(self, value: ast.expr) -> None:
        self.value = value

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return copy.deepcopy(self.value) if node.id == "__value__" else node


def substituted(template: str, value: ast.expr) -> ast.expr:
    node = _Substitute(value).visit(ast.parse(template, mode="eval").body)
    assert isinstance(node, ast.expr)
    return node


def argument(call: ast.Call, position: int | str) -> ast.expr:
    if isinstance(position, int):
        return call.args[position]
    return next(keyword.value for keyword in call.keywords if keyword.arg == position)


def parsed_call(text: str) -> ast.Call | None:
    """The call, when `text` is one call in which nothing else than the value was put."""
    try:
        node = ast.parse(text, mode="eval").body
    except SyntaxError:
        return None
    return node if isinstance(node, ast.Call) else None


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(EXPRESSIONS, st.sampled_from(OPS), st.sampled_from(CASTS), st.sampled_from(sorted(CALLS)))
@example("(v := x)", "neg", "", "positional")
@example("v := x", "neg", "", "positional")
@example("(v for v in x)", "abs", CASTS[1], "keyword")
@example("x if y else z", "neg", CASTS[1], "last")
@example("lambda: x", "neg", "", "trailing_comma")
@example("x  # c\n + y", "neg", "", "last")
def test_the_value_becomes_exactly_E_of_it(value: str, op: str, cast: str, form: str) -> None:
    before, after, position = CALLS[form]
    # a comment at its end would swallow what follows
    call = parsed_call(before + value + after)
    bare = parsed_call(before + "x" + after)
    assert bare is not None
    assume(call is not None and (len(call.args), len(call.keywords)) == (len(bare.args), len(bare.keywords)))
    assert call is not None
    template = emit(parse_epilogue(op), "__value__").expression

    def rebuild(node: object) -> object:
        inner = substitute(cast, "__value__", node) if cast else node  # type: ignore[arg-type]
        return substitute(template, "__value__", inner)  # type: ignore[arg-type]

    text = replace_argument(before + value + after, position, rebuild)  # type: ignore[arg-type]
    result = parsed_call(text)
    assert result is not None, text
    old = argument(call, position)
    expected = substituted(template, substituted(cast, old) if cast else old)
    assert ast.dump(argument(result, position)) == ast.dump(expected), text
    # the rest of the call is the same text, and so are the tokens of the value
    assert text.startswith(before.rstrip()) and text.endswith(after.lstrip())
    assert value.strip() in text


# -------------------------------------------------------------------------------------- whole files, values of Triton's

NUMBERS = st.sampled_from(
    ["x", "y", "x", "y", "2.0", "(x)", "-y", "tl.exp(x)", "tl.where(m, x, y)", "x.to(tl.float32)", "float(3)"]
)


@st.composite
def computed(draw: st.DrawFn, parts: st.SearchStrategy[str]) -> str:
    gap = draw(GAPS)
    kind = draw(st.sampled_from(["binary", "binary", "parentheses", "unary", "ternary", "call", "keyword"]))
    if kind == "binary":
        return f"{draw(parts)}{gap}{draw(st.sampled_from(['+', '-', '*', '/']))} {draw(parts)}"
    if kind == "unary":
        return f"-({draw(parts)})"
    if kind == "ternary":
        return f"({draw(parts)} if{gap}B > 32 else {draw(parts)})"
    if kind == "call":
        return f"tl.maximum({gap}{draw(parts)}, {draw(parts)})"
    if kind == "keyword":
        return f"tl.where(condition=m, x={draw(parts)}, y={gap}{draw(parts)})"
    return f"({gap}{draw(parts)}{gap})"


VALUES = st.recursive(NUMBERS, computed, max_leaves=5)

FILE = '''\
# leading comment, with trailing spaces   
import torch
import triton
import triton.language as tl

TEXT = r"""
# not a comment \\d
    tl.store(out + i, x, mask=m)
"""


@triton.jit
def k(a, b, out, other, n, B: tl.constexpr):
    """tl.store(out + i, x, mask=m)"""
    i = tl.program_id(0) * B + tl.arange(0, B)
    m = i < n
    x = tl.load(a + i, mask=m) ; y = tl.load(b + i, mask=m)	# a tab
    tl.store(other + i, x, mask=m)
    größe = 1;  tl.store(out + i, {value}, mask=m)  # größe


def launch(a, b):
    out, other = torch.empty_like(a, dtype=torch.float16), torch.empty_like(a)
    k[(3,)](a, b, out, other, a.numel(), B=128)
    return out, other
'''


def body_of(fused: Fused) -> str:
    header, _, body = fused.source.partition("# end of header")
    assert header.count("\n") == sum(line.startswith("#") for line in header.splitlines())
    return body.lstrip("\r\n") if not body.startswith("\n\n\n") else body[2:]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(VALUES, st.sampled_from(["relu", "neg", "gelu", "sigmoid(relu(x))"]), st.sampled_from(["eager", "fused"]))
def test_a_fused_file_differs_in_the_store_alone(value: str, op: str, numerics: str) -> None:
    text = FILE.format(value=value)
    assume("\\\n" not in value or value.count("(") > 0)
    try:
        tree = ast.parse(text)
    except SyntaxError:
        assume(False)
    fused = fuse(text, f"out={op}", numerics=numerics)
    start = text.index("größe = 1;  ") + len("größe = 1;  ")
    end = text.rindex("  # größe")
    head, tail = text[:start], text[end:]
    body = body_of(fused)
    assert body.endswith(tail)
    # What was put above the kernel: imports and helpers, in whole lines.
    assert [line for line in head.splitlines()[:-1] if line not in body.splitlines()] == []
    if "\nfrom triton.language.extra import libdevice\n" not in body and "def " + op not in body:
        assert body.startswith(head)
    functions = {node.name for node in ast.parse(body).body if isinstance(node, ast.FunctionDef)}
    assert functions >= {"k", "launch"}
    store = stores(ast.parse(body))[-1]
    assert ast.dump(store.args[0]) == ast.dump(stores(tree)[-1].args[0])
    assert ast.dump(stores(tree)[-1].args[1]) in ast.dump(store.args[1])
    assert ast.dump(stores(ast.parse(body))[-2]) == ast.dump(stores(tree)[-2])
    for line in comments(value):
        assert line in comments(body)


def stores(tree: ast.Module) -> list[ast.Call]:
    kernel = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "k")
    calls = [node for node in ast.walk(kernel) if isinstance(node, ast.Call) and ast.unparse(node.func) == "tl.store"]
    return sorted(calls, key=lambda call: call.lineno)


def comments(text: str) -> list[str]:
    tokens = tokenize.generate_tokens(io.StringIO(f"({text}\n)").readline)
    try:
        return [token.string for token in tokens if token.type == tokenize.COMMENT]
    except (tokenize.TokenError, SyntaxError, IndentationError):
        return []


# -------------------------------------------------------------------------------------------- files of every appearance

STORE = "tl.store(out + i, tl.load(a + i, mask=m) * 2, mask=m)"
FUSED_STORE = "tl.store(out + i, tl.maximum(tl.load(a + i, mask=m) * 2, 0, propagate_nan=tl.PropagateNan.ALL), mask=m)"
PLAIN = f"""\
import torch
import triton
import triton.language as tl


@triton.jit
def k(a, out, n, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    m = i < n
    {STORE}


def launch(a):
    out = torch.empty_like(a)
    k[(1,)](a, out, a.numel(), B=128)
    return out
"""
TOP = "\n\n\n@triton.jit"
FILES: dict[str, bytes] = {
    "plain": PLAIN.encode(),
    "windows_line_ends": PLAIN.replace("\n", "\r\n").encode(),
    "one_windows_line_end": PLAIN.replace("    m = i < n\n", "    m = i < n\r\n").encode(),
    "one_unix_line_end": PLAIN.replace("\n", "\r\n").replace("    m = i < n\r\n", "    m = i < n\n").encode(),
    "byte_order_mark": b"\xef\xbb\xbf" + PLAIN.encode(),
    "byte_order_mark_and_windows_line_ends": b"\xef\xbb\xbf" + PLAIN.replace("\n", "\r\n").encode(),
    "tabs": PLAIN.replace("    ", "\t").encode(),
    "form_feed": PLAIN.replace(TOP, "\n\f\n\n# about k\n@triton.jit").encode(),
    "form_feed_in_the_indentation": PLAIN.replace("    m = i < n", "\f    m = i < n").encode(),
    "separators_that_are_no_line_ends": PLAIN.replace(
        TOP, "\nY = '\x0c\x0c\x0c\x0c\u2028\x1c\x85'\n# one\n# two\n# three\nX = '''\na\nb\n'''\n@triton.jit"
    ).encode(),
    "letters_before_the_store": PLAIN.replace(
        f"    {STORE}", f"    tl.static_assert(B > 0, 'ü𝔘'); {STORE}  # größe"
    ).encode(),
    "latin_1": ("# -*- coding: latin-1 -*-\n" + PLAIN.replace("    m = i < n", "    m = i < n  # größe")).encode(
        "latin-1"
    ),
    "shebang_and_latin_1": ("#!/usr/bin/env python\n# vim: set fileencoding=latin-1 :\n# é\n" + PLAIN).encode(
        "latin-1"
    ),
    "no_line_end_at_the_end": PLAIN.split("\n\n\ndef launch")[0].encode(),
    "blank_lines_at_the_end": (PLAIN + "\n\n\n   \n").encode(),
    "blank_lines_at_the_start": ("\n\n\n" + PLAIN).encode(),
    "trailing_spaces": PLAIN.replace("    m = i < n", "    m = i < n   \t ").encode(),
    "continuation_lines": PLAIN.replace("    m = i < n", "    m = \\\n  i \\\n    < n").encode(),
    "text_that_looks_like_a_header": (
        PLAIN + "X = '''\n# @generated by kernel-rewrite 0.1.0 from x.py\n# end of header\n\n'''\n"
    ).encode(),
    "nothing_before_the_kernel": PLAIN.replace(
        "import torch\nimport triton\nimport triton.language as tl\n\n\n", "from prelude import *\n"
    )
    .replace("from prelude import *", "import triton, triton.language as tl; import torch")
    .encode(),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("op", ["relu", "gelu"])
def test_not_a_byte_changes_outside_the_edits(name: str, op: str, tmp_path: Path) -> None:
    data = FILES[name]
    path = tmp_path / "k.py"
    path.write_bytes(data)
    fused = fuse(str(path), op)
    written = fused.source.encode(fused.encoding)
    compile(written, "fused.py", "exec")
    begin = written.index(b"# @generated by kernel-rewrite")
    mark = b"# end of header"
    end = written.index(mark) + len(mark)
    end += len(b"\r\n\r\n") if written[end : end + 2] == b"\r\n" else len(b"\n\n")
    body = written[:begin] + written[end:]
    store, fused_store = (text.encode(fused.encoding.removesuffix("-sig")) for text in (STORE, FUSED_STORE))
    if op == "relu":
        assert body == data.replace(store, fused_store)
    else:  # an import and a helper come in besides: whole lines
        line_end = b"\r\n" if b"\r\n" in data and name != "one_windows_line_end" else b"\n"
        kept = [line for line in data.split(b"\n") if store not in line]
        rest = iter(body.split(b"\n"))
        assert all(any(line == other for other in rest) for line in kept), "a line is gone, or moved"
        helper = body[body.index(b"def gelu(") : body.index(b"libdevice.erf")]
        assert helper.count(line_end) == helper.count(b"\n")
    # and it reads its own file again
    path.write_bytes(written)
    again = fuse(str(path), "sigmoid")
    assert again.source.count("# @generated by kernel-rewrite") == 1 + (name == "text_that_looks_like_a_header")


# ---------------------------------------------------------------------------------------------------- one after another

CHAIN = """\
import torch
import triton
import triton.language as tl


@triton.jit
def put(p, i, v, m):
    tl.store(p + i, v, mask=m)


@triton.jit
def k(a, out, other, n, HALVES: tl.constexpr, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    m = i < n
    v = tl.load(a + i, mask=m).to(tl.float32) * 3
    if HALVES:
        put(out, i, v / 2, m)
    else:
        tl.store(out + i, v, mask=m)
    put(other, i, v, m)


def launch(a, dtype, halves):
    out, other = torch.empty_like(a, dtype=dtype), torch.empty_like(a)
    k[(3,)](a, out, other, a.numel(), HALVES=halves, B=128)
    return out, other
"""
PAIRS = [
    ("relu", "sigmoid"),
    ("sigmoid", "relu6"),
    ("gelu", "gelu"),
    ("neg", "leaky_relu(0.2)"),
    ("leaky_relu(0.2)", "leaky_relu(0.5)"),
    ("abs", "sqrt"),
    ("clamp(-1, 1)", "exp"),
    ("silu", "neg"),
    ("square", "square"),
]
CALL = """
result = {}
for dtype in (torch.float32, torch.float16):
    for halves in (False, True):
        out, other = launch(torch.randn(300), dtype, halves)
        result[f"{dtype} {halves}"], result[f"other {dtype} {halves}"] = out, other
"""
GIVEN = tuple(f"torch.float{bits} {halves}" for bits in (32, 16) for halves in (False, True))


def composed(first: str, second: str) -> str:
    """`second(first)` as one epilogue."""
    name, _, arguments = second.partition("(")
    inner = first if "(" in first else f"{first}(x)"
    if "(" in first:
        name_of_first, _, rest = first.partition("(")
        inner = f"{name_of_first}(x, {rest}"
    return f"{name}({inner}, {arguments}" if arguments else f"{name}({inner})"


@pytest.fixture(scope="module")
def chains(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    runs = []
    for first, second in PAIRS:
        op = composed(first, second)
        twice = fuse(fuse(CHAIN, f"out={first}", kernel="k").source, f"out={second}", kernel="k").source
        once = fuse(CHAIN, f"out={op}", kernel="k").source
        runs += [Run(f"{op} {way}", CHAIN, text, CALL, op, GIVEN) for way, text in (("twice", twice), ("once", once))]
    return run_all(runs, tmp_path_factory.mktemp("chains"))


@pytest.mark.long
@pytest.mark.parametrize("way", ["once", "twice"])
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_fusing_twice_is_fusing_the_composition(pair: tuple[str, str], way: str, chains: dict[str, str]) -> None:
    assert chains[f"{composed(*pair)} {way}"] == ""


def test_fusing_is_deterministic() -> None:
    assert len({fuse(CHAIN, "out=gelu", kernel="k").source for _ in range(3)}) == 1


def test_the_second_header_replaces_the_first() -> None:
    once = fuse(PLAIN, "relu")
    twice = fuse(once.source, "sigmoid")
    assert twice.source.count("@generated") == 1
    assert "sigmoid" in twice.source.split("# end of header")[0]
