"""What a launch says about how a buffer lies in memory: which parameter of the kernel is which stride, which a size."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kernel_rewrite.source.launches import Launch
from kernel_rewrite.source.shapes import Shapes, literal


@dataclass(frozen=True, slots=True)
class Layout:
    """What one launch says about the buffer it passes for a parameter.

    `strides`: {parameter of the kernel: the dimension whose stride (in elements) it is given}. `sizes`: {parameter: the
    dimensions that are as long as it}, several where the buffer is square. `totals`: the parameters that are its number
    of elements. A dimension counts from the end (-1) where `dimensions`, their number, is unknown. `contiguous` is True
    where that is certain.
    """

    strides: Mapping[str, int] = field(default_factory=dict, hash=False)
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict, hash=False)
    totals: frozenset[str] = frozenset()
    dimensions: int | None = None
    contiguous: bool | None = None


def layout(launch: Launch, parameter: str) -> Layout:
    """The layout of what `launch` passes for `parameter`; all unknown when it does not show that."""
    tensor = launch.arguments.get(parameter)
    if tensor is None:
        return Layout()
    shapes = Shapes(launch.function, launch.body)
    shape = shapes.shape(tensor)
    strides, sizes, totals = {}, {}, set()
    for name, argument in launch.arguments.items():
        if name == parameter:
            continue
        dimension = _stride(argument, tensor, shapes)
        if dimension is not None:
            strides[name] = _counted(dimension, shape)
            continue
        same = _size(argument, tensor, shape, shapes)
        if same:
            sizes[name] = same
        elif _is_total(argument, tensor, shapes):
            totals.add(name)
    dimensions = None if shape is None else len(shape)
    return Layout(strides, sizes, frozenset(totals), dimensions, True if shapes.is_contiguous(tensor) else None)


def shared_layout(launches: Iterable[Launch], parameter: str) -> Layout:
    """What every launch says alike about the strides and the number of dimensions of what it passes for `parameter`."""
    found = [layout(launch, parameter) for launch in launches]
    if not found:
        return Layout()
    strides = {
        name: dimension
        for name, dimension in found[0].strides.items()
        if all(other.strides.get(name) == dimension for other in found)
    }
    counts = {one.dimensions for one in found}
    return Layout(strides, dimensions=counts.pop() if len(counts) == 1 else None)


def _counted(dimension: int, shape: tuple[str, ...] | None) -> int:
    """A dimension counted from the front where that can be told."""
    return dimension + len(shape) if shape is not None and dimension < 0 else dimension


def _stride(argument: ast.expr, tensor: ast.expr, shapes: Shapes) -> int | None:
    """k where the argument is `tensor.stride(k)`, also through a name that is bound to it after the tensor is."""
    match argument:
        case ast.Call(func=ast.Attribute(attr="stride", value=owner), args=[index], keywords=[]):
            return literal(index) if _same(owner, tensor) else None
        case ast.Subscript(value=ast.Call(func=ast.Attribute(attr="stride", value=owner), args=[]), slice=index):
            return literal(index) if _same(owner, tensor) else None
        case ast.Name(id=name):
            bound = shapes.binding(name)
            if bound is None or not isinstance(tensor, ast.Name) or not shapes.bound_before(tensor.id, bound[3]):
                return None
            value, part, count, _ = bound
            if count:
                whole = isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and not value.args
                named = whole and value.func.attr == "stride" and _same(value.func.value, tensor)  # type: ignore[attr-defined]
                return part if named else None
            return None if isinstance(value, ast.Name) else _stride(value, tensor, shapes)
    return None


def _size(argument: ast.expr, tensor: ast.expr, shape: tuple[str, ...] | None, shapes: Shapes) -> tuple[int, ...]:
    """The dimensions of `tensor` that are as long as the argument."""
    size = shapes.size(argument)
    if size is None or size.isdigit():
        return ()
    if shape is not None:
        return tuple(k for k, extent in enumerate(shape) if extent == size)
    root = shapes.root(tensor)
    dimension = re.fullmatch(rf"{re.escape(root)}\.shape\[(-?\d+)\]", size) if root is not None else None
    return (int(dimension[1]),) if dimension is not None else ()  # x.shape[2] * x.shape[3] is no one dimension


def _is_total(argument: ast.expr, tensor: ast.expr, shapes: Shapes) -> bool:
    size = shapes.size(argument)
    whole = ast.Call(ast.Attribute(tensor, "numel", ast.Load()), [], [])
    return size is not None and not size.isdigit() and size == shapes.size(whole)


def _same(one: ast.expr, other: ast.expr) -> bool:
    return ast.dump(one) == ast.dump(other)
