"""An epilogue in two parts: both together are the epilogue, and the first is as long as it can be."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from kernel_rewrite.diagnostics import FusionRefused
from kernel_rewrite.pointwise.declarations import declared_operands
from kernel_rewrite.pointwise.op import REQUIRED, ArgumentKind
from kernel_rewrite.pointwise.ops import ALIASES, OPS
from kernel_rewrite.pointwise.printing import epilogue_text
from kernel_rewrite.pointwise.refused import NOT_POINTWISE
from kernel_rewrite.pointwise.remainder import Split, fusable_part, split_epilogue
from kernel_rewrite.pointwise.whole import WHOLE

OPERANDS = declared_operands({"scale": "scalar", "bias": "row"})


def split_of(text: str) -> Split:
    return split_epilogue(text, {name: o for name, o in OPERANDS.items() if re.search(rf"\b{name}\b", text)})


SPLITS: list[tuple[str, str, str, Callable[..., Any]]] = [
    (
        "softmax(relu(x) * scale, dim=-1)",
        "relu(x) * scale",
        "torch.softmax(c, dim=-1)",
        lambda x, scale, bias: torch.softmax(torch.relu(x) * scale, dim=-1),
    ),
    ("x.relu().sum(1)", "relu(x)", "c.sum(1)", lambda x, scale, bias: x.relu().sum(1)),
    ("relu(x).T", "relu(x)", "c.T", lambda x, scale, bias: torch.relu(x).T),
    (
        "F.normalize(silu(x + bias), dim=1)",
        "silu(x + bias)",
        "torch.nn.functional.normalize(c, dim=1)",
        lambda x, scale, bias: F.normalize(F.silu(x + bias), dim=1),
    ),
    (
        "relu(x) / sum(relu(x), dim=1, keepdim=True)",
        "relu(x)",
        "c / torch.sum(c, dim=1, keepdim=True)",
        lambda x, scale, bias: torch.relu(x) / torch.relu(x).sum(dim=1, keepdim=True),
    ),
    (  # in different depths: the part that both have
        "exp(relu(x)) * amax(relu(x) * scale)",
        "relu(x)",
        "torch.exp(c) * torch.amax(c * scale)",
        lambda x, scale, bias: torch.exp(torch.relu(x)) * torch.amax(torch.relu(x) * scale),
    ),
    (
        "gelu(cumsum(relu(x), -1).cumsum(dim=0) ** 2) - bias",
        "relu(x)",
        "torch.nn.functional.gelu(torch.square(torch.cumsum(c, -1).cumsum(dim=0))) - bias",
        lambda x, scale, bias: F.gelu(torch.relu(x).cumsum(-1).cumsum(0) ** 2) - bias,
    ),
    (
        "relu(x).sum(dim=(0, 1), dtype=torch.float64).to(x.dtype)",
        "relu(x)",
        "c.sum(dim=(0, 1), dtype=torch.float64).to(c.dtype)",
        lambda x, scale, bias: torch.relu(x).sum(dim=(0, 1), dtype=torch.float64).to(x.dtype),
    ),
    (
        "mean(relu(x).to(float16), dim=[0])",
        "relu(x).to(float16)",
        "torch.mean(c, dim=[0])",
        lambda x, scale, bias: torch.relu(x).half().mean(dim=[0]),
    ),
]


@pytest.mark.parametrize(("text", "fused", "rest", "meaning"), SPLITS, ids=[text for text, *_ in SPLITS])
def test_both_parts_are_the_epilogue(text: str, fused: str, rest: str, meaning: Callable[..., Any]) -> None:
    split = split_of(text)
    assert split.rest is not None
    assert (epilogue_text(split.fused.result), split.rest.torch_text("c")) == (fused, rest)
    assert fusable_part(text, OPERANDS) in ("", fused)
    torch.manual_seed(0)
    x, values = torch.randn(4, 6), {"scale": 0.7, "bias": torch.randn(6)}
    c = split.fused.evaluate(x, **values)
    expected = meaning(x, **values)
    written = eval(rest, {"torch": torch, "c": c, **values})
    for found in (split.rest.evaluate(c, **values), written):
        assert found.dtype == expected.dtype and torch.equal(found, expected)


CALLS = {
    "unflatten": "unflatten(relu(x), 1, (2, 3))",
    "movedim": "movedim(relu(x), 0, 1)",
    "permute": "permute(relu(x), (1, 0))",
    "reshape": "reshape(relu(x), (3, 8))",
    "view": "relu(x).view(3, -1)",
    "flip": "relu(x).flip(0, 1)",
    "T": "relu(x).T",
    "mT": "relu(x).mT",
    "contiguous": "relu(x).contiguous()",
}
"""Calls of functions that are no `name(tensor, dim...)`."""


@pytest.mark.parametrize("name", WHOLE)
def test_every_function_of_a_whole_tensor_is_torch_s(name: str) -> None:
    row = WHOLE[name]
    arguments = [f"{parameter}={number}" for number, parameter in enumerate(row.parameters[: row.required])]
    text = CALLS.get(name) or f"{name}({', '.join(['relu(x)', *arguments])})"
    split = split_of(text)
    assert split.rest is not None and split.rest.name == name
    x = torch.randn(4, 6)
    c = torch.relu(x)
    names = {key: getattr(torch, key, getattr(F, key, None)) for key in ("relu", name)}
    expected = eval(text, {**names, "x": x})
    written = eval(split.rest.torch_text("c"), {"torch": torch, "c": c})
    assert torch.equal(split.rest.evaluate(c), expected) and torch.equal(written, expected)


def test_what_may_follow_is_nothing_that_can_be_fused() -> None:
    assert WHOLE.keys() <= NOT_POINTWISE.keys()
    assert not WHOLE.keys() & {*OPS, *ALIASES}


def test_what_can_be_fused_is_not_split() -> None:
    assert split_of("gelu(x + bias)").rest is None


@pytest.mark.parametrize(
    ("text", "code", "why"),
    [
        ("softmax(x, -1)", "KR118", "nothing of `softmax(x, -1)` can be fused"),
        ("x - amax(relu(x))", "KR118", "can be fused"),
        ("gelu(x) + sum(relu(x))", "KR118", "can be fused"),
        ("relu(x) * sum(bias)", "KR118", "does not use x"),
        ("dropout(relu(x))", "KR118", "draws random numbers"),
        ("relu(x) @ bias", "KR118", "multiplies matrices"),
        ("max(relu(x), 1)", "KR118", "largest or smallest"),
        ("relu(x)[0]", "KR118", "reads other elements"),
        ("softmax(relu(x))", "KR108", "needs `dim`"),
        ("softmax(dim=1)", "KR108", "of what?"),
        ("softmax(relu(x), axis=1)", "KR108", "no other parameter `axis`"),
        ("softmax(relu(x), -1, dim=1)", "KR108", "no other parameter `dim`"),
        ("sum(relu(x), 0, True, 1)", "KR108", "takes `dim`, `keepdim` behind"),
        ("sum(relu(x), 0, True, torch.float64)", "KR108", "takes `dim`, `keepdim` behind"),
        ("sum(relu(x), dim=scale)", "KR108", "no literal"),
        ("sum(relu(x), dim=float16)", "KR108", "no number"),
        ("sum(relu(x), dim='0')", "KR108", "no number"),
        ("sum(relu(x), dtype='float16')", "KR108", "is an element type"),
        ("sum(relu(x), dtype=1)", "KR108", "is an element type"),
        ("sum(relu(x), **options)", "KR108", "no literal"),
        ("softmax(rleu(x), -1)", "KR107", "unknown op `rleu`"),
    ],
)
def test_what_is_refused(text: str, code: str, why: str) -> None:
    with pytest.raises(FusionRefused) as refused:
        split_of(text)
    (found,) = refused.value.diagnostics
    assert found.code == code and why in found.message, found


def test_an_operand_that_no_part_uses() -> None:
    with pytest.raises(FusionRefused, match="KR119"):
        split_epilogue("sum(relu(x))", OPERANDS)


@pytest.mark.parametrize("name", OPS)
def test_every_op_may_follow_a_sum(name: str) -> None:
    """The rest is written in torch's words; it is read back, and refused where that is something else."""
    row = OPS[name]
    given = [p for p in row.parameters if p.default is REQUIRED or name.startswith("clamp")]
    numbers = ["float16" if p.kind is ArgumentKind.DTYPE else str(n) for n, p in enumerate(given)]
    operands = ["sum(relu(x), dim=1)", *["bias"] * (len(row.operands) - 1)]
    split = split_of(f"{name}({', '.join([*operands, *numbers])})")
    assert split.rest is not None and epilogue_text(split.fused.result) == "relu(x)"
