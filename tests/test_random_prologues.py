"""Random kernels with masked loads, a random prologue fused into them, run against the original on P of the input.

Every P here is exact in torch and in Triton, so that not one bit may differ. A spoiled file, its repairs of lanes that
are off taken out, must differ: that is what tells that the runs see such lanes.
"""

from __future__ import annotations

import ast
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.fuse import fuse

KERNELS = 30

HEADER = """\
import torch
import triton
import triton.language as tl


@triton.jit
def get(p, offs, n):
    v = tl.load(p + offs, mask=offs < n, other={other})
    return v


@triton.jit
def combined(a, b):
    return a + b * 2


@triton.jit
def centred(a, b):
    return a - tl.sum(b, axis=0)


@triton.jit
def k(x_ptr, y_ptr, out_ptr, n, m, s, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    a = tl.load(y_ptr + offs, mask=mask, other=0.0)
    b = a * 0.5
    c = tl.zeros((BLOCK,), tl.float32)
"""

FLOAT_OPS = ["relu", "-x", "abs", "x * 2", "x + 1", "1 - x", "clamp(-1, 1)", "where(x > 0, x, 0.5)", "relu(x) + 1"]
INT_OPS = ["relu", "-x", "abs", "x * 2", "x + 1", "1 - x", "clamp(-1, 1)"]
FILLS = ["0.0", "0.0", "0.0", "1.0", "-1.0", "-float('inf')", "s", "m"]
MASKS = [
    "mask",
    "mask",
    "offs < n",
    "mask & (offs > 2)",
    "(offs < n) & (offs != 5)",
    "n > 9",
    "(mask  # all\n        )",
]
VALUES = [
    "a",
    "b",
    "c",
    "a * b",
    "combined(a, c)",
    "centred(a, b)",
    "tl.where(offs < m, a, c)",
    "tl.max(b, axis=0) + c",
]


def load(draw: random.Random, shift: str) -> str:
    """A load of x, in any form."""
    place = f"x_ptr + {shift}offs"
    mask, fill = draw.choice(MASKS).replace("offs", f"({shift}offs)" if shift else "offs"), draw.choice(FILLS)
    return draw.choice(
        [
            *[f"tl.load({place}, mask={mask}, other={fill})"] * 4,
            *[f"tl.load({place}, mask={mask})"] * 2,
            f"tl.load({place})",
            f"tl.load({place}, {mask}, {fill})",
            "tl.load(x_ptr + m)",
            "get(x_ptr, offs, n)",
            f"get(y_ptr, offs, n) + get({place.partition(' ')[0]}, offs, m)",
        ]
    )


def statement(draw: random.Random, floats: bool, space: str = "    ", shift: str = "") -> list[str]:
    name, value = draw.choice("abc"), draw.choice(VALUES)
    loaded = load(draw, shift)
    kinds = ["load", "load", "load", "inline", "compute", "store", "loop", "branch", *["dot"] * floats]
    kind = draw.choice(kinds)
    if kind == "load":
        new = f"v{draw.randint(0, 99)}"
        return [f"{space}{new} = {loaded}", f"{space}{name} += {new}"]
    if kind == "inline":
        return [f"{space}{name} += {loaded} * {draw.choice('abc')}"]
    if kind == "store":
        under = draw.choice([", mask=mask", ", mask=mask & (offs > 2)", ", mask=offs < n + 1", ""])
        return [f"{space}w = {loaded}", f"{space}tl.store(out_ptr + 512 + offs, w{under})"]
    if kind == "loop" and len(space) < 8:
        inner = statement(draw, floats, space + "    ", "i + ")
        return [f"{space}for i in {draw.choice(['range(2)', 'range(m)', 'tl.static_range(2)'])}:", *inner]
    if kind == "branch" and len(space) < 8:
        return [f"{space}if {draw.choice(['n > 20', 'm == 1'])}:", *statement(draw, floats, space + "    ", shift)]
    if kind == "dot":
        return [
            f"{space}t = tl.arange(0, 16)",
            f"{space}d = tl.load(x_ptr + t[:, None] * 16 + t[None, :], mask=(t < m)[None, :], other=0.0)",
            f"{space}{name} += tl.sum(tl.dot(d, d.trans(), input_precision='ieee').to(tl.float32))",
        ]
    return [f"{space}{name} = {name} + {value}"]


def random_kernel(seed: int, kind: str) -> str:
    draw = random.Random(seed)
    lines = [line for _ in range(draw.randint(2, 5)) for line in statement(draw, kind != "i32")]
    if "x_ptr" not in "\n".join(lines):
        lines += [f"    last = {load(draw, '')}", "    c += last"]
    text = HEADER + "\n".join(lines) + f"\n    tl.store(out_ptr + offs, {draw.choice(VALUES)}, mask=mask)\n"
    fill = draw.choice(["0.0", "1.0"])
    return text.replace("{other}", fill).replace("-float('inf')", "-float('inf')" if kind == "fp32" else "1")


RUNNER = """\
import contextlib, json, linecache, sys, types, warnings

import torch
from kernel_rewrite.pointwise.interpreter import stand_ins
from kernel_rewrite.pointwise.language import parse_epilogue

warnings.simplefilter("ignore")
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "i32": torch.int32}


def load(text, path):
    open(path, "w").write(text)
    linecache.checkcache(path)
    module = types.ModuleType("case")
    module.__file__ = path
    exec(compile(text, path, "exec"), module.__dict__)
    return module


def run(module, x, n, m):
    torch.manual_seed(1)
    out = torch.full((1024,), -7.0)
    module.k[(2,)](x, torch.randn(600), out, n, m, 0.5, BLOCK=16)
    return out.view(torch.int32)


def differs(case):
    seed, op, kind, original, fused = case
    one, other = load(original, f"{seed}_original.py"), load(fused, f"{seed}_fused.py")
    for n, m in ((29, 3), (32, 1), (17, 8)):
        torch.manual_seed(seed)
        x = (torch.randn(600) * 3).to(DTYPES[kind])
        if not torch.equal(run(one, parse_epilogue(op).evaluate(x), n, m), run(other, x, n, m)):
            return [n, m]


with stand_ins():
    cases = json.load(open("cases.json"))
    json.dump({name: [[c[0], d] for c in some if (d := differs(c))] for name, some in cases.items()}, open("results.json", "w"))
"""


def spoiled(text: str) -> str:
    """The text with P of every lane in the place of each repair `v = tl.where(mask, P(v), v)`."""
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(args=[_, op, ast.Name(id=again)])) if (
                name == again
            ):
                lines[node.lineno - 1] = " " * node.col_offset + f"{name} = {ast.unparse(op)}"
    return "\n".join(lines) + "\n"


@pytest.mark.long
def test_a_random_prologue_gives_what_the_original_gives_for_p_of_the_input(tmp_path: Path) -> None:
    cases, codes = [], []
    for seed in range(KERNELS):
        draw = random.Random(f"op {seed}")
        kind = draw.choice(["fp32", "fp32", "fp16", "i32"])
        op = draw.choice(INT_OPS if kind == "i32" else FLOAT_OPS)
        text = random_kernel(seed, kind)
        try:
            types = [f"x_ptr={kind}", "y_ptr=fp32", "out_ptr=fp32", "s=fp32"]
            cases.append((seed, op, kind, text, fuse(text, prologues={"x_ptr": op}, kernel="k", dtypes=types).source))
        except FusionRefused as refusal:
            codes += [diagnostic.code for diagnostic in refusal.diagnostics]
    assert len(cases) > KERNELS // 3, "too few kernels could be fused for this to test anything"
    assert set(codes) <= {"KR402"}, codes
    wrong = [
        (seed, op, kind, text, new) for seed, op, kind, text, source in cases if (new := spoiled(source)) != source
    ]
    assert len(wrong) > KERNELS // 10
    (tmp_path / "cases.json").write_text(json.dumps({"right": cases, "spoiled": wrong}))
    (tmp_path / "run.py").write_text(RUNNER)
    root = str(Path(__file__).parent.parent)
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    done = subprocess.run([sys.executable, "run.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "results.json").read_text())
    assert not results["right"], [c for c in cases if c[0] == results["right"][0][0]][0][-1]
    assert len(results["spoiled"]) > 2
