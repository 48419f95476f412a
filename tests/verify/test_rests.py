"""verify on an epilogue of which a part is fused: what launchers return is what torch makes of the outputs, to the bit."""

from __future__ import annotations

from typing import Any

import pytest

from kernel_rewrite.verify import render

from .conftest import Check
from .test_equivalence import ADD, HEAD, MATMUL, TWO_OUTPUTS

MATMUL_CALL = "matmul(randn(24, 32), randn(32, 40))"
IN_A_CLASS = (
    HEAD
    + ADD.partition("def add(")[0]
    + """

class Adder:
    @staticmethod
    def add(x, y):
        out = torch.empty_like(x)
        add_kernel[(triton.cdiv(x.numel(), 64),)](x, y, out, x.numel(), BLOCK=64)
        return out, x


def twice(x):
    return [Adder.add(x, x)[0], Adder.add(x, x)[0]]
"""
)


@pytest.mark.parametrize(
    ("source", "epilogues", "call", "options"),
    [
        (HEAD + MATMUL, "softmax(relu(x), dim=-1)", MATMUL_CALL, {}),
        (HEAD + MATMUL, "gelu(x) / sum(gelu(x), dim=1, keepdim=True)", MATMUL_CALL, {}),  # gelu is not to the bit
        (
            HEAD + MATMUL,
            "sum(relu(x + bias) * bias * scale, dim=-1).relu() * scale",
            "matmul(randn(24, 32), randn(32, 40), bias=randn(40), scale=0.7)",
            {"operands": {"bias": "row", "scale": "scalar"}},
        ),
        (
            HEAD + MATMUL,
            "relu(x).t() * gate",
            "matmul(randn(24, 32), randn(32, 40), gate=randn(24))",
            {"operands": {"gate": "row"}},
        ),
        (HEAD + MATMUL, "mean(relu(x).to(float16), dim=0)", MATMUL_CALL, {"dtypes": ["c_ptr=fp32"]}),
        (HEAD + TWO_OUTPUTS, ["sum_ptr=amax(abs(x))", "product_ptr=relu"], "both(randn(100))", {}),
        (IN_A_CLASS, "flip(relu(x), dims=(0,))", "twice(randn(100))", {}),
    ],
    ids=["softmax", "inexact", "operands", "operand of the rest", "cast", "two outputs", "a class"],
)
def test_what_is_returned(check: Check, source: str, epilogues: Any, call: str, options: dict[str, Any]) -> None:
    found = check(source, epilogues, call, options={"partial": True, **options}, trials=2)
    assert found.ok, render(found)
    ran = [trial for trial in found.trials if not trial.skipped]
    assert ran and all(trial.returned_compared for trial in ran), render(found)


@pytest.mark.parametrize(
    ("epilogue", "mutate"),
    [
        ("softmax(relu(x), dim=-1)", ("torch.softmax(out, dim=-1)", "out")),
        ("softmax(relu(x), dim=-1)", ("torch.softmax(out, dim=-1)", "torch.softmax(out * 1.0001, dim=-1)")),
        ("softmax(gelu(x), dim=-1)", ("torch.softmax(out, dim=-1)", "torch.softmax(out * 1.0001, dim=-1)")),
        ("mean(relu(x).to(float16))", ("torch.mean(out)", "torch.mean(out * 2)")),
    ],
)
def test_another_rest_is_found(check: Check, epilogue: str, mutate: tuple[str, str]) -> None:
    options = {"partial": True, "dtypes": ["out_ptr=fp32"]}
    found = check(HEAD + ADD, epilogue, "add(randn(100), randn(100))", options=options, mutate=mutate, trials=1)
    assert not found.ok
    assert "what the call returns is not what torch makes of the kernel's outputs" in render(found)


def test_another_fused_part_is_found(check: Check) -> None:
    mutate, call = ("PropagateNan.ALL", "PropagateNan.NONE"), "add(randn(100), randn(100))"
    found = check(HEAD + ADD, "cumsum(relu(x), 0)", call, options={"partial": True}, mutate=mutate, trials=2)
    assert not found.ok and any(output.wrong for trial in found.trials for output in trial.outputs)
