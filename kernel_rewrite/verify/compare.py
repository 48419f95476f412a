"""Compares two buffers of one dtype element by element, to the bit and within what the op's arithmetic allows.

Where an op rounds, two correct implementations of it differ: torch's CPU `exp` is not the GPU's. An element that is not
the same bits counts as wrong unless it lies in the interval of results that a computation in the op's working precision
(float32, or float64 for float64) can give, taken through every step of the epilogue. Exact ops allow nothing.
"""

from __future__ import annotations

import math
from typing import Any

from kernel_rewrite.pointwise.language import Apply, Input, Pointwise, applications

_SLACK = 4.0  # units of the working precision, relative to the operand and the result of a step

_FLAGS = {1: "int8", 2: "int16", 4: "int32", 8: "int64"}


def bits(tensor: Any) -> Any:
    """`tensor` as integers of its element size: the same memory."""
    import torch

    return tensor.view(getattr(torch, _FLAGS[tensor.element_size()]))


def same_elements(left: Any, right: Any) -> Any:
    """Where two tensors hold the same bits, any NaN counting as any other."""
    same = bits(left) == bits(right)
    if left.dtype.is_floating_point:
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


def explained(value: Any, expected: Any, got: Any, pointwise: Pointwise, numerics: str, judge: str) -> Any:
    """Where `got`, which is not the same bits as `expected`, is a result that the op's arithmetic allows.

    `value` is what the original kernel stored before the op. 1-D tensors of one dtype.
    """
    import torch

    allowed = torch.zeros_like(expected, dtype=torch.bool)
    if not expected.dtype.is_floating_point:
        return allowed
    inexact = any(not node.row.exact for node in applications(pointwise.result))
    if not inexact and numerics != "fused":
        return allowed
    low, high = _interval(value, expected, pointwise, numerics)
    inside = (got.double() >= low) & (got.double() <= high)
    if judge == "interpreter":  # torch's CPU gelu(inf) is NaN, in float64 and on a GPU it is inf
        return allowed | inside | torch.isnan(low) & torch.isnan(got)
    return allowed | inside & ~torch.isnan(expected)


def zeros_as_on_cuda(pointwise: Pointwise, value: Any, result: Any) -> Any:
    """`result`, torch's own for `value` on the CPU, with the zeros that the op's definition gives at 0 and -0: torch's
    CPU relu(-0.0) is -0.0, a GPU's is 0.0."""
    import torch

    nodes = tuple(applications(pointwise.result))
    exact = pointwise.is_chain and all(node.row.exact for node in nodes)
    if not value.dtype.is_floating_point or not exact:
        return result

    def at(number: float) -> Any:
        for node in nodes:
            found = node.row.at(number, **dict(node.arguments))
            number = math.nan if found is None else found
        return torch.tensor(number, dtype=result.dtype, device=result.device)

    defined = torch.where(torch.signbit(value), at(-0.0), at(0.0))
    return torch.where((value == 0) & (result == 0) & (defined == 0), defined, result)


def _interval(value: Any, expected: Any, pointwise: Pointwise, numerics: str) -> tuple[Any, Any]:
    """The least and the greatest result, as float64. The results around torch's own, `expected`, are among them."""
    import torch

    dtype, limits = value.dtype, torch.finfo(value.dtype)
    low = high = value.double()
    if numerics == "fused":  # the op saw the value before it was rounded to the buffer's type
        half = limits.eps / 2 * value.double().abs() + limits.smallest_normal * limits.eps
        low, high = low - half, high + half
    for node in applications(pointwise.result):
        results, slack = _step(node, (low, (low + high) / 2, high), dtype, wide=numerics == "fused")
        low, high = results.min(dim=0).values - slack, results.max(dim=0).values + slack
        if numerics != "fused":
            low, high = low.to(dtype).double(), high.to(dtype).double()
    low, high = torch.fmin(low, expected.double() - slack), torch.fmax(high, expected.double() + slack)
    return low.to(dtype).double(), high.to(dtype).double()


def _step(node: Apply, operands: tuple[Any, ...], dtype: Any, *, wide: bool) -> tuple[Any, Any]:
    """The op's float64 results at `operands`, and how far a computation in working precision may be from them."""
    import torch

    alone = Pointwise(Apply(node.op, (Input(),), node.arguments))
    if node.row.exact and not wide:
        exact = torch.stack([alone.evaluate(x.to(dtype)).double() for x in operands])
        return exact, torch.zeros_like(exact[0])
    results = torch.stack([alone.evaluate(x) for x in operands])
    double = dtype == torch.float64 and not node.row.float32_constants
    working = torch.finfo(torch.float64 if double else torch.float32)
    result = torch.nan_to_num(results, nan=0.0, posinf=0.0, neginf=0.0).abs().max(dim=0).values
    operand = torch.nan_to_num(operands[1], nan=0.0, posinf=0.0, neginf=0.0).abs()
    slack = _SLACK * working.eps * (operand + result) + 2 * working.smallest_normal
    if node.row.stepwise:
        slack = slack + 2 * torch.finfo(dtype).eps * result
    return results, slack


def largest(left: Any, right: Any) -> tuple[float, int, float]:
    """(max absolute difference, max ulp, max relative difference) where both are finite."""
    import torch

    if not left.dtype.is_floating_point:
        difference = (left.double() - right.double()).abs()
        most = float(difference.max()) if difference.numel() else 0.0
        return most, int(most), most / max(1.0, float(left.double().abs().max()) if left.numel() else 1.0)
    finite = torch.isfinite(left) & torch.isfinite(right)
    if not bool(finite.any()):
        return 0.0, 0, 0.0
    a, b = left[finite], right[finite]
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
