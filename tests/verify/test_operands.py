"""verify on epilogues that read operands: the original's launcher is not given them, the torch op is."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from kernel_rewrite.verify import render
from kernel_rewrite.verify.called import CalledOp
from kernel_rewrite.verify.runner import Session, _op

from .conftest import Check
from .test_equivalence import ADD, HEAD, MATMUL

FIXTURES = Path(__file__).parent.parent.parent / "fixtures" / "rewrites"
CALL = "matmul(randn(24, 32), randn(32, 40), {})"
OPERANDS = {
    "bias": ("row", "bias=randn(40)"),
    "shift": ("column", "shift=randn(24)"),
    "residual": ("tile", "residual=randn(24, 40)"),
    "scale": ("scalar", "scale=0.3"),
    "gain": ("scalar:fp32", "gain=randn(1)"),
    "odd": ("row:strided", "odd=randn(80)[::2]"),
    "first": ("column:strided", "first=randn(24, 3)[:, :1]"),
    "turned": ("tile:strided", "turned=randn(40, 24).t()"),
}


def given(*names: str) -> tuple[str, dict[str, object]]:
    """The call with the operands `names`, and the options that declare them."""
    call = CALL.format(", ".join(OPERANDS[name][1] for name in names))
    return call, {"operands": {name: OPERANDS[name][0] for name in names}, "dtypes": ["c_ptr=fp32"]}


@pytest.mark.parametrize(
    ("epilogue", "names"),
    [
        ("relu(x + bias) + residual", ("bias", "residual")),
        ("x * shift * scale", ("shift", "scale")),
        ("x * gain - residual", ("gain", "residual")),
        ("where(x > bias, x, residual)", ("bias", "residual")),
        ("(x + odd) * first - turned", ("odd", "first", "turned")),
    ],
)
def test_exact_steps_are_bit_identical(check: Check, epilogue: str, names: tuple[str, ...]) -> None:
    call, options = given(*names)
    found = check(HEAD + MATMUL, epilogue, call, options=options)
    assert found.ok, render(found)
    assert all(output.differing == 0 for trial in found.trials for output in trial.outputs), render(found)


@pytest.mark.parametrize(
    ("epilogue", "names"),
    [("gelu(x + bias) * residual", ("bias", "residual")), ("silu(x * scale) + shift", ("scale", "shift"))],
)
def test_steps_that_round_elsewhere_are_allowed_their_arithmetic(
    check: Check, epilogue: str, names: tuple[str, ...]
) -> None:
    call, options = given(*names)
    found = check(HEAD + MATMUL, epilogue, call, options=options)
    assert found.ok, render(found)


GATE = """
@triton.jit
def gate(x, weight, LOW: tl.constexpr = 0.0):
    wide = x.to(tl.float32) * tl.sigmoid(x.to(tl.float32))
    return tl.where(wide > LOW, wide * weight, 0.1)
"""


@pytest.mark.parametrize(
    ("epilogue", "names"),
    [
        ("gate(x, 2.0, LOW=-0.1)", ()),
        ("gate(x, bias)", ("bias",)),
        ("gate(x, shift)", ("shift",)),
        ("gate(x, weight=scale)", ("scale",)),
        ("gate(weight=residual, x=x)", ("residual",)),
    ],
)
def test_a_function_of_the_author_is_the_op(check: Check, epilogue: str, names: tuple[str, ...]) -> None:
    call, options = given(*names)
    found = check(HEAD + GATE + MATMUL, epilogue, call, options={**options, "kernel": "matmul_kernel"})
    assert found.ok, render(found)
    assert all(output.differing == 0 for trial in found.trials for output in trial.outputs), render(found)


@pytest.mark.parametrize(
    ("fixture", "epilogue", "operands", "call", "mutate"),
    [
        (
            "strided_tile_of_a_batch",
            "x + residual",
            {"residual": "tile:strided"},
            "doubled(randn(2, 33, 40), residual=randn(40, 2, 33, dtype=float16).permute(1, 2, 0))",
            ("batch * stride_residual_b", "(1 - batch) * stride_residual_b"),
        ),
        (
            "pointer_moved_by_a_loop",
            "x * bias - residual",
            {"bias": "row", "residual": "tile"},
            "shift(randn(40, 150), bias=randn(150, dtype=float16), residual=randn(40, 150, dtype=float16))",
            ("tl.cast(start, tl.int64) * stride_yn", "tl.cast(0, tl.int64) * stride_yn"),
        ),
        (
            "beside_a_host_descriptor",
            "x * scale + residual",
            {"scale": "column", "residual": "tile:strided"},
            "doubled(randn(40, 72, dtype=float16), scale=randn(40, dtype=float16), "
            "residual=randn(72, 40, dtype=float16).t())",
            ("rows = row + ", "rows = 0 * row + "),
        ),
    ],
)
def test_where_operands_are_read(
    check: Check, fixture: str, epilogue: str, operands: dict[str, str], call: str, mutate: tuple[str, str]
) -> None:
    source = (FIXTURES / fixture / "before.py").read_text()
    found = check(source, epilogue, call, options={"operands": operands})
    assert found.ok, render(found)
    assert not check(source, epilogue, call, options={"operands": operands}, mutate=mutate).ok


class _Launched:
    """In the place of a kernel: what it is launched with."""

    def __init__(self) -> None:
        self.options: list[dict[str, Any]] = []

    def __getitem__(self, grid: object) -> Any:
        return lambda *arguments, BLOCK, **options: self.options.append(options)


def test_the_function_is_compiled_as_the_launch_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the options that change what arithmetic gives, and no others."""
    torch = pytest.importorskip("torch")
    launched = _Launched()
    monkeypatch.setattr(CalledOp, "_kernel", lambda self, tensors: launched)
    monkeypatch.setattr(sys.modules[_op.__module__], "declared_in", lambda session: {})
    op = _op(Session({}, io.StringIO(), "interpreter", 0.0, original=sys.modules[__name__]), "gate(x)")
    x = torch.ones(4)
    for bound in ({"n": 4, "enable_fp_fusion": False, "num_warps": 8}, {"n": 4}):
        op.apply(x, **op.given(x, bound))
    assert launched.options == [{"enable_fp_fusion": False}, {}]


def test_another_function_is_seen(check: Check) -> None:
    call, options = given("bias")
    options["kernel"] = "matmul_kernel"
    found = check(HEAD + GATE + MATMUL, "gate(x, bias)", call, options=options, mutate=("0.1)", "0.2)"))
    assert not found.ok


def test_an_expression_without_operands(check: Check) -> None:
    found = check(
        HEAD + ADD, "gelu(x * 2.0) + 0.1", "add(randn(100), randn(100))", options={"dtypes": ["out_ptr=fp32"]}
    )
    assert found.ok, render(found)


@pytest.mark.parametrize(
    ("epilogue", "names", "mutate"),
    [
        ("relu(x + bias)", ("bias",), ("bias_ptr + cols[None, :]", "bias_ptr + (cols[None, :] + 1) % N")),
        ("relu(x + bias)", ("bias",), ("+ bias", "- bias")),
        ("x + residual", ("residual",), ("residual_ptr + rows[:, None]", "residual_ptr + (rows[:, None] // 2)")),
        ("x * shift", ("shift",), ("shift_ptr + rows[:, None]", "shift_ptr + rows[:, None] // 2")),
        ("gelu(x + bias)", ("bias",), ("wide * 0.5", "wide * 0.5001")),
        ("x - turned", ("turned",), ("* stride_turned_m", "* stride_turned_n")),
        ("x + odd", ("odd",), ("* stride_odd", "")),
        # the last bit counts, where nothing but a sum was computed
        ("x + residual", ("residual",), ("+ residual", "+ residual * 1.0000001")),
    ],
)
def test_another_value_is_seen(check: Check, epilogue: str, names: tuple[str, ...], mutate: tuple[str, str]) -> None:
    call, options = given(*names)
    found = check(HEAD + MATMUL, epilogue, call, options=options, mutate=mutate)
    assert not found.ok


def test_an_index_of_the_kernel_has_no_torch_op(check: Check) -> None:
    from kernel_rewrite import FusionRefused

    with pytest.raises(FusionRefused) as raised:
        check(HEAD + ADD, "x + bias[offs % 10]", "add(randn(100), randn(100), bias=randn(10))")
    assert raised.value.diagnostics[0].code == "KR502"


def test_operands_keep_their_layout_where_others_get_gaps(check: Check) -> None:
    call, options = given("residual")
    found = check(HEAD + MATMUL, "x + residual", call, options=options, trials=15)
    assert found.ok, render(found)
    assert {"rows apart", "one element in"} <= {trial.inputs for trial in found.trials}
