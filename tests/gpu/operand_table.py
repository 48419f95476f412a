"""Do epilogues with operands give torch's bits? Every op of several operands, and expressions, against torch eager here.

    PYTHONPATH=. python tests/gpu/operand_table.py [--out table.md] [--json table.json] [--only atan2] [--log2-samples 24]
    PYTHONPATH=. python tests/gpu/operand_table.py --interpret     # a small run on the CPU, in Triton's interpreter

The tensors x, y and z hold random bit patterns, normal draws and all pairs (triples) of the interesting values; for 16-bit
types x goes through every pattern. `v, w, u` are what the kernel loaded. Counts as in op_table.py.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import op_table
from op_table import Count, commit, headline, line

OPERANDS = ("y", "z")

# Beside the ops themselves: what people fuse, and where a rounding could be lost between two steps.
EXPRESSIONS = [
    *("x * y + z", "x * y - z", "z - x * y", "x + y * 0.5", "x * 0.1 + y", "(x + y) * z", "x / y + z"),
    *("gelu(x + y)", "silu(x) * y", "relu(x + y) + z", "sigmoid(x + y) * z", "x * sigmoid(1.702 * x)"),
    *("tanh(x * y)", "x * y * z", "x ** 2 + y", "(x - y) * (x - y)", "hardswish(x * y)", "softsign(x * y)"),
    *("where(x > y, x, z)", "clamp(x * y, -1, 1)", "maximum(x, y) - z", "(x > 0) * y", "x * y.to(torch.float32)"),
    *("(x * y).to(torch.float8_e4m3fn)", "x.to(torch.float8_e5m2)", "x.to(torch.int8)", "(x * y).to(torch.bfloat16)"),
]

KERNEL = """
@triton.jit
def kernel(x_ptr, y_ptr, z_ptr, out_ptr, count, BLOCK: tl.constexpr):
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = index < count
    v = tl.load(x_ptr + index, mask=mask)
    w = tl.load(y_ptr + index, mask=mask)
    u = tl.load(z_ptr + index, mask=mask)
    tl.store(out_ptr + index, {expression}, mask=mask)
"""


def texts() -> list[str]:
    from kernel_rewrite.pointwise.ops import OPS

    several = [row for row in OPS.values() if len(getattr(row, "operands", ("x",))) > 1]
    names = ("x", *OPERANDS)
    return [f"{row.name}({', '.join(names[: len(row.operands)])})" for row in several] + EXPRESSIONS


def parsed(text: str) -> Any:
    """The epilogue over x and those of y and z that it names. Raises FusionRefused."""
    import ast

    from kernel_rewrite.model import Operand, OperandKind
    from kernel_rewrite.pointwise.language import parse_epilogue

    used = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    return parse_epilogue(text, {name: Operand(name, OperandKind.TILE) for name in OPERANDS if name in used})


def source(pointwise: Any) -> str:
    from kernel_rewrite.pointwise.language import emit

    places = dict(zip(OPERANDS, ("w", "u"), strict=True))
    taken = {"kernel", "index", "mask", "v", "w", "u"}
    operands = {operand.name: places[operand.name] for operand in pointwise.operands}
    emission = emit(pointwise, "v", operands, taken_names=taken)
    helpers = "\n\n".join(helper.text for helper in emission.helpers)
    return op_table.HEADER + helpers + "\n" + KERNEL.format(expression=emission.expression)


def drawn(dtype: str, log2_samples: int, device: str) -> dict[str, Any]:
    """x, y and z of one type and size, the interesting values of op_table in all combinations of the first of them."""
    import torch

    pool = op_table.inputs(dtype, min(log2_samples, 20), "cpu")
    generator = torch.Generator().manual_seed(7)
    count = 2**log2_samples
    found = {}
    for number, name in enumerate(("x", *OPERANDS)):
        picked = pool[torch.randint(pool.numel(), (count,), generator=generator)]
        if pool.dtype.is_floating_point:  # half of them of a size that sums and products of pairs keep
            normal = torch.randn(count, generator=generator, dtype=torch.float64).to(pool.dtype)
            picked = torch.where(torch.rand(count, generator=generator) < 0.5, normal, picked)
        corners = _corners(pool.dtype)
        places = torch.arange(min(count, len(corners) ** 3)) // len(corners) ** number % len(corners)
        picked[: len(places)] = corners[places]
        if number == 0 and pool.element_size() == 2 and count >= 2**18:
            picked[-(2**16) :] = pool
        if number and not pool.dtype.is_floating_point:
            picked[picked == 0] = 3  # integers divided by zero are an error, or anything at all
        found[name] = picked.to(device)
    return found


def _corners(dtype: Any) -> Any:
    import torch

    if not dtype.is_floating_point:
        info = torch.iinfo(dtype)
        return torch.tensor([0, 1, -1 if info.min else 2, 7, info.min, info.max, 31], dtype=dtype)
    limits, inf = torch.finfo(dtype), float("inf")
    tiny = limits.tiny
    values = [0.0, -0.0, inf, -inf, float("nan"), 1.0, -1.0, 0.5, 3.0, tiny, -tiny, tiny / 4, limits.max, limits.min]
    return torch.tensor(values, dtype=torch.float64).to(dtype)


def run_case(pointwise: Any, module: Any, tensors: dict[str, Any]) -> Count:
    import torch

    x = tensors["x"]
    expected = pointwise.evaluate(x, **{o.name: tensors[o.name] for o in pointwise.operands})
    out = torch.empty_like(expected)
    block = 1024 if x.is_cuda else 65536
    grid = ((x.numel() + block - 1) // block,)
    module.kernel[grid](x, tensors["y"], tensors["z"], out, x.numel(), BLOCK=block)
    if expected.dtype.itemsize == 1 and expected.dtype.is_floating_point:  # fp8: as the numbers they are
        out, expected = out.to(torch.float16), expected.to(torch.float16)
    count = op_table.compare(out, expected, x)
    if count.example:
        wrong = ((out != expected) & ~((out != out) & (expected != expected))).nonzero()
        count.example += "".join(f", {n} {tensors[n][wrong[0]].item()!r}" for n in OPERANDS) if len(wrong) else ""
    return count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interpret", action="store_true", help="on the CPU in Triton's interpreter, few samples")
    parser.add_argument("--only", nargs="*", default=[], help="only the epilogues whose text contains one of these")
    parser.add_argument("--dtypes", nargs="*", default=["float16", "bfloat16", "float32", "int32"])
    parser.add_argument("--log2-samples", type=int, default=0, help="samples of each type (24; 12 in the interpreter)")
    parser.add_argument("--out", type=Path, help="write the table as Markdown")
    parser.add_argument("--json", type=Path, help="write everything as JSON")
    parser.add_argument("--commit", default="", help="the git commit that is measured, where git cannot say")
    parser.add_argument("--budget", type=float, default=420.0, help="stop starting new cases after this many seconds")
    options = parser.parse_args()
    if options.interpret:
        os.environ["TRITON_INTERPRET"] = "1"
    import torch
    import triton

    device = "cpu" if options.interpret else "cuda"
    samples = options.log2_samples or (12 if options.interpret else 24)
    data = {dtype: drawn(dtype, samples, device) for dtype in options.dtypes}
    context: Any = contextlib.nullcontext()
    if options.interpret:
        from kernel_rewrite.pointwise.interpreter import stand_ins

        context = stand_ins()
    started, rows, skipped = time.monotonic(), [], 0
    with context, tempfile.TemporaryDirectory() as folder:
        for index, text in enumerate(texts()):
            if options.only and not any(word in text for word in options.only):
                continue
            if time.monotonic() - started > options.budget:
                skipped += 1
                continue
            row = {"op": text, "counts": _counts(text, data, Path(folder), f"operand_table_{index}")}
            rows.append(row)
            shown = {dtype: Count(**count).cell for dtype, count in row["counts"].items()}
            print(f"{text}  {' | '.join(f'{d}: {c}' for d, c in shown.items())}", flush=True)
    facts = {
        "device": torch.cuda.get_device_name(0) if device == "cuda" else "Triton interpreter",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "triton": triton.__version__,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "commit": options.commit or commit(),
        "samples": {dtype: 2**samples for dtype in options.dtypes},
        "skipped": skipped,
    }
    if options.json:
        options.json.write_text(op_table.as_json(rows, facts), encoding="utf-8")
    if options.out:
        options.out.write_text(table(rows, facts), encoding="utf-8")
    print(json.dumps(facts))
    return 1 if any("error" in count for row in rows for count in row["counts"].values()) else 0


def _counts(text: str, data: dict[str, Any], folder: Path, name: str) -> dict[str, Any]:
    """The counts of one epilogue by element type; types that it is not defined for are left out."""
    from kernel_rewrite.diagnostics import FusionRefused

    try:
        pointwise = parsed(text)
    except (FusionRefused, TypeError) as error:  # an op or a language that this package has not
        return {dtype: Count(error=str(error)[:120]).facts for dtype in data}
    module = op_table.load(source(pointwise), folder, name)
    counts = {}
    for dtype, tensors in data.items():
        if pointwise.undefined_reason(dtype):
            continue
        try:
            counts[dtype] = run_case(pointwise, module, tensors).facts
        except Exception as error:
            counts[dtype] = Count(error=f"{type(error).__name__}: {str(error)[-120:]!r}").facts
    return counts


def table(rows: list[dict[str, Any]], facts: dict[str, Any]) -> str:
    dtypes = list(facts["samples"])
    lines = []
    for row in rows:
        counts = {dtype: Count(**count) for dtype, count in row["counts"].items()}
        example = next((f"{d}: {c.example or c.error}" for d, c in counts.items() if c.example or c.error), "")
        lines.append(line([f"`{row['op']}`", *(counts[d].cell if d in counts else "" for d in dtypes), example]))
    head = [line(["epilogue", *dtypes, "example"]), "|---" * (len(dtypes) + 2) + "|"]
    sampled = ", ".join(f"{count:,} of {dtype}" for dtype, count in facts["samples"].items())
    return "\n".join([headline(facts), f"Tuples drawn: {sampled}.", "", *head, *lines, ""])


if __name__ == "__main__":
    sys.exit(main())
