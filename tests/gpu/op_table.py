"""Which spelling gives torch's bits: every op of OPS, and alternative spellings, against torch eager on this machine.

    PYTHONPATH=. python tests/gpu/op_table.py [--out table.md] [--json table.json] [--only gelu erf] [--log2-samples 24]
    PYTHONPATH=. python tests/gpu/op_table.py --interpret        # a small run on the CPU, in Triton's interpreter
    PYTHONPATH=. python tests/gpu/op_table.py --render benchmarks/results/op_table.json     # no run: write the tables

Needs torch, triton and this package. fp16 and bf16 (and the 8- and 16-bit integers) run over every bit pattern; fp32
and fp64 over random bit patterns, normal draws, and every interesting corner. `a (b)`: a elements differ in bits, at
most b units in the last place apart; `+ z zeros` of them differ in the sign of zero alone. NaNs are equal whatever
their payload.

`--render` writes benchmarks/results/op_table.md and the table in docs/numerics.md from a JSON file of a run.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

# ------------------------------------------------------------------------------------------------- what is measured

# Arguments for the ops that need some; other ops run with their defaults.
CALLS = {
    "clamp": ["clamp(-0.75, 0.6)", "clamp(0, 6)", "clamp(min=0)", "clamp(max=3)"],
    "clamp_min": ["clamp_min(-2)"],
    "clamp_max": ["clamp_max(2)"],
    "leaky_relu": ["leaky_relu", "leaky_relu(0.2)"],
    "elu": ["elu", "elu(1.5)"],
    "celu": ["celu", "celu(0.7)"],
    "softplus": ["softplus", "softplus(2, 10)", "softplus(0.3)"],
    "hardtanh": ["hardtanh", "hardtanh(0, 5)"],
}
CHAINS = ["sigmoid(relu(x))", "gelu(neg(x))", "relu(square(relu(x)))", "abs(floor(x))"]

WIDE = "wide = x if x.dtype.primitive_bitwidth >= 32 else x.to(tl.float32)"

# Other spellings: epilogue -> label -> body of a function of x. One that starts with WIDE is for floats alone.
ALTERNATIVES: dict[str, dict[str, list[str]]] = {
    "relu": {
        "where(x < 0, 0, x)": ["return tl.where(x < 0, 0, x).to(x.dtype)"],
        "where(x > 0, x, 0) (loses NaN)": ["return tl.where(x > 0, x, 0).to(x.dtype)"],
        "maximum without propagate_nan": ["return tl.maximum(x, 0).to(x.dtype)"],
    },
    "relu6": {
        "where": ["low = tl.where(x < 0, 0, x)", "return tl.where(low > 6, 6, low).to(x.dtype)"],
    },
    "hardtanh": {
        "where": ["low = tl.where(x < -1, -1, x)", "return tl.where(low > 1, 1, low).to(x.dtype)"],
    },
    "clamp(0, 6)": {
        "where": ["low = tl.where(x < 0, 0, x)", "return tl.where(low > 6, 6, low).to(x.dtype)"],
    },
    "clamp(min=0)": {"where": ["return tl.where(x < 0, 0, x).to(x.dtype)"]},
    "gelu": {
        "tl.erf": [WIDE, "return (wide * 0.5 * (1.0 + tl.erf(wide * 0.7071067811865476))).to(x.dtype)"],
        "erf in float64": [
            WIDE,
            "e = libdevice.erf((wide * 0.7071067811865476).to(tl.float64)).to(wide.dtype)",
            "return (wide * 0.5 * (1.0 + e)).to(x.dtype)",
        ],
    },
    "gelu_tanh": {
        "no explicit fma": [
            WIDE,
            "inner = 0.7978845608028654 * (wide + 0.044715 * (wide * wide * wide))",
            "return (0.5 * wide * (1.0 + libdevice.tanh(inner))).to(x.dtype)",
        ],
    },
    "erf": {
        "libdevice as is": [WIDE, "return libdevice.erf(wide).to(x.dtype)"],
        "tl.erf": [WIDE, "return tl.erf(wide).to(x.dtype)"],
        "in float64": [WIDE, "return libdevice.erf(wide.to(tl.float64)).to(wide.dtype).to(x.dtype)"],
    },
    "tanh": {"libdevice as is": [WIDE, "return libdevice.tanh(wide).to(x.dtype)"]},
    "sin": {"libdevice as is": [WIDE, "return libdevice.sin(wide).to(x.dtype)"]},
    "expm1": {"libdevice as is": [WIDE, "return libdevice.expm1(wide).to(x.dtype)"]},
    "log1p": {"libdevice as is": [WIDE, "return libdevice.log1p(wide).to(x.dtype)"]},
    "exp": {"tl.exp": [WIDE, "return tl.exp(wide).to(x.dtype)"]},
    "exp2": {
        "libdevice as is": [WIDE, "return libdevice.exp2(wide).to(x.dtype)"],
        "tl.exp2": [WIDE, "return tl.exp2(wide).to(x.dtype)"],
    },
    "log": {"tl.log": [WIDE, "return tl.log(wide).to(x.dtype)"]},
    "log2": {"tl.log2": [WIDE, "return tl.log2(wide).to(x.dtype)"]},
    "cos": {"tl.cos": [WIDE, "return tl.cos(wide).to(x.dtype)"]},
    "sqrt": {"tl.sqrt": [WIDE, "return tl.sqrt(wide).to(x.dtype)"]},
    "rsqrt": {
        "libdevice as is": [WIDE, "return libdevice.rsqrt(wide).to(x.dtype)"],
        "tl.rsqrt": [WIDE, "return tl.rsqrt(wide).to(x.dtype)"],
    },
    "floor": {
        "tl.floor": [WIDE, "return tl.floor(wide).to(x.dtype)"],
        "libdevice.floor": [WIDE, "return libdevice.floor(wide).to(x.dtype)"],
    },
    "ceil": {"tl.ceil": [WIDE, "return tl.ceil(wide).to(x.dtype)"]},
    "round": {"libdevice.rint": [WIDE, "return libdevice.rint(wide).to(x.dtype)"]},
    "sigmoid": {
        "1 / (...)": [WIDE, "return (1.0 / (1.0 + libdevice.exp(-wide))).to(x.dtype)"],
        "tl.sigmoid": [WIDE, "return tl.sigmoid(wide).to(x.dtype)"],
    },
    "silu": {"x / (...)": [WIDE, "return (wide / (1.0 + libdevice.exp(-wide))).to(x.dtype)"]},
    "mish": {
        "libdevice as is": [
            WIDE,
            "return (wide * libdevice.tanh(libdevice.log1p(libdevice.exp(wide)))).to(x.dtype)",
        ],
    },
    "softplus": {
        "libdevice as is": [
            WIDE,
            "y = libdevice.log1p(libdevice.exp(wide))",
            "return tl.where(wide > 20.0, wide, y).to(x.dtype)",
        ],
    },
    "logsigmoid": {
        "libdevice as is": [
            WIDE,
            "y = libdevice.log1p(libdevice.exp(-tl.abs(wide)))",
            "return (tl.minimum(wide, 0.0) - y).to(x.dtype)",
        ],
    },
    "hardswish": {
        "/ 6.0": [
            WIDE,
            "gate = tl.minimum(tl.maximum(wide + 3.0, 0.0), 6.0)",
            "return (wide * gate / 6.0).to(x.dtype)",
        ],
    },
    "hardsigmoid": {
        "without propagate_nan (loses NaN)": [
            WIDE,
            "gate = tl.minimum(tl.maximum(wide + 3.0, 0.0), 6.0)",
            "return (gate * 0.1666666716337204).to(x.dtype)",
        ],
    },
    "elu": {
        "libdevice as is": [WIDE, "return tl.where(wide > 0, wide, libdevice.expm1(wide)).to(x.dtype)"],
    },
    "selu": {
        "one product of scales": [
            WIDE,
            "below = libdevice.expm1(wide) * 1.6732632423543772848170429916717",
            "return (1.0507009873554804934193349852946 * tl.where(wide > 0, wide, below)).to(x.dtype)",
        ],
    },
    "celu": {
        "x / alpha": [WIDE, "return tl.where(wide > 0, wide, libdevice.expm1(wide)).to(x.dtype)"],
    },
    "sign": {
        "where": ["return tl.where(x > 0, 1, tl.where(x < 0, -1, 0)).to(x.dtype)"],
    },
    "square": {"in float32": [WIDE, "return (wide * wide).to(x.dtype)"]},
}

# Functions that OPS does not have (yet): the torch function and the spellings to try.
CANDIDATES: dict[str, dict[str, list[str]]] = {
    "torch.asinh(x)": {"libdevice": [WIDE, "return libdevice.asinh(wide).to(x.dtype)"]},
    "torch.atan(x)": {"libdevice": [WIDE, "return libdevice.atan(wide).to(x.dtype)"]},
    "torch.pow(x, 3)": {
        "x * x * x": [WIDE, "return (wide * wide * wide).to(x.dtype)"],
        "rounded between": [WIDE, "s = (wide * wide).to(x.dtype).to(wide.dtype)", "return (s * wide).to(x.dtype)"],
        "x * (x * x) in x's type": ["return (x * x * x).to(x.dtype)"],
    },
    "torch.erfc(x)": {"libdevice": [WIDE, "return libdevice.erfc(wide).to(x.dtype)"]},
    "torch.log10(x)": {"libdevice": [WIDE, "return libdevice.log10(wide).to(x.dtype)"]},
    "torch.sinh(x)": {"libdevice": [WIDE, "return libdevice.sinh(wide).to(x.dtype)"]},
    "torch.cosh(x)": {"libdevice": [WIDE, "return libdevice.cosh(wide).to(x.dtype)"]},
}

# ------------------------------------------------------------------------------------------------------------ the run

HEADER = "import triton\nimport triton.language as tl\nfrom triton.language.extra import libdevice\n\n\n"
KERNEL = """
@triton.jit
def kernel(source, target, count, BLOCK: tl.constexpr):
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    v = tl.load(source + index, mask=index < count)
    tl.store(target + index, {expression}, mask=index < count)
"""


@dataclass
class Case:
    epilogue: str  # the text of the epilogue, or the torch expression of a candidate
    spelling: str
    source: str
    reference: Any = field(repr=False)
    defined: Any = field(repr=False)

    @property
    def digest(self) -> str:
        """Tells whether a later spelling is the one that was measured."""
        tree = ast.parse(self.source)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
        return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:12]


@dataclass
class Count:
    mismatches: int = 0
    max_ulp: int = 0
    zero_signs: int = 0
    total: int = 0
    example: str = ""
    error: str = ""

    @property
    def facts(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value or name == "total"}

    @property
    def cell(self) -> str:
        if self.error:
            return "does not compile"
        text = "0" if not self.mismatches else f"{self.mismatches} ({self.max_ulp})"
        return text + (f" + {self.zero_signs} zeros" if self.zero_signs else "")


def cases(only: list[str], *, emitted_only: bool = False) -> list[Case]:
    import torch

    from kernel_rewrite.pointwise.element_types import FLOAT_ONLY
    from kernel_rewrite.pointwise.language import emit, parse_epilogue
    from kernel_rewrite.pointwise.op import Result
    from kernel_rewrite.pointwise.ops import OPS

    found: list[Case] = []
    alone = [
        name
        for name, row in OPS.items()
        if len(row.operands) == 1 and row.classes >= FLOAT_ONLY and row.result is Result.PROMOTED
    ]
    texts = [text for name in alone for text in CALLS.get(name, [name])] + CHAINS
    for text in texts:
        if only and not any(word in text for word in only):
            continue
        pointwise = parse_epilogue(text)
        emission = emit(pointwise, "v", taken_names={"kernel", "v", "index"})
        helpers = "\n\n".join(h.text for h in emission.helpers)
        source = HEADER + helpers + "\n" + KERNEL.format(expression=emission.expression)
        found.append(Case(text, "as emitted", source, pointwise.evaluate, pointwise.defined_for))
        if emitted_only:
            continue
        for label, body in ALTERNATIVES.get(text, {}).items():
            defined = _float if body[0] == WIDE else pointwise.defined_for
            found.append(Case(text, label, _candidate(body), pointwise.evaluate, defined))
    for text, spellings in {}.items() if emitted_only else CANDIDATES.items():
        if only and not any(word in text for word in only):
            continue
        reference = eval(f"lambda x: {text}", {"torch": torch})
        for label, body in spellings.items():
            found.append(Case(text, label, _candidate(body), reference, _float))
    return found


def _float(dtype: str) -> bool:
    return dtype.startswith(("fl", "bf"))


def _candidate(body: list[str]) -> str:
    lines = "\n".join(f"    {line}" for line in body)
    return HEADER + f"@triton.jit\ndef candidate(x):\n{lines}\n\n" + KERNEL.format(expression="candidate(v)")


def inputs(dtype: str, log2_samples: int, device: str) -> Any:
    """Every bit pattern of a type of 16 bits or less; random patterns, normal draws and corners of a wider one."""
    import torch

    kind = getattr(torch, dtype)
    generator = torch.Generator().manual_seed(20)
    if kind.itemsize == 1:
        return torch.arange(256, dtype=torch.int32).to(torch.uint8).view(kind).to(device)
    if kind.itemsize == 2:
        return torch.arange(65536, dtype=torch.int32).to(torch.int16).view(kind).to(device)
    count = 2 ** (log2_samples if kind.itemsize == 4 else min(log2_samples, 20))
    bits = {4: torch.int32, 8: torch.int64}[kind.itemsize]
    words = torch.randint(-(2**31), 2**31, (count // 2 * kind.itemsize // 4,), generator=generator)
    patterns = words.to(torch.int32).view(bits).view(kind)
    if not kind.is_floating_point:
        return torch.cat(
            [patterns, torch.tensor([0, 1, -1, torch.iinfo(kind).min, torch.iinfo(kind).max], dtype=kind)]
        ).to(device)
    draws = torch.randn(count // 4, generator=generator, dtype=torch.float64)
    wide_draws = torch.randn(count // 4, generator=generator, dtype=torch.float64) * 20
    denormals = torch.arange(0, 4096).to(bits).view(kind)
    corners = [
        0.0,
        0.5,
        1.0,
        1.5,
        2.5,
        3.0,
        6.0,
        20.0,
        88.0,
        88.8,
        103.9,
        126.0,
        149.0,
        1e30,
        float("inf"),
        float("nan"),
    ]
    special = torch.tensor(corners, dtype=kind)
    edges = torch.cat([special.view(bits) + step for step in range(-8, 9)]).view(kind)
    floats = torch.cat([patterns, draws.to(kind), wide_draws.to(kind), denormals, edges, special])
    return torch.cat([floats, -denormals, -edges, -special]).to(device)


def compare(actual: Any, expected: Any, x: Any) -> Count:
    import torch

    total = x.numel()
    if not expected.dtype.is_floating_point:
        wrong = actual != expected
        return Count(int(wrong.sum()), 0, 0, total, _example(wrong, x, actual, expected))
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[expected.element_size()]
    differ = (actual.view(bits) != expected.view(bits)) & ~(torch.isnan(actual) & torch.isnan(expected))
    if not bool(differ.any()):
        return Count(0, 0, 0, total)
    zeros = (actual == 0) & (expected == 0)
    left, right = actual.view(bits).to(torch.int64), expected.view(bits).to(torch.int64)
    wrong = differ & ~zeros
    least = torch.iinfo(bits).min
    ordered_left = torch.where(left < 0, least - left, left)
    ordered_right = torch.where(right < 0, least - right, right)
    distance = (ordered_left - ordered_right).abs()
    worst = int(torch.where(wrong, distance, torch.zeros_like(distance)).max()) if total else 0
    shown = wrong if bool(wrong.any()) else differ
    return Count(int(wrong.sum()), worst, int((differ & zeros).sum()), total, _example(shown, x, actual, expected))


def _example(wrong: Any, x: Any, actual: Any, expected: Any) -> str:
    if not bool(wrong.any()):
        return ""
    at = int(wrong.nonzero()[0])
    values = [v[at].item() for v in (x, actual, expected)]
    shown = [v.hex() if isinstance(v, float) else str(v) for v in values]
    return f"f({shown[0]}) = {shown[1]}, torch {shown[2]}"


def run_case(case: Case, module: Any, dtype: str, x: Any, **options: Any) -> Count:
    import torch

    target = torch.empty_like(x)
    block = 1024 if x.is_cuda else 65536  # the interpreter pays by the program, not by the element
    module.kernel[((x.numel() + block - 1) // block,)](x, target, x.numel(), BLOCK=block, **options)
    return compare(target, case.reference(x), x)


def load(source: str, folder: Path, name: str) -> Any:
    path = folder / f"{name}.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interpret", action="store_true", help="run on the CPU in Triton's interpreter, few samples")
    parser.add_argument("--only", nargs="*", default=[], help="only the epilogues whose text contains one of these")
    parser.add_argument("--emitted-only", action="store_true", help="leave the alternative spellings out")
    parser.add_argument("--dtypes", nargs="*", default=[], help="element types (torch names)")
    parser.add_argument(
        "--log2-samples", type=int, default=0, help="samples of a wide type (24; 10 in the interpreter)"
    )
    parser.add_argument("--out", type=Path, help="write the table as Markdown")
    parser.add_argument("--json", type=Path, help="write everything as JSON")
    parser.add_argument("--render", type=Path, metavar="JSON", help="run nothing; write the tables of this run")
    parser.add_argument("--commit", default="", help="the git commit that is measured, where git cannot say")
    parser.add_argument("--budget", type=float, default=540.0, help="stop starting new cases after this many seconds")
    options = parser.parse_args()
    if options.render:
        render(json.loads(options.render.read_text(encoding="utf-8")))
        return 0
    if options.interpret:
        os.environ["TRITON_INTERPRET"] = "1"
    import contextlib

    import torch
    import triton

    if options.interpret:
        torch.set_num_threads(1)
    device = "cpu" if options.interpret else "cuda"
    samples = options.log2_samples or (10 if options.interpret else 24)
    floats = ["float16", "bfloat16", "float32", "float64"]
    types = options.dtypes or [*floats, "int8", "uint8", "int16", "int32", "int64"]
    columns = [*types, *([] if options.interpret else [f"{t} no fusion" for t in types if t == "float32"])]
    data = {dtype: inputs(dtype, samples, device) for dtype in types}
    context: Any = contextlib.nullcontext()
    if options.interpret:
        from kernel_rewrite.pointwise.interpreter import stand_ins

        context = stand_ins()
    started = time.monotonic()
    rows: list[dict[str, Any]] = []
    skipped = 0
    with context, tempfile.TemporaryDirectory() as folder:
        for index, case in enumerate(cases(options.only, emitted_only=options.emitted_only)):
            if time.monotonic() - started > options.budget:
                skipped += 1
                continue
            module = load(case.source, Path(folder), f"op_table_{index}")
            counts: dict[str, Count] = {}
            for column in columns:
                dtype, _, extra = column.partition(" ")
                if not case.defined(dtype):
                    continue
                try:
                    fusion = {"enable_fp_fusion": False} if extra else {}
                    counts[column] = run_case(case, module, dtype, data[dtype], **fusion)
                except Exception as error:
                    counts[column] = Count(error=f"{type(error).__name__}: {str(error)[-80:]!r}")
            named = {"op": case.epilogue, "spelling": case.spelling, "digest": case.digest}
            rows.append(named | {"counts": {c: n.facts for c, n in counts.items()}})
            cells = " | ".join(f"{c}: {n.cell}" for c, n in counts.items() if n.cell != "0")
            print(f"{case.epilogue} [{case.spelling}] {cells or 'all equal'}", flush=True)
    facts = {
        "device": torch.cuda.get_device_name(0) if device == "cuda" else "Triton interpreter",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "triton": triton.__version__,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "commit": options.commit or commit(),
        "seconds": round(time.monotonic() - started, 1),
        "samples": {dtype: x.numel() for dtype, x in data.items()},
        "skipped": skipped,
    }
    if options.out:
        options.out.write_text(full_table(rows, facts), encoding="utf-8")
    if options.json:
        options.json.write_text(as_json(rows, facts), encoding="utf-8")
    print(json.dumps(facts))
    errors = sum("error" in count for row in rows for count in row["counts"].values())
    return 1 if errors and options.interpret else 0


def commit() -> str:
    """The commit of the package, `-changed` behind it when the tree differs; "" without git."""
    folder = Path(__file__).parent
    describe = ["git", "describe", "--always", "--abbrev=10", "--exclude=*", "--dirty=-changed"]
    try:
        run = subprocess.run(describe, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return run.stdout.strip()


# ------------------------------------------------------------------------------------------------------- the tables

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks/results/op_table.md"
DOCUMENT = ROOT / "docs/numerics.md"
FIRST, LAST = "<!-- the measured table -->\n", "<!-- end of the measured table -->\n"


def render(run: dict[str, Any]) -> None:
    RESULTS.write_text(full_table(run["rows"], run["facts"]), encoding="utf-8")
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(FIRST)
    _, _, after = rest.partition(LAST)
    DOCUMENT.write_text(before + FIRST + op_table(run["rows"], run["facts"]) + LAST + after, encoding="utf-8")


def headline(facts: dict[str, Any]) -> str:
    at = f" at {facts['commit']}" if facts.get("commit") else ""
    return (
        f"Measured {facts['date']} on one {facts['device']}{at}: torch {facts['torch']} (CUDA {facts['cuda']}), "
        f"Triton {facts['triton']}."
    )


def as_json(rows: list[dict[str, Any]], facts: dict[str, Any]) -> str:
    """JSON with a line for each row."""
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    return f'{{\n "facts": {json.dumps(facts)},\n "rows": [\n{lines}\n ]\n}}\n'


def line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def full_table(rows: list[dict[str, Any]], facts: dict[str, Any]) -> str:
    """Every op, every spelling, every element type."""
    columns = [*facts["samples"], *sorted({c for row in rows for c in row["counts"]} - set(facts["samples"]))]
    lines = []
    for row in rows:
        counts = {c: Count(**n) for c, n in row["counts"].items()}
        example = next((f"{c}: {n.example}" for c, n in counts.items() if n.example), "")
        cells = [counts[c].cell if c in counts else "" for c in columns]
        lines.append(line([f"`{row['op']}`", row["spelling"], *cells, example]))
    return "\n".join(
        [
            headline(facts),
            "",
            line(["op", "spelling", *columns, "example"]),
            "|---" * (len(columns) + 3) + "|",
            *lines,
            "",
        ]
    )


def op_table(rows: list[dict[str, Any]], facts: dict[str, Any]) -> str:
    """The ops as emitted: the counts of float types, the worst of the integer types, and why."""
    from kernel_rewrite.pointwise.language import parse_epilogue
    from kernel_rewrite.pointwise.ops import OPS

    now = {case.epilogue: case.digest for case in cases([], emitted_only=True)}
    floats = ["float16", "bfloat16", "float32", "float64"]
    samples = ", ".join(f"{facts['samples'][t]:,} of {t}" for t in floats)
    lines, unfused = [], []
    for row in rows:
        counts = {c: Count(**n) for c, n in row["counts"].items()}
        if row["spelling"] != "as emitted" or row["op"] in CHAINS:
            continue
        integers = [n for c, n in counts.items() if not _float(c)]
        wrong = next((n.cell for n in integers if n.cell != "0"), "0") if integers else ""
        why = OPS[parse_epilogue(row["op"]).result.op].differs  # type: ignore[union-attr]
        if now.get(row["op"]) != row["digest"]:
            why = "measured in another spelling than today's" + (f"; {why}" if why else "")
        lines.append(line([f"`{row['op']}`", *(counts[t].cell if t in counts else "" for t in floats), wrong, why]))
        if "float32" in counts and counts["float32"] != counts["float32 no fusion"]:
            unfused.append(f"`{row['op']}`")
    return "\n".join(
        [
            headline(facts),
            f"Inputs: {samples}; every value of the 8- and 16-bit integers.",
            f"Compiled with `enable_fp_fusion=False`, float32 counts that differ: {', '.join(unfused) or 'none'}.",
            "",
            line(["op", *floats, "integers", "why"]),
            "|---" * (len(floats) + 3) + "|",
            *lines,
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
