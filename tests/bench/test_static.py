"""What two compiled kernels need, side by side: compiled here, for devices that are not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from kernel_rewrite.bench.occupancy import LIMITS, fits, occupancy, target_named
from kernel_rewrite.bench.static import Comparison, Side, StaticReport, analysed, warnings
from kernel_rewrite.cli import cli
from kernel_rewrite.model import Specialization
from kernel_rewrite.ttir.lower import Compiled

KERNELS = Path(__file__).parents[2] / "benchmarks" / "kernels"


def compiled(registers: int, *, shared: int = 0, warps: int = 4, spilled: int = 0) -> Compiled:
    return Compiled(Specialization((), ()), registers, spilled, spilled, shared, warps)


@pytest.mark.parametrize(
    ("target", "needs", "share"),
    [
        # What the CUDA occupancy calculator says.
        ("sm_80", compiled(32, warps=4), 1.0),
        ("sm_80", compiled(64, warps=4), 0.5),
        ("sm_90", compiled(255, warps=8), 0.125),
        ("sm_90", compiled(168, warps=4), 0.1875),
        ("sm_90", compiled(32, warps=4, shared=100_000), 0.125),
        ("sm_80", compiled(32, warps=1), 0.5),  # 32 programs at most
        ("sm_86", compiled(40, warps=8), 1.0),
        ("sm_90", compiled(32, shared=232_448), 0.0625),
        ("sm_90", compiled(32, shared=232_449), 0.0),
        ("gfx942", compiled(128, warps=4), 0.5),
    ],
)
def test_occupancy(target: str, needs: Compiled, share: float) -> None:
    assert occupancy(needs, target_named(target)) == share
    assert fits(needs, target_named(target)) == (share > 0)


def test_every_target_has_a_name() -> None:
    assert {str(target_named(name)) for name in LIMITS} == set(LIMITS)
    with pytest.raises(ValueError, match="unknown target `sm_75`; known: sm_80"):
        target_named("sm_75")


def report(before: Compiled, after: Compiled) -> StaticReport:
    sides = [Side(c, occupancy(c, target_named("sm_90")), fits(c, target_named("sm_90"))) for c in (before, after)]
    return StaticReport("add_kernel", (Comparison("sm_90", "BLOCK=64", *sides),), ())


def test_what_is_warned_of() -> None:
    analysis = analysed((KERNELS / "add.py").read_text(), str(KERNELS / "add.py"), "add_kernel")
    base = compiled(255, shared=200_000, spilled=8)
    assert warnings(report(base, base), analysis) == ()
    assert warnings(report(base, replace(base, spilled=4)), analysis) == ()
    (spills,) = warnings(report(base, replace(base, spilled=12)), analysis)
    assert (spills.code, spills.notes) == ("KR503", ("sm_90, BLOCK=64: 8 bytes before, 12 with it",))
    (outgrown,) = warnings(report(base, replace(base, shared=240_000)), analysis)
    assert outgrown.code == "KR504"
    assert outgrown.notes == ("sm_90, BLOCK=64: 200,000 bytes of shared memory before, 240,000 with it",)
    analysis.compiler.close()


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("static")
    (folder / "add.py").write_text((KERNELS / "add.py").read_text())
    run = CliRunner().invoke(cli, ["fuse", str(folder / "add.py"), "--epilogue", "gelu"])
    assert run.exit_code == 0, run.output
    return folder / "add_gelu.py"


def bench(*words: str) -> tuple[int, str]:
    run = CliRunner().invoke(cli, ["bench", *words])
    return run.exit_code, run.output


def test_both_kernels_are_compiled_for_each_target(fused: Path) -> None:
    code, text = bench(str(fused), "--static", "--target", "sm_80,sm_90,gfx942", "--format", "json")
    assert code == 0, text
    data = json.loads(text)
    assert [c["target"] for c in data["comparisons"]] == ["sm_80", "sm_90", "gfx942"]
    assert data["savings"] == [{"output": "out_ptr", "element": "fp32", "bytes": 8.0}]
    for comparison in data["comparisons"]:
        before, after = comparison["original"], comparison["fused"]
        assert comparison["configuration"] == "BLOCK=1024"
        assert 0 < before["registers"] <= after["registers"]
        assert 10 < before["instructions"] < after["instructions"]
        assert before["warps"] == 4 and before["spilled"] == 0 and before["fits"]


def test_the_types_of_the_command_line_are_compiled(fused: Path) -> None:
    half = [f"--dtype={name}=fp16" for name in ("x_ptr", "y_ptr", "out_ptr")]
    code, text = bench(str(fused), "--static", "--target", "sm_90", *half)
    assert code == 0
    assert "add_kernel(x_ptr: *fp16, y_ptr: *fp16, out_ptr: *fp16, n_elements: i32)" in text
    assert "saves 4 bytes of memory traffic for each element of `out_ptr` (fp16)" in text


def test_launch_options_and_contiguous_strides() -> None:
    from kernel_rewrite.bench.static import _configurations

    norm = analysed((KERNELS / "layer_norm.py").read_text(), str(KERNELS / "layer_norm.py"), "layer_norm_kernel")
    ((words, _, options),) = _configurations(norm)
    assert options == {"num_warps": 8} and words.endswith("num_warps=8")
    product = analysed((KERNELS / "matmul.py").read_text(), str(KERNELS / "matmul.py"), "matmul_kernel")
    configurations = list(_configurations(product))
    assert [(dict(s.constexprs)["BLOCK_N"], o) for _, s, o in configurations] == [
        (256, {"num_stages": 3, "num_warps": 8}),
        (128, {"num_stages": 4, "num_warps": 8}),
        (128, {"num_stages": 3, "num_warps": 4}),
        (128, {"num_stages": 4, "num_warps": 4}),
    ]
    fixed = {name for name, value in configurations[0][1].constexprs if name.startswith("stride") and value == 1}
    assert fixed == {"stride_ak", "stride_bn", "stride_cn"}
    norm.compiler.close(), product.compiler.close()


def test_what_cannot_be_measured(fused: Path, tmp_path: Path) -> None:
    for words, message in [
        ([str(KERNELS / "add.py"), "--static"], "does not say what it was fused from"),
        ([str(fused), "--static", "--target", "sm_12"], "unknown target `sm_12`"),
        ([str(fused), "--static", "--original", str(tmp_path / "gone.py")], "cannot be read"),
    ]:
        code, text = bench(*words)
        assert code == 1 and "error[KR505]" in text and message in text
