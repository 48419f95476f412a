"""Compares two buffers of one dtype element by element, to the bit and within what the op's arithmetic allows.

Where an op rounds, two correct implementations of it differ: torch's CPU `exp` is not the GPU's. An element that is not
the same bits counts as wrong unless it lies in the interval of results that a computation in the op's working precision
(float32, or float64 for float64) can give, taken through every step of the epilogue. Exact ops allow nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from kernel_rewrite.pointwise.graph import Node, X, nodes
from kernel_rewrite.pointwise.language import Apply, Input, Number, Pointwise, applications
from kernel_rewrite.pointwise.torch_side import evaluate

_ROUNDED_ONCE = frozenset({"add", "sub", "mul"})
"""Ops that give the same bits wherever they are computed, so that nothing is allowed where a rounding was lost."""

_SLACK = 4.0  # units of the working precision, relative to the operand and the result of a step

_FLAGS = {1: "int8", 2: "int16", 4: "int32", 8: "int64"}


def bits(tensor: Any) -> Any:
    """`tensor` as integers of its element size: the same memory."""
    import torch

    return tensor.view(getattr(torch, _FLAGS[tensor.element_size()]))


def computable(tensor: Any) -> Any:
    """The same numbers in a type that torch computes in: float32 for the 8-bit floats."""
    return tensor.float() if tensor.is_floating_point() and tensor.element_size() == 1 else tensor


def same_elements(left: Any, right: Any) -> Any:
    """Where two tensors hold the same bits, any NaN counting as any other."""
    same = bits(left) == bits(right)
    if left.dtype.is_floating_point:
        left, right = computable(left), computable(right)
        same |= (left != left) & (right != right)
    return same


def ulps(left: Any, right: Any) -> Any:
    """The distance of finite floats, in representable numbers, as float64; 0 and -0 are the same."""
    import torch

    def ordinal(tensor: Any) -> Any:
        raw = bits(tensor.contiguous()).to(torch.int64)
        low = -(2 ** (tensor.element_size() * 8 - 1))
        return torch.where(raw < 0, low - raw, raw)

    return (ordinal(left).double() - ordinal(right).double()).abs()


def explained(
    value: Any,
    expected: Any,
    got: Any,
    pointwise: Pointwise,
    numerics: str,
    judge: str,
    operands: Mapping[str, Any] | None = None,
) -> Any:
    """Where `got`, which is not the same bits as `expected`, is a result that the op's arithmetic allows.

    `value` is what the original kernel stored before the op. 1-D tensors, the results of one dtype. `operands` are what the
    op reads there, by key: 1-D tensors as long, or Python numbers.
    """
    import torch

    allowed = _undefined_casts(value, pointwise, operands or {})
    retyped = expected.dtype != value.dtype
    if not value.dtype.is_floating_point or not (expected.dtype.is_floating_point or retyped):
        return allowed
    inexact = any(not node.row.exact and node.op != "to" for node in applications(pointwise.result))
    if not inexact and numerics != "fused":
        return allowed
    low, high = _interval(value, expected, pointwise, numerics, operands or {})
    inside = (got.double() >= low) & (got.double() <= high)
    if judge == "interpreter":  # torch's CPU gelu(inf) is NaN, in float64 and on a GPU it is inf
        return allowed | inside | torch.isnan(low) & torch.isnan(got.double())
    return allowed | inside & ~torch.isnan(expected.double())


def _undefined_casts(value: Any, pointwise: Pointwise, operands: Mapping[str, Any]) -> Any:
    """Where the epilogue ends in a cast whose result torch leaves open (see `casts`): of numbers that an integer type does
    not hold, and of numbers above 464 to float8_e4m3fn."""
    import torch

    last = pointwise.result
    limit = _LIMITS.get(str(dict(last.arguments).get("dtype"))) if isinstance(last, Apply) and last.op == "to" else None
    if limit is None:
        return torch.zeros_like(value, dtype=torch.bool)
    inner = last.operands[0] if isinstance(last, Apply) else last
    given = evaluate(inner, value, operands, {}).double()
    least, most = limit
    return ~((given > least) & (given < most)) & torch.ones_like(value, dtype=torch.bool)


_LIMITS: Mapping[str, tuple[float, float]] = {
    "float8_e4m3fn": (-464.0, 464.0),
    "uint8": (-1.0, 256.0),
    **{
        f"int{bits}": (-(2.0 ** (bits - 1)) - (1.0 if bits < 32 else 0.0), 2.0 ** (bits - 1))
        for bits in (8, 16, 32, 64)
    },
}
"""Between which numbers a cast to a type means the same everywhere."""


def zeros_as_on_cuda(pointwise: Pointwise, value: Any, result: Any) -> Any:
    """`result`, torch's own for `value` on the CPU, with the zeros that the op's definition gives at 0 and -0: torch's
    CPU relu(-0.0) is -0.0, a GPU's is 0.0."""
    import torch

    nodes = tuple(applications(pointwise.result))
    exact = pointwise.is_chain and all(node.row.exact or node.op == "to" for node in nodes)
    if not value.dtype.is_floating_point or not result.dtype.is_floating_point or not exact:
        return result
    numbers = computable(result)

    def at(number: float) -> Any:
        for node in nodes:
            found = number if node.op == "to" else node.row.at(number, **dict(node.arguments))
            number = math.nan if found is None else found
        return torch.tensor(number, dtype=numbers.dtype, device=result.device)

    given = computable(value)
    defined = torch.where(torch.signbit(given), at(-0.0), at(0.0))
    chosen = torch.where((given == 0) & (numbers == 0) & (defined == 0), defined, numbers)
    return chosen.to(result.dtype)


@dataclass(frozen=True)
class _Interval:
    """What a step may give: float64 bounds, the step's own element type, and what a computation in working precision may
    add to them."""

    low: Any
    high: Any
    dtype: Any
    slack: Any = 0.0

    @property
    def middle(self) -> Any:
        return (self.low + self.high) / 2


def _interval(
    value: Any, expected: Any, pointwise: Pointwise, numerics: str, operands: Mapping[str, Any]
) -> tuple[Any, Any]:
    """The least and the greatest result, as float64. The results around torch's own, `expected`, are among them."""
    import torch

    dtype, limits = value.dtype, torch.finfo(value.dtype)
    low = high = value.double()
    if numerics == "fused":  # the op saw the value before it was rounded to the buffer's type
        half = limits.eps / 2 * value.double().abs() + limits.smallest_normal * limits.eps
        low, high = low - half, high + half
    known: dict[Node, _Interval | Number] = {Input(): _Interval(low, high, dtype)}
    for node in nodes(pointwise.result):
        if node not in known:
            known[node] = _given(node, operands) or _applied(node, known, wide=numerics == "fused")
    result = known[pointwise.result]
    assert isinstance(result, _Interval)
    low = torch.fmin(result.low, expected.double() - result.slack)
    high = torch.fmax(result.high, expected.double() + result.slack)
    if not expected.dtype.is_floating_point:
        return low, high
    return low.to(expected.dtype).double(), high.to(expected.dtype).double()


def _given(node: Node, operands: Mapping[str, Any]) -> _Interval | Number | None:
    """A literal, or an operand; None for an application."""
    if isinstance(node, Number):
        return node
    if not isinstance(node, Input):
        return None
    found = operands[node.key] if node.key in operands else operands[node.name]
    if isinstance(found, (bool, int, float)):
        return Number.of(found)
    return _Interval(found.double(), found.double(), found.dtype)


def _applied(node: Node, known: Mapping[Node, _Interval | Number], *, wide: bool) -> _Interval:
    """What an application gives where its operands lie in their intervals."""
    import torch

    assert isinstance(node, Apply)
    parts = [known[operand] for operand in node.operands]
    names = [X, *(f"{X}{number}" for number in range(1, len(parts)))]
    given = {name: part for name, part in zip(names, parts, strict=True) if isinstance(part, _Interval)}
    inputs = (Input(name) if name in given else part for name, part in zip(names, parts, strict=True))
    alone = Apply(node.op, tuple(inputs), node.arguments)  # type: ignore[arg-type]

    def at(values: Mapping[str, Any], dtypes: Mapping[str, Any]) -> Any:
        typed = {name: v != 0 if dtypes[name] == torch.bool else v.to(dtypes[name]) for name, v in values.items()}
        return evaluate(alone, typed.get(X), typed, {})

    own = {name: part.dtype for name, part in given.items()}
    dtype = at({name: torch.zeros(1, device=part.low.device) for name, part in given.items()}, own).dtype
    corners = [dict(zip(given, choice, strict=True)) for choice in product(*((p.low, p.high) for p in given.values()))]
    points = [corners[0], {name: part.middle for name, part in given.items()}, *corners[1:]]
    settled = (node.row.exact or node.op in _ROUNDED_ONCE) and not wide
    if settled or not dtype.is_floating_point:
        results, slack = torch.stack([at(point, own).double() for point in points]), 0.0
    else:
        double = {name: torch.bool if d == torch.bool else torch.float64 for name, d in own.items()}
        results = torch.stack([at(point, double).double() for point in points])
        slack = _slack(node, results, [part.middle for part in given.values()], dtype)
    low, high = results.min(dim=0).values - slack, results.max(dim=0).values + slack
    if not wide and dtype.is_floating_point:
        low, high = low.to(dtype).double(), high.to(dtype).double()
    return _Interval(low, high, dtype, slack)


def _slack(node: Apply, results: Any, operands: Sequence[Any], dtype: Any) -> Any:
    """How far a computation in working precision may be from the float64 `results`."""
    import torch

    double = dtype == torch.float64 and not node.row.float32_constants
    working = torch.finfo(torch.float64 if double else torch.float32)
    result = torch.nan_to_num(results, nan=0.0, posinf=0.0, neginf=0.0).abs().max(dim=0).values
    operand = torch.nan_to_num(torch.stack(list(operands)), nan=0.0, posinf=0.0, neginf=0.0).abs().max(dim=0).values
    slack = _SLACK * working.eps * (operand + result) + 2 * working.smallest_normal
    if node.row.stepwise:
        slack = slack + 2 * torch.finfo(dtype).eps * result
    return slack


def largest(left: Any, right: Any) -> tuple[float, int, float]:
    """(max absolute difference, max ulp, max relative difference) where both are finite."""
    import torch

    if not left.dtype.is_floating_point:
        difference = (left.double() - right.double()).abs()
        most = float(difference.max()) if difference.numel() else 0.0
        return most, int(most), most / max(1.0, float(left.double().abs().max()) if left.numel() else 1.0)
    finite = torch.isfinite(left.double()) & torch.isfinite(right.double())
    if not bool(finite.any()):
        return 0.0, 0, 0.0
    left, right = bits(left)[finite].view(left.dtype), bits(right)[finite].view(right.dtype)
    a, b = left, right
    difference = (a.double() - b.double()).abs()
    relative = difference / a.double().abs().clamp_min(float(torch.finfo(left.dtype).smallest_normal))
    return float(difference.max()), int(ulps(a, b).max()), _finite(float(relative.max()))


def _finite(number: float) -> float:
    return number if math.isfinite(number) else 0.0


def units_off(values: Any, truth: Any) -> float | None:
    """How far `values` are from `truth` (float64) at most, in units in the last place of their type at the true value.

    Where both are finite and the type holds the true value; None without such an element, or when there is no truth.
    """
    import torch

    if truth is None or truth.dtype != torch.float64:
        return None
    limits = torch.finfo(values.dtype)
    usable = torch.isfinite(truth) & torch.isfinite(values.double()) & (truth.abs() <= limits.max)
    if not bool(usable.any()):
        return None
    exact, got = truth[usable], values[usable].double()
    _, exponent = torch.frexp(exact.abs().clamp_min(limits.smallest_normal))
    unit = torch.ldexp(torch.full_like(exact, limits.eps), exponent - 1)
    return _finite(float(((got - exact).abs() / unit).max()))


def nearer(left: Any, right: Any, truth: Any) -> tuple[int, int]:
    """At how many elements `left` is nearer to `truth` (float64) than `right`, and the other way round."""
    import torch

    if truth is None or truth.dtype != torch.float64:
        return 0, 0
    ours, theirs = (left.double() - truth).abs(), (right.double() - truth).abs()
    return int((ours < theirs).sum()), int((theirs < ours).sum())
