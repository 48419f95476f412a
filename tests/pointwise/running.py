"""Runs epilogues with operands in Triton's interpreter, and the same in torch; to be imported under TRITON_INTERPRET=1."""

from __future__ import annotations

import importlib.util
import math
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from kernel_rewrite.model import Operand, OperandKind
from kernel_rewrite.pointwise import torch_side
from kernel_rewrite.pointwise.language import Pointwise, emit

ROWS, COLUMNS = 8, 16
FOLDER = Path(tempfile.mkdtemp(prefix="running_"))

HEADER = "import triton\nimport triton.language as tl\nfrom triton.language.extra import libdevice\n\n\n"
PLACES = {
    OperandKind.ROW: "tl.load({name}_ptr + columns)[None, :]",
    OperandKind.COLUMN: "tl.load({name}_ptr + rows)[:, None]",
    OperandKind.TILE: "tl.load({name}_ptr + places)",
    OperandKind.SCALAR: "tl.load({name}_ptr)",
    OperandKind.INDEXED: "tl.load({name}_ptr + columns)[None, :]",
}
SHAPES = {
    OperandKind.ROW: (COLUMNS,),
    OperandKind.COLUMN: (ROWS, 1),
    OperandKind.TILE: (ROWS, COLUMNS),
    OperandKind.SCALAR: (1,),
    OperandKind.INDEXED: (COLUMNS,),
}


def kernel_source(pointwise: Pointwise, *, product: bool = False) -> str:
    """A file whose kernel stores the epilogue of the tile at `x_ptr`."""
    operands = pointwise.operands
    emission = emit(
        pointwise,
        "value",
        {o.name: o.name for o in operands},
        taken_names={"kernel", "value", "rows", "columns", "places", *(o.name for o in operands)},
        value_may_be_product=product,
    )
    parameters = ["x_ptr", "out_ptr", *(o.name if o.is_number else f"{o.name}_ptr" for o in operands)]
    lines = [
        "@triton.jit",
        f"def kernel({', '.join(parameters)}):",
        f"    rows, columns = tl.arange(0, {ROWS}), tl.arange(0, {COLUMNS})",
        f"    places = rows[:, None] * {COLUMNS} + columns[None, :]",
        "    value = tl.load(x_ptr + places)",
        *(f"    {o.name} = {PLACES[o.kind].format(name=o.name)}" for o in operands if not o.is_number),
        f"    tl.store(out_ptr + places, {emission.expression})",
    ]
    return HEADER + "\n\n".join(h.text for h in emission.helpers) + "\n\n" + "\n".join(lines) + "\n"


def load(source: str, name: str) -> Any:
    path = FOLDER / f"{name}.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


_COUNT = iter(range(10**9))


def draw(shape: tuple[int, ...], dtype: str, seed: int, denormal: float = 1e-40) -> Any:
    """A tensor of normal draws, random bit patterns and corners."""
    kind = getattr(torch, dtype)
    generator = torch.Generator().manual_seed(seed)
    count = math.prod(shape)
    if kind is torch.bool:
        return torch.randint(0, 2, shape, generator=generator).to(kind)
    if not kind.is_floating_point:
        info = torch.iinfo(kind)
        wide = torch.randint(-(2**31), 2**31, (count,), generator=generator)
        small = torch.randint(-9 if info.min else 0, 10, (count,), generator=generator)
        corners = torch.tensor([0, 1, info.max, info.min, info.max - 1])
        values = torch.where(torch.rand(count, generator=generator) < 0.5, small, wide)
        values[: len(corners)] = corners[:count]
        return values[torch.randperm(count, generator=generator)].to(kind).reshape(shape)
    values = (torch.randn(count, generator=generator, dtype=torch.float64) * 3).to(kind)
    wide = (torch.randn(count, generator=generator, dtype=torch.float64) * 60).exp2().to(torch.float32).to(kind)
    corners = torch.tensor(
        [
            0.0,
            -0.0,
            math.inf,
            -math.inf,
            math.nan,
            1.0,
            6.0,
            0.5,
            denormal,
            65504.0,
            2.5,
            -3.5,
            448.5,
            464.0,
            465.0,
            57344.0,
            61440.0,
        ]
    )
    values = torch.where(torch.rand(count, generator=generator) < 0.15, wide.float(), values.float()).to(kind)
    values[: len(corners)] = corners[:count].to(kind)
    return values[torch.randperm(count, generator=generator)].reshape(shape)


def as_cuda(pointwise: Pointwise, x: Any, operands: Mapping[str, Any]) -> Any:
    """What torch computes on a GPU where its CPU kernels do something else with a number: a 16-bit tensor and a number are
    added in float32, and a tensor is multiplied by the reciprocal of a number instead of being divided by it."""
    plain = dict(torch_side.INFIX)

    def wide(tensor: Any) -> Any:
        return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor

    def added(symbol: str) -> Any:
        def apply(left: Any, right: Any) -> Any:
            if isinstance(left, torch.Tensor) == isinstance(right, torch.Tensor):
                return plain[symbol][1](left, right)
            tensor, number = (left, right) if isinstance(left, torch.Tensor) else (right, left)
            if not tensor.is_floating_point():
                return plain[symbol][1](left, right)
            if isinstance(left, torch.Tensor):
                return plain[symbol][1](wide(left), number).to(tensor.dtype)
            return plain[symbol][1](number, wide(right)).to(tensor.dtype)

        return apply

    def divided(left: Any, right: Any) -> Any:
        if isinstance(right, torch.Tensor):
            return plain["/"][1](left, right)
        tensor = left if left.is_floating_point() else left.float()
        working = torch.float64 if tensor.dtype == torch.float64 else torch.float32
        inverse = (1.0 / torch.tensor(right, dtype=working)).item()
        return (wide(tensor) * inverse).to(tensor.dtype)

    torch_side.INFIX.update(  # type: ignore[attr-defined]
        {s: (plain[s][0], added(s)) for s in ("+", "-")} | {"/": (plain["/"][0], divided)}
    )
    try:
        return pointwise.evaluate(x, **operands)
    finally:
        torch_side.INFIX.update(plain)  # type: ignore[attr-defined]


def draw_operand(operand: Operand, x: str, seed: int) -> Any:
    if operand.is_number:
        return (0.25, 0.1, 3.0, -1.7)[seed % 4] if operand.name != "step" else (0.25, 2.0, -4.0)[seed % 3]
    return draw(SHAPES[operand.kind], operand.dtype or x, seed, denormal=0.1)  # torch's CPU fmod by one is NaN


def run(pointwise: Pointwise, x: Any, operands: Mapping[str, Any], *, product: bool = False) -> tuple[Any, Any, str]:
    """(what the kernel stores, what torch computes, the kernel's source)."""
    source = kernel_source(pointwise, product=product)
    expected = as_cuda(pointwise, x, operands)
    expected = expected.expand(ROWS, COLUMNS).contiguous()
    result = torch.empty(ROWS, COLUMNS, dtype=expected.dtype)
    module = load(source, f"case_{next(_COUNT)}")
    module.kernel[(1,)](x, result, *(operands[o.name] for o in pointwise.operands))
    return result, expected, source


def differences(result: Any, expected: Any, ulps: int = 0) -> Any:
    """Where two tensors differ: NaNs are equal, and zeros of either sign; `ulps` units in the last place are allowed, and a
    negative number allows what another order of rounding makes of a sum."""
    if not expected.dtype.is_floating_point:
        return result != expected
    left, right = result, expected
    if left.dtype.itemsize == 1:
        left, right = left.float(), right.float()
    same = (left == right) | (torch.isnan(left) & torch.isnan(right))
    if ulps < 0:
        same |= torch.isclose(left.double(), right.double(), rtol=8 * torch.finfo(expected.dtype).eps, atol=1e-5)
    elif ulps:
        bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[left.dtype.itemsize]
        least = torch.iinfo(bits).min
        a, b = (t.contiguous().view(bits).long() for t in (left, right))
        a, b = (torch.where(t < 0, least - t, t) for t in (a, b))
        same |= ((a - b).abs() <= ulps) & torch.isfinite(left) & torch.isfinite(right)
    return ~same
