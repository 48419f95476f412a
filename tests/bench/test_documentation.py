"""docs/verifying.md is true: its commands are run in order, and print what it shows.

`pytest tests/bench/test_documentation.py --accept` writes what is printed; read the diff before you commit it.
"""

from __future__ import annotations

from pathlib import Path

from documents import check

PAGE = Path(__file__).parents[2] / "docs" / "verifying.md"


def test_commands(tmp_path: Path, accept: bool, installed_triton: tuple[int, ...]) -> None:
    # Another Triton compiles to other machine code.
    exact = installed_triton[:2] == (3, 7)
    results = check(PAGE, tmp_path, accept=accept and exact, exact=exact)
    assert [exit_code for _, exit_code, _ in results] == [0, 0, 0]
