"""verify on a kept original value: what the fused kernel stores there is what the original stores, to the bit."""

from __future__ import annotations

import pytest

from kernel_rewrite import FusionRefused
from kernel_rewrite.verify import render

from .conftest import Check
from .test_equivalence import ADD, AUTOTUNED, HEAD, MATMUL, TWO_OUTPUTS

MATMUL_CALL = "matmul(randn(24, 32), randn(32, 40), pre=empty(24, 40))"
HALVES = (
    "matmul(randn(24, 32, dtype=float16), randn(32, 40, dtype=float16), bias=randn(40, dtype=float16), "
    "pre=empty(24, 40, dtype=float16))"
)
BLOCKS = """
@triton.jit
def halve_kernel(x_ptr, out_ptr, M, N, BLOCK: tl.constexpr):
    x = tl.make_tensor_descriptor(x_ptr, [M, N], [N, 1], [BLOCK, BLOCK])
    out = tl.make_tensor_descriptor(out_ptr, [M, N], [N, 1], [BLOCK, BLOCK])
    row, col = tl.program_id(0) * BLOCK, tl.program_id(1) * BLOCK
    out.store([row, col], x.load([row, col]) * 0.5)


def halve(x, out):
    M, N = x.shape
    halve_kernel[(triton.cdiv(M, 16), triton.cdiv(N, 16))](x, out, M, N, BLOCK=16)
    return out
"""


@pytest.mark.parametrize(
    ("source", "epilogues", "call", "options"),
    [
        (HEAD + MATMUL, "gelu", MATMUL_CALL, {"keep_original": {"c_ptr": "pre_ptr"}}),
        (HEAD + MATMUL, "silu(x + bias)", HALVES, {"keep_original": ["c_ptr=pre_ptr"], "operands": {"bias": "row"}}),
        (HEAD + MATMUL, "relu", MATMUL_CALL, {"keep_original": ["c_ptr=pre_ptr"], "prologues": ["b_ptr=relu"]}),
        (HEAD + MATMUL, "x.to(float16)", MATMUL_CALL, {"keep_original": ["c_ptr=pre_ptr"], "dtypes": ["c_ptr=fp32"]}),
        (HEAD + ADD, "relu", "add(randn(100), randn(100), kept=empty(100))", {"keep_original": ["out_ptr=kept"]}),
        (
            HEAD + AUTOTUNED,
            "abs",
            "add(randn(100), randn(100), pre=empty(100))",
            {"keep_original": ["out_ptr=pre_ptr"]},
        ),
        (
            HEAD + TWO_OUTPUTS,
            ["sum_ptr=relu", "product_ptr=abs"],
            "both(randn(100), sums=empty(100), products=empty(100))",
            {"keep_original": {"sum_ptr": "sums_ptr", "product_ptr": "products_ptr"}},
        ),
        (
            HEAD + ADD.partition("def add(")[0],
            "relu",
            "add_kernel[(2,)](randn(100), randn(100), empty(100), 100, pre_ptr=empty(100), BLOCK=64)",
            {"keep_original": ["out_ptr=pre_ptr"]},
        ),
        (
            HEAD + BLOCKS,
            "relu",
            "halve(randn(32, 32), empty(32, 32), pre=empty(32, 32))",
            {"keep_original": ["out_ptr=pre_ptr"]},
        ),
    ],
    ids=["matmul", "halves", "prologue", "cast", "add", "autotuned", "two", "the kernel itself", "descriptors"],
)
def test_what_is_kept_is_what_the_original_stores(
    check: Check, source: str, epilogues: str | list[str], call: str, options: dict[str, object]
) -> None:
    found = check(source, epilogues, call, options=options)
    assert found.ok, render(found)
    ran = [trial for trial in found.trials if not trial.skipped]
    assert len(ran) >= 4, render(found)
    kept = [name for name in ("pre_ptr", "kept", "sums_ptr", "products_ptr") if name in str(options["keep_original"])]
    for trial in ran:
        assert set(kept) <= {output.output for output in trial.outputs}, render(found)
        assert all(output.differing == 0 for output in trial.outputs if output.output in kept), render(found)


POINTERS = "pre_ptr + rows[:, None] * scm + cols[None, :] * scn"
KEPT = f"tl.store({POINTERS}, pre, mask=mask)"


@pytest.mark.parametrize(
    "mutate",
    [
        (KEPT, f"tl.store({POINTERS}, pre * 1.0000001, mask=mask)"),
        (KEPT, f"tl.store({POINTERS}, gelu(pre), mask=mask)"),
        (KEPT, f"tl.store({POINTERS}, pre, mask=mask & (rows[:, None] > 0))"),
        (KEPT, f"tl.store({POINTERS.replace('rows[:, None]', '(rows[:, None] ^ 1)')}, pre, mask=mask)"),
        (KEPT, "pass"),
        ("gelu(pre)", "gelu(pre + 0.001)"),
    ],
    ids=["value", "behind the op", "mask", "place", "nothing", "the output"],
)
def test_another_value_is_seen(check: Check, mutate: tuple[str, str]) -> None:
    options = {"keep_original": {"c_ptr": "pre_ptr"}}
    found = check(HEAD + MATMUL, "gelu", MATMUL_CALL, options=options, mutate=mutate, trials=1)
    assert not found.ok


def test_a_buffer_of_another_size_is_no_such_buffer(check: Check) -> None:
    with pytest.raises(FusionRefused) as raised:
        check(
            HEAD + ADD,
            "relu",
            "add(randn(100), randn(100), pre=empty(7))",
            options={"keep_original": ["out_ptr=pre_ptr"]},
        )
    assert raised.value.diagnostics[0].code == "KR502"


def test_what_is_kept_lies_as_the_output_does(check: Check) -> None:
    source = HEAD + BLOCKS.replace("out_ptr, [M, N], [N, 1]", "out_ptr, [M, N], [stride, 1]")
    source = source.replace("M, N, BLOCK: ", "M, N, stride, BLOCK: ").replace(
        "M, N, BLOCK=", "M, N, out.stride(0), BLOCK="
    )
    call, options = "halve(randn(32, 32), empty(32, 32), pre=empty(32, 32))", {"keep_original": ["out_ptr=pre_ptr"]}
    found = check(source, "relu", call, options=options, trials=15)
    assert found.ok, render(found)
    assert "rows apart" in {trial.inputs for trial in found.trials if not trial.skipped}, render(found)


PAIR = """
@triton.jit
def pair_kernel(x_ptr, gate_ptr, c_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    x = tl.load(x_ptr + offsets, mask=mask).to(tl.float32)
    gate = x * 0.5
    tl.store(gate_ptr + offsets, gate, mask=mask)
    tl.store(c_ptr + offsets, x + 1.0, mask=mask)


def pair(x):
    gate, c = torch.empty_like(x), torch.empty_like(x)
    pair_kernel[(triton.cdiv(x.numel(), 64),)](x, gate, c, x.numel(), BLOCK=64)
    return gate, c
"""


@pytest.mark.parametrize(
    ("call", "mutate"),
    [
        ("pair(randn(100, dtype=float16))", None),
        ("pair(randn(100))", ("silu(gate_2)", "silu(gate_2 * 1.01)")),
        ("pair(randn(100))", ("gate_ptr + offsets, gate,", "gate_ptr + offsets, gate * 1.0000002,")),
        ("pair(randn(100))", ("gate_2 = gate", "gate_2 = x")),
    ],
)
def test_what_is_stored_to_another_output_takes_part(check: Check, call: str, mutate: tuple[str, str] | None) -> None:
    options = {"operands": {"gate_ptr": "stored"}}
    found = check(HEAD + PAIR, ["c_ptr=silu(gate_ptr) * x"], call, options=options, mutate=mutate, trials=3)
    assert found.ok is (mutate is None), render(found)
    assert {"gate_ptr", "c_ptr"} <= {output.output for trial in found.trials for output in trial.outputs}
