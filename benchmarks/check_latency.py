"""How long `check` takes while nothing has changed: 200 fresh entries against the imports it cannot do without.

    python benchmarks/check_latency.py      prints the table, writes benchmarks/results/check_latency.md, exits 1 on a miss

Measured as benchmarks/latency.py measures: whole processes, in turn with their floor.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from latency import MATMUL, ROOT, Case, measure, table

from kernel_rewrite.rewrite.header import digest, read_header, with_header

TARGET = 3.0
TOML = "tomllib" if sys.version_info >= (3, 11) else "tomli"


def write_project(folder: Path, count: int) -> Path:
    """`count` sources, each with its fused file and its entry; the pyproject.toml. One is fused, the others differ from
    it by a comment."""
    (folder / "kernels").mkdir()
    (folder / "fused").mkdir()
    text = MATMUL.read_text()
    (folder / "kernels" / "matmul_0.py").write_text(text)
    fuse = ("fuse", "kernels/matmul_0.py", "--epilogue", "relu", "-o", "fused/matmul_0.py", "-q")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "kernel_rewrite", *fuse], cwd=folder, check=True, env=environment)
    fused = (folder / "fused" / "matmul_0.py").read_text()
    header = read_header(fused)
    assert header is not None
    entries = []
    for index in range(count):
        source = text.replace("import torch", f"# number {index}\nimport torch", 1)
        (folder / "kernels" / f"matmul_{index}.py").write_text(source)
        own = replace(header, source=f"../kernels/matmul_{index}.py", source_digest=digest(source))
        (folder / "fused" / f"matmul_{index}.py").write_text(with_header(fused, own))
        entries.append(
            f'[[tool.kernel-rewrite.fusion]]\nsource = "kernels/matmul_{index}.py"\noutput = "fused/matmul_{index}.py"\n'
            'kernel = "matmul_kernel"\nepilogues = { c_ptr = "relu" }\n'
        )
    (folder / "pyproject.toml").write_text("\n".join(entries))
    return folder / "pyproject.toml"


def case(config: Path, count: int) -> Case:
    command = (sys.executable, "-m", "kernel_rewrite", "check", "--config", str(config))
    floor = (sys.executable, "-c", f"import click, {TOML}, hashlib")
    return Case(f"`check`, {count} fresh entries", f"import click, {TOML}, hashlib", command, floor, TARGET)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=25)
    parser.add_argument("--entries", type=int, default=200)
    parser.add_argument("--markdown", type=Path, default=ROOT / "benchmarks" / "results" / "check_latency.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = os.path.join(folder, "compiled")
        (Path(folder) / "project").mkdir()
        config = write_project(Path(folder) / "project", options.entries)
        timing = measure(case(config, options.entries), options.runs, environment)
    made_with = (
        f"Medians of {options.runs} runs (least to most), the command and its floor in turn; Python "
        f"{platform.python_version()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}.\n"
    )
    text = f"# Latency of `check`\n\n{table([timing])}\n{made_with}"
    options.markdown.parent.mkdir(parents=True, exist_ok=True)
    options.markdown.write_text(text, encoding="utf-8")
    print(text)
    return 0 if timing.met else 1


if __name__ == "__main__":
    sys.exit(main())
