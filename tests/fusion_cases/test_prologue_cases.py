"""The catalogue's prologues: each is fused or refused as it says, and what is fused computes what the unfused pair does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.fuse import Fused, fuse

from .prologues import CASES, Case

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
    return module.launch


def verdict(number, run):
    torch.manual_seed(1)
    names = {"torch": torch, "randn": torch.randn}
    tensors = {name: eval(text, names) for name, text in run["tensors"].items()}
    operands = {name: tensors[name] for name in run["operands"]}
    original = load(run["original"], f"{number}_original.py")
    expected = eval(run["unfused"], names | tensors | {"launch": original})
    found = load(run["fused"], f"{number}_fused.py")(tensors["a"], tensors["b"], **operands)
    pairs = list(zip(expected, found, strict=True)) if isinstance(found, tuple) else [(expected, found)]
    for wanted, got in pairs:
        if wanted.dtype != got.dtype:
            return f"{wanted.dtype} expected, {got.dtype} found"
        tolerance = 0.0 if run["exact"] else {torch.float16: 2e-3, torch.bfloat16: 2e-2}.get(got.dtype, 2e-5)
        if not torch.allclose(wanted, got, rtol=tolerance, atol=tolerance, equal_nan=True):
            return f"{wanted.flatten()[:4]} expected, {got.flatten()[:4]} found"
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


def fused(case: Case) -> Fused:
    operands = {name: kind for name, (kind, _) in case.operands.items()}
    return fuse(str(case.path), case.epilogues, prologues=case.prologues, operands=operands, dtypes=case.dtypes)


def supported(case: Case, installed_triton: tuple[int, ...]) -> bool:
    return "block" not in case.kernel or installed_triton < (3, 9)


@pytest.fixture(scope="module")
def files(installed_triton: tuple[int, ...]) -> dict[str, Fused | FusionRefused]:
    found: dict[str, Fused | FusionRefused] = {}
    for case in FUSED:
        if supported(case, installed_triton):
            known = (c for c in FUSED if c.name in found and fusion_of(c) == fusion_of(case))
            same = next(known, None)  # views of its inputs are no concern of the fusion
            try:
                found[case.name] = found[same.name] if same is not None else fused(case)
            except FusionRefused as refusal:
                found[case.name] = refusal
    return found


def fusion_of(case: Case) -> tuple[object, ...]:
    """What the fused file depends on."""
    kinds = tuple((name, kind) for name, (kind, _) in case.operands.items())
    return case.kernel, case.prologues, case.epilogues, kinds, case.dtypes


@pytest.fixture(scope="module")
def runs(files: dict[str, Fused | FusionRefused], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """By case: why the fused file computes something else; "" when it does not."""
    folder = tmp_path_factory.mktemp("cases")
    tasks = [
        {
            "name": case.name,
            "original": case.path.read_text(),
            "fused": file.source,
            "tensors": dict(zip("ab", case.inputs, strict=True))
            | {n: tensor for n, (_, tensor) in case.operands.items()},
            "operands": list(case.operands),
            "unfused": case.unfused,
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
    file = files[case.name]
    assert isinstance(file, Fused), [(d.code, d.message) for d in file.diagnostics]
    assert runs[case.name] == ""
    if case.where is not None:
        assert file.source.partition("_kernel(")[2].count("tl.where(") == case.where, file.source


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_refuses(case: Case) -> None:
    with pytest.raises(FusionRefused) as refusal:
        fused(case)
    assert tuple(d.code for d in refusal.value.diagnostics) == case.codes
