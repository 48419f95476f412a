"""Where operands are read: what is derived, and the judge that must reject every other place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import kernel_rewrite
from kernel_rewrite.analysis import Analysis, analyse
from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.fuse import plan_output
from kernel_rewrite.model import InternalError
from kernel_rewrite.pointwise.declarations import declared_operands
from kernel_rewrite.request import OutputRequest
from kernel_rewrite.rewrite.confirm import References, check_compiled, lower_rewritten, views_to_confirm
from kernel_rewrite.rewrite.edits import apply_edits
from kernel_rewrite.rewrite.epilogue import Rewrite, fusion_edits
from kernel_rewrite.selection import choose_kernel, choose_outputs, requested_ops
from kernel_rewrite.source.files import Project, source_from_text
from kernel_rewrite.ttir.lower import compiler

FIXTURES = Path(__file__).parent.parent.parent / "fixtures" / "rewrites"

CASES: dict[str, tuple[str, str, dict[str, str]]] = {
    "tile and row": ("bias_and_residual", "relu(x + bias) + residual", {"bias": "row", "residual": "tile"}),
    "column and row": ("row_and_column_scale", "x * rs * cs", {"rs": "column", "cs": "row"}),
    "rows by program": ("weight_in_rows", "x * weight + shift", {"weight": "row", "shift": "column"}),
    "batched": ("batched_bias", "x + bias", {"bias": "row"}),
    "helper": ("operands_in_a_helper", "(x + residual) * scale", {"residual": "tile", "scale": "row"}),
    "written index": ("written_index", "x + bias[offsets % 64]", {}),
    "index of bits": ("written_index", "x + bias[offsets & 63 | 1]", {}),
    "one element": ("number_and_tile", "x * scale", {"scale": "scalar:fp32"}),
    "block pointer": (
        "bias_through_a_block_pointer",
        "relu(x + bias) * scale + residual",
        {"bias": "row", "scale": "column", "residual": "tile"},
    ),
    "descriptor": ("scales_through_a_descriptor", "relu(x + bias) * scale", {"bias": "row", "scale": "column"}),
    "strided": (
        "bias_and_residual",
        "relu(x + bias) * scale + residual",
        {"bias": "row:strided", "scale": "column:strided", "residual": "tile:strided"},
    ),
    "strided in a block": (
        "halves_through_descriptors",
        "(x + bias) * residual",
        {"bias": "row:strided", "residual": "tile:strided"},
    ),
    "strided in a helper": ("operands_in_a_helper", "x + residual", {"residual": "tile:strided"}),
    "index in a block": ("scales_through_a_descriptor", "x + bias[(col + tl.arange(0, BLOCK_N))[None, :]]", {}),
    "program in a block": ("scales_through_a_descriptor", "x + bias[tl.program_id(2) + batch]", {}),
    "compile-time strides": (
        "compile_time_strides",
        "relu(x * shift + bias) + residual",
        {"bias": "row", "shift": "column:strided", "residual": "tile:strided"},
    ),
    "strided in a batch": ("strided_tile_of_a_batch", "x + residual", {"residual": "tile:strided"}),
    "strided in a batch of blocks": ("scales_through_a_descriptor", "x + residual", {"residual": "tile:strided"}),
    "strided in 64 bits": (
        "strided_residual",
        "x * scale + residual",
        {"scale": "column:strided", "residual": "tile:strided"},
    ),
    "moved by a loop": ("pointer_moved_by_a_loop", "relu(x + bias) - residual", {"bias": "row", "residual": "tile"}),
    "host descriptor": (
        "beside_a_host_descriptor",
        "relu(x + bias) * scale + residual",
        {"bias": "row", "scale": "column", "residual": "tile:strided"},
    ),
    "value in a block": ("scales_through_a_descriptor", "x + bias[batch]", {}),
}

# (case, what the rewriter writes, what stands there instead)
SPOILED: list[tuple[str, str, str]] = [
    ("tile and row", "bias_ptr + offs_cn[None, :]", "bias_ptr + offs_cm[:, None]"),
    ("tile and row", "bias_ptr + offs_cn[None, :]", "bias_ptr + tl.arange(0, BLOCK_N)[None, :]"),
    ("tile and row", "bias_ptr + offs_cn[None, :]", "bias_ptr + offs_cn[None, :] * 2"),
    ("tile and row", "bias_ptr + offs_cn[None, :]", "bias_ptr + offs_cn[None, :] + 1"),
    ("tile and row", "bias_ptr + offs_cn[None, :]", "residual_ptr + offs_cn[None, :]"),
    ("tile and row", "mask=offs_cn[None, :] < N)", "mask=offs_cn[None, :] < M)"),
    ("tile and row", "mask=offs_cn[None, :] < N)", "mask=offs_cm[:, None] < M)"),
    ("tile and row", "mask=offs_cn[None, :] < N)", "mask=offs_cn[None, :] < N - 1)"),
    ("tile and row", ", mask=offs_cn[None, :] < N)\n", ")\n"),
    ("tile and row", "tl.load(residual_ptrs, mask=c_mask)", "tl.load(residual_ptrs)"),
    ("tile and row", "tl.load(residual_ptrs, mask=c_mask)", "tl.load(residual_ptrs, mask=offs_cn[None, :] < N)"),
    ("tile and row", "tl.load(residual_ptrs, mask=c_mask)", "tl.load(residual_ptrs + 1, mask=c_mask)"),
    ("tile and row", "tl.load(residual_ptrs, mask=c_mask)", "tl.load(c_ptrs, mask=c_mask)"),
    ("tile and row", "residual_ptr + offs_cm[:, None] * stride_cm", "residual_ptr + offs_cm[:, None] * stride_cn"),
    ("tile and row", "residual_ptr + offs_cm[:, None] * stride_cm", "residual_ptr + offs_cn[:, None] * stride_cm"),
    ("tile and row", "residual_ptr + offs_cm[:, None]", "bias_ptr + offs_cm[:, None]"),
    ("tile and row", "residual = tl.load(", "extra = tl.load(bias_ptr)\n    residual = tl.load("),
    ("tile and row", "residual, mask=c_mask)", "bias, mask=c_mask)"),
    ("tile and row", "+ bias", "- bias"),
    ("column and row", "rs_ptr + offs_cm[:, None]", "rs_ptr + offs_cn[None, :]"),
    ("column and row", "cs_ptr + offs_cn[None, :]", "cs_ptr + offs_cm[:, None]"),
    ("column and row", "mask=offs_cm[:, None] < M)", "mask=offs_cn[None, :] < N)"),
    ("rows by program", "weight_ptr + cols", "weight_ptr + row"),
    ("rows by program", "weight_ptr + cols", "weight_ptr + cols + row"),
    ("rows by program", "weight_ptr + cols, mask=mask", "weight_ptr + cols"),
    ("rows by program", "shift_ptr + row", "shift_ptr + cols, mask=mask"),
    ("rows by program", "shift_ptr + row", "shift_ptr"),
    ("batched", "bias_ptr + offs_n[None, :]", "bias_ptr + offs_m[:, None]"),
    ("batched", "bias_ptr + offs_n[None, :]", "bias_ptr + offs_n[None, :] + batch"),
    ("batched", "mask=(offs_n < N)[None, :]", "mask=(offs_m[:, None] < M)"),
    ("helper", "residual_ptr + rows[:, None] * stride", "residual_ptr + rows[:, None]"),
    ("helper", "residual_ptr=residual_ptr", "residual_ptr=residual_ptr + 1"),
    ("helper", "residual_ptr=residual_ptr", "residual_ptr=scale_ptr"),
    ("helper", "scale_ptr + cols[None, :]", "scale_ptr + rows[:, None]"),
    ("written index", ", mask=mask)\n    tl.store", ")\n    tl.store"),
    ("written index", ", mask=mask)\n    tl.store", ", mask=offsets < 7)\n    tl.store"),
    ("written index", "offsets % 64", "offsets % 65"),
    ("written index", "offsets % 64", "64 % offsets"),
    ("written index", "offsets % 64", "offsets // 64"),
    ("written index", "offsets % 64", "offsets % 64 + pid"),
    ("index of bits", "offsets & 63 | 1", "offsets & 63 | 2"),
    ("index of bits", "offsets & 63 | 1", "(offsets & 63) + 1"),
    ("tile and row", "residual_ptrs, mask=c_mask)", 'residual_ptrs, mask=c_mask, cache_modifier=".cg")'),
    ("tile and row", "residual_ptrs, mask=c_mask)", "residual_ptrs, mask=c_mask, other=0.0)"),
    ("one element", "tl.load(scale_ptr)", "tl.load(scale_ptr + 1)"),
    *(
        (case, right, wrong)
        for case in ("block pointer", "descriptor")
        for right, wrong in (
            ("bias_ptr + columns[None, :]", "bias_ptr + rows[:, None]"),
            ("bias_ptr + columns[None, :]", "bias_ptr + tl.arange(0, BLOCK_N)[None, :]"),
            ("bias_ptr + columns[None, :]", "bias_ptr + columns[None, :] * 2"),
            ("bias_ptr + columns[None, :]", "bias_ptr + columns[None, :] + 1"),
            ("bias_ptr + columns[None, :]", "bias_ptr + columns[None, :] + row"),
            ("bias_ptr + columns[None, :]", "scale_ptr + columns[None, :]"),
            ("bias_ptr + columns[None, :]", "bias_ptr + col"),
            ("bias_ptr + columns[None, :], mask=columns[None, :] < N", "bias_ptr + columns[None, :]"),
            ("columns[None, :] < N)", "columns[None, :] < M)"),
            ("columns[None, :] < N)", "columns[None, :] <= N)"),
            ("columns[None, :] < N)", "columns[None, :] < N - 1)"),
            ("columns[None, :] < N)", "columns[None, :] > N)"),
            ("columns[None, :] < N)", "columns[None, :] + 1 < N)"),
            ("columns[None, :] < N)", "(columns[None, :] < N) & (columns[None, :] < M))"),
            ("columns[None, :] < N)", "columns[None, :] < N, other=0.0)"),
            ("columns = col + tl.arange(0, BLOCK_N)", "columns = row + tl.arange(0, BLOCK_N)"),
            ("columns = col + tl.arange(0, BLOCK_N)", "columns = col + tl.arange(BLOCK_N, 2 * BLOCK_N)"),
            ("scale_ptr + rows[:, None]", "scale_ptr + rows[None, :]"),
            ("scale_ptr + rows[:, None], mask=rows[:, None] < M", "scale_ptr + rows[:, None]"),
            ("rows[:, None] < M)", "columns[None, :] < N)"),
        )
    ),
    ("block pointer", "tl.load(residual_block, boundary_check=(0, 1))", "tl.load(residual_block, boundary_check=(0,))"),
    ("block pointer", "tl.load(residual_block, boundary_check=(0, 1))", "tl.load(residual_block)"),
    ("block pointer", "residual_ptr, (M, N)", "residual_ptr, (N, M)"),
    ("block pointer", "residual_ptr, (M, N), (stride_cm, stride_cn)", "residual_ptr, (M, N), (stride_cn, stride_cm)"),
    ("index in a block", ", mask=columns[None, :] < N)", ")"),
    ("strided", "offs_cn[None, :] * stride_bias", "offs_cn[None, :]"),
    ("strided", "offs_cn[None, :] * stride_bias", "offs_cn[None, :] * stride_scale"),
    ("strided", "offs_cn[None, :] * stride_bias", "offs_cn[None, :] * stride_bias * stride_bias"),
    ("strided", "offs_cn[None, :] * stride_bias", "offs_cn[None, :] * stride_bias + 1"),
    ("strided", "offs_cn[None, :] * stride_bias", "(offs_cn[None, :] + 1) * stride_bias"),
    ("strided", "offs_cn[None, :] * stride_bias", "offs_cm[:, None] * stride_bias"),
    ("strided", "offs_cm[:, None] * stride_scale", "offs_cm[:, None] * stride_cm"),
    ("strided", "offs_cm[:, None] * stride_scale", "offs_cm[:, None] * 2 * stride_scale"),
    ("strided", "offs_cm[:, None] * stride_residual_m", "offs_cm[:, None] * stride_residual_n"),
    ("strided", "offs_cm[:, None] * stride_residual_m", "offs_cn[None, :] * stride_residual_m"),
    ("strided", "offs_cm[:, None] * stride_residual_m", "offs_cm[:, None]"),
    ("strided", " + offs_cm[:, None] * stride_residual_m", ""),
    ("strided", " + offs_cn[None, :] * stride_residual_n", ""),
    ("strided", "* stride_residual_n", "* stride_residual_n + stride_residual_m"),
    ("strided", "* stride_residual_n", "* stride_residual_n * stride_residual_n"),
    ("strided", "tl.load(residual_ptrs, mask=c_mask)", "tl.load(residual_ptrs)"),
    ("strided", "tl.load(residual_ptrs, mask=c_mask)", "tl.load(residual_ptrs, mask=offs_cn[None, :] < N)"),
    ("strided", "rounded(relu(c + bias) * scale)", "rounded(relu(c + bias) * scale * stride_bias)"),
    ("strided in a block", "columns[None, :].to(tl.int64) * stride_bias", "columns[None, :].to(tl.int64)"),
    ("strided in a block", "rows[:, None].to(tl.int64) * stride_residual_m", "row * stride_residual_m"),
    ("strided in a block", "rows[:, None].to(tl.int64) * stride_residual_m", "rows[None, :] * stride_residual_m"),
    ("strided in a block", "columns[None, :].to(tl.int64) * stride_residual_n", "columns[:, None] * stride_residual_n"),
    ("strided in a block", "mask=(rows[:, None] < M) & (columns[None, :] < N)", "mask=rows[:, None] < M"),
    ("strided in a block", "mask=(rows[:, None] < M) & (columns[None, :] < N)", "mask=columns[None, :] < N"),
    ("strided in a block", "mask=(rows[:, None] < M)", "mask=(columns[:, None] < M)"),
    ("strided in a helper", "stride_residual_m=stride_residual_m", "stride_residual_m=stride_residual_n"),
    ("strided in a helper", "residual_ptr=residual_ptr", "residual_ptr=residual_ptr + 1"),
    ("compile-time strides", "bias_ptr + offs_n[None, :]", "bias_ptr + offs_m[:, None]"),
    ("compile-time strides", "bias_ptr + offs_n[None, :]", "bias_ptr + tl.arange(0, BLOCK_N)[None, :]"),
    ("compile-time strides", "bias_ptr + offs_n[None, :]", "bias_ptr + offs_n[None, :] * stride_yn"),
    ("compile-time strides", "shift_ptr + offs_m[:, None]", "shift_ptr + tl.program_id(0) * BLOCK_M"),
    ("compile-time strides", "shift_ptr + offs_m[:, None] * stride_shift", "shift_ptr + offs_m[:, None] * stride_ym"),
    ("compile-time strides", "offs_m[:, None] * stride_residual_m", "offs_m[:, None] * stride_residual_n"),
    ("compile-time strides", "offs_m[:, None] * stride_residual_m", "offs_n[None, :] * stride_residual_m"),
    ("compile-time strides", "residual_ptr + offs_m", "residual_ptr + stride_ym * stride_residual_n + offs_m"),
    *(
        (case, right, wrong)
        for case in ("strided in a batch", "strided in a batch of blocks")
        for right, wrong in (
            ("batch * stride_residual_b", "batch * stride_residual_m"),
            ("batch * stride_residual_b + ", ""),
            ("batch * stride_residual_b", "tl.program_id(0) * stride_residual_b"),
            ("batch * stride_residual_b", "batch * 2 * stride_residual_b"),
        )
    ),
    ("strided in a batch", "offs_m[:, None] * stride_residual_m", "(offs_m[:, None] + batch) * stride_residual_m"),
    ("strided in a batch", "batch * stride_residual_b", "batch * stride_residual_b + stride_residual_b"),
    *(
        ("host descriptor", right, wrong)
        for right, wrong in (
            ("bias_ptr + columns[None, :]", "bias_ptr + rows[:, None]"),
            ("bias_ptr + columns[None, :]", "bias_ptr + columns[None, :] + row"),
            ("columns[None, :] < target_desc.shape[1])", "columns[None, :] < target_desc.shape[0])"),
            ("columns[None, :] < target_desc.shape[1])", "columns[None, :] < source_desc.shape[1])"),
            (", mask=columns[None, :] < target_desc.shape[1])", ")"),
            ("columns = col + ", "columns = row + "),
            ("scale_ptr + rows[:, None], mask=rows[:, None] < target_desc.shape[0]", "scale_ptr + rows[:, None]"),
            ("rows[:, None].to(tl.int64) * stride_residual_m", "rows[:, None].to(tl.int64) * target_desc.strides[0]"),
            (
                "mask=(rows[:, None] < target_desc.shape[0]) & (col",
                "mask=(rows[:, None] < target_desc.shape[1]) & (col",
            ),
        )
    ),
    ("strided in a block", "columns[None, :].to(tl.int64) * stride_bias", "columns[None, :] * stride_bias"),
    ("strided in a block", "rows[:, None].to(tl.int64) * stride_residual_m", "rows[:, None] * stride_residual_m"),
    ("strided in 64 bits", "scale_ptr + offs_m.to(tl.int64)", "scale_ptr + offs_m"),
    ("strided in 64 bits", "residual_ptr + offs_m.to(tl.int64)", "residual_ptr + offs_m"),
    ("moved by a loop", "residual_ptrs + tl.cast(start, tl.int64) * stride_yn", "residual_ptrs"),
    ("moved by a loop", "tl.cast(start, tl.int64) * stride_yn", "start * stride_yn"),
    ("moved by a loop", "tl.cast(start, tl.int64) * stride_yn", "(start * stride_yn).to(tl.int64)"),
    ("moved by a loop", "tl.cast(start, tl.int64) * stride_yn", "tl.cast(start, tl.int64) * BN * stride_yn"),
    ("moved by a loop", "tl.cast(start, tl.int64) * stride_yn", "tl.cast(start, tl.int64) * stride_ym"),
    ("moved by a loop", "tl.cast(start, tl.int64) * stride_yn", "tl.cast(start + BN, tl.int64) * stride_yn"),
    ("moved by a loop", "bias_ptr + (offs_n[None, :] + tl.cast(start, tl.int64))", "bias_ptr + offs_n[None, :]"),
    ("moved by a loop", "mask=start + offs_n[None, :] < N)", "mask=offs_n[None, :] < N)"),
    ("index in a block", ", mask=columns[None, :] < N)", ", mask=columns[None, :] < M)"),
    ("index in a block", "bias_ptr + (col + ", "bias_ptr + (row + "),
    ("index in a block", "(col + tl.arange(0, BLOCK_N))[None, :], mask", "tl.arange(0, BLOCK_N)[None, :], mask"),
    ("value in a block", "tl.load(bias_ptr + batch)", "tl.load(bias_ptr + batch, mask=batch < N)"),
    ("program in a block", "tl.program_id(2) + batch", "tl.program_id(1) + batch"),
    ("value in a block", "tl.load(bias_ptr + batch)", "tl.load(bias_ptr + (batch + tl.arange(0, BLOCK_N))[None, :])"),
]

# (case, what the rewriter writes, another way to write the same)
SAME: list[tuple[str, str, str]] = [
    ("descriptor", "columns = col + tl.arange(0, BLOCK_N)", "columns = tl.arange(0, BLOCK_N) + col"),
    ("descriptor", "mask=columns[None, :] < N", "mask=(columns < N)[None, :]"),
    ("descriptor", "bias_ptr + columns[None, :], mask=columns[None, :] < N", "bias_ptr + columns, mask=columns < N"),
    ("block pointer", "mask=rows[:, None] < M", "mask=(rows < M)[:, None]"),
    ("strided", "offs_cm[:, None] * stride_residual_m", "(offs_cm * stride_residual_m)[:, None]"),
    (
        "strided in a block",
        "columns[None, :].to(tl.int64) * stride_bias",
        "stride_bias * columns[None, :].to(tl.int64)",
    ),
]


def planned(case: str) -> tuple[Analysis, tuple[OutputRequest, ...], Rewrite, str]:
    folder, text, operands = CASES[case]
    declared = declared_operands(operands)
    file = source_from_text((FIXTURES / folder / "before.py").read_text(), "before.py")
    project = Project((file,))
    analysis = analyse(
        choose_kernel(file, project, None if folder != "operands_in_a_helper" else "double_kernel"), project, compiler()
    )
    requests = choose_outputs(analysis, requested_ops(text, (), declared)[0], frozenset(), tuple(declared.values()))
    plans = [(plan_output(analysis, request), request.pointwise) for request in requests]
    rewrite = fusion_edits(plans, analysis, "eager")
    return analysis, requests, rewrite, apply_edits(analysis.kernel.file, rewrite.edits)


@pytest.fixture(autouse=True)
def _block_pointers_are_there(request: pytest.FixtureRequest, installed_triton: tuple[int, ...]) -> None:
    given = getattr(request.node, "callspec", None)
    if given and "block pointer" in given.params.values() and installed_triton >= (3, 9):
        pytest.skip("block pointers are gone in Triton 3.9")


def judged(case: str, spoil: Callable[[str], str]) -> None:
    analysis, requests, rewrite, text = planned(case)
    spoiled = spoil(text)
    views = views_to_confirm(analysis, requests)
    lowered = lower_rewritten(source_from_text(spoiled, "before.py"), analysis, views, rewrite, requests)
    check_compiled(lowered, views, References(analysis, "eager", rewrite), requests)


@pytest.mark.parametrize("case", CASES)
def test_what_is_written_is_accepted(case: str) -> None:
    judged(case, lambda text: text)


@pytest.mark.parametrize(("case", "right", "wrong"), SPOILED)
def test_another_place_is_rejected(case: str, right: str, wrong: str) -> None:
    def spoil(text: str) -> str:
        assert right in text, text
        return text.replace(right, wrong, 1)

    with pytest.raises((FusionRefused, InternalError)) as raised:
        judged(case, spoil)
    if isinstance(raised.value, FusionRefused):
        assert [d.code for d in raised.value.diagnostics] == ["KR305"]


@pytest.mark.parametrize(("case", "written", "same"), SAME)
def test_the_same_place_written_otherwise_is_accepted(case: str, written: str, same: str) -> None:
    def spoil(text: str) -> str:
        assert written in text, text
        return text.replace(written, same, 1)

    judged(case, spoil)


NONE = """
import torch
import triton
import triton.language as tl


@triton.jit
def add_kernel(x_ptr, bias_ptr, y_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + i, mask=i < n)
    if bias_ptr is not None:
        x += tl.load(bias_ptr + i, mask=i < n)
    tl.store(y_ptr + i, x, mask=i < n)


def add(x, bias):
    y = torch.empty_like(x)
    add_kernel[(triton.cdiv(x.numel(), 128),)](x, bias, y, x.numel(), BLOCK=128)
    return y


def copy(x):
    y = torch.empty_like(x)
    add_kernel[(triton.cdiv(x.numel(), 128),)](x, None, y, x.numel(), BLOCK=128)
    return y
"""


def test_a_parameter_that_is_none_in_one_launch() -> None:
    """Which the compiled kernel does not have: the places of the others are shifted."""
    fused = kernel_rewrite.fuse(NONE, "x - residual", operands={"residual": "tile"})
    assert "add_kernel[(triton.cdiv(x.numel(), 128),)](x, None, y, x.numel(), residual_ptr=residual," in fused.source
    assert "add_kernel[(triton.cdiv(x.numel(), 128),)](x, bias, y, x.numel(), residual_ptr=residual," in fused.source
    assert fused.statements[0].endswith("in 2 specializations")


MOVED = (FIXTURES / "pointer_moved_by_a_loop" / "before.py").read_text()
STEP, STORE = "        y_ptrs += BN * stride_yn\n", "        tl.store(y_ptrs, x + 1, mask=mask)\n"
LOOP = "    for start in range(0, N, BN):\n"
LOOPS = [
    ("of Triton", LOOP, LOOP.replace("range", "tl.range"), "residual_ptrs + tl.cast(start, tl.int64) * stride_yn,"),
    ("that counts rounds", LOOP, LOOP.replace("start in range(0, N, BN)", "start in range(N // BN)"),
     "tl.cast(start, tl.int64) * BN * stride_yn,"),
    ("from elsewhere", LOOP, LOOP.replace("0", "M"), "residual_ptrs + tl.cast(start - M, tl.int64) * stride_yn,"),
    ("further", STEP, STEP.replace("BN", "2 * BN"), "residual_ptrs + tl.cast(start, tl.int64) * 2 * stride_yn,"),
    ("in front of the store", STORE + "        x_ptrs += BN * stride_xn\n" + STEP, STEP + STORE, ""),
    ("twice", STEP, STEP + STEP, ""),
    ("sometimes", STEP, "        if start:\n    " + STEP, ""),
    ("by what varies", STEP, STEP.replace("stride_yn", "start"), ""),
    ("by another step", STEP, STEP.replace("BN", "7"), ""),
    ("backwards", LOOP, LOOP.replace("0, N, BN", "N, 0, -1"), ""),
    ("by what is changed", STEP, STEP + "        stride_yn += 1\n", ""),
    ("again and again", LOOP, "    for again in range(2):\n     for start in range(0, N, BN):\n", ""),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "read"), [row[1:] for row in LOOPS], ids=[row[0] for row in LOOPS])
def test_pointers_that_loops_move(old: str, new: str, read: str) -> None:
    """Moved by one step a round behind the store, which a range counts, or refused."""
    text = MOVED.replace(old, new)
    assert text != MOVED
    if read:
        fused = kernel_rewrite.fuse(text, "x + residual", operands={"residual": "tile"})
        assert read in fused.source, fused.source
    else:
        with pytest.raises(FusionRefused, match="KR303"):
            kernel_rewrite.fuse(text, "x + residual", operands={"residual": "tile"})


def test_dead_code_and_another_order_are_accepted() -> None:
    def spoil(text: str) -> str:
        moved = text.replace("bias_ptr + offs_cn[None, :]", "offs_cn[None, :] + bias_ptr")
        return moved.replace("    bias = tl.load", "    unused = offs_cn * 3\n    bias = tl.load")

    judged("tile and row", spoil)
