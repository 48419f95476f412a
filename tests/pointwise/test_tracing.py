"""Functions as epilogues: read or traced, they are the graph that their expression is."""

from __future__ import annotations

import math
from typing import Any

import pytest

from kernel_rewrite import Column, Row, Scalar, Tile
from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.model import Operand, OperandKind
from kernel_rewrite.pointwise.language import parse_epilogue
from kernel_rewrite.pointwise.reading import parsed_function
from kernel_rewrite.pointwise.tracing import traced

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")
F = torch.nn.functional

KINDS = {"Row": Row, "Column": Column, "Tile": Tile, "Scalar": Scalar}
OPERANDS = {"bias": "Row", "shift": "Column", "residual": "Tile", "gate": "Tile", "scale": "Scalar"}

# The body of a function, and the expression that says the same.
BODIES = {
    "return torch.relu(x + bias) + residual": "relu(x + bias) + residual",
    "y = x * scale\n    return F.gelu(y, approximate='tanh')": "gelu_tanh(x * scale)",
    "return x * torch.sigmoid(1.702 * x)": "x * sigmoid(1.702 * x)",
    "y = x + bias\n    y = y * 2\n    y += shift\n    return y": "(x + bias) * 2 + shift",
    "return torch.where(x > 0, x, 0.1 * x)": "where(x > 0, x, 0.1 * x)",
    "return (x.float() * scale).to(torch.float8_e4m3fn)": "(x.to(float32) * scale).to(float8_e4m3fn)",
    "return (x.float() + bias).to(x.dtype)": "(x.to(float32) + bias).to(x.dtype)",
    "return F.silu(x) * gate": "silu(x) * gate",
    "return torch.clamp(x, min=0, max=6)": "clamp(0, 6)",
    "return x.clamp(-math.inf, 3)": "clamp(-inf, 3)",
    "return torch.maximum(x, bias)": "maximum(x, bias)",
    "return 1 - x / 2 + 2 / x": "1 - x / 2 + 2 / x",
    "return x ** 3 + (2 ** x)": "x ** 3 + 2 ** x",
    "return -x % 2 // 3": "-x % 2 // 3",
    "return torch.lerp(x, residual, 0.5)": "lerp(x, residual, 0.5)",
    "return torch.addcmul(x, bias, residual, value=0.5)": "addcmul(x, bias, residual, value=0.5)",
    "return F.leaky_relu(x, 0.2)": "leaky_relu(0.2)",
    "return torch.clamp(x, bias, residual)": "clamp(x, bias, residual)",
    "return ((x > 0) & ~(x < bias)) | (x == 3)": "((x > 0) & ~(x < bias)) | (x == 3)",
    "return abs(x) if True else x": "abs(x)",
}


def function_text(body: str) -> str:
    used = ", ".join(f"{name}: {kind}" for name, kind in OPERANDS.items() if name in body)
    return f"import math\nimport torch\nimport torch.nn.functional as F\n\ndef epilogue({', '.join(filter(None, ['x', used]))}):\n    {body}\n"


def expected(expression: str) -> Any:
    kinds = {"Row": "row", "Column": "column", "Tile": "tile", "Scalar": "scalar"}
    declared = {n: Operand(n, OperandKind(kinds[k])) for n, k in OPERANDS.items() if n in expression}
    return parse_epilogue(expression, declared)


@pytest.mark.parametrize("body", [body for body in BODIES if " if " not in body])
def test_a_function_is_read_as_its_expression(body: str) -> None:
    assert parsed_function(function_text(body), "epilogue") == expected(BODIES[body])


@pytest.mark.parametrize("body", BODIES)
def test_a_function_is_traced_as_its_expression(body: str) -> None:
    names: dict[str, Any] = dict(KINDS)
    exec(function_text(body), names)
    assert traced(names["epilogue"]) == expected(BODIES[body])


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (F.gelu, "gelu"),
        (F.relu, "relu"),
        (torch.sigmoid, "sigmoid"),
        (torch.tanh, "tanh"),
        (F.softsign, "softsign"),
        (F.hardtanh, "hardtanh"),
        (lambda x: x * torch.sigmoid(1.702 * x), "x * sigmoid(1.702 * x)"),
        (lambda value: F.relu(value), "relu"),
        (lambda x: x.add(1).clamp(min=0), "clamp(x + 1, min=0)"),
    ],
)
def test_functions_of_torch(function: Any, text: str) -> None:
    assert traced(function) == parse_epilogue(text)


def many_times(x: Any) -> Any:
    """2**40 additions, once the steps that are used twice are written twice."""
    for _ in range(40):
        x = x + x
    return x


def swallows(x: Any) -> Any:
    try:
        return x + 1 if x > 0 else x
    except Exception:
        return x * 2


@pytest.mark.parametrize(
    ("function", "code", "message"),
    [
        (lambda x: x if x > 0 else -x, "KR120", "asks whether a tensor is true"),
        (lambda x: F.softmax(x, dim=-1), "KR118", "needs every element of a row"),
        (lambda x: x.T, "KR118", "changes where elements lie"),
        (lambda x: x @ x, "KR118", "multiplies matrices"),
        (lambda x: x[0], "KR118", "reads other elements"),
        (lambda x: x.sum(), "KR118", "needs every element"),
        (lambda x: x + torch.ones(3), "KR120", "uses a Tensor of its surroundings"),
        (lambda x, bias: x + bias, "KR120", "parameter `bias`"),
        (lambda x: 3, "KR120", "returns int"),
        (lambda x: x, "KR107", "changes nothing"),
        (lambda x: x.digamma(), "KR107", "unknown op"),
        (lambda x: math.exp(x), "KR120", "makes a Python number of a tensor"),
        (lambda x: x + 1 if x.dtype == torch.float16 else x, "KR120", "looks at the type of a tensor"),
        (lambda x: x + 1 if x.dtype in (torch.float16,) else x, "KR120", "looks at the type of a tensor"),
        (lambda x: x + 1 if x.dtype.is_floating_point else x, "KR120", "looks at the type of a tensor"),
        (lambda x: x + 1 if x.is_cuda else x, "KR120", "looks at `is_cuda` of a tensor"),
        (lambda x: x + 1 if x.ndim == 2 else x, "KR120", "looks at `ndim` of a tensor"),
        (lambda x: x * len(x), "KR120", "goes through a tensor"),
        (lambda x: x * x.shape[0], "KR107", "`x.shape` is not a value"),
        (lambda x: x + int(x), "KR120", "makes a Python number of a tensor"),
        (lambda x: 1 / 0 + x, "KR120", "cannot be followed: ZeroDivisionError"),
        (lambda x: many_times(x), "KR120", "more than the 200 that are sensible"),
        (lambda x: swallows(x), "KR120", "asks whether a tensor is true"),
        (lambda value, x: value + x, "KR120", "parameter `x`"),
    ],
)
def test_what_cannot_be_traced(function: Any, code: str, message: str) -> None:
    with pytest.raises(FusionRefused) as caught:
        traced(function)
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.code, message in diagnostic.message) == (code, True), diagnostic.message


@pytest.mark.parametrize(
    ("source", "code", "message", "line"),
    [
        ("def epilogue(x):\n    if x > 0:\n        return x\n    return -x\n", "KR120", "does more than assign", 2),
        ("def epilogue(x):\n    for i in range(3):\n        x = x + i\n    return x\n", "KR120", "does more than", 2),
        ("def epilogue(x):\n    y = x + 1\n", "KR120", "returns nothing", 1),
        ("def epilogue(x, bias):\n    return x + bias\n", "KR120", "parameter `bias`", 1),
        ("def epilogue(*args):\n    return args\n", "KR120", "does not name its parameters", 1),
        ("def other(x):\n    return x\n", "KR120", "no function `epilogue`", 1),
        ("def epilogue(x:\n", "KR120", "is not valid Python", 1),
        ("def epilogue(x):\n    return helper(x)\n", "KR107", "unknown op `helper`", 2),
        ("def epilogue(x):\n    return x.softmax(-1)\n", "KR118", "needs every element", 2),
        ("def epilogue(x, bias: Row):\n    return x + 1\n", "KR119", "`bias` is declared", 2),
        ("def epilogue(value, x: Row):\n    return value + x\n", "KR121", "`x` is the stored value", 1),
        ("def epilogue(x, relu: Row):\n    return x + relu\n", "KR121", "`relu` is an op", 1),
        ("def relu(x):\n    return x\ndef epilogue(x):\n    return relu(x)\n", "KR120", "`relu` is neither torch", 4),
        ("import numpy as F\ndef epilogue(x):\n    return F.relu(x)\n", "KR120", "`F` is neither torch", 3),
        ("from math import exp\ndef epilogue(x):\n    return exp(x)\n", "KR107", "unknown op `math.exp`", 3),
        ("from mine import *\ndef epilogue(x):\n    return relu(x)\n", "KR120", "`relu` may be anything", 3),
        ("A = 1.0\nA = 2.0\ndef epilogue(x):\n    return x * A\n", "KR120", "`A` is neither torch", 4),
        ("A = 1.0\nif A:\n    A = 2.0\ndef epilogue(x):\n    return x * A\n", "KR120", "`A` is neither", 5),
        ("A = 1.0\ndef f():\n    global A\ndef epilogue(x):\n    return x * A\n", "KR120", "`A` is neither", 5),
        ("def epilogue(x):\n    return x\nepilogue = trick(epilogue)\n", "KR120", "bound 2 times", 1),
        ("if True:\n    def epilogue(x):\n        return x + 1\n", "KR120", "no function that is written at", 2),
        ("@triton.jit\ndef epilogue(x):\n    return x + 1\n", "KR120", "is a Triton function", 1),
        ("@trick\ndef epilogue(x):\n    return x + 1\n", "KR120", "the decorator `trick`", 1),
        ("def epilogue(x, mode='none'):\n    return x + 1\n", "KR120", "parameter `mode`", 1),
        ("def epilogue(x):\n" + "    x = x + x\n" * 31 + "    return x\n", "KR120", "more than the 200", 33),
    ],
)
def test_what_cannot_be_read(source: str, code: str, message: str, line: int) -> None:
    with pytest.raises(FusionRefused) as caught:
        parsed_function(source, "epilogue", file="ops.py")
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.code, message in diagnostic.message) == (code, True), diagnostic.message
    assert (diagnostic.labels[0].span.file, diagnostic.labels[0].span.line) == ("ops.py", line)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("import torch as t\ndef epilogue(x):\n    return t.nn.functional.gelu(t.relu(x))\n", "gelu(relu(x))"),
        ("from torch import nn\ndef epilogue(x):\n    return nn.functional.silu(x)\n", "silu(x)"),
        ("from torch import sigmoid as squash\ndef epilogue(x):\n    return squash(x)\n", "sigmoid(x)"),
        (
            "from math import pi\nimport math\ndef epilogue(x):\n    return x * pi + math.e\n",
            f"x * {math.pi} + {math.e}",
        ),
        (
            "SLOPE = 0.25\nLOW: int = -3\ndef epilogue(x):\n    return F.leaky_relu(x, SLOPE).clamp(min=LOW)\n",
            "clamp(leaky_relu(0.25), min=-3)",
        ),
        (
            "def epilogue(x, slope=0.25, *, low=-3.0):\n    return F.leaky_relu(x, slope) + low\n",
            "leaky_relu(0.25) + -3.0",
        ),
        (
            "try:\n    import torch\nexcept ImportError:\n    import torch\ndef epilogue(x):\n    return torch.relu(x)\n",
            "relu",
        ),
        ("@torch.compile(dynamic=True)\ndef epilogue(x):\n    return x + 1\n", "x + 1"),
        ("double = lambda value: value * 2\ndef other(x):\n    double = 3\n", "x * 2"),
    ],
)
def test_names_of_the_file(source: str, text: str) -> None:
    assert parsed_function(source, "double" if "double" in source else "epilogue") == parse_epilogue(text)


def test_defaults_may_be_operands() -> None:
    scale = {"scale": Operand("scale", OperandKind.SCALAR)}
    source = "def epilogue(x, scale=2.0):\n    return x * scale\n"
    assert parsed_function(source, "epilogue", scale) == parse_epilogue("x * scale", scale)


def test_traced_operands_by_name_and_steps_by_none() -> None:
    def keyword_alone(x: Any, alpha: float = 0.5, *, step_1: Row) -> Any:
        return x * alpha + step_1 * 2 + (x + 1)

    declared = {"step_1": Operand("step_1", OperandKind.ROW)}
    assert traced(keyword_alone) == parse_epilogue("x * 0.5 + step_1 * 2 + (x + 1)", declared)


def test_what_a_function_may_ask_of_a_tensor() -> None:
    def checked(x: Any) -> Any:
        assert isinstance(x, torch.Tensor) and torch.is_tensor(x)
        return x * np.float64(2.0) + torch.nn.GELU(approximate="tanh")(x)

    assert traced(checked) == parse_epilogue("x * 2.0 + gelu_tanh(x)")


def test_a_triton_function_is_no_function_of_torch() -> None:
    class JitFunction:
        fn, run, __name__ = None, None, "gate"

        def __call__(self, x: Any) -> Any:
            raise RuntimeError("cannot be called here")

    with pytest.raises(FusionRefused, match="KR120: `gate` is a Triton function"):
        traced(JitFunction())


def test_reading_runs_nothing() -> None:
    assert parsed_function("raise SystemExit\ndef epilogue(x):\n    return x + 1\n", "epilogue") == parse_epilogue(
        "x + 1"
    )
