"""The wheel: what is in it, and that an environment with nothing but it and its dependencies can work."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import kernel_rewrite
from kernel_rewrite.diagnostics import CODES

ROOT = Path(__file__).parent.parent.parent
DEPENDENCIES = ("click", "libcst", "rich", "triton")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "kernel_rewrite", folder / "kernel_rewrite", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        "dist",
        ".",
    ]
    built = subprocess.run(build, cwd=folder, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (found,) = (folder / "dist").glob("*.whl")
    return found


def test_what_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(n for n in names if n.endswith("METADATA"))).decode()
    sources = {str(p.relative_to(ROOT)) for p in (ROOT / "kernel_rewrite").rglob("*.py")}
    assert sources <= names and "kernel_rewrite/py.typed" in names and "kernel_rewrite/schemas/output-1.json" in names
    assert {f"kernel_rewrite/explanations/{code}.md" for code in CODES} <= names
    assert not [n for n in names if n.startswith(("tests", "fixtures", "benchmarks"))]
    assert f"\nVersion: {kernel_rewrite.__version__}\n" in metadata and "Typing :: Typed" in metadata
    for name in (*DEPENDENCIES, "tomli"):
        assert re.search(rf"^Requires-Dist: {name}\b(?!.*extra)", metadata, re.MULTILINE), name


@pytest.mark.slow
def test_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """pip installs the wheel; its dependencies, and theirs alone, are linked from here instead of being downloaded."""
    venv.create(tmp_path / "venv", with_pip=True, symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["KERNEL_REWRITE_CACHE_DIR"] = str(tmp_path / "cache")
    install = [python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel]
    assert subprocess.run(install, env=environment).returncode == 0
    site = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
    _link_dependencies(site)
    shutil.copy(ROOT / "fixtures" / "matmul.py", tmp_path)

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = tmp_path / "venv" / "bin" / "kernel-rewrite"
        return subprocess.run([program, *arguments], cwd=tmp_path, capture_output=True, text=True, env=environment)

    assert command("--version").stdout == f"kernel-rewrite, version {kernel_rewrite.__version__}\n"
    fused = command("fuse", "matmul.py", "--epilogue", "relu")
    assert fused.returncode == 0 and "wrote matmul_relu.py" in fused.stderr, fused.stderr
    assert command("check", "matmul_relu.py").returncode == 0
    assert "write-only" in command("inspect", "matmul.py").stdout
    assert command("explain", "KR201").returncode == 0 and command("ops").returncode == 0
    absent = "import importlib.util as u; print([n for n in ('torch', 'numpy', 'pytest') if u.find_spec(n)])"
    told = subprocess.run([python, "-c", absent], capture_output=True, text=True, env=environment)
    assert told.stdout == "[]\n", "the environment is not as empty as it should be"


def _link_dependencies(site: Path) -> None:
    """Links every file of the dependencies' distributions, and of theirs, into `site`."""
    from importlib.metadata import distribution

    waiting, seen = list(DEPENDENCIES), set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        found = distribution(name)
        needed = [Requirement(text) for text in found.requires or ()]
        waiting += [r.name for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
        for top in {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}:
            place = Path(str(found.locate_file(top)))
            if place.exists() and not (site / top).exists():
                (site / top).symlink_to(place)


def test_versions_agree() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert f"## {kernel_rewrite.__version__}\n" in changes
