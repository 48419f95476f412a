"""Is an index in the compiled kernel the one that was written? Its text is evaluated over what the compiler names."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from kernel_rewrite.ttir.polynomials import Polynomial, constant, polynomial, summed, times
from kernel_rewrite.ttir.validate import COMMUTATIVE, Expression, Terms, within

_PYTHON: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Mod: lambda one, other: one % other,
    ast.FloorDiv: lambda one, other: one // other,
    ast.BitAnd: lambda one, other: one & other,
    ast.BitOr: lambda one, other: one | other,
    ast.BitXor: lambda one, other: one ^ other,
    ast.LShift: lambda one, other: one << other,
    ast.RShift: lambda one, other: one >> other,
}
_COMPILED: Mapping[type[ast.operator], frozenset[str]] = {
    ast.Mod: frozenset({"arith.remsi", "arith.remui"}),
    ast.FloorDiv: frozenset({"arith.divsi", "arith.divui"}),
    ast.BitAnd: frozenset({"arith.andi"}),
    ast.BitOr: frozenset({"arith.ori"}),
    ast.BitXor: frozenset({"arith.xori"}),
    ast.LShift: frozenset({"arith.shli"}),
    ast.RShift: frozenset({"arith.shrsi", "arith.shrui"}),
}


_FIRST = "{axis = 0 : i32}"
_MOST_AXES = 4


class _Unread(Exception):
    """The text has a part that is not evaluated."""


@dataclass(frozen=True, slots=True)
class Names:
    """What names of the kernel stand for: terms of its run-time parameters, and integers of its compile-time ones. `apart`
    are those of the integers that are a stride each, of which no other number of the kernel is a multiple."""

    parameters: Mapping[str, Expression]
    constants: Mapping[str, int]
    apart: frozenset[int] = frozenset()


def is_written(text: str, found: Polynomial, inside: Expression, terms: Terms, names: Names) -> bool | None:
    """Whether `found`, the index in the term `inside`, is what `text` says; None where that cannot be told.

    A name that the kernel binds several times may be any of its values.
    """
    reader = _Reader(tuple(within(inside)), terms, names)
    try:
        body = ast.parse(text, mode="eval").body
        # what has one axis lies along the last one of a block
        return any(found in list(reader.values(body, (_FIRST,) * count)) for count in range(_MOST_AXES))
    except _Unread:
        return None


@dataclass(frozen=True, slots=True)
class _Reader:
    inside: tuple[Expression, ...]
    terms: Terms
    names: Names

    def values(self, node: ast.expr, axes: tuple[str, ...]) -> Iterator[Polynomial]:
        """What an expression may be, lying along `axes` (outermost first)."""
        match node:
            case ast.Constant(value=int(number)):
                yield constant(number)
            case ast.Name(id=name):
                yield from self._named(name, axes)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                yield from (times({(): -1}, value) for value in self.values(operand, axes))
            case ast.BinOp(left=left, op=operator, right=right):
                yield from self._binary(left, operator, right, axes)
            case ast.Subscript(value=value, slice=ast.Tuple(elts=parts)):
                yield from self.values(value, (*axes, *reversed(list(self._expansions(parts)))))
            case ast.Call(func=ast.Attribute(value=value, attr="to")):
                yield from self.values(value, axes)
            case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name), args=arguments, keywords=[]):
                yield from self._called(name, [self._number(argument) for argument in arguments], axes)
            case _:
                raise _Unread

    def _named(self, name: str, axes: tuple[str, ...]) -> Iterator[Polynomial]:
        if name in self.names.constants:
            yield constant(self.names.constants[name])
            return
        parameter = self.names.parameters.get(name)
        found = self.terms.named(name) if parameter is None else (parameter,)
        if not found:
            raise _Unread
        yield from (polynomial(term, axes) for term in found)

    def _binary(
        self, left: ast.expr, operator: ast.operator, right: ast.expr, axes: tuple[str, ...]
    ) -> Iterator[Polynomial]:
        if isinstance(operator, (ast.Add, ast.Sub, ast.Mult)):
            for one, other in product(self.values(left, axes), self.values(right, axes)):
                if isinstance(operator, ast.Mult):
                    yield times(one, other)
                else:
                    yield summed(one, times({(): -1 if isinstance(operator, ast.Sub) else 1}, other))
            return
        if type(operator) not in _COMPILED:
            raise _Unread
        for one, other in product(self.values(left, ()), self.values(right, ())):
            if one.keys() | other.keys() <= {()}:
                yield constant(_PYTHON[type(operator)](one.get((), 0), other.get((), 0)))
                continue
            for term in self.inside:
                if term.operation in _COMPILED[type(operator)]:
                    operands = tuple(map(polynomial, term.operands))
                    swapped = operands[::-1] if term.operation in COMMUTATIVE else operands
                    if (one, other) in (operands, swapped):
                        yield polynomial(term, axes)

    def _number(self, node: ast.expr) -> int:
        """A compile-time integer."""
        for value in self.values(node, ()):
            if value.keys() <= {()}:
                return value.get((), 0)
        raise _Unread

    def _called(self, name: str, arguments: list[int], axes: tuple[str, ...]) -> Iterator[Polynomial]:
        """What `tl.arange(start, end)` and `tl.program_id(axis)` give; nothing when the compiled index has no such part."""
        match name, arguments:
            case "arange", [start, end]:
                operation, attributes = "tt.make_range", f"{{end = {end} : i32, start = {start} : i32}}"
            case "program_id", [axis] if 0 <= axis < 3:
                operation, attributes = "tt.get_program_id", "xyz"[axis]
            case _:
                raise _Unread
        for term in self.inside:
            if term.operation == operation and term.attributes.strip() == attributes:
                yield polynomial(term, axes)

    def _expansions(self, parts: list[ast.expr]) -> Iterator[str]:
        """The attributes of the expansions that `[:, None]` makes, innermost first, as the compiler prints them."""
        for axis, part in enumerate(parts):
            if isinstance(part, ast.Constant) and part.value is None:
                yield f"{{axis = {axis} : i32}}"
            elif not isinstance(part, ast.Slice) or part.lower or part.upper or part.step:
                raise _Unread
