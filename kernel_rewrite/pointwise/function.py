"""`Pointwise`: an epilogue as a value, and all that can be asked about it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kernel_rewrite.model import Operand
from kernel_rewrite.pointwise import torch_side
from kernel_rewrite.pointwise.casts import SAME, refusal
from kernel_rewrite.pointwise.composition import compose
from kernel_rewrite.pointwise.element_types import (
    BITS,
    FLOAT8,
    ElementClass,
    element_class,
    integer_range,
    is_float,
    torch_name,
)
from kernel_rewrite.pointwise.graph import Apply, Input, Node, Number, X, applications, inputs, key_of, nodes
from kernel_rewrite.pointwise.op import REQUIRED, Result, representable_everywhere, same_value
from kernel_rewrite.pointwise.result_types import Undefined, input_kinds, result_type

_LONGEST_NAME = 40


@dataclass(frozen=True, slots=True)
class Pointwise:
    """A function of the stored value x and of `operands`, element by element, with eager torch's meaning: every step
    rounds to the type that torch gives it. `operands` are in the order of their first use, one for each index."""

    result: Node
    operands: tuple[Operand, ...] = ()

    @property
    def name(self) -> str:
        """A short slug for file names: `relu`, `clamp_0_6`, `sigmoid_relu`, `bias_gelu`; at most 40 characters."""
        return _slug(self)

    def uses(self, name: str) -> int:
        """How often the text mentions `name` (`x` or an operand, at whatever index)."""
        return sum(used.name == name for used in inputs(self.result))

    @property
    def needs_libdevice(self) -> bool:
        return any(node.row.needs_libdevice for node in applications(self.result))

    @property
    def commutes_with_rounding(self) -> bool:
        """Whether E(round(v)) == round(E(v)) for every v and every rounding to a narrower float type, to the bit (up
        to NaN payloads): no cast to the buffer's type is then needed before E."""
        return all(node.row.commutes(dict(node.arguments)) for node in applications(self.result))

    @property
    def is_chain(self) -> bool:
        """Whether it is ops of one operand, one after the other, on x."""
        return all(
            (isinstance(node, Apply) and len(node.operands) == 1) or node == Input() for node in nodes(self.result)
        )

    def result_dtype(self, x: str, operands: Mapping[str, str] | None = None) -> str:
        """torch's name of the type that torch gives the result for x of type `x`; `operands` (by key or name) overrides
        the declared types, "" meaning that of x. Raises ValueError where torch rejects it."""
        try:
            return result_type(self.result, self._kinds(torch_name(x) or x, operands), torch_alone=True)
        except Undefined as undefined:
            raise ValueError(str(undefined)) from None

    def undefined_reason(self, dtype: str, operands: Mapping[str, str] | None = None) -> str:
        """Why E has no meaning for x of `dtype` (a Triton, TTIR or torch name): "" when it has one.

        A clause that completes "... cannot be fused: ".
        """
        name = torch_name(dtype)
        if name in FLOAT8 and (wider := self._casts_of_x()):
            return next(filter(None, (refusal(name, target) or self.undefined_reason(target) for target in wider)), "")
        if name is None or name in FLOAT8:
            first = next(applications(self.result), None)
            return f"{_call(first)} has no meaning for {dtype}" if first is not None else ""
        try:
            result_type(self.result, self._kinds(name, operands))
        except Undefined as undefined:
            return str(undefined).replace(f"of {name}", f"of {dtype}").replace(f"a {name} ", f"a {dtype} ")
        return compose(self.result, self.operands, False, True).failures.get(name, "")

    def _casts_of_x(self) -> tuple[str, ...]:
        """The types that x is cast to before anything else is done with it; none where it is used as it is."""
        casts = [node for node in applications(self.result) if node.op == "to" and node.operands == (Input(),)]
        found = tuple(dict.fromkeys(str(dict(node.arguments)["dtype"]) for node in casts))
        return found if len(casts) == self.uses(X) and SAME not in found else ()

    def unheld_reason(self, dtype: str) -> str:
        """Why a buffer of `dtype` cannot hold the result, which is of another type: "" when it can."""
        held = torch_name(dtype)
        found = self.result_dtype(dtype)
        return "" if found == held else f"the result is {found} where x is {dtype}, which the buffer cannot hold"

    def defined_for(self, element: str | ElementClass) -> bool:
        """Whether E is defined on a buffer of `element`, with a result of the buffer's own type."""
        if isinstance(element, ElementClass):
            return any(element_class(t) is element and self.defined_for(t) for t in _TYPES)
        return not self.undefined_reason(element) and not self.unheld_reason(element)

    def preserves(self, fill: float) -> bool:
        """Whether E(fill) is fill to the bit in every element type E is defined for (a NaN may change payload).

        True only when sure: `fill` must be exact in every float type, no operand takes part, and an op that rounds is
        asked at 0, 1, -1 and the infinities alone.
        """
        value = self._at(float(fill))
        return value is not None and same_value(value, float(fill))

    def fill_for(self, fill: float) -> float | None:
        """E(fill), where that is one number, exact in every element type E is defined for; None when that is not sure."""
        value = self._at(float(fill))
        return value if value is not None and (math.isnan(value) or representable_everywhere(value)) else None

    def _at(self, fill: float) -> float | None:
        known = math.isnan(fill) or representable_everywhere(fill)
        return _sure_value(self.result, fill) if known else None

    def torch_text(self, x: str = X) -> str:
        """The eager torch expression, over the text of x."""
        return torch_side.torch_text(self.result, x)

    def evaluate(self, x: Any, **operands: Any) -> Any:
        """E of torch tensors as eager torch computes it, every step rounded to its element type. `operands` by key
        (`bias`, `table[offs]`), or by name where that is clear."""
        kinds = {key_of(operand): operand.kind for operand in self.operands}
        return torch_side.evaluate(self.result, x, operands, kinds)

    def _kinds(self, x: str, overridden: Mapping[str, str] | None) -> dict[str, str]:
        given = overridden or {}
        declared = {key_of(o): given.get(key_of(o), given.get(o.name, o.dtype)) for o in self.operands}
        numbers = frozenset(key_of(o) for o in self.operands if o.is_number and not declared[key_of(o)])
        return input_kinds(x, declared, numbers)


_TYPES = ("float32", "int32", "uint8", "bool")
"""One type of each class: what an op of the table is defined for does not depend on more."""


def _call(node: Apply) -> str:
    return node.row.torch or f"x.{node.op}"


def _sure_value(node: Node, fill: float) -> float | None:
    """The value at `fill`, None where rounding or an operand makes it unsure."""
    if isinstance(node, Number):
        return float(node.value)
    if isinstance(node, Input):
        return fill if node.name == X else None
    row = node.row
    values = [_sure_value(operand, fill) for operand in node.operands]
    if any(value is None for value in values):
        return None
    if node.op == "to":
        return _sure_cast(values[0], str(dict(node.arguments)["dtype"]))
    known = [value for value in values if value is not None]
    if len(known) == 1:
        (value,) = known
        sure = row.exact or math.isnan(value) or math.isinf(value) or value in (0.0, 1.0, -1.0)
        return row.at(value, **dict(node.arguments)) if sure else None
    if row.result is not Result.PROMOTED or (not all(map(representable_everywhere, known)) and 0.0 not in known):
        return None
    result = row.at(*known, **dict(node.arguments))
    return result if result is not None and (math.isnan(result) or representable_everywhere(result)) else None


def _sure_cast(value: float | None, dtype: str) -> float | None:
    """The value after a cast, None where it is not exact in the type."""
    if value is None or math.isnan(value):
        return None
    if dtype == "bool":
        return float(value != 0.0)
    if dtype in BITS and not is_float(dtype):
        least, most = integer_range(dtype)
        return float(int(value)) if math.isfinite(value) and least <= int(value) <= most else None
    if dtype in FLOAT8:
        mantissa, exponent = math.frexp(value) if math.isfinite(value) else (0.3, 0)
        return value if value == 0.0 or ((mantissa * 8).is_integer() and -5 <= exponent <= 8) else None
    return value if representable_everywhere(value) else None


# --------------------------------------------------------------------------------------------------------------- names


def _slug(pointwise: Pointwise) -> str:
    used = tuple(applications(pointwise.result))
    if pointwise.is_chain:
        words = [word for node in reversed(used) for word in _words(node)]
    else:
        words = [word for node in used for word in _words(node)]
    slug = words[0] if words else X
    for word in words[1:]:
        if len(slug) + 1 + len(word) > _LONGEST_NAME:
            break
        slug += f"_{word}"
    return slug


def _words(node: Apply) -> list[str]:
    """The words of one step: an operator beside an operand is that operand's name, `bias` for `... + bias`."""
    named = [operand.name for operand in node.operands if isinstance(operand, Input) and operand.name != X]
    if node.row.infix and named:
        return named
    words = [node.op, *named]
    words += [_word_of(operand.value) for operand in node.operands if isinstance(operand, Number)]
    for name, value in node.arguments:
        default = next((p.default for p in node.row.parameters if p.name == name), REQUIRED)
        if value != default:
            words.append(_word_of(value))
    return words


def _word_of(value: Any) -> str:
    return str(value).replace("-", "minus_").replace("+", "").replace(".", "_")
