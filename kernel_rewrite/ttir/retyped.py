"""The output that a cast epilogue gives another element type, as `validate` sees it.

In the fused kernel every pointer that comes from that output points to other elements. Its terms are given the types of the
original, so that two pointers are one term exactly when they are computed alike from one parameter. A pointer is told by its
value's type being another than its term's; a pointer from anywhere else keeps its own type, and equals nothing of the
original if that is another one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from kernel_rewrite.ttir.parse import Operation

_POINTER = re.compile(
    r"(?P<head>(?:tensor<(?:\d+x)+)?!tt\.(?:ptr|tensordesc)<(?:tensor<)?(?:\d+x)*)(?P<element>[A-Za-z]\w*)"
    r"(?P<tail>(?:, \d+)?>+)"
)
"""A pointer, a block of pointers, a block pointer or a descriptor, with the type of its elements."""

_KEEPS_ELEMENTS = frozenset(
    f"tt.{name}"
    for name in (
        *("addptr", "splat", "unsplat", "broadcast", "expand_dims", "reshape", "trans", "advance"),
        *("make_tensor_ptr", "make_tensor_descriptor"),
    )
) | {"arith.select"}
"""Operations whose result points to elements of the type that their operand points to, counted in elements."""

_OF_BRANCHES = frozenset({"scf.for", "scf.if"})
"""Operations whose results are what their regions yield."""

TYPED_BY_OPERANDS = frozenset(
    {"tt.store", "tt.descriptor_store", "tt.descriptor_scatter", "scf.for", "scf.if", "scf.while"}
)
"""Operations whose printed types are those of their operands and results and of the arguments of their regions."""


def element_of(type_: str) -> str:
    """The type of the elements that a pointer of this type points to; "" for what is no such pointer."""
    match = _POINTER.fullmatch(type_)
    return match["element"] if match else ""


def with_elements(type_: str, element: str) -> str:
    """The pointer type `type_` to elements of another type; `type_` itself when it is no pointer."""
    match = _POINTER.fullmatch(type_)
    return f"{match['head']}{element}{match['tail']}" if match else type_


def same_but_for_elements(original: str, fused: str, changes: Mapping[str, frozenset[str]]) -> bool:
    """Whether two types are equal, or pointers that differ in their elements alone, in one of the ways of `changes`."""
    if original == fused:
        return True
    element = element_of(fused)
    return (
        bool(element)
        and element in changes.get(element_of(original), ())
        and (with_elements(original, element) == fused)
    )


def result_types(operation: Operation, operand_types: Sequence[str], yielded: Sequence[str] = ()) -> tuple[str, ...]:
    """The types of the terms of a pure operation's results, for terms of `operand_types` as operands and of `yielded` as
    what its first region yields."""
    own = operation.result_types
    if operation.name in _OF_BRANCHES:
        return tuple(yielded) if len(yielded) == len(own) else own
    changed = [
        (value.type, type_)
        for value, type_ in zip(operation.operands, operand_types, strict=True)
        if value.type != type_
    ]
    if not changed:
        return own
    if operation.name in _KEEPS_ELEMENTS:
        return tuple(with_elements(type_, element_of(changed[0][1])) for type_ in own)
    return own


def is_store_of_bools(operation: Operation, operand_type: str) -> bool:
    """Whether this is the cast by which Triton stores to a buffer of bools, one byte each: the same place, elements of the
    same size. `operand_type` is the type of the operand's term, another one than its own when it comes from a retyped
    output."""
    if operation.name != "tt.bitcast" or operation.operands[0].type == operand_type:
        return False
    (result,) = operation.result_types
    return element_of(operation.operands[0].type) == "i1" and result == with_elements(operation.operands[0].type, "i8")
