"""A small repository, with kernels and a fusion of each of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kernel_rewrite.cli import cli

KERNEL = """\
import torch
import triton
import triton.language as tl
from .helpers import FACTOR, put


@triton.jit
def {name}_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    put(out_ptr + i, tl.load(x_ptr + i, mask=i < n) * FACTOR, i < n)


def {name}(x):
    out = torch.empty_like(x)
    {name}_kernel[(triton.cdiv(x.numel(), 128),)](x, out, x.numel(), BLOCK=128)
    return out


def unrelated(x):
    return x + 1
"""
HELPERS = """\
import triton
import triton.language as tl

FACTOR = tl.constexpr(2.0)


@triton.jit
def put(pointer, value, mask):
    tl.store(pointer, value, mask=mask)


def unrelated(x):
    return x - 1
"""
CONFIGURATION = """\
[project]
name = "demo"

[[tool.kernel-rewrite.fusion]]
source = "demo/double.py"
output = "demo/fused/double_relu.py"
epilogues = { out_ptr = "relu" }

[[tool.kernel-rewrite.fusion]]
source = "demo/triple.py"
kernel = "triple_kernel"
output = "demo/fused/triple_gelu.py"
epilogues = ["gelu(approximate='tanh')"]
numerics = "fused"
assume = ["fully-written"]
set = { BLOCK = 128 }
dtype = { out_ptr = "fp16" }
calls = ["triple(randn(100))"]
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_repository(tmp_path)
    return tmp_path


def write_repository(folder: Path) -> None:
    (folder / "demo" / "fused").mkdir(parents=True)
    for name in ("double", "triple"):
        (folder / "demo" / f"{name}.py").write_text(KERNEL.format(name=name))
    for name in ("__init__.py", "fused/__init__.py"):
        (folder / "demo" / name).touch()
    (folder / "demo" / "helpers.py").write_text(HELPERS)
    (folder / "pyproject.toml").write_text(CONFIGURATION)


def run(*arguments: str, stdin: bytes | None = None) -> Result:
    """The command in this process, with one job unless it says otherwise."""
    if arguments[0] in ("fuse", "check") and "--jobs" not in arguments:
        arguments += ("--jobs", "1")
    result = CliRunner().invoke(cli, arguments, input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def edit(repository: Path) -> Callable[[str, str, str], None]:
    def change(file: str, old: str, new: str) -> None:
        path = repository / file
        text = path.read_text()
        assert old in text, (file, old)
        path.write_text(text.replace(old, new))

    return change
