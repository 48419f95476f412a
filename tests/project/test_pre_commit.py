"""The real `pre-commit`, in a real git repository, with this checkout as the repository of the hooks.

`language: python` installs the hooks with pip into an environment of their own. Here pip is kept from the network: it installs
kernel-rewrite alone, and the packages that it needs are those of the environment the tests run in.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from .conftest import run, write_repository

ROOT = Path(__file__).parent.parent.parent
DOUBLE = "demo/fused/double_relu.py"


def git(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, **environment})


@pytest.fixture(scope="module")
def hooks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This checkout as it stands, as a repository of hooks."""
    folder = tmp_path_factory.mktemp("hooks")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "kernel_rewrite", folder / "kernel_rewrite", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", ".pre-commit-hooks.yaml"):
        shutil.copy(ROOT / name, folder)
    for arguments in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "hooks")):
        assert git(folder, *arguments).returncode == 0
    return folder


@pytest.mark.slow
def test_a_day_with_the_hook(hooks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pre_commit")
    repository = tmp_path / "repository"
    repository.mkdir()
    write_repository(repository)
    monkeypatch.chdir(repository)
    assert run("fuse").exit_code == 0
    revision = git(hooks, "rev-parse", "HEAD").stdout.strip()
    (repository / ".pre-commit-config.yaml").write_text(
        f"repos:\n- repo: {hooks}\n  rev: {revision}\n  hooks:\n  - id: kernel-rewrite-check\n  - id: kernel-rewrite-verify\n"
    )
    environment = {
        "PRE_COMMIT_HOME": str(tmp_path / "home"),
        "PIP_NO_DEPS": "1",
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # as pip reads it: no isolation
        "PYTHONPATH": os.pathsep.join([sysconfig.get_path("purelib"), os.environ.get("PYTHONPATH", "")]),
        "KERNEL_REWRITE_CACHE_DIR": str(tmp_path / "cache"),
    }

    def commit(message: str) -> subprocess.CompletedProcess[str]:
        git(repository, "add", "--all")
        return git(repository, "commit", "-m", message, **environment)

    assert git(repository, "init", "-q").returncode == 0
    install = [sys.executable, "-m", "pre_commit", "install", "--install-hooks", "-t", "pre-commit", "-t", "pre-push"]
    installed = subprocess.run(
        install, cwd=repository, capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert installed.returncode == 0, installed.stdout + installed.stderr

    clean = commit("a clean commit passes")
    assert clean.returncode == 0 and "Passed" in clean.stderr, clean.stdout + clean.stderr

    kernel = repository / "demo" / "double.py"
    kernel.write_text(kernel.read_text().replace("* FACTOR", "* FACTOR + 1"))
    edited = commit("an edited kernel is stopped")
    assert edited.returncode == 1, edited.stdout + edited.stderr
    for words in ("Failed", "KR604", f"--- a/{DOUBLE}", "FACTOR + 1"):
        assert words in edited.stderr, edited.stderr
    assert "FACTOR + 1" not in (repository / DOUBLE).read_text()

    assert run("check", "--fix").exit_code == 0
    mended = commit("and mended")
    assert mended.returncode == 0 and "Passed" in mended.stderr, mended.stderr

    (repository / "notes.md").write_text("no kernel\n")
    without = commit("a commit that touches no kernel")
    assert without.returncode == 0 and "Skipped" in without.stderr, without.stderr
    assert git(repository, "status", "--porcelain").stdout == ""


def test_the_hooks_are_commands_of_the_tool() -> None:
    yaml = pytest.importorskip("yaml")
    from kernel_rewrite.cli import cli

    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert [hook["id"] for hook in hooks] == ["kernel-rewrite-check", "kernel-rewrite-verify"]
    for hook in hooks:
        program, command = hook["entry"].split()[:2]
        assert program == "kernel-rewrite" and command in cli.commands
