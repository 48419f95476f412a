"""The README is true: its commands are run in order, and print what it shows.

`pytest tests/test_readme.py --accept` writes what is printed; read the diff before you commit it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from documents import blocks_of, check, commands_of

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


def test_commands(tmp_path: Path, accept: bool) -> None:
    shutil.copy(ROOT / "fixtures" / "matmul.py", tmp_path)
    results = check(README, tmp_path, accept=accept)
    refused = [command.line for command, exit_code, _ in results if exit_code != 0]
    assert refused == [
        "kernel-rewrite fuse accumulate.py --epilogue relu",
        "kernel-rewrite check --format concise",
    ]


def test_the_diff_at_the_top_is_a_real_one() -> None:
    text = README.read_text(encoding="utf-8")
    [diff] = blocks_of(text, "diff")
    assert text.index("```diff") < 30, "the diff comes first"
    relu = next(command for command in commands_of(text) if command.line.endswith("--epilogue relu --diff"))
    assert diff in relu.expected


def test_the_python_example(tmp_path: Path) -> None:
    shutil.copy(ROOT / "fixtures" / "matmul.py", tmp_path)
    [example] = [
        block for block in blocks_of(README.read_text(encoding="utf-8"), "python") if "kernel_rewrite" in block
    ]
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{example}"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "+    tl.store(c_ptrs, tl.maximum(c, 0" in run.stdout
    assert "is only written" in run.stdout and "no-alias" in run.stdout


def test_every_command_of_the_tool_is_shown() -> None:
    from kernel_rewrite.cli import cli

    text = README.read_text(encoding="utf-8")
    missing = [name for name in cli.commands if f"kernel-rewrite {name}" not in text]
    assert not missing


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\S+)", README.read_text(encoding="utf-8"), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_speed_table(accept: bool) -> None:
    """The table of speeds is that of the committed measurement: for each case, the fused time as a part of each other."""
    text = README.read_text(encoding="utf-8")
    before, table, after = re.split(r"(?<=<!-- gpu table -->\n)(.*)(?=<!-- /gpu table -->)", text, flags=re.DOTALL)
    measured = _speed_table(json.loads((ROOT / "benchmarks/results/gpu.json").read_text(encoding="utf-8")))
    if accept:
        README.write_text(before + measured + after, encoding="utf-8")
        return
    assert table == measured


def _speed_table(run: dict[str, Any]) -> str:
    shares: dict[str, list[list[float]]] = {}
    for row in run["rows"]:
        medians = {variant: times["median"] for variant, times in row["times"].items()}
        shares.setdefault(row["case"], []).append(
            [medians["fused"] / medians[other] for other in ("by hand", "kernel", "pair", "compile")]
        )
    lines = ["| case | shapes | by hand | kernel alone | pair | torch.compile |", "|---|---|---|---|---|---|"]
    for case, rows in shares.items():
        cells = [_range(list(column)) for column in zip(*rows, strict=True)]
        lines.append(f"| {case} | {len(rows)} | {' | '.join(cells)} |")
    return "".join(f"{line}\n" for line in lines)


def _range(values: list[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"
