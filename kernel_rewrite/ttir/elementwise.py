"""Is a function one of single elements: does each element of its result come from the same element of its arguments alone."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kernel_rewrite.model import Location
from kernel_rewrite.ttir.effects import CODE, opaque_code
from kernel_rewrite.ttir.parse import Function, Module, Operation

_DIALECTS = ("arith.", "math.")

_OPERATIONS = frozenset(
    {
        "tt.fp_to_fp", "tt.clampf", "tt.mulhiui", "tt.precise_sqrt", "tt.precise_divf", "tt.approx_divf", "tt.bitcast",
        "ub.poison",
        # one value for all elements, or for all along an axis on which an argument has one
        "tt.splat", "tt.broadcast",
        "tt.return",
    }
)  # fmt: skip
"""Operations that treat all elements alike. What is not among them may not: the list is closed."""

_ACROSS_LANES = re.compile(r"\b(?:shfl|vote|activemask|match|redux)\b")
_CONSTANT_OF_SEVERAL = re.compile(r"dense<\[")


@dataclass(frozen=True, slots=True)
class Foreign:
    """An operation that is not elementwise, and the places that lead to it, outermost first."""

    operation: str
    places: tuple[Location, ...]


def foreign_operation(module: Module, function: Function, path: tuple[Location, ...] = ()) -> Foreign | None:
    """The first operation in `function`, or in what it calls, that is not one of single elements."""
    blocks = function.body.reachable()
    if len(blocks) > 1:
        branch = blocks[0].operations[-1]
        return Foreign(branch.name, (*path, *([branch.location] if branch.location is not None else [])))
    for operation in blocks[0].operations:
        places = (*path, *([operation.location] if operation.location is not None else []))
        if operation.name == "tt.call":
            callee = module.function(operation.callee or "")
            if callee is None or len(path) > _DEEPEST:
                return Foreign(operation.name, places)
            found = foreign_operation(module, callee, places)
            if found is not None:
                return found
        elif not is_elementwise(operation):
            return Foreign(operation.name, places)
    return None


_DEEPEST = 32
"""How many calls within calls are followed."""


def is_elementwise(operation: Operation) -> bool:
    """Whether an operation that is no call treats all elements alike."""
    if operation.regions or any("!tt." in kind for kind in (*operation.operand_types, *operation.result_types)):
        return False
    if operation.name in CODE:
        return opaque_code(operation) is None and _ACROSS_LANES.search(operation.attributes) is None
    if operation.name == "arith.constant":
        return _CONSTANT_OF_SEVERAL.search(operation.attributes) is None
    return operation.name in _OPERATIONS or operation.name.startswith(_DIALECTS)
