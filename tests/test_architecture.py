"""Imports run one way, without a cycle, and what is heavy stays where it is needed. Function-local imports count."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import kernel_rewrite

PACKAGE = Path(kernel_rewrite.__file__).parent
NOUNS = {"model", "diagnostics"}

MAY_IMPORT: dict[str, set[str]] = {
    "model": set(),
    "diagnostics": {"model"},
    "arguments": set(),
    "source": NOUNS,
    "ttir": NOUNS,
    "pointwise": NOUNS,
    "request": NOUNS | {"pointwise"},
    "results": NOUNS,
    "functions": NOUNS | {"arguments", "source", "pointwise", "epilogue_kernels"},
    "epilogue_kernels": NOUNS | {"arguments", "source", "pointwise"},
    "epilogue_kernel_proof": NOUNS
    | {"source", "ttir", "pointwise", "request", "analysis", "alone", "epilogue_kernels"},
    "analysis": NOUNS | {"source", "ttir"},
    "alone": NOUNS | {"source", "ttir", "pointwise", "analysis"},
    "called": NOUNS | {"source", "ttir", "pointwise", "request", "analysis", "alone", "epilogue_kernels"},
    "probes": NOUNS | {"source", "ttir", "analysis"},
    "retyped": NOUNS | {"source", "pointwise", "request", "analysis", "probes"},
    "checks": NOUNS
    | {"source", "ttir", "pointwise", "request", "analysis", "called", "probes", "retyped", "epilogue_kernel_proof"},
    "input_checks": NOUNS | {"source", "pointwise", "request", "analysis", "retyped", "checks"},
    "repeated": NOUNS | {"source", "ttir", "pointwise", "request", "analysis"},
    "rewrite": NOUNS
    | {"", "arguments", "source", "ttir", "pointwise", "request", "analysis", "alone", "called", "probes", "retyped"}
    | {"epilogue_kernels"},
    "vouched": NOUNS | {"source", "request", "analysis", "checks", "input_checks"},
    "selection": NOUNS
    | {"arguments", "source", "pointwise", "request", "analysis", "retyped", "checks", "vouched", "epilogue_kernels"},
    "fused": NOUNS
    | {"", "arguments", "source", "pointwise", "request", "results", "analysis", "retyped", "checks", "rewrite"}
    | {"input_checks"},
    "fuse": NOUNS
    | {"source", "ttir", "pointwise", "request", "results", "analysis", "probes", "rewrite", "checks", "selection"}
    | {"vouched", "fused", "functions", "repeated"},
    "inspection": NOUNS
    | {"source", "ttir", "request", "results", "analysis", "retyped", "checks", "input_checks", "vouched", "selection"},
    "verify": NOUNS | {"", "arguments", "source", "pointwise", "request", "rewrite", "inspection", "epilogue_kernels"},
    "bench": NOUNS
    | {
        "",
        "arguments",
        "source",
        "ttir",
        "analysis",
        "selection",
        "request",
        "results",
        "pointwise",
        "retyped",
        "rewrite",
        "verify",
    },
    "project": NOUNS
    | {"", "arguments", "results", "rewrite", "source", "pointwise", "ttir", "cache", "fuse", "functions"},
    "cache": NOUNS | {"", "source", "results"},
    "cli": NOUNS
    | {"", "arguments", "source", "ttir", "pointwise", "results", "cache", "fuse", "inspection", "verify", "bench"}
    | {"project", "functions", "selection"},
    "__main__": {"cli"},
    "": set(),
}
"""The floors of the house: each folder or module of the package, and what it may stand on. "" is the package itself."""

MAY_IMPORT_HEAVY: dict[str, set[str]] = {
    "triton": {"ttir.worker", "ttir.machine_code", "pointwise.interpreter", "verify", "bench.runner"},
    "torch": {"verify", "bench", "pointwise.torch_side", "pointwise.tracing"},
    "numpy": {"verify", "pointwise.interpreter"},
    "matplotlib": {"bench.plot"},
    "libcst": {"source.expressions", "rewrite.epilogue"},
    "rich": {"cli", "verify.progress"},
    "click": {"cli"},
}
"""Third-party package -> the modules (or folders) that may import it. triton: processes of their own, and the interpreter
that `verify` runs kernels in. torch: evaluation of an op."""


def modules() -> dict[str, Path]:
    """Every module by its dotted name inside the package; "" is the package."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


MODULES = modules()


@functools.cache
def imports(path: Path) -> tuple[str, ...]:
    """The dotted names that a module imports when it runs, wherever in it; `if TYPE_CHECKING:` does not run."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        waiting += ast.iter_child_nodes(node)


def inner_imports(name: str) -> set[str]:
    """The modules of the package that module `name` imports."""
    found = set()
    for target in imports(MODULES[name]):
        package, _, inner = target.partition(".")
        if package != "kernel_rewrite":
            continue
        while inner not in MODULES:
            inner = inner.rpartition(".")[0]
        found.add(inner)
    return found


def floor(name: str) -> str:
    return name.split(".")[0]


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_run_one_way(name: str) -> None:
    wrong = {target for target in inner_imports(name) if floor(target) not in MAY_IMPORT[floor(name)] | {floor(name)}}
    assert not wrong, f"{name or 'the package'} may not import {sorted(wrong)}"


def test_no_import_cycle() -> None:
    graph = {name: inner_imports(name) - {name} for name in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def test_every_floor_exists() -> None:
    assert {floor(name) for name in MODULES} == set(MAY_IMPORT)


@pytest.mark.parametrize("package", MAY_IMPORT_HEAVY)
def test_heavy_packages_are_imported_where_they_are_needed(package: str) -> None:
    users = {name for name in MODULES if any(target.split(".")[0] == package for target in imports(MODULES[name]))}
    assert users, f"nothing imports {package}"
    allowed = MAY_IMPORT_HEAVY[package]
    wrong = {name for name in users if name not in allowed and floor(name) not in allowed}
    assert not wrong, f"{sorted(wrong)} may not import {package}"


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import kernel_rewrite", ["libcst", "triton", "torch", "rich", "numpy", "click"]),
        ("import kernel_rewrite.cli", ["libcst", "triton", "torch", "rich", "numpy"]),
        ("import kernel_rewrite.fuse, kernel_rewrite.inspection", ["triton", "torch", "rich", "numpy"]),
        ("from kernel_rewrite.verify import verify", ["triton", "torch", "libcst", "rich", "numpy"]),
    ],
)
def test_what_an_import_loads(statement: str, absent: list[str]) -> None:
    code = f"import sys; {statement}; print(*sorted(set(sys.modules) & set({absent!r})))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert loaded == []


def test_public_names_stay_what_they_are() -> None:
    """A submodule of the same name would take the place of a public function once it is imported."""
    code = (
        "import kernel_rewrite, kernel_rewrite.cli, kernel_rewrite.inspection, types\n"
        "for name in kernel_rewrite.__all__ * 2:\n"
        "    assert not isinstance(getattr(kernel_rewrite, name), types.ModuleType), name\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_fusing_loads_neither_triton_nor_torch(tmp_path: Path) -> None:
    """Triton runs in a process of its own, and no code of the user is run at all."""
    (tmp_path / "scale.py").write_text(
        "import triton\n"
        "import triton.language as tl\n"
        "open('this file was run', 'w')\n"
        "@triton.jit\n"
        "def scale_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):\n"
        "    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)\n"
        "    x = tl.load(x_ptr + offsets, mask=offsets < n)\n"
        "    tl.store(out_ptr + offsets, x * 2.0, mask=offsets < n)\n"
    )
    code = (
        "import sys, kernel_rewrite\n"
        "fused = kernel_rewrite.fuse('scale.py', 'gelu')\n"
        "assert 'gelu(' in fused.diff\n"
        "print(*sorted(set(sys.modules) & {'triton', 'torch', 'rich', 'numpy'}))\n"
    )
    package_root = str(PACKAGE.parent)
    code = f"import sys; sys.path.insert(0, {package_root!r})\n{code}"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []
    assert [path.name for path in tmp_path.iterdir()] == ["scale.py"]
