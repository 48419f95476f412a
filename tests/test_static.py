"""`fuse` and `inspect` read the user's code and never run it: top level, decorators, defaults, constants, packages."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.fuse import fuse
from kernel_rewrite.inspection import inspect

KERNEL = """
@triton.jit
def k(a, out, n, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    m = i < n
    tl.store(out + i, tl.load(a + i, mask=m) * 2, mask=m)
"""
IMPORTS = """
import triton
import triton.language as tl
"""

# {MARK} creates the file whose absence the tests check.
MARK = 'open({path!r}, "w").close()'

TOP_LEVEL = {
    "writes_a_file": "{MARK}",
    "raises": '{MARK}\nraise RuntimeError("this module cannot be imported here")',
    "exits": "import sys\n\n{MARK}\nsys.exit(3)",
    "never_ends": "{MARK}\nwhile True:\n    pass",
    "asserts": "{MARK}\nassert False",
    "import_in_a_constant": '{MARK}\nBACKEND = __import__("os").environ["NO_SUCH_VARIABLE"]',
    "constant_from_a_call": "{MARK}\n\n\ndef choose():\n    {MARK}\n    return 1\n\n\nWIDTH = choose()",
    "class_body": "class Setup:\n    {MARK}",
    "metaclass": (
        "class Meta(type):\n    def __new__(cls, *args):\n        {MARK}\n"
        "        return super().__new__(cls, *args)\n\n\n"
        "class Setup(metaclass=Meta):\n    pass"
    ),
    "init_subclass": (
        "class Base:\n    def __init_subclass__(cls):\n        {MARK}\n\n\nclass Derived(Base):\n    pass"
    ),
    "module_getattr": "def __getattr__(name):\n    {MARK}\n    raise AttributeError(name)",
    "exec_of_text": "exec({MARK!r})",
    "decorated_function": "def now(function):\n    {MARK}\n    return function\n\n\n@now\ndef launcher():\n    pass",
    "default_of_a_function": "def touch():\n    {MARK}\n\n\ndef launcher(x=touch()):\n    pass",
    "annotation": "def touch():\n    {MARK}\n\n\ndef launcher(x: touch()):\n    pass\n\n\nWIDTH: touch() = 1",
    "comprehension": "VALUES = [{MARK_EXPRESSION} for _ in range(2)]",
    "match_statement": "match {MARK_EXPRESSION}:\n    case None:\n        pass",
    "packages_that_are_absent": "import no_such_package\nfrom another.absent.package import thing, other as something",
}


def filled(text: str, mark: Path) -> str:
    statement = MARK.format(path=str(mark))
    return (
        text.replace("{MARK_EXPRESSION}", statement).replace("{MARK!r}", repr(statement)).replace("{MARK}", statement)
    )


def check_untouched(source: str, folder: Path, mark: Path, **options: object) -> None:
    path = folder / "kernel_file.py"
    path.write_text(source)
    before = {name for name in sys.modules if "kernel_file" in name}
    fused = fuse(str(path), "relu", **options)  # type: ignore[arg-type]
    assert "tl.maximum" in fused.diff
    assert any(output.write_only for kernel in inspect(str(path)).kernels for output in kernel.outputs)
    assert not mark.exists()
    assert {name for name in sys.modules if "kernel_file" in name} == before
    assert not list(folder.rglob("__pycache__")), "something of the folder was imported"


def test_the_mark_works(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    exec(filled("{MARK}", mark))
    assert mark.exists()


@pytest.mark.parametrize("name", TOP_LEVEL)
def test_the_top_level_does_not_run(name: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    body = filled(TOP_LEVEL[name], mark)
    check_untouched(f"{IMPORTS}\n{body}\n\n{KERNEL}", tmp_path, mark)
    check_untouched(f"{IMPORTS}\n{KERNEL}\n\n{body}\n", tmp_path, mark)


def test_decorators_of_the_kernel_do_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    source = filled(
        f"""{IMPORTS}

def configs():
    {{MARK}}
    return [triton.Config({{"B": 64}}), triton.Config({{"B": 128}})]


def pruned(configs, args):
    {{MARK}}
    return configs


@triton.autotune(configs=configs(), key=["n"], prune_configs_by={{"early_config_prune": pruned}})
@triton.heuristics({{"EVEN": lambda args: {{MARK_EXPRESSION}} is None}})
@triton.jit(repr=lambda specialization: {{MARK_EXPRESSION}})
def k(a, out, n, B: tl.constexpr, EVEN: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    m = i < n
    tl.store(out + i, tl.load(a + i, mask=m) * 2, mask=m)
""",
        mark,
    )
    check_untouched(source, tmp_path, mark)


def test_defaults_and_annotations_of_the_kernel_do_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    source = filled(
        f"""{IMPORTS}

def touch():
    {{MARK}}
    return 64


@triton.jit
def k(a: touch(), out, n, B: tl.constexpr = touch()) -> touch():
    i = tl.program_id(0) * B + tl.arange(0, B)
    m = i < n
    tl.store(out + i, tl.load(a + i, mask=m) * 2, mask=m)
""",
        mark,
    )
    check_untouched(source, tmp_path, mark)


def test_the_launcher_does_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    launcher = """
def launch(a):
    {MARK}
    out = torch.empty_like(a)
    k[(triton.cdiv(a.numel(), [{MARK_EXPRESSION}, 64][1]),)](a, out, a.numel(), B=64)
    return out


launch(None)
"""
    check_untouched(filled(f"import torch\n{IMPORTS}\n{KERNEL}\n{launcher}", mark), tmp_path, mark)


def test_the_package_around_the_file_does_not_run(tmp_path: Path) -> None:
    """Neither its `__init__`, nor the modules that the helpers come from, nor `conftest` or `sitecustomize`."""
    mark = tmp_path / "mark"
    package = tmp_path / "package"
    (package / "inner").mkdir(parents=True)
    touch = filled("{MARK}\nraise ImportError('not here')\n", mark)
    for name in ("__init__.py", "inner/__init__.py", "conftest.py", "sitecustomize.py"):
        (package / name).write_text(touch)
    (package / "inner" / "helpers.py").write_text(
        f"{IMPORTS}\nSCALE = tl.constexpr(3)\n\n\n@triton.jit\ndef scaled(x):\n    return x * SCALE\n\n\n{touch}"
    )
    source = f"import absent_package\n{IMPORTS}from .inner.helpers import scaled\n" + KERNEL.replace(
        "tl.load(a + i, mask=m) * 2", "scaled(tl.load(a + i, mask=m))"
    )
    check_untouched(source, package, mark)


def test_a_module_named_like_one_of_the_tools_own_is_not_picked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files called triton.py, torch.py, libcst.py beside the source, with the working directory there."""
    mark = tmp_path / "mark"
    for name in ("triton", "torch", "libcst", "ast", "numpy", "click"):
        (tmp_path / f"{name}.py").write_text(filled("{MARK}\nraise ImportError('the wrong one')\n", mark))
    monkeypatch.chdir(tmp_path)
    check_untouched(f"{IMPORTS}\n{KERNEL}", tmp_path, mark)


@pytest.mark.parametrize(
    "body",
    [
        "{MARK}\n    return n * 2",
        "import os\n\n    {MARK}\n    return n * 2",
        '__import__("os").system("touch {PATH}")\n    return n * 2',
    ],
)
def test_constexpr_functions_cannot_reach_out(body: str, tmp_path: Path) -> None:
    """The compiler runs a `constexpr_function`, so one that does more than compute must not be lowered as it is."""
    mark = tmp_path / "mark"
    text = filled(body, mark).replace("{PATH}", str(mark))
    path = tmp_path / "kernel_file.py"
    kernel = KERNEL.replace("* 2, mask", "* double(B), mask")
    path.write_text(f"{IMPORTS}\n\n@triton.constexpr_function\ndef double(n):\n    {text}\n\n{kernel}")
    with contextlib.suppress(FusionRefused):
        fuse(str(path), "relu")
    assert not mark.exists()


def test_text_is_never_taken_for_a_path_to_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    source = filled(f"{{MARK}}\n{IMPORTS}\n{KERNEL}", mark)
    assert "tl.maximum" in fuse(dedent(source), "relu").diff
    assert not mark.exists()
