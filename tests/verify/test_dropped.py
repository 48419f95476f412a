"""Fused files without some of the outputs: what is left is compared with the unfused pair, and so is what is returned."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel_rewrite.verify.results import render

from .conftest import Check

FIXTURES = Path(__file__).parent.parent.parent / "fixtures" / "rewrites"
GATED = (FIXTURES / "swiglu_without_the_gate" / "before.py").read_text()
NORMALIZED = (FIXTURES / "statistics_dropped" / "before.py").read_text()
SWIGLU, HALVES = "up_ptr=silu(gate_ptr) * x", "halves(randn(20, 66, dtype=float16))"


def test_the_gate_is_neither_stored_nor_returned(check: Check) -> None:
    found = check(GATED, [SWIGLU], HALVES, options={"drop": ["gate_ptr"]})
    assert found.ok and len([t for t in found.trials if not t.skipped]) >= 4, render(found)
    assert {o.output for trial in found.trials for o in trial.outputs} == {"up_ptr"}
    assert all(trial.returned_compared for trial in found.trials if not trial.skipped and trial.ok)


@pytest.mark.parametrize(
    "mutate",
    [
        ("silu(gate)", "silu(gate * 1.01)"),
        ("return None, up", "return None, up + 1"),
        ("return None, up", "return up, up"),
        ("return None, up", "return (None,)"),
        ("    tl.store(up_ptrs, silu(gate) * up, mask=inside)\n", "    pass\n"),
    ],
)
def test_another_value_is_seen(check: Check, mutate: tuple[str, str]) -> None:
    found = check(GATED, [SWIGLU], HALVES, options={"drop": ["gate_ptr"]}, mutate=mutate, trials=1)
    assert not found.ok, render(found)


@pytest.mark.parametrize(("mutate", "ok"), [(None, True), (("x * rstd", "x * rstd * 1.01"), False)])
def test_what_is_left_without_an_op_is_compared(check: Check, mutate: tuple[str, str] | None, ok: bool) -> None:
    options = {"drop": ["rstd_ptr", "mean_ptr"]}
    found = check(NORMALIZED, [], "normalized(randn(5, 60))", options=options, mutate=mutate, trials=2)
    assert found.ok is ok, render(found)
    assert {o.output for trial in found.trials for o in trial.outputs} == {"y_ptr"}
