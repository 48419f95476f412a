"""What becomes of the lanes of a load that its mask, or the bounds of its buffer, turn off.

Such a lane holds what the load says (`other`, padding), or anything. An op that is put behind the load would change it,
and a reduction or a dot would take the change in. The lanes are unused when every way from the loaded value leads, lane by
lane, to a store that is off where the load is.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from kernel_rewrite.ttir.parse import Function, Module, Operation, Value, element_type, split_tensor
from kernel_rewrite.ttir.validate import CALL, ELEMENTWISE, ELEMENTWISE_PREFIXES, RETURN


@dataclass(frozen=True, slots=True)
class OffLanes:
    """The lanes of one load that are off: whether there are any, what they may hold (None: a value that is not known), and
    whether nothing uses them. Lanes that the load leaves undefined are taken to hold zero, as they mostly do."""

    exist: bool = False
    fills: tuple[float, ...] | None = ()
    unused: bool = False


def off_lanes(module: Module, operation: Operation) -> OffLanes:
    """The off lanes of a `tt.load` or `tt.descriptor_load` of `module`."""
    if operation.name == "tt.descriptor_load":
        return OffLanes(True, _padding_of(module, operation), _unused(module, operation, None))
    if _is_block_pointer(operation):
        if not _checks_bounds(operation):
            return OffLanes()
        padding = operation.attribute("padding") or ""
        fills = (math.nan,) if padding.startswith("2") else (0.0,)
        return OffLanes(True, fills, _unused(module, operation, None))
    if len(operation.operands) < 2:
        return OffLanes()
    mask = operation.operands[1]
    if len(operation.operands) < 3:
        return OffLanes(True, (0.0,), _unused(module, operation, mask))
    makers = _makers(_holder(module, operation))
    fill = _constant(operation.operands[2], makers)
    return OffLanes(True, None if fill is None else (fill,), _unused(module, operation, mask))


def _padding_of(module: Module, load: Operation) -> tuple[float, ...]:
    """What a descriptor's load may hold beyond the bounds: zeros, or NaN where the maker says so; either where it is made
    elsewhere."""
    maker = _makers(_holder(module, load)).get(load.operands[0])
    if maker is None or maker.name != "tt.make_tensor_descriptor":
        return (0.0, math.nan)
    return (math.nan,) if (maker.attribute("padding") or "").startswith("2") else (0.0,)


def loads_at(module: Module, places: Iterable[tuple[str, object]]) -> Iterator[Operation]:
    """The operations of `module` at `places`: (operation, location)."""
    wanted = set(places)
    for function in module.functions:
        yield from (op for op in _operations(function) if (op.name, op.location) in wanted)


def _is_block_pointer(operation: Operation) -> bool:
    return operation.operand_types[0].startswith("!tt.ptr<tensor<")


def _checks_bounds(operation: Operation) -> bool:
    return bool(re.search(r"boundaryCheck = array<i32: *\d", operation.attributes))


# ------------------------------------------------------------------------------------------------------------- unused


def _unused(module: Module, load: Operation, mask: Value | None) -> bool:
    """Whether each use of the loaded value is a step of single lanes, or a store that is off where the load is."""
    function = _holder(module, load)
    makers = _makers(function)
    users: dict[Value, list[Operation]] = {}
    for operation in _operations(function):
        for operand in operation.operands:
            users.setdefault(operand, []).append(operation)
    shape = split_tensor(load.results[0].type)[0]
    pending, seen = [load.results[0]], set()
    while pending:
        value = pending.pop()
        if value in seen:
            continue
        seen.add(value)
        for user in users.get(value, ()):
            if user.name == "tt.store":
                if value is not user.operands[1] or value in user.operands[2:] or value is user.operands[0]:
                    return False
                if mask is None or len(user.operands) < 3 or not _is_off_with(user.operands[2], mask, makers):
                    return False
            elif _is_of_single_lanes(user, module) and all(split_tensor(r.type)[0] == shape for r in user.results):
                pending += user.results
            else:
                return False
    return True


def _is_of_single_lanes(operation: Operation, module: Module) -> bool:
    if operation.name == CALL:
        function = module.function(operation.callee or "")
        if function is None or len(function.body.reachable()) != 1:
            return False
        return all(op.name == RETURN or _is_of_single_lanes(op, module) for op in function.blocks[0].operations)
    if operation.name == "tt.splat" or operation.regions:
        return operation.name == "tt.splat"
    return operation.name in ELEMENTWISE or operation.name.startswith(ELEMENTWISE_PREFIXES)


def _is_off_with(mask: Value, other: Value, makers: Mapping[Value, Operation]) -> bool:
    """Whether `mask` is off wherever `other` is: it is the same, or a conjunction with it."""
    pending, seen = [mask], set[Value]()
    asked: set[tuple[Value, Value]] = set()
    while pending:
        part = pending.pop()
        if part in seen:
            continue
        seen.add(part)
        if _same(part, other, makers, asked):
            return True
        maker = makers.get(part)
        if maker is not None and maker.name == "arith.andi":
            pending += maker.operands
    return False


def _same(one: Value, other: Value, makers: Mapping[Value, Operation], asked: set[tuple[Value, Value]]) -> bool:
    """Whether two values are computed alike from the same values. `asked` are the pairs that were compared before: those
    that are not alike have ended the comparison then."""
    pending = [(one, other)]
    met: set[tuple[Value, Value]] = set()
    while pending:
        pair = pending.pop()
        if pair in met or pair[0] == pair[1]:
            continue
        first, second = makers.get(pair[0]), makers.get(pair[1])
        if pair in asked or first is None or second is None or not _are_alike(first, second):
            asked.add((one, other))
            return False
        met.add(pair)
        pending += zip(first.operands, second.operands, strict=True)
    return True


def _are_alike(one: Operation, other: Operation) -> bool:
    """Whether two operations give the same for the same operands."""
    if one.regions or other.regions or len(one.operands) != len(other.operands):
        return False
    if not one.name.startswith(ELEMENTWISE_PREFIXES) and one.name not in _PLACING:
        return False
    return (one.name, one.attributes, one.types) == (other.name, other.attributes, other.types)


_PLACING = frozenset({"tt.splat", "tt.broadcast", "tt.expand_dims", "tt.make_range", "tt.get_program_id"})


# ------------------------------------------------------------------------------------------------------------- reading


def _holder(module: Module, operation: Operation) -> Function:
    return next(f for f in module.functions if any(op is operation for op in _operations(f)))


def _operations(function: Function) -> Iterator[Operation]:
    for block in function.body.blocks:
        for operation in block.operations:
            yield from operation.walk()


def _makers(function: Function) -> dict[Value, Operation]:
    return {result: operation for operation in _operations(function) for result in operation.results}


_CASTS = frozenset({"arith.truncf", "arith.extf", "tt.fp_to_fp", "arith.sitofp", "arith.extsi", "arith.trunci"})
_DENSE = re.compile(r"dense<(.*)>")


def _constant(value: Value, makers: Mapping[Value, Operation]) -> float | None:
    """The one number that a block holds everywhere, where casts do not change it; None when that is not known. Of integers
    0 and 1 alone, as -1 is another number without a sign, and 1 is when it is a bool."""
    operation = makers.get(value)
    while operation is not None and operation.name in ("tt.splat", "tt.broadcast", *_CASTS):
        operation = makers.get(operation.operands[0])
    if operation is None or operation.name != "arith.constant":
        return None
    text = operation.attributes.strip()
    dense = _DENSE.fullmatch(text)
    type_ = element_type(operation.results[0].type)
    number = _number(dense[1] if dense else text.partition(" :")[0], type_)
    if number is None or number == 0.0 or not math.isfinite(number):
        return number
    known = () if type_ == "i1" else (1.0,) if type_.startswith("i") else (1.0, -1.0)
    return number if number in known else None


def _number(text: str, type_: str) -> float | None:
    """A number as TTIR prints it: 0.000000e+00, -1, true, 0xFF800000 (the bits of a float)."""
    if text in ("true", "false"):
        return float(text == "true")
    if text.startswith("0x"):
        layout = {"f64": ("<Q", "<d"), "f32": ("<I", "<f"), "f16": ("<H", "<e")}.get(type_)
        if type_ == "bf16":
            return float(struct.unpack("<f", struct.pack("<I", int(text, 16) << 16))[0])
        return float(struct.unpack(layout[1], struct.pack(layout[0], int(text, 16)))[0]) if layout else None
    try:
        return float(text)
    except ValueError:
        return None
