"""What folds, to what, and that nothing folds at the price of running or of hanging."""

from __future__ import annotations

import ast
import math
import time

import pytest

from kernel_rewrite.model import Constant, Dtype, FunctionRef, TritonObject, Unresolved
from kernel_rewrite.source.folding import External, NotFoldable, fold, fold_constant

NAMES: dict[str, object] = {
    "tl": TritonObject("triton.language"),
    "triton": TritonObject("triton"),
    "torch": External("torch"),
    "math": External("math"),
    "BLOCK": Constant(64),
    "WIDTH": Constant(8, constexpr=True),
    "relu": FunctionRef("a.py", "relu"),
    "secret": Unresolved("it is read from a file"),
}


def lookup(node: ast.expr) -> object:
    if isinstance(node, ast.Name):
        return NAMES.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = lookup(node.value)
        if isinstance(owner, TritonObject):
            whole = f"{owner.dotted}.{node.attr}"
            return TritonObject(whole) if whole == "triton.language" else TritonObject(owner.dotted, node.attr)
        if isinstance(owner, External):
            return External(f"{owner.dotted}.{node.attr}")
    return None


def value(text: str) -> object:
    return fold(ast.parse(text, mode="eval").body, lookup)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 + 2 * 3", 7),
        ("-7 // 2", -4),
        ("1 << 20", 1048576),
        ("2 ** 63 - 1", 2**63 - 1),
        ("~0 & 0xFF", 255),
        ("True and 0 or 'x'", "x"),
        ("1 < 2 <= 2", True),
        ("3 not in (1, 2)", True),
        ("None is None", True),
        ("(1, 2.5, 'a', None)", (1, 2.5, "a", None)),
        ("[1, 2][1]", 2),
        ("{'a': 1, **{'b': 2}}['b']", 2),
        ("8 if BLOCK > 32 else 4", 8),
        ("f'tf{WIDTH}'", "tf8"),
        ("max(1, BLOCK, 3)", 64),
        ("round(2.6)", 3),
        ("int(float('3.9'))", 3),
        ("float('-inf')", -math.inf),
        ("len((1, 2, 3))", 3),
        ("triton.next_power_of_2(65)", 128),
        ("triton.next_power_of_2(1)", 1),
        ("triton.cdiv(65, 32)", 3),
        ("tl.cdiv(-1, 32)", 0),
        ("tl.float32", Dtype("float32")),
        ("tl.float8e4nv", Dtype("float8e4nv")),
        ("torch.half", Dtype("float16")),
        ("torch.float8_e4m3fn", Dtype("float8e4nv")),
        ("torch.bool", Dtype("int1")),
        ("math.pi / 2", math.pi / 2),
        ("math.sqrt(2.0)", math.sqrt(2.0)),
        ("torch.finfo(torch.float16).max", 65504.0),
        ("torch.finfo(torch.float32).min", -3.4028234663852886e38),
        ("torch.finfo(torch.bfloat16).max", 3.3895313892515355e38),
        ("torch.iinfo(torch.int32).max", 2**31 - 1),
        ("tl.constexpr(BLOCK * 2)", 128),
        ("WIDTH.value + 1", 9),
        ("relu", FunctionRef("a.py", "relu")),
    ],
)
def test_folds(text: str, expected: object) -> None:
    result = value(text)
    assert result == expected and type(result) is type(expected)


@pytest.mark.parametrize(
    ("text", "constexpr"),
    [("tl.constexpr(4)", True), ("tl.constexpr(value=4)", True), ("WIDTH * 2", True), ("WIDTH < 9", True)]
    + [("-WIDTH", True), ("BLOCK * 2", False), ("WIDTH.value", False), ("(WIDTH, 1)", False)],
)
def test_constexpr_is_kept_as_triton_keeps_it(text: str, constexpr: bool) -> None:
    assert fold_constant(ast.parse(text, mode="eval").body, lookup).constexpr is constexpr


@pytest.mark.parametrize(
    "text",
    [
        "2**10**10",
        "1 << 10**9",
        "(-1) << 10**9",
        "'x' * 10**9",
        "10**9 * [0]",
        "(1,) * 10**9",
        "'%1000000000d' % 1",
        "(((10**500)**500)**500)**500",
        "1" + " + 1" * 500,
        "-" * 500 + "1",
        "(" * 90 + "1" + ",)" * 90 + "[0]" * 120,
    ],
)
def test_what_would_be_huge_is_refused_at_once(text: str) -> None:
    started = time.perf_counter()
    with pytest.raises(NotFoldable):
        value(text)
    assert time.perf_counter() - started < 2.0


@pytest.mark.parametrize(
    "text",
    [
        "1 / 0",
        "1 + 'a'",
        "(1, 2)[5]",
        "{}['a']",
        "[1][0:1]",
        "secret",
        "unknown",
        "unknown()",
        "open('x')",
        "__import__('os')",
        "().__class__",
        "'a'.join([])",
        "[x for x in (1, 2)]",
        "(lambda: 1)()",
        "(y := 1)",
        "f'{BLOCK:>1000000000}'",
        "tl.constexpr()",
        "tl.load",
        "torch.float32.itemsize",
        "max(*(1, 2))",
        "b'x'",
        "1j",
        "2j ** 2",
        "(-8) ** 0.5",
        "...",
        "BLOCK.value",
        "math.factorial(5)",
        "torch.finfo(torch.int32).max",
    ],
)
def test_what_does_not_fold_says_so(text: str) -> None:
    with pytest.raises(NotFoldable) as refusal:
        value(text)
    assert refusal.value.reason


def test_the_reason_of_an_unresolved_name_is_passed_on() -> None:
    with pytest.raises(NotFoldable, match="it is read from a file"):
        value("secret + 1")


def test_constants_and_limits_agree_with_torch() -> None:
    torch = pytest.importorskip("torch")
    from kernel_rewrite.source.folding import _LIMITS, TORCH_DTYPES

    for name, meaning in TORCH_DTYPES.items():
        dtype = getattr(torch, name, None)
        if dtype is None or meaning == "int1":
            continue
        info = torch.finfo(dtype) if dtype.is_floating_point else torch.iinfo(dtype)
        limits = _LIMITS["torch.finfo" if dtype.is_floating_point else "torch.iinfo"][meaning]
        for attribute, expected in limits.items():
            assert getattr(info, attribute) == expected, (name, attribute)
