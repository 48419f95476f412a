"""The measured table is the one in the documents, it covers every op, and every op that differs says why."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from kernel_rewrite.pointwise.ops import OPS

ROOT = Path(__file__).resolve().parents[2]
RUN = json.loads((ROOT / "benchmarks/results/op_table.json").read_text(encoding="utf-8"))
EMITTED = [row for row in RUN["rows"] if row["spelling"] == "as emitted"]


@pytest.fixture(scope="module")
def op_table() -> Any:
    pytest.importorskip("torch")
    spec = importlib.util.spec_from_file_location("op_table", ROOT / "tests/gpu/op_table.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules["op_table"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_documents_show_the_run(op_table: Any) -> None:
    """When an op is spelled anew, `op_table.py --render` marks its row until the GPU has measured it."""
    document = (ROOT / "docs/numerics.md").read_text(encoding="utf-8")
    shown = document.partition(op_table.FIRST)[2].partition(op_table.LAST)[0]
    assert shown == op_table.op_table(RUN["rows"], RUN["facts"])
    results = (ROOT / "benchmarks/results/op_table.md").read_text(encoding="utf-8")
    assert results == op_table.full_table(RUN["rows"], RUN["facts"])


def test_every_op_was_measured(op_table: Any) -> None:
    assert {row["op"] for row in EMITTED} == {case.epilogue for case in op_table.cases([], emitted_only=True)}
    assert not RUN["facts"]["skipped"]


@pytest.mark.parametrize("name", sorted(OPS))
def test_an_op_that_differs_says_where(name: str, op_table: Any) -> None:
    """`differs` names the element types, no more and no fewer; a spelling that was not measured yet says nothing."""
    now = {case.epilogue: case.digest for case in op_table.cases([name], emitted_only=True)}
    mine = [row for row in EMITTED if row["op"].partition("(")[0] == name and row["op"] not in op_table.CHAINS]
    if any(row["digest"] != now[row["op"]] for row in mine):
        pytest.skip("spelled anew since it was measured")
    found = {
        dtype.partition(" ")[0]
        for row in mine
        for dtype, count in row["counts"].items()
        if "error" in count or count.get("mismatches") or count.get("zero_signs")
    }
    types, _, reason = OPS[name].differs.partition(": ")
    assert found == set(types.split(", ") if types else [])
    assert reason or not found
