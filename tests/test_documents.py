"""The documents name things that exist."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from documents import blocks_of, check

from kernel_rewrite.arguments import ARGUMENTS
from kernel_rewrite.checks import ASSUMPTIONS
from kernel_rewrite.diagnostics import CODES
from kernel_rewrite.pointwise.whole import WHOLE

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


RUN_ELSEWHERE = {"README.md"}
LONG = {"epilogues.md", "prologues.md", "verifying.md"}
"""Many commands each; `make test` has those of the tutorial and the README."""


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_paths_exist(path: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", text_of(path), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (path.parent / target).exists(), target
    for name in re.findall(r"`((?:[a-z_]+/)+[a-z_.]*)`", text):
        assert (ROOT / name).exists() or (ROOT / "kernel_rewrite" / name).exists(), name
    for name in re.findall(r"`([a-z_]+\.py)`", text):
        assert list(ROOT.glob(f"kernel_rewrite/**/{name}")), name


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_named_tests_and_cases_exist(path: Path) -> None:
    text = text_of(path)
    for file, test in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text):
        assert f"def {test}(" in text_of(ROOT / file), f"{file}::{test}"
    catalogue = text_of(ROOT / "tests" / "ttir" / "test_accesses.py")
    for case in re.findall(r"\[(A\d\d[\w-]*)\]", text):
        assert f'"{case}"' in catalogue or f'"{case}-' in catalogue, case


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_named_codes_exist(path: Path) -> None:
    assert set(re.findall(r"KR\d{3}", text_of(path))) <= set(CODES)


def test_the_index_lists_every_code() -> None:
    rows = re.findall(
        r"^\| \[(KR\d{3})\]\(\S+/(KR\d{3})\.md\) \| (.*) \|$", text_of(ROOT / "docs/diagnostics.md"), re.MULTILINE
    )
    assert rows == [(code, code, title) for code, title in CODES.items()]


def test_every_module_of_the_stages_is_in_the_architecture() -> None:
    text = text_of(ROOT / "docs" / "architecture.md")
    modules = [
        p for part in ("source", "ttir", "pointwise", "rewrite") for p in (ROOT / "kernel_rewrite" / part).glob("*.py")
    ]
    missing = [path.name for path in modules if path.name != "__init__.py" and f"{path.name}`" not in text]
    assert not missing


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=pytest.mark.long if path.name in LONG else ())
        for path in DOCUMENTS
        if "```console" in path.read_text(encoding="utf-8") and path.name not in RUN_ELSEWHERE
    ],
    ids=lambda path: path.name,
)
def test_every_command_of_the_documents(path: Path, tmp_path: Path, accept: bool) -> None:
    """`pytest tests/test_documents.py --accept` writes what is printed; read the diff before you commit it."""
    if "pre-commit install" in text_of(path):
        pytest.importorskip("pre_commit")
    results = check(path, tmp_path, accept=accept)
    assert len(results) >= 2


def test_the_editor_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = [b for b in blocks_of(text_of(ROOT / "docs" / "formats.md"), "python") if "told[" in b]
    shutil.copy(ROOT / "fixtures" / "matmul.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    code = example.replace('["kernel-rewrite", ', f"[{sys.executable!r}, '-m', 'kernel_rewrite', ")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_every_key_is_documented() -> None:
    text = text_of(ROOT / "docs" / "configuration.md")
    for argument in ARGUMENTS:
        row = re.search(rf"^\| `{argument.key}` \|.*`{argument.option}` \|$", text, re.MULTILINE)
        assert row is not None, argument.key


def test_every_function_of_a_rest_is_documented() -> None:
    text = text_of(ROOT / "docs" / "epilogues.md")
    (section,) = re.findall(r"^## A part of an epilogue\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    assert [name for name in WHOLE if f"`{name}`" not in section] == []


def test_every_assumption_is_explained() -> None:
    text = text_of(ROOT / "docs" / "soundness.md")
    made = (re.findall(r'Assumption\("([a-z-]+)"', text_of(path)) for path in (ROOT / "kernel_rewrite").rglob("*.py"))
    names = {*ASSUMPTIONS, *(name for names in made for name in names)}
    assert "operand-layout" in names
    assert [name for name in sorted(names) if f"**`{name}`**" not in text] == []
