"""The language of epilogues: parsing, naming, diagnostics, and the emitted source.

Run as a script under TRITON_INTERPRET=1 (a test does so), it compares emitted chains with torch.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel_rewrite.diagnostics import FusionRefused, render
from kernel_rewrite.model import Operand, OperandKind
from kernel_rewrite.pointwise.language import (
    EPILOGUE_FILE,
    Apply,
    Input,
    Pointwise,
    applications,
    emit,
    parse_epilogue,
)
from kernel_rewrite.pointwise.op import ArgumentKind
from kernel_rewrite.pointwise.ops import OPS

ROOT = Path(__file__).resolve().parents[2]


# -------------------------------------------------------------------------------------------------------- parsing


@pytest.mark.parametrize(
    ("text", "name", "torch_text"),
    [
        ("relu", "relu", "torch.relu(x)"),
        ("relu()", "relu", "torch.relu(x)"),
        ("relu(x)", "relu", "torch.relu(x)"),
        ("torch.relu", "relu", "torch.relu(x)"),
        ("torch.relu(x)", "relu", "torch.relu(x)"),
        ("F.silu", "silu", "torch.nn.functional.silu(x)"),
        ("swish", "silu", "torch.nn.functional.silu(x)"),
        ("gelu", "gelu", "torch.nn.functional.gelu(x)"),
        ('gelu(approximate="none")', "gelu", "torch.nn.functional.gelu(x)"),
        ("gelu(approximate='tanh')", "gelu_tanh", 'torch.nn.functional.gelu(x, approximate="tanh")'),
        ("gelu_tanh", "gelu_tanh", 'torch.nn.functional.gelu(x, approximate="tanh")'),
        ('torch.nn.functional.gelu(x, "tanh")', "gelu_tanh", 'torch.nn.functional.gelu(x, approximate="tanh")'),
        ("leaky_relu", "leaky_relu", "torch.nn.functional.leaky_relu(x, negative_slope=0.01)"),
        ("leaky_relu(0.2)", "leaky_relu_0_2", "torch.nn.functional.leaky_relu(x, negative_slope=0.2)"),
        ("leaky_relu(x, 0.2)", "leaky_relu_0_2", "torch.nn.functional.leaky_relu(x, negative_slope=0.2)"),
        ("leaky_relu(negative_slope=-1)", "leaky_relu_minus_1", "torch.nn.functional.leaky_relu(x, negative_slope=-1)"),
        ("clamp(0, 6)", "clamp_0_6", "torch.clamp(x, min=0, max=6)"),
        ("clip(0, max=6)", "clamp_0_6", "torch.clamp(x, min=0, max=6)"),
        ("clamp(min=0)", "clamp_min_0", "torch.clamp(x, min=0)"),
        ("clamp(None, 1.5)", "clamp_max_1_5", "torch.clamp(x, max=1.5)"),
        ("clamp(-inf, 1)", "clamp_minus_inf_1", 'torch.clamp(x, min=float("-inf"), max=1)'),
        ("hardtanh", "hardtanh", "torch.nn.functional.hardtanh(x, min_val=-1, max_val=1)"),
        ("hardtanh(-1.0, 2.5)", "hardtanh_2_5", "torch.nn.functional.hardtanh(x, min_val=-1, max_val=2.5)"),
        ("to(fp16)", "to_float16", "x.to(torch.float16)"),
        ("to(torch.bfloat16)", "to_bfloat16", "x.to(torch.bfloat16)"),
        ("to(dtype=fp16)", "to_float16", "x.to(torch.float16)"),
        ("x.half()", "to_float16", "x.to(torch.float16)"),
        ("x.to(torch.float8_e4m3fn)", "to_float8_e4m3fn", "x.to(torch.float8_e4m3fn)"),
        ("sigmoid(relu(x))", "sigmoid_relu", "torch.sigmoid(torch.relu(x))"),
        ("sigmoid(relu)", "sigmoid_relu", "torch.sigmoid(torch.relu(x))"),
        (
            "leaky_relu(abs(x), 0.5)",
            "leaky_relu_0_5_abs",
            "torch.nn.functional.leaky_relu(torch.abs(x), negative_slope=0.5)",
        ),
        ("  relu  ", "relu", "torch.relu(x)"),
    ],
)
def test_spellings(text: str, name: str, torch_text: str) -> None:
    pointwise = parse_epilogue(text)
    assert pointwise.name == name
    assert pointwise.torch_text("x") == torch_text
    assert name.isidentifier()


def test_torch_text_takes_any_operand() -> None:
    assert parse_epilogue("sigmoid(relu(x))").torch_text("out[0]") == "torch.sigmoid(torch.relu(out[0]))"


@pytest.mark.parametrize(
    ("text", "code", "message", "help", "marked"),
    [
        ("rleu", "KR107", "unknown op `rleu`", "did you mean `relu`?", "rleu"),
        ("geluu", "KR107", "unknown op `geluu`", "did you mean `gelu`?", "geluu"),
        ("sigmoid(rleu(x))", "KR107", "unknown op `rleu`", "did you mean `relu`?", "rleu"),
        ("SiLU", "KR107", "unknown op `SiLU`", "did you mean `silu`?", "SiLU"),
        ("numpy.exp", "KR107", "unknown op `numpy.exp`", "did you mean `exp`?", "numpy.exp"),
        ("xyzzy", "KR107", "unknown op `xyzzy`", "`--operand xyzzy=row`", "xyzzy"),
        ("x", "KR107", "the epilogue is x itself", "write an op", "x"),
        ("relu +", "KR107", "`relu +` is not an expression of ops", "write an op", "relu +"),
        ("", "KR107", "`` is not an expression of ops", "write an op", ""),
        ("relu(lambda: 1)", "KR107", "is not an expression of ops", "write an op", "lambda: 1"),
        ("relu(3)", "KR108", "`relu` takes no arguments beside x", "write it as `relu`", "3"),
        ("relu(x, x)", "KR108", "`relu` takes no arguments beside x", "write it as `relu`", "x"),
        ("leaky_relu(0.1, 0.2)", "KR108", "at most 1 argument beside x", "`leaky_relu(negative_slope=0.01)`", "0.2"),
        ("leaky_relu(slope=1)", "KR108", "no parameter `slope`", "`leaky_relu(negative_slope=0.01)`", "1"),
        ("leaky_relu(**options)", "KR108", "no `**` arguments", "`leaky_relu(negative_slope=0.01)`", "options"),
        ("clamp()", "KR108", "`clamp` needs `min` or `max`", "`clamp(min=None, max=None)`", "clamp()"),
        ("clamp", "KR108", "`clamp` needs `min` or `max`", "`clamp(min=None, max=None)`", "clamp"),
        ('clamp("a")', "KR108", "must be a number, not `'a'`", "clamp(", '"a"'),
        ("clamp(True)", "KR108", "must be a number, not `True`", "clamp(", "True"),
        ("clamp(0, min=1)", "KR108", "`min` of `clamp` is given twice", "clamp(", "1"),
        ("clamp(nan)", "KR108", "must be a number, not `nan`", "clamp(", "nan"),
        ("leaky_relu(None)", "KR108", "must be a number, not `None`", "leaky_relu(", "None"),
        ('gelu(approximate="tan")', "KR108", 'must be "none" or "tanh"', "gelu(", '"tan"'),
        ("to", "KR108", "`to` needs `dtype`", "`to(dtype)`", "to"),
        ("to(complex64)", "KR107", "unknown op `complex64`", "`kernel-rewrite ops`", "complex64"),
        ("to(3)", "KR108", "must be one of float64, float32, float16, ", "`to(dtype)`", "3"),
        ("clamp_min()", "KR108", "`clamp_min` needs `min`", "`clamp_min(min)`", "clamp_min()"),
        ("softplus(beta=0)", "KR108", "`beta` of `softplus` must not be zero", "softplus(", "0"),
        ("celu(0.0)", "KR108", "`alpha` of `celu` must not be zero", "celu(", "0.0"),
        ("clamp(min=-0.0)", "KR108", "Triton writes -0.0 as 0.0", "clamp(", "-0.0"),
    ],
)
def test_refusals(text: str, code: str, message: str, help: str, marked: str) -> None:
    with pytest.raises(FusionRefused) as caught:
        parse_epilogue(text)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == code
    assert message in diagnostic.message
    assert help in diagnostic.help
    span = diagnostic.labels[0].span
    assert span.file == EPILOGUE_FILE
    if marked:
        assert text.strip()[span.column : span.end_column] == marked
    assert code in render(diagnostic, {EPILOGUE_FILE: text})


@given(st.text(max_size=20))
@settings(max_examples=200, deadline=None)
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        parse_epilogue(text)
    except FusionRefused as refused:
        assert {d.code for d in refused.diagnostics} <= {"KR107", "KR108", "KR118"}


# ------------------------------------------------------------------------------------------------------- emission


def test_a_short_op_stands_in_the_store() -> None:
    emission = emit(parse_epilogue("relu"), "c")
    assert emission.expression == "tl.maximum(c, 0, propagate_nan=tl.PropagateNan.ALL)"
    assert emission.helpers == () and not emission.needs_libdevice


def test_a_longer_op_becomes_a_helper() -> None:
    emission = emit(parse_epilogue("sigmoid"), "c.to(c_ptr.dtype.element_ty)")
    assert emission.expression == "sigmoid(c.to(c_ptr.dtype.element_ty))"
    assert emission.needs_libdevice
    (helper,) = emission.helpers
    assert helper.name == "sigmoid"
    assert helper.text == (
        "@triton.jit\n"
        "def sigmoid(x):\n"
        '    """torch.sigmoid(x).\n'
        "\n"
        "    1 / (1 + exp(-x)).\n"
        "    A 16-bit x is computed in float32 and rounded once.\n"
        '    """\n'
        '    tl.static_assert(x.dtype.is_floating(), "sigmoid is defined for floating-point types")\n'
        "    wide = x if x.dtype.primitive_bitwidth >= 32 else x.to(tl.float32)\n"
        "    total = 1.0 + libdevice.exp(-wide)\n"
        "    result = 1.0 / total if x.dtype == tl.float64 else tl.div_rn(1.0, total)\n"
        "    return result.to(x.dtype)\n"
    )


def test_the_file_spells_its_modules_as_it_likes() -> None:
    emission = emit(
        parse_epilogue("tanh(relu(x))"), "c", tl="triton.language", libdevice="tl_math", jit="jit", taken_names=()
    )
    text = "".join(helper.text for helper in emission.helpers) + emission.expression
    assert "tl." not in text.replace("triton.language.", "") and "libdevice" not in text
    assert "tl_math.tanh(" in text
    assert all(helper.text.startswith("@jit\n") for helper in emission.helpers)


def test_a_taken_name_is_left_alone() -> None:
    pointwise = parse_epilogue("gelu(relu(x))")
    emission = emit(pointwise, "c", taken_names={"gelu", "relu", "torch_relu"})
    assert emission.expression == "torch_gelu(torch_relu_2(c))"
    assert [helper.name for helper in emission.helpers] == ["torch_relu_2", "torch_gelu"]
    assert "def torch_gelu(x):" in emission.helpers[1].text


def test_a_helper_is_written_once() -> None:
    emission = emit(parse_epilogue("leaky_relu(sigmoid(leaky_relu(sigmoid(x), 0.5)), 0.25)"), "c")
    assert [helper.name for helper in emission.helpers] == ["sigmoid", "leaky_relu"]
    assert emission.expression == (
        "leaky_relu(sigmoid(leaky_relu(sigmoid(c), negative_slope=0.5)), negative_slope=0.25)"
    )


def test_types_are_written_into_helpers() -> None:
    emission = emit(parse_epilogue("x.to(e5m2).to(float32).relu().to(e5m2)"), "c")
    assert [helper.name for helper in emission.helpers] == ["to_float8_e5m2", "relu"]
    assert emission.expression == "to_float8_e5m2(relu(to_float8_e5m2(c).to(tl.float32)))"


def test_an_inline_op_that_changes_the_type_is_a_helper_inside_a_chain() -> None:
    """tl.maximum of a bfloat16 is a float32: the next op would not round."""
    emission = emit(parse_epilogue("sigmoid(relu(x))"), "c")
    assert emission.expression == "sigmoid(relu(c))"
    assert ".to(x.dtype)" in emission.helpers[0].text


@pytest.mark.parametrize(
    ("text", "value", "expression"),
    [
        ("relu", "a + b", "tl.maximum(a + b, 0, propagate_nan=tl.PropagateNan.ALL)"),
        ("neg", "a + b", "(a + b) * -1"),
        ("neg", "a * b", "a * b * -1"),
        ("to(fp16)", "a + b", "(a + b).to(tl.float16)"),
        ("to(fp16)", "a[0]", "a[0].to(tl.float16)"),
        ("sigmoid(neg)", "v", "sigmoid(v * -1)"),
        ("to(neg, fp16)", "v", "(v * -1).to(tl.float16)"),
        ("neg(neg(x))", "v", "v * -1 * -1"),
        ("gelu", "a if b else c", "gelu(a if b else c)"),
        ("x - 1", "a - b", "a - b - 1"),
        ("1 - x", "a - b", "1 - (a - b)"),
        ("1 - x", "-a", "1 - -a"),
        ("x > 0", "a == b", "(a == b) > 0"),
        ("~x", "a & b", "~(a & b)"),
        ("x.abs() + 1", "a if b else c", "tl.abs(a if b else c) + 1"),
        ("x * 2", "a if b else c", "(a if b else c) * 2"),
    ],
)
def test_any_expression_is_grouped_right(text: str, value: str, expression: str) -> None:
    assert emit(parse_epilogue(text), value).expression == expression


@pytest.mark.parametrize("name", sorted(n for n, row in OPS.items() if row.steps))
def test_helpers_read_well(name: str) -> None:
    """Short lines, valid Python, nothing but triton's own names and the helper's."""
    row = OPS[name]
    arguments = {p.name: 1.0 for p in row.parameters if p.kind is not ArgumentKind.CHOICE}
    operands = tuple(Operand(f"operand_{name}", OperandKind.TILE) for name in row.operands[1:])
    inputs = (Input(), *(Input(operand.name) for operand in operands))
    pointwise = Pointwise(Apply("abs", (Apply(name, inputs, tuple(arguments.items())),)), operands)
    texts = {operand.name: operand.name for operand in operands}
    for helper in emit(pointwise, "v", texts).helpers[:1]:
        assert max(len(line) for line in helper.text.splitlines()) <= 120
        assert not any(line != line.rstrip() for line in helper.text.splitlines())
        assert helper.text.endswith("\n") and not helper.text.endswith("\n\n")
        (function,) = ast.parse(helper.text).body
        assert isinstance(function, ast.FunctionDef) and function.name == helper.name
        known = {a.arg for a in function.args.args} | {"tl", "libdevice", "triton"}
        known |= {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        used = {n.id for n in ast.walk(function) if isinstance(n, ast.Name)}
        assert used <= known, used - known
        docstring = ast.get_docstring(function)
        assert docstring and docstring.startswith(("torch.", "x "))
        assert ("libdevice." in helper.text) == row.needs_libdevice


# -------------------------------------------------------------------------------------------------- random chains

# no reciprocal: it shows the sign of the zeros that torch's CPU relu keeps
FLOAT_CHAIN_OPS = ["relu", "relu6", "abs", "neg", "floor", "ceil", "round", "sign", "hardtanh", "leaky_relu(X, 0.5)"]
FLOAT_CHAIN_OPS += ["clamp(X, -2, 2.5)", "square", "trunc", "softsign"]
INTEGER_CHAIN_OPS = ["relu", "relu6", "abs", "neg", "floor", "sign", "square", "clamp(X, -3, 100)", "hardtanh"]


def chain(ops: list[str], length: int, choose: random.Random) -> str:
    text = "x"
    for _ in range(length):
        op = choose.choice(ops)
        text = op.replace("X", text) if "(" in op else f"{op}({text})"
    return text


@given(st.integers(0, 10**9), st.integers(1, 6), st.sampled_from(["v", "(a + b)", "a[0]", "f(a, b)"]))
@settings(max_examples=150, deadline=None)
def test_every_chain_is_a_program(seed: int, length: int, value: str) -> None:
    text = chain(FLOAT_CHAIN_OPS, length, random.Random(seed))
    pointwise = parse_epilogue(text)
    assert len(tuple(applications(pointwise.result))) == length
    emission = emit(pointwise, value)
    names = {helper.name for helper in emission.helpers}
    assert len(names) == len(emission.helpers)
    tree = ast.parse(emission.expression, mode="eval")
    assert sum(ast.unparse(node) == ast.unparse(ast.parse(value, mode="eval").body) for node in ast.walk(tree)) == 1
    called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)} - {"f"}
    assert called == names
    assert parse_epilogue(pointwise.torch_text("x")) == pointwise


def test_chains_equal_torch_in_the_interpreter() -> None:
    """Emitted chains of exactly rounded ops write torch's bits, for floats and for integers that wrap."""
    pytest.importorskip("triton")
    pytest.importorskip("torch")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    run = subprocess.run(
        [sys.executable, "-W", "ignore", __file__], env=environment, capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stderr[-2000:]
    results = json.loads(run.stdout.strip().splitlines()[-1])
    assert len(results) >= 100
    assert {key: count for key, count in results.items() if count} == {}


def chain_differences(texts: list[str], dtype: Any, folder: Path) -> dict[str, int]:
    """How many elements of each chain differ from torch's; one kernel computes them all."""
    import torch

    functions = [parse_epilogue(text) for text in texts]
    emissions = [emit(function, "v", taken_names={"kernel"}) for function in functions]
    helpers = {helper.text: helper.name for emission in emissions for helper in emission.helpers}
    assert len(set(helpers.values())) == len(helpers)
    lines = [
        "import triton",
        "import triton.language as tl",
        "from triton.language.extra import libdevice",
        "",
        *helpers,
    ]
    lines += ["@triton.jit", "def kernel(source, target, N: tl.constexpr):", "    index = tl.arange(0, N)"]
    lines += ["    v = tl.load(source + index)"]
    lines += [f"    tl.store(target + {row} * N + index, {e.expression})" for row, e in enumerate(emissions)]
    name = f"chains_{str(dtype).partition('.')[2]}"
    path = folder / f"{name}.py"
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    words = {1: torch.int8, 2: torch.int16, 4: torch.int32}[dtype.itemsize]
    generator = torch.Generator().manual_seed(len(texts))
    source = torch.randint(-(2**31), 2**31, (4096,), generator=generator).to(words).view(dtype)
    if dtype.is_floating_point:
        source[:2048] = (torch.randn(2048, generator=generator) * 3).to(dtype)
        source[:4] = torch.tensor([math.nan, math.inf, -math.inf, 0.0]).to(dtype)
    target = torch.empty(len(texts), 4096, dtype=dtype)
    module.kernel[(1,)](source, target, N=4096)
    expected = torch.stack([function.evaluate(source) for function in functions])
    differ = (target != expected) & ~((target != target) & (expected != expected))
    return {f"{text} {dtype}": count for text, count in zip(texts, differ.sum(dim=1).tolist(), strict=True)}


def main() -> None:
    import tempfile

    import torch

    from kernel_rewrite.pointwise.interpreter import stand_ins

    torch.set_num_threads(1)
    choose = random.Random(7)
    floats = [torch.float16, torch.bfloat16, torch.float32]
    results: dict[str, int] = {}
    with stand_ins(), tempfile.TemporaryDirectory() as folder:
        for dtype in (*floats, torch.int8, torch.int16, torch.int32):
            ops = FLOAT_CHAIN_OPS if dtype in floats else INTEGER_CHAIN_OPS
            texts = [chain(ops, choose.randint(2, 5), choose) for _ in range(27 if dtype in floats else 15)]
            results |= chain_differences(sorted(set(texts)), dtype, Path(folder))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
