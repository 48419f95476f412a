"""The catalogue's cases: each is fused or refused as it says, and what is fused computes what the unfused pair does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.fuse import Fused, fuse

from .catalogue import CASES, Case

FUSED = [case for case in CASES if not case.codes]
REFUSED = [case for case in CASES if case.codes]

RUNNER = """\
import json, linecache, sys, types

import torch

from kernel_rewrite.pointwise.interpreter import stand_ins


def load(text, path):
    open(path, "w").write(text)
    linecache.checkcache(path)
    module = types.ModuleType("case")
    module.__file__ = path
    sys.modules["case"] = module
    exec(compile(text, path, "exec"), module.__dict__)
    return module


def called(text, path, call, operands):
    names = dict(load(text, path).__dict__, randn=torch.randn)
    torch.manual_seed(0)
    return eval(call[:-1] + "".join(f", {name}={name}" for name in operands) + ")", names, dict(operands))


def verdict(number, run):
    torch.manual_seed(1)
    names = {"torch": torch, "randn": torch.randn}
    operands = {name: eval(text, names) for name, text in run["operands"].items()}
    before = called(run["original"], f"{number}_original.py", run["call"], {})
    after = called(run["fused"], f"{number}_fused.py", run["call"], operands)
    expected = eval(run["torch_text"], names | operands | {"out": before})
    several = isinstance(before, tuple)
    triples = zip(before, expected, after, strict=True) if several else [(before, expected, after)]
    changed = False
    for value, wanted, found in triples:
        changed = changed or not torch.equal(value, wanted)
        if wanted.dtype != found.dtype:
            return f"{wanted.dtype} expected, {found.dtype} found"
        tolerance = 0.0 if run["exact"] else {torch.float16: 2e-3, torch.bfloat16: 2e-2}.get(found.dtype, 2e-6)
        if not torch.allclose(wanted, found, rtol=tolerance, atol=tolerance, equal_nan=True):
            return f"{wanted.flatten()[:4]} expected, {found.flatten()[:4]} found"
    return "" if changed else "the epilogue changes nothing: the case tests nothing"


results = {}
for number, run in enumerate(json.load(open("runs.json"))):
    try:
        with stand_ins():
            results[run["name"]] = verdict(number, run)
    except Exception as error:
        results[run["name"]] = f"{type(error).__name__}: {error}"
json.dump(results, open("results.json", "w"))
"""


def fused(case: Case) -> Fused:
    operands = {name: kind for name, (kind, _) in case.operands.items() if kind}
    return fuse(str(case.path), case.requests, operands=operands, **case.options)  # type: ignore[arg-type]


def supported(case: Case, installed_triton: tuple[int, ...]) -> bool:
    return "block" not in case.kernel or installed_triton < (3, 9)


@pytest.fixture(scope="module")
def files(installed_triton: tuple[int, ...]) -> dict[str, Fused | FusionRefused]:
    found: dict[str, Fused | FusionRefused] = {}
    for case in FUSED:
        if supported(case, installed_triton):
            try:
                found[case.name] = fused(case)
            except FusionRefused as refusal:
                found[case.name] = refusal
    return found


@pytest.fixture(scope="module")
def runs(files: dict[str, Fused | FusionRefused], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """By case: why the fused file computes something else; "" when it does not."""
    folder = tmp_path_factory.mktemp("cases")
    tasks = [
        {
            "name": case.name,
            "original": case.path.read_text(),
            "fused": file.source,
            "operands": {name: tensor for name, (_, tensor) in case.operands.items()},
            "call": case.call,
            "torch_text": case.torch_text,
            "exact": case.exact,
        }
        for case in FUSED
        if isinstance(file := files.get(case.name), Fused)
    ]
    (folder / "runs.json").write_text(json.dumps(tasks))
    (folder / "run.py").write_text(RUNNER)
    root = str(Path(__file__).parent.parent.parent)
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "run.py"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    results: dict[str, str] = json.loads((folder / "results.json").read_text())
    return results


def test_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", FUSED, ids=lambda case: case.name)
def test_fuses_and_runs_as_the_unfused_pair(
    case: Case, files: dict[str, Fused | FusionRefused], runs: dict[str, str], installed_triton: tuple[int, ...]
) -> None:
    if not supported(case, installed_triton):
        pytest.skip("block pointers are gone in Triton 3.9")
    refusal = files[case.name]
    assert isinstance(refusal, Fused), [(d.code, d.message) for d in refusal.diagnostics]
    assert runs[case.name] == ""


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_refuses(case: Case) -> None:
    with pytest.raises(FusionRefused) as refusal:
        fused(case)
    assert tuple(d.code for d in refusal.value.diagnostics) == case.codes
