"""Every page of `kernel_rewrite/explanations` is true: its example is run and must print exactly what the page shows.

`pytest tests/test_explanations.py --accept` writes what is printed into the pages; read the diff before you commit it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from documents import check, commands_of

import kernel_rewrite
from kernel_rewrite.diagnostics import CODES, explanation

PAGES = Path(kernel_rewrite.__file__).parent / "explanations"


def page(code: str) -> Path:
    return PAGES / f"{code}.md"


NOT_FROM_A_FILE = {
    "KR111": "the compiler has to hang: the test shortens its time limit",
    "KR901": "a bug of kernel-rewrite: the test puts one in",
    "KR902": "a bug of the rewriter: the test puts one in",
}
"""Codes that no source file can be relied on to produce, and how they are produced here instead."""


@pytest.mark.parametrize("code", [code for code in CODES if code not in NOT_FROM_A_FILE])
def test_example(code: str, tmp_path: Path, accept: bool) -> None:
    results = check(page(code), tmp_path, accept=accept)
    refused = [output for _, exit_code, output in results if f"[{code}]" in output and exit_code == 1]
    assert refused, f"no command of the page ends in {code}"
