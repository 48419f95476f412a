"""The element type of every step of an epilogue, as torch has it, and why a step has none."""

from __future__ import annotations

from collections.abc import Mapping

from kernel_rewrite.pointwise.casts import SAME, refusal
from kernel_rewrite.pointwise.element_types import (
    FLOAT8,
    PYTHON_FLOAT,
    ElementClass,
    element_class,
    is_float,
    is_number,
    promoted,
    torch_name,
)
from kernel_rewrite.pointwise.graph import Apply, Input, Node, Number
from kernel_rewrite.pointwise.op import Numbers, Op, Result


class Undefined(Exception):
    """A step has no meaning; the text is a clause that completes "... cannot be fused: "."""


def result_type(node: Node, kinds: Mapping[str, str], *, torch_alone: bool = False) -> str:
    """The torch type of `node`, for inputs of `kinds` (by key; a torch type or a kind of number).

    Raises Undefined where torch rejects the step and, unless `torch_alone`, where its bits cannot be had from Triton.
    """
    if isinstance(node, Number):
        return node.kind
    if isinstance(node, Input):
        return kinds[node.key]
    arguments = [result_type(operand, kinds, torch_alone=torch_alone) for operand in node.operands]
    if all(map(is_number, arguments)):
        raise Undefined(
            f"{called(node.row)} gets Python numbers alone, which Python computes in double precision: "
            "compute it where the kernel is launched and pass the result"
        )
    if node.op == "to":
        return _cast(node, arguments[0], kinds["x"], torch_alone)
    if len(arguments) == 1:
        return _unary(node, arguments[0], torch_alone)
    return _of_several(node, arguments, torch_alone)


def called(row: Op) -> str:
    """An op as a message names it: `torch.sigmoid`, `x + y`."""
    return row.formula if row.infix and len(row.formula) < 8 else row.torch or f"x.{row.name}"


def _cast(node: Apply, source: str, x: str, torch_alone: bool) -> str:
    wanted = str(dict(node.arguments)["dtype"])
    target = x if wanted == SAME else wanted
    reason = "" if torch_alone else refusal(source, target)
    if reason:
        raise Undefined(reason)
    return target


def _unary(node: Apply, kind: str, torch_alone: bool) -> str:
    row = node.row
    found = element_class(kind)
    if found is None:
        raise Undefined(f"{called(row)} has no meaning for {kind}")
    if found not in row.classes:
        integers_have_one = found is not ElementClass.BOOL or row.classes == frozenset({ElementClass.FLOAT})
        result = row.integer_result if integers_have_one else ""
        if not result:
            raise Undefined(f"{called(row)} rejects a tensor of {kind}")
        if torch_alone:
            return result
        raise Undefined(f"{called(row)} of a {kind} tensor is {result}, which the buffer cannot hold")
    reason = row.defined(dict(node.arguments), found, kind) if row.defined else ""
    if reason and not torch_alone:
        raise Undefined(reason)
    return "bool" if row.result is Result.BOOL else kind


def _of_several(node: Apply, kinds: list[str], torch_alone: bool) -> str:
    row = node.row
    if row.numbers is Numbers.REJECTED and any(map(is_number, kinds)):
        raise Undefined(f"{called(row)} wants tensors, and torch refuses a Python number there")
    if row.result is Result.SELECTED:
        if kinds[0] != "bool":
            raise Undefined(f"the condition of {called(row)} must be a bool tensor, not {kinds[0]}")
        kinds = kinds[1:]
        if all(map(is_number, kinds)):
            raise Undefined(f"{called(row)} of two numbers: make one of them a tensor")
    if row.name in ("logical_and", "logical_or", "logical_xor"):
        _computable(row, kinds)
        return "bool"
    if row.name == "lerp" and len({kind for kind in kinds if not is_number(kind)}) > 1:
        raise Undefined("torch.lerp wants its tensors in one type")
    common = promoted(kinds)
    if common is None or (common in FLOAT8 and row.result is not Result.SELECTED):
        raise Undefined(f"{called(row)} has no meaning for the 8-bit floats: write `.to(float32)` first")
    if not torch_alone:
        _computable(row, kinds)
        _mixed(row, kinds)
    if row.result is Result.BOOL:
        return "bool"
    if row.result is Result.FLOAT and not is_float(common):
        return "float32"
    if not torch_alone and element_class(common) not in row.classes:
        raise Undefined(f"{called(row)} of {common} tensors is not a function of this language")
    return common


def _computable(row: Op, kinds: list[str]) -> None:
    if FLOAT8 & set(kinds):
        raise Undefined(f"{called(row)} has no meaning for the 8-bit floats: write `.to(float32)` first")


def _mixed(row: Op, kinds: list[str]) -> None:
    """Pairs of types for which one text cannot spell what torch does for every type of x."""
    if {"float16", "bfloat16"} <= set(kinds):
        raise Undefined(
            f"{called(row)} of float16 and bfloat16 is float32 in torch and not in Triton: write `.to(float32)` on one"
        )
    if {"int8", "uint8"} <= set(kinds):
        raise Undefined(
            f"{called(row)} of int8 and uint8 is int16 in torch and not in Triton: write `.to(int16)` on one"
        )


def input_kinds(x: str, declared: Mapping[str, str], numbers: frozenset[str]) -> dict[str, str]:
    """The kind of every input by key: x's type for x and for a tensor declared with "", PYTHON_FLOAT for `numbers`."""
    kinds = {key: torch_name(dtype) or dtype if dtype else x for key, dtype in declared.items()}
    return {"x": x} | {key: PYTHON_FLOAT if key in numbers else kind for key, kind in kinds.items()}
