"""How long a user waits: `fuse`, `--help` and `explain` against the least that could do the same.

    python benchmarks/latency.py            prints the table, writes benchmarks/results/latency.md, exits 1 on a miss

Every figure is the wall time of a whole process, start to end. A command and its floor are timed in turn, in the same
loop, so that a busy machine slows both alike; the ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MATMUL = ROOT / "fixtures" / "matmul.py"

# Imports what fuse needs and builds the TTIR of matmul.py's kernel once for each of its two configurations. The kernel
# is imported as a plain module: nothing is read, proved, rewritten or built a second time.
FUSE_FLOOR = """
import libcst, triton, importlib.util
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import ASTSource, make_backend
from triton._C.libtriton import ir
import inspect, sys, types

torch = types.ModuleType("torch")
torch.Tensor = type("Tensor", (), {{}})
sys.modules["torch"] = torch  # matmul.py imports it for its launcher; importing the real one takes seconds
specification = importlib.util.spec_from_file_location("matmul", {path!r})
matmul = importlib.util.module_from_spec(specification)
specification.loader.exec_module(matmul)
target = GPUTarget("cuda", 90, 32)
backend = make_backend(target)
kernel = matmul.matmul_kernel
for configuration in kernel.configs:
    function = kernel.fn
    names = function.arg_names
    values = configuration.kwargs
    signature = {{
        name: "constexpr" if name in values else "*fp16" if name.endswith("_ptr") else "i32" for name in names
    }}
    source = ASTSource(fn=function, signature=signature, constexprs=dict(values))
    options = backend.parse_options({{}})
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    arguments = [target, options, backend.get_codegen_implementation(options), backend.get_module_map(), context]
    str(source.make_ir(*arguments[: len(inspect.signature(source.make_ir).parameters)]))
"""


@dataclass(frozen=True, slots=True)
class Case:
    """A command, the floor it is measured against, and how many times the floor it may take (None: as it comes)."""

    title: str
    floor_title: str
    command: tuple[str, ...]
    floor: tuple[str, ...]
    target: float | None


def cases(folder: str) -> tuple[Case, ...]:
    python = (sys.executable,)
    tool = (sys.executable, "-m", "kernel_rewrite")
    fused = ("fuse", str(MATMUL), "--epilogue", "relu", "-o", os.path.join(folder, "matmul_relu.py"), "--force")
    floor = FUSE_FLOOR.format(path=str(MATMUL))
    return (
        Case(
            "`fuse` of fixtures/matmul.py",
            "import libcst, triton; TTIR once",
            (*tool, *fused, "--no-cache"),
            (*python, "-c", floor),
            2.0,
        ),
        Case(
            "the same again, answered from the cache",
            "import click, libcst",
            (*tool, *fused),
            (*python, "-c", "import click, libcst"),
            1.2,
        ),
        Case("`--help`", "import click", (*tool, "--help"), (*python, "-c", "import click"), 1.5),
        Case("`explain KR201`", "import click", (*tool, "explain", "KR201"), (*python, "-c", "import click"), 1.5),
    )


@dataclass(frozen=True, slots=True)
class Timing:
    """The wall times of a case and of its floor, in seconds, run in turn."""

    case: Case
    command: tuple[float, ...]
    floor: tuple[float, ...]

    @property
    def ratio(self) -> float:
        return statistics.median(self.command) / statistics.median(self.floor)

    @property
    def met(self) -> bool:
        return self.case.target is None or self.ratio <= self.case.target


def measure(case: Case, runs: int, environment: Mapping[str, str] | None = None) -> Timing:
    """Times `case` and its floor in turn, after one untimed run of each, which leaves their compiled modules behind."""
    command, floor = [], []
    for index in range(-1, runs):
        # every other pair starts with the floor, so that neither always runs second
        for times, arguments in [(command, case.command), (floor, case.floor)][:: 1 if index % 2 else -1]:
            seconds = _seconds(arguments, environment)
            if index >= 0:
                times.append(seconds)
    return Timing(case, tuple(command), tuple(floor))


def _seconds(arguments: Sequence[str], environment: Mapping[str, str] | None) -> float:
    started = time.perf_counter()
    result = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    seconds = time.perf_counter() - started
    if result.returncode:
        raise SystemExit(f"{' '.join(arguments[:6])}... failed:\n{result.stderr}")
    return seconds


def table(timings: Sequence[Timing]) -> str:
    """The timings as a Markdown table, milliseconds: median (least to most)."""
    lines = ["| command | ms | floor | ms | ratio | target | |", "|---|---|---|---|---|---|---|"]
    for timing in timings:
        case = timing.case
        target = "none" if case.target is None else f"{case.target:.1f}"
        verdict = "" if case.target is None else "met" if timing.met else "missed"
        lines.append(
            f"| {case.title} | {_figures(timing.command)} | {case.floor_title} | {_figures(timing.floor)} "
            f"| {timing.ratio:.2f} | {target} | {verdict} |"
        )
    return "\n".join(lines) + "\n"


def _figures(times: Sequence[float]) -> str:
    return f"{1000 * statistics.median(times):.0f} ({1000 * min(times):.0f} to {1000 * max(times):.0f})"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--markdown", type=Path, default=ROOT / "benchmarks" / "results" / "latency.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # Compiled modules go to a folder of this run: both sides find theirs, wherever they are installed.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = os.path.join(folder, "compiled")
        environment["KERNEL_REWRITE_CACHE_DIR"] = os.path.join(folder, "answers")
        timings = [measure(case, options.runs, environment) for case in cases(folder)]
    from importlib.metadata import version

    made_with = (
        f"Medians of {options.runs} runs (least to most), each command and its floor in turn; Python "
        f"{platform.python_version()}, Triton {version('triton')}, libcst {version('libcst')}, {os.cpu_count()} cores, "
        f"{time.strftime('%Y-%m-%d')}.\n"
    )
    text = f"# Latency\n\n{table(timings)}\n{made_with}"
    options.markdown.parent.mkdir(parents=True, exist_ok=True)
    options.markdown.write_text(text, encoding="utf-8")
    print(text)
    return 0 if all(timing.met for timing in timings) else 1


if __name__ == "__main__":
    sys.exit(main())
