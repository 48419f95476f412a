"""Runs fused files against the unfused pair in Triton's interpreter, many of them in one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Run:
    """`call` computes {name: tensor} from the names of the module; `outputs` are those that get `op`."""

    name: str
    original: str
    fused: str
    call: str
    op: str
    outputs: tuple[str, ...] = ("out",)


_RUNNER = """\
import json, linecache, sys, types

import torch

from kernel_rewrite.pointwise.interpreter import stand_ins
from kernel_rewrite.pointwise.language import parse_epilogue


def load(text, path):
    open(path, "w").write(text)
    linecache.checkcache(path)
    module = types.ModuleType("case")
    module.__file__ = path
    sys.modules["case"] = module
    exec(compile(text, path, "exec"), module.__dict__)
    return module


def outputs(module, call):
    torch.manual_seed(0)
    names = dict(module.__dict__)
    exec(call, names)
    return names["result"]


def verdict(number, run):
    before = outputs(load(run["original"], f"{number}_original.py"), run["call"])
    after = outputs(load(run["fused"], f"{number}_fused.py"), run["call"])
    for name, value in before.items():
        if name not in run["outputs"]:
            if not torch.equal(value, after[name]):
                return f"`{name}`, which gets no op, changed"
            continue
        expected = parse_epilogue(run["op"]).evaluate(value)
        if torch.equal(expected, value):
            return f"the op changes nothing in `{name}`: the case tests nothing"
        tolerance = {torch.float16: 2e-3, torch.bfloat16: 2e-2}.get(value.dtype, 1e-5)
        if not torch.allclose(expected, after[name], rtol=tolerance, atol=1e-6, equal_nan=True):
            return f"`{name}` differs: {expected.flatten()[:4]} expected, {after[name].flatten()[:4]} found"
    return ""


results = {}
for number, run in enumerate(json.load(open("runs.json"))):
    try:
        with stand_ins():
            results[run["name"]] = verdict(number, run)
    except Exception as error:
        results[run["name"]] = f"{type(error).__name__}: {error}"
json.dump(results, open("results.json", "w"))
"""


def run_all(runs: Iterable[Run], folder: Path) -> dict[str, str]:
    """By name: why the fused file computes something else than the original and the torch op; "" when it does not."""
    (folder / "runs.json").write_text(json.dumps([asdict(run) for run in runs]))
    (folder / "run.py").write_text(_RUNNER)
    root = str(Path(__file__).parent.parent)
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "run.py"], cwd=folder, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, str] = json.loads((folder / "results.json").read_text())
    return found
