"""Random kernels, fused and run with compile-time values that the file does not show.

A branch that no specialization compiled, a helper reached by two ways, a buffer reached by two names: whatever the
kernel, either the fusion is refused or the fused file is right for every value a caller may pass.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.fuse import fuse

KERNELS = 60
CALLS = 6

HEADER = """\
import torch
import triton
import triton.language as tl

G = tl.constexpr({flag})


@triton.jit
def put(p, i, v, m):
    tl.store(p + i, v, mask=m)


@triton.jit
def put_if(p, i, v, m, TRIPLE: tl.constexpr):
    if TRIPLE:
        tl.store(p + i, v * 3, mask=m)
    else:
        tl.store(p + i, v, mask=m)


@triton.jit
def get(p, i, m):
    return tl.load(p + i, mask=m)


@triton.jit
def k(
    a, b, out, other, bias, n, flag,
    P: tl.constexpr, F: tl.constexpr, M: tl.constexpr, S: tl.constexpr, B: tl.constexpr,
):
    i = tl.program_id(0) * B + tl.arange(0, B)
    m = i < n
    x = tl.load(a + i, mask=m)
    y = tl.load(b + i, mask=m)
    q = {pointer}
"""

TESTS = [
    *["F", "not F", "M == 2", "M > 3", "M % 2 == 0", "S == 'a'", "S != 'b'", "F and M > 1", "F or S == 'a'", "B >= 64"],
    *["bias is not None", "bias is None", "M == 1", "G", "M * 7 == 28", "B // M > 30", "M ** 2 == 16"],
    *["n > 100", "tl.program_id(0) == 0", "flag > 1", "a.dtype.element_ty == tl.float32"],
]
VALUES = ["x", "x * 2", "x - y", "-x", "y", "x + M", "tl.where(m, x, y)"]
FLAGS = ["F", "not F", "M > 2", "M * 7 == 28", "True", "False"]


def statement(draw: random.Random, space: str, dangerous: bool) -> list[str]:
    value, pointer, flag = draw.choice(VALUES), draw.choice(["out", "out", "out", "other", "q"]), draw.choice(FLAGS)
    kinds = {
        f"tl.store({pointer} + i, {value}, mask=m)": 9,
        f"put({pointer}, i, {value}, m)": 5,
        f"put_if({pointer}, i, {value}, m, {flag})": 3,
        f"P({pointer}, i, {value}, m)": 1,
        "x = x * 2": 1,
        "loop": 2,
    }
    if dangerous:
        touched = draw.choice(["out", "other", "other"])
        kinds[f"x += get({touched}, i, m)"] = 1
        kinds[f"tl.atomic_add({touched} + i, {value}, mask=m)"] = 1
    chosen = draw.choices(list(kinds), weights=list(kinds.values()))[0]
    if chosen != "loop":
        return [space + chosen]
    times = draw.choice(["range(2)", "tl.static_range(2)", "tl.static_range(M)"])
    return [f"{space}for _ in {times}:", *statement(draw, space + "    ", dangerous)]


def block(draw: random.Random, space: str, depth: int, dangerous: bool) -> list[str]:
    lines = []
    for _ in range(draw.randint(1, 3 if depth < 2 else 1)):
        if depth == 3 or draw.random() > 0.5:
            lines += statement(draw, space, dangerous)
            continue
        lines += [f"{space}if {draw.choice(TESTS)}:", *block(draw, space + "    ", depth + 1, dangerous)]
        if draw.random() < 0.6:
            lines += [f"{space}else:", *block(draw, space + "    ", depth + 1, dangerous)]
    return lines


def values(draw: random.Random) -> dict[str, object]:
    return {
        "F": draw.choice([True, False]),
        "M": draw.choice([1, 2, 3, 4, 5]),
        "S": draw.choice(["a", "b", "c"]),
        "B": draw.choice([64, 128]),
    }


def launcher(draw: random.Random, number: int) -> str:
    arguments = ", ".join(f"{name}={value!r}" for name, value in values(draw).items())
    return (
        f"\n\ndef launch{number}(a, b, n, flag):\n    out, other = torch.empty_like(a), torch.empty_like(a)\n"
        f"    k[(3,)](a, b, out, other, None, n, flag, P=put, {arguments})\n    return out, other\n"
    )


def random_kernel(seed: int) -> str:
    draw = random.Random(seed)
    text = HEADER.format(flag=draw.choice([True, False]), pointer=draw.choice(["out", "other"]))
    text += "\n".join(block(draw, "    ", 0, draw.random() < 0.3)) + "\n"
    return text + "".join(launcher(draw, number) for number in range(draw.choice([0, 1, 1, 2])))


RUNNER = """\
import json, linecache, types, sys

import torch


def load(text, path):
    open(path, "w").write(text)
    linecache.checkcache(path)
    module = types.ModuleType("case")
    module.__file__ = path
    sys.modules["case"] = module
    exec(compile(text, path, "exec"), module.__dict__)
    return module


def run(module, call):
    torch.manual_seed(0)
    a, b, n = torch.randn(150), torch.randn(150), 150
    out, other = torch.zeros(n), torch.zeros(n)
    bias = torch.randn(n) if call["bias"] else None
    values = {name: call[name] for name in "FMSB"}
    module.k[(3,)](a, b, out, other, bias, n, call["flag"], P=module.put, **values)
    return out, other


wrong, count = {}, 0
for seed, original, fused, calls in json.load(open("cases.json")):
    first, second = load(original, f"{seed}_original.py"), load(fused, f"{seed}_fused.py")
    for call in calls:
        (out, other), (fused_out, fused_other) = run(first, call), run(second, call)
        count += 1
        if not (torch.equal(torch.relu(out), fused_out) and torch.equal(other, fused_other)):
            wrong.setdefault(seed, []).append(call)
json.dump({"wrong": wrong, "count": count}, open("results.json", "w"))
"""


@pytest.mark.long
@pytest.mark.slow
def test_fused_random_kernels_are_right_for_every_value(tmp_path: Path) -> None:
    cases = []
    for seed in range(KERNELS):
        text = random_kernel(seed)
        try:
            fused = fuse(text, "out=relu", kernel="k").source
        except FusionRefused as refusal:
            # without a launch, nothing says what `P` is
            assert "def launch" not in text or "KR110" not in {d.code for d in refusal.diagnostics}, (seed, refusal)
            continue
        draw = random.Random(seed)
        more = [{**values(draw), "bias": draw.choice([0, 1]), "flag": draw.choice([0, 1, 2])} for _ in range(CALLS)]
        cases.append((seed, text, fused, more))
    assert len(cases) > KERNELS // 10, "too few kernels could be fused for this to test anything"
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    (tmp_path / "run.py").write_text(RUNNER)
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "run.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["count"] == len(cases) * CALLS
    assert not results["wrong"]
