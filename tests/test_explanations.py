"""Every page of `kernel_rewrite/explanations` is true: its example is run and must print exactly what the page shows.

`pytest tests/test_explanations.py --accept` writes what is printed into the pages; read the diff before you commit it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from documents import check

import kernel_rewrite
from kernel_rewrite.cli import cli
from kernel_rewrite.diagnostics import CODES, explanation
from kernel_rewrite.model import Target
from kernel_rewrite.ttir.lower import Compiler

PACKAGE = Path(kernel_rewrite.__file__).parent
PAGES = PACKAGE / "explanations"
SECTIONS = ["## Example", "## How to mend it", "## Why"]

NEEDS_HELP = {
    "KR119": "needs operands: tests/pointwise/test_expressions.py",
    "KR111": "the compiler has to hang: its time limit is shortened",
    "KR504": "no op by itself takes shared memory: see tests/bench/test_static.py",
    "KR901": "a bug of kernel-rewrite: one is put in",
    "KR902": "a bug of the rewriter: one is put in",
}
"""Codes that no example can be relied on to produce by itself, and how they are produced in tests of their own below."""

NEEDS_OPERANDS = {f"KR31{number}" for number in range(9)}
"""Codes about operands and launchers: `tests/rewrite/test_pages.py` holds their examples."""
WARNINGS = {"KR404", "KR503"}
"""Codes that stop nothing."""

NEEDS_TRITON = {"KR112": (3, 9)}
"""Codes that only a later Triton gives."""

ENDS_IN = {"KR603": 2, "KR608": 0}
"""The exit codes of a command that reports a code, where it is not 1."""

PAGES_SHOW = (3, 7)
"""The Triton whose locations and messages the pages show; with another one, only exit codes and codes are checked."""


def page(code: str) -> Path:
    return PAGES / f"{code}.md"


COMPILES_WHOLE = {"KR501", "KR503"}
"""Codes of what `--check-resources` finds: their examples are compiled down to machine code."""


@pytest.mark.parametrize("code", CODES)
def test_page_has_a_title_and_every_section(code: str) -> None:
    text = explanation(code)
    assert text.startswith(f"# {code}: {CODES[code]}\n\n")
    assert re.findall(r"^## .*$", text, re.MULTILINE) == SECTIONS
    assert text.endswith(".\n")


def test_no_page_without_a_code() -> None:
    assert {path.stem for path in PAGES.iterdir()} == set(CODES)


def test_no_code_is_dead() -> None:
    sources = [path for path in PACKAGE.rglob("*.py") if path.name != "diagnostics.py"]
    emitted = set(re.findall(r'["\[](KR\d{3})', "".join(path.read_text() for path in sources)))
    assert set(CODES) <= emitted | {"KR902"}


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(code, marks=pytest.mark.long if code in COMPILES_WHOLE else ())
        for code in CODES
        if code not in NEEDS_HELP.keys() | NEEDS_OPERANDS
    ],
)
def test_example(code: str, tmp_path: Path, accept: bool, installed_triton: tuple[int, ...]) -> None:
    needed = NEEDS_TRITON.get(code, PAGES_SHOW)
    if installed_triton < needed and code in NEEDS_TRITON:
        pytest.skip(f"needs Triton {needed}")
    exact = installed_triton[:2] == needed
    results = check(page(code), tmp_path, accept=accept and exact, exact=exact)
    ends_in = 0 if code in WARNINGS else ENDS_IN.get(code, 1)
    assert any(exit_code == ends_in and f"[{code}]" in output for _, exit_code, output in results), f"no {code}"
    for command, exit_code, output in results:
        assert exit_code == 0 or (exit_code == ends_in and f"[{code}]" in output), f"$ {command.line}\n{output}"


def test_a_compiler_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accept: bool) -> None:
    monkeypatch.setattr(Compiler.lower, "__defaults__", (Target(), 2.0, None))
    [(_, exit_code, output)] = check(
        page("KR111"), tmp_path, accept=accept, settled=lambda text: text.replace("after 2 seconds", "after 20 seconds")
    )
    assert exit_code == 1 and "[KR111]" in output


def test_a_bug_of_the_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise IndexError("list index out of range")

    monkeypatch.setattr(sys.modules["kernel_rewrite.fuse"], "fusion_edits", broken)
    exit_code, output = fuse_in(tmp_path, monkeypatch)
    assert exit_code == 2
    assert "error[KR901]: internal error" in output and "list index out of range" in output
    assert "Nothing was written." in output and "Nothing was written." in explanation("KR901")
    assert [path.name for path in tmp_path.iterdir()] == ["scale.py"]


def test_a_bug_of_the_rewriter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An edit that changes a store's mask must not reach a file."""
    fuse = sys.modules["kernel_rewrite.fuse"]
    right = fuse.apply_edits
    monkeypatch.setattr(fuse, "apply_edits", lambda file, edits: right(file, edits).replace("< n", "<= n"))
    exit_code, output = fuse_in(tmp_path, monkeypatch)
    assert exit_code == 2
    assert "KR902" in output
    assert [path.name for path in tmp_path.iterdir()] == ["scale.py"]


SCALE = """\
import triton
import triton.language as tl


@triton.jit
def scale_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    tl.store(out_ptr + offsets, tl.load(x_ptr + offsets, mask=mask) * 2.0, mask=mask)
"""


def fuse_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    (folder / "scale.py").write_text(SCALE)
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(cli, ["fuse", "scale.py", "--epilogue", "relu"])
    return result.exit_code, result.output
