"""Functions as epilogues: read or traced, they are the graph that their expression is."""

from __future__ import annotations

import math
from typing import Any

import pytest

from kernel_rewrite import Column, Row, Scalar, Tile
from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.model import Operand, OperandKind
from kernel_rewrite.pointwise.language import parse_epilogue
from kernel_rewrite.pointwise.tracing import parsed_function, traced

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
    ],
)
def test_what_cannot_be_read(source: str, code: str, message: str, line: int) -> None:
    with pytest.raises(FusionRefused) as caught:
        parsed_function(source, "epilogue", file="ops.py")
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.code, message in diagnostic.message) == (code, True), diagnostic.message
    assert (diagnostic.labels[0].span.file, diagnostic.labels[0].span.line) == ("ops.py", line)


def test_reading_runs_nothing() -> None:
    assert parsed_function("raise SystemExit\ndef epilogue(x):\n    return x + 1\n", "epilogue") == parse_epilogue(
        "x + 1"
    )
