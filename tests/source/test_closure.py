"""What a kernel needs, found without running anything."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from textwrap import dedent

import pytest

from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.model import (
    Binding,
    Closure,
    Constant,
    Dtype,
    FunctionRef,
    Namespace,
    Span,
    TritonObject,
    Unresolved,
)
from kernel_rewrite.source.closure import KernelDefinition, close, kernels, unresolved
from kernel_rewrite.source.files import Project, SourceFile, read_file, source_from_text
from kernel_rewrite.source.names import callee, function_scope, module_scope, resolve

HEAD = "import triton\nimport triton.language as tl\n"
KERNEL = """
@triton.jit
def kernel(x, y, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + i, BODY, mask=i < n)
"""


def kernel_storing(body: str) -> str:
    return KERNEL.replace("BODY", body)


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))


class Tree:
    """Files in a folder, and the kernels of one of them."""

    def __init__(self, folder: Path, files: dict[str, str], main: str = "main.py") -> None:
        write(folder, files)
        self.project = Project()
        self.file = self.project.read(str(folder / main))
        self.folder = folder

    def definition(self, name: str = "kernel") -> KernelDefinition:
        return next(k for k in kernels(self.file, self.project) if k.name == name)

    def closure(self, name: str = "kernel") -> Closure:
        return close(self.definition(name), self.project)

    def bindings(self, name: str = "kernel", file: str = "") -> dict[str, Binding]:
        return dict(self.closure(name).bindings[str(self.folder / file) if file else self.file.path])

    def path(self, name: str) -> str:
        return str(self.folder / name)


def names(closure: Closure) -> list[str]:
    return [function.name for function in closure.functions]


# -------------------------------------------------------------------------------------------------------- reading files


def test_offsets_count_bytes_and_keep_line_ends() -> None:
    file = source_from_text("a = 1\r\nβ = 'é'; c = 2\n\x0cd = '\u2028'; e = 3\rf = 4\n")
    spans = [Span.of(file.path, node) for node in file.tree.body]
    assert [file.slice(span) for span in spans] == ["a = 1", "β = 'é'", "c = 2", "d = '\u2028'", "e = 3", "f = 4"]
    assert "\r\n" in file.text


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_node_is_sliced_where_ast_saw_it(end: str) -> None:
    text = end.join(["# ä", "def f(x):", "    'döc'", "    return (x +", "            'ü' ), [1]", "", "g = f"])
    file = source_from_text(text)
    for node in ast.walk(file.tree):
        if isinstance(node, ast.expr) and not isinstance(getattr(node, "ctx", None), ast.Store):
            again = ast.parse(f"({file.slice(Span.of(file.path, node))})", mode="eval").body
            assert ast.dump(again) == ast.dump(node)


def test_encodings(tmp_path: Path) -> None:
    (tmp_path / "bom.py").write_bytes(b"\xef\xbb\xbfx = '\xc3\xa9'\r\n")
    (tmp_path / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\nx = '\xe9'\n")
    bom, latin = read_file(tmp_path / "bom.py"), read_file(tmp_path / "latin.py")
    assert (bom.text, bom.encoding) == ("x = 'é'\r\n", "utf-8-sig")
    assert latin.text.endswith("x = 'é'\n") and latin.encoding == "iso-8859-1"
    assert bom.text.encode(bom.encoding) == (tmp_path / "bom.py").read_bytes()


@pytest.mark.parametrize("content", [None, b"x = '\xff'\n", b"# coding: no-such-codec\n"])
def test_an_unreadable_file_is_kr113(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.py"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FusionRefused) as refused:
        read_file(path)
    assert refused.value.diagnostics[0].code == "KR113"


def test_a_syntax_error_is_kr101_at_its_place() -> None:
    with pytest.raises(FusionRefused) as refused:
        source_from_text("x = 1\né = (2 +* 3)\n", "a.py")
    (diagnostic,) = refused.value.diagnostics
    assert diagnostic.code == "KR101"
    assert (diagnostic.labels[0].span.line, diagnostic.labels[0].span.column) == (2, len("é = (2 +".encode()))
    with pytest.raises(FusionRefused):
        source_from_text("x = '\0'")
    with pytest.raises(FusionRefused):
        source_from_text("(" * 5000 + ")" * 5000)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    tree = Tree(tmp_path, {"main.py": HEAD + "A = tl.constexpr(1)\n" + kernel_storing("A")})
    assert tree.bindings()["A"] == Constant(1, constexpr=True)
    path = tmp_path / "main.py"
    path.write_text(path.read_text().replace("constexpr(1)", "constexpr(22)"))
    tree.file = tree.project.read(str(path))
    assert tree.bindings()["A"] == Constant(22, constexpr=True)


def test_files_are_shown_the_way_the_first_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"pkg/__init__.py": "", "pkg/a.py": HEAD + "from .b import act\n" + kernel_storing("act(n)")})
    write(tmp_path, {"pkg/b.py": HEAD + "@triton.jit\ndef act(x):\n    return x\n"})
    monkeypatch.chdir(tmp_path)
    project = Project()
    (kernel,) = kernels(project.read("pkg/a.py"), project)
    assert [f.ref.file for f in close(kernel, project).functions] == [os.path.join("pkg", n) for n in ("a.py", "b.py")]


# --------------------------------------------------------------------------------------------- nothing of the user runs


def test_no_code_of_the_user_runs(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    evil = f"""
        import sys
        from pathlib import Path
        import triton
        import triton.language as tl
        Path({str(witness)!r}).write_text("ran")

        def decorate(f):
            sys.exit(3)

        SIZE = tl.constexpr(Path({str(witness)!r}).write_text("ran"))
        GOOD = tl.constexpr(3)

        @triton.jit
        def helper(x, d=Path({str(witness)!r}).write_text("ran")):
            return x + GOOD + SIZE
        """
    # straight-line code, as a module that raises when it is imported defines nothing that could be used
    main = """
        import sys
        import evil
        from evil import helper
        import triton
        import triton.language as tl

        @evil.decorate
        @triton.jit
        def kernel(y, n):
            tl.store(y + evil.GOOD, helper(n))

        sys.exit(kernel[(1,)](None, 3))
        """
    tree = Tree(tmp_path, {"evil.py": evil, "main.py": main})
    closure = tree.closure()
    assert names(closure) == ["kernel", "helper"]
    assert tree.bindings(file="evil.py")["GOOD"] == Constant(3, constexpr=True)
    assert isinstance(tree.bindings(file="evil.py")["SIZE"], Unresolved)
    assert not witness.exists()
    (tmp_path / "boom.py").write_text(dedent(evil) + "raise SystemExit(4)\n")
    project = Project()
    kernels(project.read(str(tmp_path / "boom.py")), project)
    assert not witness.exists()


# ------------------------------------------------------------------------------------------------------ finding kernels


@pytest.mark.parametrize(
    "source",
    [
        "import triton\n@triton.jit\ndef k(p): pass",
        "import triton as t\n@t.jit\ndef k(p): pass",
        "from triton import jit\n@jit\ndef k(p): pass",
        "from triton import jit as compiled\n@compiled(noinline=True)\ndef k(p): pass",
        "from triton.runtime.jit import jit\n@jit\ndef k(p): pass",
        "import triton.runtime\n@triton.runtime.jit.jit\ndef k(p): pass",
        "import triton\nimport functools\n@functools.partial(triton.jit, noinline=True)\ndef k(p): pass",
        "import triton\nmake = triton.jit\n@make\ndef k(p): pass",
        "import triton\n@triton.autotune(configs=[], key=[])\n@triton.heuristics({})\n@triton.jit\ndef k(p): pass",
        "import triton\n@libentry()\n@mine\n@triton.jit(do_not_specialize=['p'])\ndef k(p): pass",
        "import triton\ndef k(p): pass\nk = triton.jit(k)",
        "import triton\ndef k(p): pass\nk = triton.jit(do_not_specialize=['p'])(k)",
        "import triton\ndef k(p): pass\nk = triton.jit(k)\nk = triton.heuristics({})(k)",
        "import triton\ndef k(p): pass\ntuned = triton.autotune(configs=[], key=[])(triton.jit(k))",
        "try:\n    import triton\n    HAS = True\nexcept ImportError:\n    HAS = False\nif HAS:\n    @triton.jit\n    def k(p): pass",
        "from missing.triton_utils import triton\n@triton.jit\ndef k(p): pass",
        "def make():\n    import triton\n    @triton.jit\n    def k(p): pass\n    return k",
        "import triton\nclass A:\n    @staticmethod\n    @triton.jit\n    def k(p): pass",
    ],
)
def test_a_jit_function_is_found_however_it_is_spelled(source: str) -> None:
    file = source_from_text(source + "\n", "a.py")
    assert [kernel.name for kernel in kernels(file, Project())] == ["k"]


@pytest.mark.parametrize(
    "source",
    [
        "import numba as triton\n@triton.jit\ndef k(p): pass",
        "from numba import jit\n@jit\ndef k(p): pass",
        "import triton\ndef k(p): pass",
        "from triton.experimental import gluon\n@gluon.jit\ndef k(p): pass",
        "import triton\ndef jit(f): return f\n@jit\ndef k(p): pass",
        "import triton\nif False:\n    @triton.jit\n    def k(p): pass\nclass triton: jit = None\n@triton.jit\ndef z(p): pass",
    ],
)
def test_what_is_not_triton_jit_is_left_alone(source: str) -> None:
    assert "z" not in [k.name for k in kernels(source_from_text(source + "\n"), Project())]
    if "def z" not in source:
        assert kernels(source_from_text(source + "\n"), Project()) == ()


def test_the_decorator_stack_and_options_are_kept(tmp_path: Path) -> None:
    source = (
        HEAD
        + "@libentry()\n@triton.autotune([], key=['n'])\n@triton.jit(noinline=True, debug=unknown())\ndef k(p): pass\n"
    )
    tree = Tree(tmp_path, {"main.py": source})
    definition = tree.definition("k")
    assert [ast.unparse(d).partition("(")[0] for d in definition.decorators] == [
        "libentry",
        "triton.autotune",
        "triton.jit",
    ]
    assert dict(tree.closure("k").kernel.jit_options) == {"noinline": True}


ENTRIES = (
    HEAD
    + """
@triton.jit
def helper(x):
    return x + 1

@triton.jit
def writes(p, v):
    tl.store(p, v)

@triton.jit
def launched(p):
    return 1

@triton.jit
def run_only(p):
    return 1

@triton.jit
def stores(p):
    tl.store(p, helper(1))

@triton.jit
def through_helper(p):
    writes(p, 2)

@triton.jit
def accumulates(p):
    tl.atomic_add(p, 1)

@triton.jit
def descriptor(d):
    d.store([0], 1)

@triton.jit
def nothing(p):
    tl.load(p)

@triton.jit
def wrapped(p):
    return 1

def _functional(p):
    return 1
functional = triton.jit(_functional)

def host(x):
    launched[(1,)](x)
    run_only.run(x, grid=(1,), warmup=False)
    wrap_triton(wrapped)[(1,)](x)
    functional[(1,)](x)
    k = launched
    k[(2,)](x)
"""
)


def test_entries_are_what_is_launched_or_only_writes(tmp_path: Path) -> None:
    tree = Tree(tmp_path, {"main.py": ENTRIES})
    found = {kernel.name: kernel for kernel in kernels(tree.file, tree.project)}
    assert {name for name, kernel in found.items() if kernel.entry} == {
        *("launched", "run_only", "stores", "through_helper", "accumulates", "descriptor", "wrapped", "_functional")
    }
    assert len(found["launched"].launches) == 2
    assert found["_functional"].aliases == ("functional",)


# ------------------------------------------------------------------------------------------------------ names of triton


@pytest.mark.parametrize(
    ("head", "call"),
    [
        ("import triton.language as tl", "tl.load"),
        ("import triton", "triton.language.load"),
        ("from triton import language", "language.load"),
        ("from triton import language as L", "L.load"),
        ("from triton.language import load", "load"),
        ("from triton.language import load as read", "read"),
        ("from triton.language.core import load", "load"),
        ("import triton.language.core as core", "core.load"),
        ("import triton.language as tl", "tl.core.load"),
        ("import triton.language as tl\nread = tl.load", "read"),
        ("import importlib\ntl = importlib.import_module('triton.language')", "tl.load"),
        ("import triton.language as tl\nread = getattr(tl, 'load')", "read"),
        ("from triton.language import *", "load"),
        ("import triton.language as tl\nread, write = tl.load, tl.store", "read"),
    ],
)
def test_load_has_one_spelling(tmp_path: Path, head: str, call: str) -> None:
    source = f"import triton\n{head}\n@triton.jit\ndef kernel(p):\n    {call}(p)\n"
    tree = Tree(tmp_path, {"main.py": source})
    closure = tree.closure()
    node = next(n for n in ast.walk(closure.kernel.node) if isinstance(n, ast.Call))
    assert callee(node, closure.kernel, closure) == TritonObject("triton.language", "load")
    assert resolve(node.func, module_scope(tree.file, tree.project)) == TritonObject("triton.language", "load")
    assert not unresolved(closure)


def test_libdevice_keeps_its_module(tmp_path: Path) -> None:
    source = (
        HEAD + "from triton.language.extra.cuda import libdevice as ld\nfrom triton.language.extra import libdevice\n"
    )
    source += "pow = libdevice.pow\n" + kernel_storing("ld.exp(pow(n, 2)) + tl.math.rsqrt(n) + libdevice.tanh(n)")
    bindings = Tree(tmp_path, {"main.py": source}).bindings()
    assert bindings["ld"] == TritonObject("triton.language.extra.cuda.libdevice")
    assert bindings["libdevice"] == TritonObject("triton.language.extra.libdevice")
    assert bindings["pow"] == TritonObject("triton.language.extra.libdevice", "pow")  # hides the builtin


def test_triton_by_convention_is_recorded(tmp_path: Path) -> None:
    source = "from vllm.triton_utils import tl, triton\n" + kernel_storing("n")
    tree = Tree(tmp_path, {"main.py": source})
    closure = tree.closure()
    assert tree.bindings()["tl"] == TritonObject("triton.language")
    assert [(a.name, a.alternatives) for a in closure.assumed_names] == [("tl", ())]


def test_the_tables_of_triton_agree_with_the_installed_one() -> None:
    language = pytest.importorskip("triton.language")
    import importlib

    from kernel_rewrite.source import triton_names

    for part in triton_names._LANGUAGE_PARTS:
        module = importlib.import_module(part)
        for name in triton_names._LANGUAGE_NAMES:
            if hasattr(module, name) and hasattr(language, name):
                assert getattr(module, name) is getattr(language, name), (part, name)
    missing = {name for name in triton_names._LANGUAGE_NAMES if not hasattr(language, name)}
    assert missing <= triton_names._VARYING
    for name in triton_names._TRITON_NAMES:
        assert hasattr(importlib.import_module("triton"), name)


# -------------------------------------------------------------------------------------------------------------- imports


HELPER = HEAD + "ONE = tl.constexpr(1)\n@triton.jit\ndef act(x):\n    return x + ONE\n"


@pytest.mark.parametrize(
    ("files", "head", "call", "where"),
    [
        ({"pkg/a/util.py": HELPER}, "from .util import act", "act(n)", "pkg/a/util.py"),
        ({"pkg/b/util.py": HELPER}, "from ..b.util import act as f", "f(n)", "pkg/b/util.py"),
        ({"pkg/b/util.py": HELPER}, "from pkg.b.util import act", "act(n)", "pkg/b/util.py"),
        ({"pkg/b/util.py": HELPER}, "from pkg.b import util", "util.act(n)", "pkg/b/util.py"),
        ({"pkg/b/util.py": HELPER}, "import pkg.b.util", "pkg.b.util.act(n)", "pkg/b/util.py"),
        ({"pkg/b/util.py": HELPER}, "import pkg.b.util as u", "u.act.fn(n)", "pkg/b/util.py"),
        (
            {"pkg/b/util.py": HELPER, "pkg/b/__init__.py": "from .util import act"},
            "from pkg.b import act",
            "act(n)",
            "pkg/b/util.py",
        ),
        (
            {"pkg/b/util.py": HELPER, "pkg/b/__init__.py": "from .util import act as g"},
            "from .. import b",
            "b.g(n)",
            "pkg/b/util.py",
        ),
        (
            {"pkg/b/util.py": HELPER, "pkg/b/__init__.py": "from .util import *"},
            "from pkg.b import act",
            "act(n)",
            "pkg/b/util.py",
        ),
        ({"pkg/a/util.py": HELPER}, "from .util import *", "act(n)", "pkg/a/util.py"),
        ({"other.py": HELPER}, "from other import act", "act(n)", "other.py"),
        ({"src/lib/util.py": HELPER}, "from lib.util import act", "act(n)", "src/lib/util.py"),
        ({"pkg/a/beside.py": HELPER}, "from beside import act", "act(n)", "pkg/a/beside.py"),
        (
            {"pkg/a/util.py": HELPER},
            "try:\n    from fast import act\nexcept ImportError:\n    from .util import act",
            "act(n)",
            "pkg/a/util.py",
        ),
        (
            {"pkg/a/util.py": HELPER},
            "def lazy():\n    pass\nfrom .util import act\nmine = act",
            "mine(n)",
            "pkg/a/util.py",
        ),
    ],
)
def test_helpers_are_found_through_imports(
    tmp_path: Path, files: dict[str, str], head: str, call: str, where: str
) -> None:
    packages = {"pkg/__init__.py": "", "pkg/a/__init__.py": "", "pkg/b/__init__.py": ""}
    main = {"pkg/a/main.py": HEAD + head + "\n" + kernel_storing(call)}
    tree = Tree(tmp_path, {**packages, **files, **main}, "pkg/a/main.py")
    closure = tree.closure()
    assert closure.functions[1].ref == FunctionRef(tree.path(where), "act")
    assert tree.bindings(file=where)["ONE"] == Constant(1, constexpr=True)
    node = next(n for n in ast.walk(closure.kernel.node) if isinstance(n, ast.Call) and ast.unparse(n) == call)
    assert callee(node, closure.kernel, closure) == FunctionRef(tree.path(where), "act")
    assert not unresolved(closure)


def test_star_import_honours_all(tmp_path: Path) -> None:
    files = {
        "util.py": HELPER + "__all__ = ['act']\n_hidden = 1\nOTHER = tl.constexpr(5)\n",
        "main.py": HEAD + "OTHER = tl.constexpr(2)\nfrom util import *\n" + kernel_storing("act(OTHER)"),
    }
    assert Tree(tmp_path, files).bindings()["OTHER"] == Constant(2, constexpr=True)
    files["util.py"] = files["util.py"].replace("['act']", "['act'] + ['OTHER']")
    assert Tree(tmp_path, files).bindings()["OTHER"] == Constant(5, constexpr=True)


def test_import_cycles_end(tmp_path: Path) -> None:
    files = {
        "a.py": HEAD + "from b import *\nfrom b import X\nX = X\n" + kernel_storing("X + Y"),
        "b.py": "from a import *\nfrom a import X\nY = Y0\nY0 = Y\n",
    }
    assert {name for _, name, _ in unresolved(Tree(tmp_path, files, "a.py").closure())} == {"X", "Y"}


def test_libraries_are_never_read(tmp_path: Path) -> None:
    poison = {name: "def (:\n" for name in ("torch.py", "triton.py", "numpy.py", "math.py")}
    source = (
        HEAD + "import torch, math\nfrom third_party import thing\n" + kernel_storing("thing(math.pi) + torch.ones")
    )
    tree = Tree(tmp_path, {**poison, "main.py": source})
    reasons = {name: reason for _, name, reason in unresolved(tree.closure())}
    assert reasons == {
        "thing": "it comes from `third_party`, which is not part of this repository",
        "torch.ones": "it comes from `torch`, which is not part of this repository",
    }
    math_names = tree.bindings()["math"]
    assert isinstance(math_names, Namespace) and isinstance(math_names.members["pi"], Constant)


def test_a_broken_module_is_a_reason_and_not_a_crash(tmp_path: Path) -> None:
    tree = Tree(tmp_path, {"bad.py": "def (:\n", "main.py": HEAD + "from bad import act\n" + kernel_storing("act(n)")})
    ((_, name, reason),) = unresolved(tree.closure())
    assert name == "act" and "not valid Python" in reason


# ------------------------------------------------------------------------------------------------------------ constants


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("X = tl.constexpr(3)", Constant(3, constexpr=True)),
        ("X = 3", Constant(3)),
        ("X: tl.constexpr = 3", Constant(3)),  # Triton sees a plain int, and rejects it
        ("X: tl.constexpr = tl.constexpr(3)", Constant(3, constexpr=True)),
        ("X = 1\nX = 2", Constant(2)),
        ("X = 1\nX += 4", Constant(5)),
        ("A = 1\nX = A\nA = 2", Constant(1)),
        ("A, (X, B) = 1, (2, 3)", Constant(2)),
        ("T = (4, 5)\nA, X = T", Constant(5)),
        ("X = Y = 7", Constant(7)),
        ("X = None", Constant(None)),
        ("X = tl.constexpr('tf32')", Constant("tf32", constexpr=True)),
        ("X = tl.float16", TritonObject("triton.language", "float16")),
        ("import torch\nX = torch.float16", Constant(Dtype("float16"))),
        ("from math import pi as X", Constant(3.141592653589793)),
        ("X = float('-inf')", Constant(float("-inf"))),
        ("X = tl.constexpr(triton.next_power_of_2(33))", Constant(64, constexpr=True)),
        ("if True:\n    X = 1\nelse:\n    X = 2", Constant(1)),
        ("FLAG = False\nif FLAG:\n    X = 1\nelse:\n    X = 2", Constant(2)),
        ("from typing import TYPE_CHECKING\nX = 2\nif TYPE_CHECKING:\n    X = 1", Constant(2)),
        ("if __name__ == '__main__':\n    X = 1\nelse:\n    X = 2", Constant(2)),
        ("try:\n    import triton.language as t\n    X = 1\nexcept ImportError:\n    X = 2", Constant(1)),
        ("X = 1\ndef f():\n    X = 2", Constant(1)),
        ("X = 1\nclass C:\n    X = 2", Constant(1)),
    ],
)
def test_constants(tmp_path: Path, head: str, expected: Binding) -> None:
    tree = Tree(tmp_path, {"main.py": HEAD + head + "\n" + kernel_storing("X")})
    assert tree.bindings()["X"] == expected
    assert tree.closure().assumed_names == ()


@pytest.mark.parametrize(
    ("head", "expected", "alternatives"),
    [
        ("if unknown():\n    X = 1\nelse:\n    X = 2", 1, [2]),
        ("X = 1\nif unknown():\n    X = 2", 2, [1]),
        ("if is_hip():\n    X = 1\nelse:\n    X = 2", 2, [1]),
        ("import torch\nif torch.version.hip is not None:\n    X = 1\nelse:\n    X = 2", 2, [1]),
        ("import torch\nif not torch.cuda.is_available():\n    X = 1\nelse:\n    X = 2", 2, [1]),
        ("import os\nif os.environ.get('FAST', '0') == '1':\n    X = 1\nelse:\n    X = 2", 2, [1]),
        ("import os\nX = tl.constexpr(int(os.getenv('SIZE', '8')))", 8, []),
        ("def is_hip():\n    return unknown()\nX = tl.constexpr(is_hip())", False, []),
        ("X = 1 if unknown() else 2", 1, [2]),
        ("X = tl.constexpr(hasattr(tl, 'load'))", True, []),
        ("from packaging import version\nX = version.parse(triton.__version__) >= version.parse('3.0.0')", True, []),
        ("try:\n    import fancy\n    X = 1\nexcept ImportError:\n    X = 2", 1, [2]),
    ],
)
def test_what_only_a_run_decides_is_recorded(
    tmp_path: Path, head: str, expected: object, alternatives: list[object]
) -> None:
    closure = (tree := Tree(tmp_path, {"main.py": HEAD + head + "\n" + kernel_storing("X")})).closure()
    binding = tree.bindings()["X"]
    assert isinstance(binding, Constant) and binding.value == expected
    assert closure.assumed_names
    assert [
        a.value for note in closure.assumed_names for a in note.alternatives if isinstance(a, Constant)
    ] == alternatives


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        ("X = compute()", "would have to be run"),
        ("for X in range(3):\n    pass", "loop"),
        ("X = 1\nfor i in range(3):\n    X = X * 2", "loop"),
        ("with open('f') as X:\n    pass", "with"),
        ("class X:\n    pass", "is a class"),
        ("def X():\n    pass", "plain Python function"),
        ("import functools\n@functools.cache\ndef X():\n    pass", "functools.cache"),
        ("X = 1\ndef set_x():\n    global X\n    X = 2", "global"),
        ("from somewhere import *", "somewhere"),
        ("try:\n    from fancy import X\nexcept ImportError:\n    X = None", "fancy"),
        ("", "nothing defines it"),
        ("X = 1\ndel X", "nothing defines it"),
        ("X = Y\nY = 1", "not defined"),
        ("from . import missing as X", "no module"),
    ],
)
def test_what_is_unresolved_says_why(tmp_path: Path, head: str, reason: str) -> None:
    tree = Tree(tmp_path, {"main.py": HEAD + head + "\n" + kernel_storing("X")})
    ((span, name, found),) = unresolved(tree.closure())
    assert name == "X" and reason in found, found
    assert tree.file.slice(span) == "X"
    assert isinstance(tree.bindings()["X"], Unresolved)


def test_cuda_branch_comes_first_for_functions(tmp_path: Path) -> None:
    source = (
        HEAD
        + """
if is_hip():
    @triton.jit
    def act(x):
        return x - 1
elif hasattr(tl, "no_such_thing"):
    act = tl.no_such_thing
else:
    @triton.jit
    def act(x):
        return x + 1
"""
    )
    closure = Tree(tmp_path, {"main.py": source + kernel_storing("act(n)")}).closure()
    assert ast.unparse(closure.functions[1].node.body[0]) == "return x + 1"
    assert len(closure.assumed_names) == 1


# -------------------------------------------------------------------------------------------------- what a kernel reads


def test_defaults_and_evaluated_annotations_are_read(tmp_path: Path) -> None:
    source = """
        import torch
        from typing import Any
        import triton, triton.language as tl
        SIZE = 16
        @triton.jit
        def act(x): return x
        @triton.jit
        def kernel(p: Any, q: torch.Tensor, r: torch.Tensor = None, f: Any = None, B: tl.constexpr = SIZE, A: tl.constexpr = act) -> Any:
            tl.store(p, A(B))
        """
    tree = Tree(tmp_path, {"main.py": source})
    closure = tree.closure()
    assert names(closure) == ["kernel", "act"]
    assert tree.bindings()["SIZE"] == Constant(16)
    assert tree.bindings()["torch"] == Namespace("torch", {"Tensor": Constant("torch.Tensor")})
    assert unresolved(closure) == ()


def test_functions_given_at_launch_are_part_of_the_closure(tmp_path: Path) -> None:
    source = HEAD + "@triton.jit\ndef gelu(x):\n    return x\n@triton.jit\ndef relu(x):\n    return gelu(x)\n"
    source += "@triton.jit\ndef kernel(p, ACT: tl.constexpr):\n    tl.store(p, ACT(1))\n"
    source += "def host(x, fast):\n    act = relu\n    kernel[(1,)](x, ACT=act if fast else None)\n"
    assert names(Tree(tmp_path, {"main.py": source}).closure()) == ["kernel", "relu", "gelu"]


def test_functions_handed_on_are_part_of_the_closure(tmp_path: Path) -> None:
    source = HEAD + "@triton.jit\ndef add(a, b):\n    return a + b\n" + kernel_storing("tl.reduce(i, 0, add)")
    assert names(Tree(tmp_path, {"main.py": source}).closure()) == ["kernel", "add"]


def test_locals_hide_globals(tmp_path: Path) -> None:
    source = (
        HEAD
        + """
from somewhere import n, j, k, m, late, w
@triton.jit
def act(x): return x
@triton.jit
def kernel(p, n, act):
    for j in range(n):
        k, m = j, 1
        act(k + m)
    early = late
    late = 2
    w = w + 1
    tl.store(p, [q for q in (1, 2)])
    print(early, late)
"""
    )
    tree = Tree(tmp_path, {"main.py": source})
    closure = tree.closure()
    assert names(closure) == ["kernel"]
    assert {name for _, name, _ in unresolved(closure)} == {"late", "w"}  # Triton reads the global first
    calls = [node for node in ast.walk(closure.kernel.node) if isinstance(node, ast.Call)]
    assert callee(next(c for c in calls if ast.unparse(c.func) == "act"), closure.kernel, closure) is None


def test_a_local_hides_the_global_that_another_function_uses(tmp_path: Path) -> None:
    source = (
        HEAD
        + """
@triton.jit
def act(x): return x
@triton.jit
def other(x): return act(x)
@triton.jit
def kernel(p, act):
    tl.store(p, act(other(1)))
"""
    )
    closure = Tree(tmp_path, {"main.py": source}).closure()
    kernel, other = closure.functions[:2]
    (in_other,) = (node for node in ast.walk(other.node) if isinstance(node, ast.Call))
    assert callee(in_other, other, closure) == FunctionRef(other.ref.file, "act")
    (in_kernel,) = (n for n in ast.walk(kernel.node) if isinstance(n, ast.Call) and ast.unparse(n.func) == "act")
    assert callee(in_kernel, kernel, closure) is None


def test_annotations_that_triton_never_evaluates_are_not_unresolved(tmp_path: Path) -> None:
    source = HEAD + "Kind = compute()\n@triton.jit\ndef kernel(p: Kind, q: Kind = None) -> Kind:\n    tl.store(p, 1)\n"
    tree = Tree(tmp_path, {"main.py": source})
    places = unresolved(tree.closure())
    assert [tree.file.text.splitlines()[span.line - 1][: span.column].count("Kind") for span, _, _ in places] == [1]


def test_two_functions_of_one_name_are_refused(tmp_path: Path) -> None:
    source = (
        HEAD + "@triton.jit\ndef act(x):\n    return x\nfirst = act\n@triton.jit\ndef act(x):\n    return first(x)\n"
    )
    with pytest.raises(FusionRefused) as refused:
        Tree(tmp_path, {"main.py": source + kernel_storing("act(n)")}).closure()
    (diagnostic,) = refused.value.diagnostics
    assert diagnostic.code == "KR104" and len(diagnostic.labels) == 2


def test_builtins_need_no_binding(tmp_path: Path) -> None:
    tree = Tree(tmp_path, {"main.py": HEAD + kernel_storing("min(len(i), max(1, 2), float(3), range(2))")})
    assert set(tree.bindings()) == {"tl"}


def test_nested_kernels_see_the_factory(tmp_path: Path) -> None:
    source = (
        HEAD
        + """
SCALE = tl.constexpr(1)
def make(width):
    SCALE = tl.constexpr(2)
    offset: tl.constexpr = tl.constexpr(3)
    @triton.jit
    def act(x):
        return x * SCALE
    @triton.jit
    def kernel(p):
        tl.store(p + offset, act(width))
    return kernel
"""
    )
    tree = Tree(tmp_path, {"main.py": source})
    closure = tree.closure()
    assert names(closure) == ["kernel", "act"]
    assert (closure.kernel.nesting, tree.bindings()["SCALE"]) == (4, Constant(2, constexpr=True))
    ((_, name, reason),) = unresolved(closure)
    assert name == "width" and "parameter of `make`" in reason


def test_one_name_with_two_meanings_is_refused(tmp_path: Path) -> None:
    source = (
        HEAD
        + """
SCALE = tl.constexpr(1)
@triton.jit
def outer(x):
    return x * SCALE
def make():
    SCALE = tl.constexpr(2)
    @triton.jit
    def kernel(p):
        tl.store(p, outer(SCALE))
"""
    )
    with pytest.raises(FusionRefused) as refused:
        Tree(tmp_path, {"main.py": source}).closure()
    assert refused.value.diagnostics[0].code == "KR104"


def test_recursion_and_mutual_calls_end(tmp_path: Path) -> None:
    source = HEAD + "@triton.jit\ndef a(x):\n    return b(x)\n@triton.jit\ndef b(x):\n    return a(x) + b(x)\n"
    assert names(Tree(tmp_path, {"main.py": source + kernel_storing("a(n)")}).closure()) == ["kernel", "a", "b"]


@pytest.mark.parametrize("decorator", ["triton.constexpr_function", "tl.constexpr"])
@pytest.mark.parametrize(
    ("body", "plain"),
    [
        ("return x * 2 if x > WIDTH else max(x, 1)", True),
        ("if x.is_fp16():\n        return tl.float32\n    return tl.core.get_int_dtype(32, True)", True),
        ("return open('f').read()", False),
        ("return x.__class__", False),
        ("return [y for y in x]", False),
        ("return x.run()", False),
        ("return double(x)", True),
        ("return host(x)", False),
        ("import os\n    return 1", False),
        ("while True:\n        pass", False),
    ],
)
def test_constexpr_functions_are_kept_when_they_are_arithmetic(
    tmp_path: Path, decorator: str, body: str, plain: bool
) -> None:
    source = (
        HEAD
        + f"WIDTH = 4\ndef double(x):\n    return x * WIDTH\ndef host(x):\n    return x.run()\n@{decorator}\ndef pick(x):\n    {body}\n"
    )
    closure = Tree(tmp_path, {"main.py": source + kernel_storing("pick(BLOCK)")}).closure()
    assert (names(closure)[:2] == ["kernel", "pick"]) is plain
    assert (unresolved(closure) == ()) is plain
    if plain:
        assert all(function.constexpr_function for function in closure.functions[1:])
        assert ("double" in names(closure)) is ("double" in body)


def test_namespaces_list_the_members_in_use(tmp_path: Path) -> None:
    files = {
        "conf/__init__.py": "A = 1\nB = 2\n",
        "conf/deep.py": HEAD + "C = tl.constexpr(3)\n",
        "main.py": HEAD
        + "import conf\nimport conf.deep\n"
        + kernel_storing("conf.A + conf.deep.C.value + conf.missing"),
    }
    tree = Tree(tmp_path, files)
    conf = tree.bindings()["conf"]
    assert isinstance(conf, Namespace) and set(conf.members) == {"A", "deep", "missing"}
    assert conf.members["A"] == Constant(1)
    assert conf.members["deep"] == Namespace("conf.deep", {"C": Constant(3, constexpr=True)})
    assert [name for _, name, _ in unresolved(tree.closure())] == ["conf.missing"]


def test_values_of_a_launcher_fold_in_its_scope(tmp_path: Path) -> None:
    source = HEAD + "W = 2\ndef host(x):\n    BLOCK = W * 512\n    return BLOCK\n"
    tree = Tree(tmp_path, {"main.py": source})
    (node,) = (n for n in tree.file.tree.body if isinstance(n, ast.FunctionDef))
    scope = function_scope(node, tree.file, tree.project)
    assert resolve(ast.Name("BLOCK"), scope) == Constant(1024)
    assert isinstance(resolve(ast.Name("x"), scope), Unresolved)


def test_text_without_a_file_closes_too() -> None:
    file: SourceFile = source_from_text(HEAD + "from .near import act\n" + kernel_storing("act(n)"))
    project = Project()
    (kernel,) = kernels(file, project)
    assert [name for _, name, _ in unresolved(close(kernel, project))] == ["act"]


FAST = "import os\nimport triton.language.extra.libdevice as ld\n"


@pytest.mark.parametrize(
    ("head", "harmless"),
    [
        (FAST + "if os.environ.get('FAST'):\n    f = ld.fast_expf\nelse:\n    f = tl.exp", True),
        (FAST + "f = ld.fast_expf if os.environ.get('FAST') else tl.exp", True),
        (
            FAST + "def choose():\n    return ld.fast_expf if os.environ.get('FAST') == '1' else tl.exp\nf = choose()",
            True,
        ),
        (
            FAST + "if os.environ.get('FAST'):\n    @triton.jit\n    def f(x): return ld.fast_expf(x.to(tl.float32))\n"
            "else:\n    @triton.jit\n    def f(x):\n        'e to the x'\n        return tl.exp(x)",
            True,
        ),
        # one of these may touch memory, or decide something
        (FAST + "if os.environ.get('FAST'):\n    f = tl.load\nelse:\n    f = tl.exp", False),
        (
            FAST + "if os.environ.get('FAST'):\n    @triton.jit\n    def f(x): return tl.exp(x)\n"
            "else:\n    @triton.jit\n    def f(x):\n        tl.store(x, 1)\n        return x",
            False,
        ),
        (
            FAST + "if os.environ.get('FAST'):\n    @triton.jit\n    def f(x): return tl.exp(x)\n"
            "else:\n    @triton.jit\n    def f(x): return tl.exp(tl.load(x))",
            False,
        ),
        (FAST + "if os.environ.get('FAST'):\n    f = ld.fast_expf\nelse:\n    f = None", False),
    ],
)
def test_a_choice_between_functions_of_numbers_is_harmless(tmp_path: Path, head: str, harmless: bool) -> None:
    closure = Tree(tmp_path, {"main.py": HEAD + head + "\n" + kernel_storing("f(n)")}).closure()
    assert not [name for name in closure.bindings if isinstance(name, Unresolved)]
    assert all(note.harmless for note in closure.assumed_names) is harmless


def test_what_a_constant_is_chosen_from_is_not_harmless(tmp_path: Path) -> None:
    head = "import os\nif os.environ.get('FAST'):\n    X = 1\nelse:\n    X = 2\n"
    closure = Tree(tmp_path, {"main.py": HEAD + head + kernel_storing("X")}).closure()
    assert [note.harmless for note in closure.assumed_names] == [False]


def test_a_helper_that_is_defined_twice_is_no_entry(tmp_path: Path) -> None:
    put = "    @triton.jit\n    def put(p, v):\n        tl.store(p, v)\n"
    source = (
        f"{HEAD}import torch\nif torch.version.hip:\n{put}else:\n{put}\n@triton.jit\ndef kernel(p):\n    put(p, 1.0)\n"
    )
    tree = Tree(tmp_path, {"main.py": source})
    assert [k.name for k in kernels(tree.file, tree.project) if k.entry] == ["kernel"]


def test_a_constant_asked_for_its_bits(tmp_path: Path) -> None:
    head = "SIZE = tl.constexpr(128)\nX = tl.constexpr(SIZE.value.bit_length() - 1)\n"
    assert Tree(tmp_path, {"main.py": HEAD + head + kernel_storing("X")}).bindings()["X"] == Constant(7, True)


def test_names_that_no_supported_triton_has_are_not_taken(tmp_path: Path) -> None:
    head = (
        "if hasattr(tl, '_experimental_make_tensor_descriptor'):\n    f = tl._experimental_make_tensor_descriptor\n"
        "elif hasattr(tl, 'make_tensor_descriptor'):\n    f = tl.make_tensor_descriptor\nelse:\n    f = None\n"
    )
    bindings = Tree(tmp_path, {"main.py": HEAD + head + kernel_storing("f(n)")}).bindings()
    assert bindings["f"] == TritonObject("triton.language", "make_tensor_descriptor")


NESTED = """
import triton
import triton.language as tl

def make():
    @triton.jit
    def scale(x):
        tl.store(x, 1.0)
    return scale

{elsewhere}
"""

ELSEWHERE = {
    "a function of the same name": ("def scale(x):\n    return x\n\ndef host(x):\n    return scale(x)", 0),
    "the kernel handed out": ("scale = make()\n\n@triton.jit\ndef outer(x):\n    scale(x)", 1),
    "a function that another binding replaces": (
        "def scale(x):\n    return x\n\nscale = make()\n\n@triton.jit\ndef outer(x):\n    scale(x)",
        1,
    ),
    "all names of a module": ("def scale(x):\n    return x\n\nfrom m import *\n\ndef host(x):\n    scale(x)", 1),
    "nothing of the name": ("@triton.jit\ndef outer(x):\n    scale(x)", 1),
}


@pytest.mark.parametrize(("elsewhere", "calls"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_a_call_of_another_function_of_the_same_name_is_no_call_of_the_kernel(elsewhere: str, calls: int) -> None:
    project = Project((source_from_text(NESTED.format(elsewhere=elsewhere), "f.py"),))
    (kernel,) = (k for k in kernels(project.files()[0], project) if k.name == "scale")
    assert len(kernel.calls_as_helper) == calls
