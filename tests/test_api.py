"""The Python API: what it takes, what it returns, what it raises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import kernel_rewrite
from kernel_rewrite import Fused, FusionRefused

SOURCE = """\
import triton
import triton.language as tl


@triton.jit
def scale(x_ptr, out_ptr, factor, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    tl.store(out_ptr + offsets, tl.load(x_ptr + offsets, mask=mask) * factor, mask=mask)
"""

ROWS = """\
import triton
import triton.language as tl


@triton.jit
def scale(x_ptr, out_ptr, n_rows, n_columns, M: tl.constexpr, N: tl.constexpr):
    rows = tl.program_id(0) * M + tl.arange(0, M)[:, None]
    columns = tl.program_id(1) * N + tl.arange(0, N)[None, :]
    mask = (rows < n_rows) & (columns < n_columns)
    offsets = rows * n_columns + columns
    tl.store(out_ptr + offsets, tl.load(x_ptr + offsets, mask=mask) * 2.0, mask=mask)
"""

TWO = SOURCE + SOURCE.split("\n\n\n")[1].replace("def scale", "def shift").replace("* factor", "+ factor")

FUSED_STORE = "tl.maximum(tl.load(x_ptr + offsets, mask=mask) * factor, 0, propagate_nan=tl.PropagateNan.ALL)"


@pytest.mark.parametrize("epilogues", [{"out_ptr": "relu"}, "relu", "out_ptr=relu", ["out_ptr=relu"]])
def test_text_in_every_form_of_request(epilogues: object) -> None:
    fused = kernel_rewrite.fuse(SOURCE, epilogues)
    assert isinstance(fused, Fused)
    assert FUSED_STORE in fused.source
    assert fused.kernel == "scale"
    assert fused.name == "relu"
    assert fused.epilogues == (("out_ptr", "relu"),)
    assert fused.proof.output == "out_ptr"
    assert [span.line for span in fused.proof.stores] == [9]
    assert fused.diff.startswith("--- a/")
    assert "+    tl.store(out_ptr + offsets, tl.maximum(" in fused.diff


def test_functions_as_epilogues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Callables are traced, a function of a file is read; the header says it in words, and makes the file again."""
    torch = pytest.importorskip("torch")

    def epilogue(x: Any, bias: kernel_rewrite.Row, residual: kernel_rewrite.Tile) -> Any:
        return torch.relu(x + bias) + residual

    monkeypatch.chdir(tmp_path)
    (tmp_path / "scale.py").write_text(ROWS)
    (tmp_path / "ops.py").write_text(
        "import torch\nopen('this was run', 'w')\n\n"
        "def epilogue(x, bias: Row, residual: Tile):\n    return torch.relu(x + bias) + residual\n"
    )
    declared = {"bias": "row", "residual": "tile"}
    wanted = kernel_rewrite.fuse("scale.py", "relu(x + bias) + residual", operands=declared).source
    for given in (epilogue, {"out_ptr": epilogue}, [epilogue], "ops.py:epilogue", "out_ptr=ops.py:epilogue"):
        assert kernel_rewrite.fuse("scale.py", given).source == wanted
    undeclared = lambda x, bias, residual: torch.relu(x + bias) + residual  # noqa: E731
    assert kernel_rewrite.fuse("scale.py", undeclared, operands=declared).source == wanted
    assert not (tmp_path / "this was run").exists()
    for function in (torch.nn.functional.gelu, torch.nn.GELU()):
        assert kernel_rewrite.fuse(SOURCE, function).epilogues == (("out_ptr", "gelu(x)"),)


def test_functions_of_several_outputs(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    source = SOURCE.replace("out_ptr, factor", "out_ptr, half_ptr, factor") + (
        "    tl.store(half_ptr + offsets, tl.load(x_ptr + offsets, mask=mask) / 2, mask=mask)\n"
    )
    functions = {"out_ptr": torch.relu, "half_ptr": lambda x, s: x * s}
    fused = kernel_rewrite.fuse(source, functions, operands={"s": "scalar"}, dtypes=["out_ptr=fp32", "half_ptr=fp32"])
    assert fused.epilogues == (("out_ptr", "relu(x)"), ("half_ptr", "x * s"))

    def one(x: Any, s: kernel_rewrite.Scalar) -> Any:
        return x * s

    def other(x: Any, s: kernel_rewrite.Tile) -> Any:
        return x * s

    with pytest.raises(FusionRefused, match="KR121: operand `s` is declared twice"):
        kernel_rewrite.fuse(source, {"out_ptr": one, "half_ptr": other})


def test_functions_as_prologues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ops.py").write_text("import torch\ndef half(x, s: Scalar):\n    return x * s\n")
    wanted = kernel_rewrite.fuse(SOURCE, "relu(x)", prologues="x * s", operands={"s": "scalar"}, path="k.py").source
    for given in ("ops.py:half", {"x_ptr": "ops.py:half"}, {"x_ptr": lambda x, s: x * s}):
        operands = {"s": "scalar"} if isinstance(given, dict) else {}
        fused = kernel_rewrite.fuse(SOURCE, torch.relu, prologues=given, operands=operands, path="k.py")
        assert fused.source == wanted


@pytest.mark.parametrize(("function", "code"), [(lambda x: x.sum(), "KR118"), (lambda x: x if x > 0 else -x, "KR120")])
def test_functions_that_are_no_epilogues(function: Any, code: str) -> None:
    with pytest.raises(FusionRefused, match=code):
        kernel_rewrite.fuse(SOURCE, function)


def test_an_operand_that_a_function_does_not_take() -> None:
    with pytest.raises(FusionRefused, match="KR119"):
        kernel_rewrite.fuse(SOURCE, lambda x: x + 1, operands={"bias": "row"})


def test_operands_named_like_words_of_the_language() -> None:
    """`float16` in the text would be the type, in the function it is an operand."""

    def epilogue(x: Any, float16: kernel_rewrite.Scalar) -> Any:
        return x.half().float() * float16

    with pytest.raises(FusionRefused, match="KR108"):
        kernel_rewrite.fuse(SOURCE, epilogue)


def test_a_path(tmp_path: Path) -> None:
    file = tmp_path / "scale.py"
    file.write_text(SOURCE)
    from_text = kernel_rewrite.fuse(SOURCE, "relu", path="scale.py").source
    assert kernel_rewrite.fuse(file, "relu").source == from_text
    assert kernel_rewrite.fuse(str(file), "relu").source == from_text
    assert file.read_text() == SOURCE


def test_a_jit_function(tmp_path: Path) -> None:
    """In a process of its own: this one never imports triton."""
    (tmp_path / "two.py").write_text(TWO)
    program = (
        "import two, kernel_rewrite\n"
        "fused = kernel_rewrite.fuse(two.shift, {'out_ptr': 'relu'})\n"
        "assert fused.kernel == 'shift', fused.kernel\n"
        "report, = kernel_rewrite.inspect(two.scale).kernels\n"
        "assert report.name == 'scale'\n"
        "print(fused.source)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "tl.maximum(tl.load(x_ptr + offsets, mask=mask) + factor" in result.stdout


def test_numerics_fused_keeps_the_precision_of_the_value() -> None:
    eager = kernel_rewrite.fuse(SOURCE, "sigmoid", dtypes=["out_ptr=fp16", "x_ptr=fp32"]).source
    precise = kernel_rewrite.fuse(SOURCE, "sigmoid", dtypes=["out_ptr=fp16", "x_ptr=fp32"], numerics="fused").source
    assert ".to(out_ptr.dtype.element_ty))" in eager
    assert ".to(out_ptr.dtype.element_ty))" not in precise
    assert "--numerics fused" in precise


def test_a_refusal_carries_its_diagnostics() -> None:
    with pytest.raises(FusionRefused) as refused:
        kernel_rewrite.fuse(SOURCE, {"x_ptr": "relu"})
    assert [d.code for d in refused.value.diagnostics] == ["KR210"]
    assert "KR210" in str(refused.value)


def test_all_reasons_at_once() -> None:
    source = SOURCE.replace(
        "    tl.store(",
        "    tl.atomic_add(out_ptr + offsets, 1.0, mask=mask)\n    factor += tl.load(out_ptr)\n    tl.store(",
    )
    with pytest.raises(FusionRefused) as refused:
        kernel_rewrite.fuse(source, "relu")
    assert [d.code for d in refused.value.diagnostics] == ["KR201", "KR202"]


def test_a_wrong_source_type() -> None:
    with pytest.raises(TypeError, match="a path, a text or a JITFunction"):
        kernel_rewrite.fuse(17, "relu")


def test_inspect_reports_each_kernel() -> None:
    inspection = kernel_rewrite.inspect(TWO)
    assert [kernel.name for kernel in inspection.kernels] == ["scale", "shift"]
    report = inspection.kernels[0]
    assert report.inputs == ("x_ptr",)
    (output,) = report.outputs
    assert (output.name, output.write_only, output.element_types) == ("out_ptr", True, ("fp32",))
    assert output.write_only_in == output.written_in == report.specializations
    assert [(access.effect, access.parameters, access.span.line) for access in report.accesses] == [
        ("write", ("out_ptr",), 9),
        ("read", ("x_ptr",), 9),
    ]
    assert {fact.name: fact.kind for fact in report.parameters} == {
        "x_ptr": "pointer",
        "out_ptr": "pointer",
        "factor": "scalar",
        "n": "scalar",
        "BLOCK": "constexpr",
    }


def test_inspect_says_in_which_specializations_an_output_is_only_written() -> None:
    source = SOURCE.replace("BLOCK: tl.constexpr", "BLOCK: tl.constexpr, ADD: tl.constexpr").replace(
        "    tl.store(", "    if ADD:\n        factor += tl.load(out_ptr)\n    tl.store("
    )
    (report,) = kernel_rewrite.inspect(source).kernels
    (output,) = report.outputs
    assert not output.write_only
    assert [reason.code for reason in output.reasons] == ["KR201"]
    assert len(output.write_only_in) == 1 and len(output.written_in) == 2


def test_unknown_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'fuze'"):
        _ = kernel_rewrite.fuze  # type: ignore[attr-defined]


WITH_A_LAUNCHER = f"""\
import torch
{SOURCE}

def scaled(x, factor):
    out = torch.empty_like(x)
    scale[(triton.cdiv(x.numel(), 64),)](x, out, factor, x.numel(), BLOCK=64)
    return out
"""


def test_a_part_of_an_epilogue() -> None:
    text = "relu(x) / sum(relu(x), dim=-1, keepdim=True)"
    with pytest.raises(FusionRefused) as refused:
        kernel_rewrite.fuse(WITH_A_LAUNCHER, text)
    (found,) = refused.value.diagnostics
    assert found.code == "KR118" and found.help.startswith("fuse `relu(x)` alone") and "`--partial`" in found.help
    fused = kernel_rewrite.fuse(WITH_A_LAUNCHER, text, partial=True)
    assert fused.name == "relu_sum" and fused.epilogues == (("out_ptr", text),)
    rest = "out / torch.sum(out, dim=-1, keepdim=True)"
    assert f"\n    return {rest}  # kernel-rewrite: not fused\n" in fused.source
    assert fused.contract == (f"`scaled` returns `{rest}` for `out`",)
    for again, options, why in [
        (fused.source, {}, "the rest of another epilogue follows"),
        (
            WITH_A_LAUNCHER.replace("empty_like", "zeros_like"),
            {"epilogues": "sum(exp(relu(x)) * s)", "operands": ["s=scalar"], "assume": ["fully-written"]},
            "uses elements that may have missed the op",
        ),
        (WITH_A_LAUNCHER, {"launcher": "leave"}, "launchers are to be left alone"),
        (
            WITH_A_LAUNCHER,
            {"epilogues": "sum(relu(x).to(float16)).to(x.dtype)", "dtypes": ["out_ptr=fp32"]},
            "asks for",
        ),
    ]:
        with pytest.raises(FusionRefused, match="KR322") as refused:
            kernel_rewrite.fuse(again, **{"epilogues": text, "partial": True, **options})
        assert why in refused.value.diagnostics[0].message
    assert kernel_rewrite.fuse(fused.source, prologues="x_ptr=relu").warnings == ()
