"""The equivalence run in the interpreter: it passes what is right and fails what is not."""

from __future__ import annotations

import pytest

from kernel_rewrite.verify import render

from .conftest import Check

HEAD = "import torch\nimport triton\nimport triton.language as tl\n\n\n"

ADD = """
@triton.jit
def add_kernel(x_ptr, y_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask)
    y = tl.load(y_ptr + offs, mask=mask)
    tl.store(out_ptr + offs, x + y, mask=mask)


def add(x, y):
    out = torch.empty_like(x)
    n = out.numel()
    add_kernel[(triton.cdiv(n, 64),)](x, y, out, n, BLOCK=64)
    return out
"""

MATMUL = """
@triton.jit
def matmul_kernel(a_ptr, b_ptr, c_ptr, M, N, K, sam, sak, sbk, sbn, scm, scn,
                  BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    cols = tl.program_id(1) * BN + tl.arange(0, BN)
    ks = tl.arange(0, BK)
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    for k in range(0, K, BK):
        a = tl.load(a_ptr + rows[:, None] * sam + (k + ks)[None, :] * sak,
                    mask=(rows[:, None] < M) & ((k + ks)[None, :] < K), other=0.0)
        b = tl.load(b_ptr + (k + ks)[:, None] * sbk + cols[None, :] * sbn,
                    mask=((k + ks)[:, None] < K) & (cols[None, :] < N), other=0.0)
        acc = tl.dot(a, b, acc)
    mask = (rows[:, None] < M) & (cols[None, :] < N)
    tl.store(c_ptr + rows[:, None] * scm + cols[None, :] * scn, acc.to(c_ptr.dtype.element_ty), mask=mask)


def matmul(a, b):
    (M, K), N = a.shape, b.shape[1]
    c = torch.empty((M, N), device=a.device, dtype=a.dtype)
    grid = (triton.cdiv(M, 16), triton.cdiv(N, 16))
    matmul_kernel[grid](a, b, c, M, N, K, *a.stride(), *b.stride(), *c.stride(), BM=16, BN=16, BK=16)
    return c
"""

AUTOTUNED = (
    ADD.replace(
        "\n@triton.jit",
        '\n@triton.autotune([triton.Config({"BLOCK": 32}), triton.Config({"BLOCK": 128})], key=["n"])\n@triton.jit',
    )
    .replace("add_kernel[(triton.cdiv(n, 64),)]", 'add_kernel[lambda meta: (triton.cdiv(n, meta["BLOCK"]),)]')
    .replace(", BLOCK=64", "")
)

HEURISTICS = (
    ADD.replace(
        "\n@triton.jit", '\n@triton.heuristics({"BLOCK": lambda args: triton.next_power_of_2(args["n"])})\n@triton.jit'
    )
    .replace(", BLOCK=64", "")
    .replace("triton.cdiv(n, 64)", "1")
)

BY_NAME_HEAD = (
    "import torch\nimport triton\nfrom triton.language import arange, constexpr, load, program_id, store\n\n\n"
)
BY_NAME = ADD.replace("tl.", "")

ALIASED_HEAD = "import torch\nimport triton\nimport triton.language as T\n\n\n"
ALIASED = ADD.replace("tl.", "T.")

CUDA_ONLY = """
DEVICE = triton.runtime.driver.active.get_active_torch_device()
""" + ADD.replace(
    "    out = torch.empty_like(x)\n",
    """    assert x.is_cuda and y.device == DEVICE
    out = torch.empty(x.shape, dtype=x.dtype, device="cuda")
    with torch.cuda.device(x.device):
        torch.cuda.synchronize()
""",
)

PARTIAL = ADD.replace("mask = offs < n", "mask = (offs < n) & (offs % 3 != 1)")

TWO_OUTPUTS = """
@triton.jit
def both_kernel(x_ptr, sum_ptr, product_ptr, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask)
    tl.store(sum_ptr + offs, x + x, mask=mask)
    tl.store(product_ptr + offs, x * x - 1, mask=mask)


def both(x):
    total, product = torch.empty_like(x), torch.empty_like(x)
    both_kernel[(triton.cdiv(x.numel(), 64),)](x, total, product, x.numel(), BLOCK=64)
    return total, product
"""

BRANCHES = """
@triton.jit
def branch_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask)
    if tl.program_id(0) == 0:
        tl.store(out_ptr + offs, x, mask=mask)
    else:
        tl.store(out_ptr + offs, x * 2, mask=mask)


def branch(x):
    out = torch.empty_like(x)
    branch_kernel[(triton.cdiv(x.numel(), 64),)](x, out, x.numel(), BLOCK=64)
    return out
"""

ADD_CALL = "add(randn(100), randn(100))"

RIGHT = {
    "matmul + relu": (HEAD + MATMUL, "relu", "matmul(randn(18, 20), randn(20, 17))"),
    "matmul + gelu": (HEAD + MATMUL, "gelu", "matmul(randn(18, 20), randn(20, 17))"),
    "float16 matmul + gelu": (
        HEAD + MATMUL,
        'gelu(approximate="tanh")',
        "matmul(randn(18, 20, dtype=float16), randn(20, 17, dtype=float16))",
    ),
    "ragged add + sigmoid": (HEAD + ADD, "sigmoid", ADD_CALL),
    "bfloat16 add + silu": (HEAD + ADD, "silu", "add(randn(100, dtype=bfloat16), randn(100, dtype=bfloat16))"),
    "bfloat16 add + relu": (HEAD + ADD, "relu", "add(randn(100, dtype=bfloat16), randn(100, dtype=bfloat16))"),
    "int32 add + relu": (HEAD + ADD, "relu", "add(randint(-9, 9, (100,)), randint(-9, 9, (100,)))"),
    "a chain": (HEAD + ADD, "sigmoid(relu(x))", ADD_CALL),
    "autotuned": (HEAD + AUTOTUNED, "relu", ADD_CALL),
    "heuristics": (HEAD + HEURISTICS, "relu", ADD_CALL),
    "load and store by name": (BY_NAME_HEAD + BY_NAME, "relu", ADD_CALL),
    "triton.language under another name": (ALIASED_HEAD + ALIASED, "relu", ADD_CALL),
    "a launcher for CUDA only": (HEAD + CUDA_ONLY, "relu", ADD_CALL),
    "the kernel launched by the call itself": (
        HEAD + ADD.partition("def add(")[0],
        "relu",
        "add_kernel[(2,)](randn(100), randn(100), empty(100), 100, BLOCK=64)",
    ),
    "two outputs": (HEAD + TWO_OUTPUTS, ["sum_ptr=relu", "product_ptr=abs"], "both(randn(100))"),
    "one of two outputs": (HEAD + TWO_OUTPUTS, ["product_ptr=relu"], "both(randn(100))"),
    "two branches": (HEAD + BRANCHES, "relu", "branch(randn(100))"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_fuse_writes_is_equivalent(name: str, check: Check) -> None:
    source, epilogues, call = RIGHT[name]
    result = check(source, epilogues, call)
    assert result.ok, render(result)
    assert not result.diagnostics
    assert len([t for t in result.trials if not t.skipped]) >= 5, render(result)
    assert result.elements > 300


STORE = "tl.maximum(x + y, 0, propagate_nan=tl.PropagateNan.ALL)"

WRONG = {
    "the op is dropped": (HEAD + ADD, "relu", ADD_CALL, (STORE, "x + y")),
    "NaN is dropped": (HEAD + ADD, "relu", ADD_CALL, (STORE, "tl.where(x + y > 0, x + y, 0.0)")),
    "another op": (HEAD + ADD, "relu", ADD_CALL, (STORE, "tl.abs(x + y)")),
    "a wrong constant": (HEAD + ADD, "leaky_relu(0.01)", ADD_CALL, ("0.01", "0.011")),
    "a constant barely wrong": (HEAD + ADD, "leaky_relu(0.01)", ADD_CALL, ("0.01", "0.010001")),
    "gelu by tanh for gelu": (HEAD + ADD, "gelu", ADD_CALL, ("libdevice.erf(", "libdevice.tanh(1.128379 * ")),
    "sigmoid applied twice": (
        HEAD + ADD,
        "sigmoid",
        ADD_CALL,
        ("sigmoid((x + y).to(out_ptr.dtype.element_ty))", "sigmoid(sigmoid((x + y).to(out_ptr.dtype.element_ty)))"),
    ),
    "a mask that writes too little": (HEAD + ADD, "relu", ADD_CALL, ("offs < n", "offs < n - 1")),
    "a mask that writes too much": (HEAD + PARTIAL, "relu", ADD_CALL, (" & (offs % 3 != 1)", "")),
    "a store skipped in a branch": (
        HEAD + BRANCHES,
        "relu",
        "branch(randn(100))",
        ("tl.maximum(x * 2, 0, propagate_nan=tl.PropagateNan.ALL)", "x * 2"),
    ),
    "the other output changed": (
        HEAD + TWO_OUTPUTS,
        ["product_ptr=relu"],
        "both(randn(100))",
        ("tl.store(sum_ptr + offs, x + x,", "tl.store(sum_ptr + offs, x + x + 1,"),
    ),
    "a launcher that applies the op again": (HEAD + ADD, "neg", ADD_CALL, ("    return out", "    return -out")),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_found(name: str, check: Check) -> None:
    source, epilogues, call, mutation = WRONG[name]
    result = check(source, epilogues, call, mutate=mutation)
    assert not result.ok, render(result)
    assert [d.code for d in result.diagnostics] == ["KR501"]
    assert "NOT equivalent" in render(result)


def test_unwritten_elements_are_counted(check: Check) -> None:
    result = check(HEAD + PARTIAL, "relu", ADD_CALL)
    assert result.ok, render(result)
    first = result.trials[0].outputs[0]
    assert (first.elements, first.written, first.unwritten) == (100, 67, 33)
    assert "33 elements left unwritten by both" in render(result)


ZEROED = PARTIAL.replace("torch.empty_like(x)", "torch.zeros_like(x)")


def test_an_initialised_element_that_misses_the_op_is_a_difference(check: Check) -> None:
    # The unfused pair applies sigmoid to the zeros that the kernel leaves; nothing but an assumption allows this.
    assumed = {"assume": ["fully-written"]}
    result = check(HEAD + ZEROED, "sigmoid", ADD_CALL, options=assumed)
    assert result.ok, render(result)
    assert result.trials[0].outputs[0].missed == 33
    without = ("assumed (fully-written)", "assumed (nothing)")
    result = check(HEAD + ZEROED, "sigmoid", ADD_CALL, options=assumed, mutate_header=without)
    assert not result.ok
    assert "miss the op" in render(result)


def test_fused_numerics_are_not_bit_identical_and_pass(check: Check) -> None:
    call = "matmul(randn(18, 20, dtype=bfloat16), randn(20, 17, dtype=bfloat16))"
    source = HEAD + MATMUL.replace("acc.to(c_ptr.dtype.element_ty)", "acc")
    result = check(source, "silu", call, options={"numerics": "fused"})
    assert result.ok, render(result)
    assert not result.bit_equal


def test_fused_numerics_with_a_wrong_op_are_found(check: Check) -> None:
    call = "matmul(randn(18, 20, dtype=bfloat16), randn(20, 17, dtype=bfloat16))"
    source = HEAD + MATMUL.replace("acc.to(c_ptr.dtype.element_ty)", "acc")
    wrong = ("-wide", "-1.03 * wide")
    result = check(source, "silu", call, options={"numerics": "fused"}, mutate=wrong)
    assert not result.ok, render(result)


def test_every_configuration_is_compared(check: Check) -> None:
    """A fused file that is right for the first configuration alone is found."""
    only_first = ("tl.maximum(x + y, 0,", "tl.maximum(x + y, 0 if BLOCK == 32 else 0.5,")
    result = check(HEAD + AUTOTUNED, "relu", ADD_CALL, mutate=only_first)
    assert not result.ok
    assert [trial.ok for trial in result.trials[:2]] == [True, False], render(result)
    assert "BLOCK: 128" in render(result)


def test_zeros_of_relu_are_those_of_a_gpu(check: Check) -> None:
    copied = HEAD + ADD.replace("x + y", "x")
    result = check(copied, "relu", ADD_CALL)
    assert result.bit_equal, render(result)


DESCRIPTOR = """
@triton.jit
def scale_kernel(x_desc, y_desc, BLOCK: tl.constexpr):
    row, column = tl.program_id(0) * BLOCK, tl.program_id(1) * BLOCK
    y_desc.store([row, column], x_desc.load([row, column]) * 2)


def scale(x):
    y = torch.empty_like(x)
    blocks = [triton.cdiv(size, 16) for size in x.shape]
    scale_kernel[tuple(blocks)](
        TensorDescriptor.from_tensor(x, [16, 16]), TensorDescriptor.from_tensor(y, [16, 16]), 16
    )
    return y
"""


def test_a_tensor_descriptor(check: Check) -> None:
    head = HEAD.rstrip() + "\nfrom triton.tools.tensor_descriptor import TensorDescriptor\n\n\n"
    result = check(head + DESCRIPTOR, "relu", "scale(randn(32, 20))")
    assert result.ok, render(result)
    assert result.elements > 1000


def test_a_module_that_runs_and_benchmarks_on_import(check: Check) -> None:
    script = """
print(add(torch.ones(10, device="cuda"), torch.ones(10, device="cuda")))


@triton.testing.perf_report(
    triton.testing.Benchmark(
        x_names=["n"], x_vals=[2**28], line_arg="p", line_vals=[1], line_names=["p"], plot_name="p", args={}
    )
)
def benchmark(n, p):
    return triton.testing.do_bench(lambda: add(torch.ones(n, device="cuda"), torch.ones(n, device="cuda")))


benchmark.run()
"""
    result = check(HEAD + ADD + script, "relu", ADD_CALL)
    assert result.ok, render(result)
