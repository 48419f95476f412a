"""The documents name things that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kernel_rewrite.diagnostics import CODES

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_paths_exist(path: Path) -> None:
    text = text_of(path)
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#:]+)\)", prose):
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
