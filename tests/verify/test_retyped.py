"""verify on outputs that an epilogue gives another element type, or launchers another fill: the torch cast is the reference."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.verify import render

from .conftest import Check

FIXTURES = Path(__file__).parent.parent.parent / "fixtures" / "rewrites"

CALLS = {
    "bool_of_a_sign": "decay(randn(700), 0.1)",
    "cast_in_a_helper": "centred(randn(5, 100))",
    "cast_through_a_block_pointer": "squares(randn(20, 70))",
    "cast_through_a_descriptor": "transposed(randn(64, 96, dtype=float16))",
    "cast_to_half": "add(randn(1100), randn(1100))",
    "fill_follows_the_epilogue": "causal_mask(37, 'cpu')",
    "fp8_with_a_static_scale": "norm(randn(4, 100, dtype=float16), randn(100, dtype=float16), out_scale=0.01)",
    "int8_with_a_static_scale": "silu_and_mul(randn(4, 600, dtype=bfloat16), inverse_scale=20.0)",
    "kept_beside_a_cast": "scaled(randn(64, 128, dtype=bfloat16), 2.0, scale=0.5, wide=empty(64, 128, dtype=bfloat16))",
    "promoted_by_an_operand": "matmul(randn(40, 64, dtype=float16), randn(64, 50, dtype=float16), bias=randn(50))",
    "sum_of_a_cast": "Double.run(randn(5, 100, dtype=bfloat16))",
}


def request(name: str) -> tuple[str, str, dict[str, object]]:
    """The source, the epilogue and the options of a fixture."""
    words = shlex.split((FIXTURES / name / "request.txt").read_text())
    options: dict[str, object] = {"partial": True} if "--partial" in words else {}
    words = [word for word in words if word != "--partial"]
    given = dict(zip(words[::2], words[1::2]))
    if "--operand" in given:
        options["operands"] = [given["--operand"]]
    if "--dtype" in given:
        options["dtypes"] = [given["--dtype"]]
    if "--keep-original" in given:
        options["keep_original"] = [given["--keep-original"]]
    return (FIXTURES / name / "before.py").read_text(), given["--epilogue"], options


def test_every_fixture_has_a_call() -> None:
    after = {path.parent.name: path.read_text() for path in FIXTURES.glob("*/after.py")}
    changed = {name for name, text in after.items() if " -> " in text.partition("# end of header")[0]}
    assert changed | {"fill_follows_the_epilogue"} == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_what_fuse_writes_is_equivalent(name: str, check: Check, installed_triton: tuple[int, ...]) -> None:
    if name == "cast_through_a_block_pointer" and installed_triton[:2] >= (3, 9):
        pytest.skip("Triton has no block pointers")
    source, epilogue, options = request(name)
    found = check(source, epilogue, CALLS[name], options=options, trials=4)
    assert found.ok, render(found)
    assert found.elements > 30


WRONG = {
    "a factor": ("cast_to_half", ".to(x_ptr.dtype.element_ty).to(tl.float16)", " * 1.001"),
    "another cast": ("cast_to_half", ".to(tl.float16)", ".to(tl.bfloat16)"),
    "the other side": ("bool_of_a_sign", "> 0", "< 0"),
    "no clamp": ("int8_with_a_static_scale", "return clamp_value.to(tl.int32)", "return round_half_even(x * inverse_scale).to(tl.int32)"),
    "another scale": ("fp8_with_a_static_scale", "tl.div_rn(1.0, out_scale)", "out_scale"),
    "the old fill": ("fill_follows_the_epilogue", "fill_value=0.5", "fill_value=0.0"),
    "an element too much": ("fp8_with_a_static_scale", "mask = cols < n_cols", "mask = cols < n_cols - 1"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_file_is_found(what: str, check: Check) -> None:
    name, right, wrong = WRONG[what]
    source, epilogue, options = request(name)
    call = CALLS[name].replace("inverse_scale=20.0", "inverse_scale=20000.0")
    found = check(source, epilogue, call, options=options, mutate=(right, wrong), trials=2)
    assert not found.ok, render(found)


@pytest.mark.parametrize("wrong", ["", ", dtype=torch.bfloat16"])
def test_an_output_of_the_wrong_type_is_no_run(wrong: str, check: Check) -> None:
    source, epilogue, options = request("cast_to_half")
    with pytest.raises(FusionRefused, match=r"is float16 in the original and b?float"):
        mutate = (", dtype=torch.float16", wrong)
        check(source, epilogue, CALLS["cast_to_half"], options=options, mutate=mutate, trials=1)


def test_a_buffer_that_is_written_in_part_is_filled_with_what_the_epilogue_gives(check: Check) -> None:
    source, epilogue, _ = request("fill_follows_the_epilogue")
    found = check(source, epilogue, CALLS["fill_follows_the_epilogue"], trials=2)
    assert found.ok, render(found)
    outputs = [output for trial in found.trials for output in trial.outputs]
    assert all(output.elements > output.written > 0 and not output.missed for output in outputs)


def test_at_the_precision_of_the_accumulator(check: Check) -> None:
    source, epilogue, options = request("fp8_with_a_static_scale")
    source = source.replace("c.to(c_ptr.dtype.element_ty)", "x * scale * w")
    found = check(
        source, epilogue, CALLS["fp8_with_a_static_scale"], options={**options, "numerics": "fused"}, trials=3
    )
    assert found.ok, render(found)


CALLED_WITH = """
import torch
import triton
import triton.language as tl


@triton.jit
def kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    tl.store(out_ptr + offsets, tl.load(x_ptr + offsets, mask=offsets < n) * 1e30, mask=offsets < n)


def large(x):
    out = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    kernel[(1,)](x, out, x.numel(), BLOCK=128)
    return out
"""


@pytest.mark.parametrize("epilogue", ["x.to(int8)", "x.to(float8_e4m3fn)"])
def test_casts_that_torch_leaves_open_are_allowed(epilogue: str, check: Check) -> None:
    found = check(CALLED_WITH, epilogue, "large(randn(100))", trials=2)
    assert found.ok, render(found)
    wrong = check(
        CALLED_WITH.replace("1e30", "1.0"), epilogue, "large(randn(100) * 9)", trials=1, mutate=("1.0", "2.0")
    )
    assert not wrong.ok
