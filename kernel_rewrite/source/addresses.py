"""Where a store writes, in the source's own words: base + sum(index * stride), and its mask as a conjunction.

    c_ptr + offs_cm[:, None] * stride_cm + offs_cn[None, :] * stride_cn,  mask=(offs_cm[:, None] < M) & (offs_cn[None, :] < N)

has the axes (stride_cm, `offs_cm[:, None]`) and (stride_cn, `offs_cn[None, :]`). A stride is a product of run-time scalar
arguments, and of compile-time ones that are called a stride; 1 has none. What is read here is a proposal: `ttir.operands`
judges what the compiler makes of it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import TypeGuard

from kernel_rewrite.source.definitions import Definitions
from kernel_rewrite.source.syntax import last_name, mentions

_DEPTH = 24

_TRANSPARENT = frozenset({"multiple_of", "max_contiguous", "max_constancy", "assume"})
_VARYING_CALLS = frozenset({"arange", "program_id", "load", "swizzle2d"})


@dataclass(frozen=True, slots=True)
class Axis:
    """One direction of an address: the index along it, and the arguments whose product is its stride (none: 1).

    `tile_axis` is the axis of the tile that the index varies along, None for one that is the same for the whole tile;
    `tile_rank` is the number of axes of the tile as the index spells them (0 when it spells none). `several` says that the
    index is put together like one of several dimensions: `row * D + cols`, with a D that is not the size of a block. `wide`
    says that the stride is made 64 bits wide before it is multiplied.
    """

    strides: tuple[str, ...]
    index: ast.expr
    tile_axis: int | None = None
    tile_rank: int = 0
    several: bool = False
    wide: bool = False


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """The axes of a store's address, in source order."""

    axes: tuple[Axis, ...]

    def along(self, strides: tuple[str, ...]) -> Axis | None:
        return next((axis for axis in self.axes if axis.strides == strides), None)


class NotAffine(Exception):
    """The address is not a base plus a sum of indices times strides; the text completes "its address ..."."""


class Reader:
    """Reads the addresses and masks of one function.

    `is_base` says whether a name, or an item of a tuple, points into the output, `uniform` are the run-time scalar
    arguments, `constexprs` the compile-time ones, and `varying` the parameters of a helper that may be anything; `tl` spells
    triton.language.
    """

    def __init__(
        self,
        definitions: Definitions,
        is_base: Callable[[ast.Name | ast.Subscript], bool],
        uniform: Collection[str],
        constexprs: Collection[str],
        varying: Collection[str] = (),
        tl: str = "tl",
    ) -> None:
        self._definitions = definitions
        self._is_base = is_base
        self._uniform = frozenset(uniform)
        self._constexprs = frozenset(constexprs)
        self._parameters = frozenset(varying)
        self._tl = tl
        self._strides = self._uniform | {name for name in self._constexprs if "stride" in name.lower()}

    def address(self, pointer: ast.expr, statement: ast.stmt) -> StoreAddress:
        """The axes of `pointer`, an expression of `statement`. Raises NotAffine."""
        axes: dict[tuple[str, ...], ast.expr] = {}
        wide: set[tuple[str, ...]] = set()
        bases = 0
        for negative, addend in self._addends(pointer, statement, 0):
            if isinstance(addend, (ast.Name, ast.Subscript)) and self._is_base(addend):
                bases += 1
                continue
            strides, index = self._split(addend, statement)
            if any(is_widened(factor) and self._is_stride(factor, statement) for factor in _factors(addend)):
                wide.add(strides)
            if negative:
                index = ast.UnaryOp(ast.USub(), index)
            earlier = axes.get(strides)
            axes[strides] = index if earlier is None else ast.BinOp(earlier, ast.Add(), index)
        if bases != 1:
            raise NotAffine("does not start from the pointer itself")
        found = []
        for strides, index in axes.items():
            axis, rank = self._tile_axis(index, statement)
            found.append(Axis(strides, index, axis, rank, self._is_several(index, statement), strides in wide))
        return StoreAddress(tuple(found))

    def stride(self, node: ast.expr, statement: ast.stmt) -> tuple[str, ...]:
        """The arguments and numbers whose product a stride is, none of them 1. Raises NotAffine."""
        found: list[str] = []
        for factor in map(_uncast, _factors(node)):
            value = self._definitions.value_at(factor.id, statement) if isinstance(factor, ast.Name) else None
            if value is not None:
                found += self.stride(value, statement)
            elif isinstance(factor, ast.Constant) and type(factor.value) is int:
                found += [str(factor.value)] if factor.value != 1 else []
            elif isinstance(factor, ast.Name) and factor.id in self._uniform | self._constexprs:
                found.append(factor.id)
            else:
                raise NotAffine(f"has the stride `{ast.unparse(node)}`, which is no product of arguments")
        return tuple(sorted(found))

    def tile_axis(self, index: ast.expr, statement: ast.stmt) -> tuple[int | None, int]:
        """The axis of the tile that an index varies along, None when that cannot be told, and how many axes it spells: none
        when it is the same for the whole tile, or has one axis itself (then it varies along 0)."""
        axis, rank = self._tile_axis(index, statement)
        return (axis, rank) if rank else (0 if self._has_lanes(index, statement, 0) else None, 0)

    def _has_lanes(self, node: ast.expr, statement: ast.stmt, depth: int) -> bool:
        for part in ast.walk(node):
            if isinstance(part, ast.Call) and last_name(part.func) == "arange":
                return True
            if isinstance(part, ast.Name) and depth < _DEPTH:
                value = self._definitions.value_at(part.id, statement)
                if value is not None and not mentions(value, part.id):
                    if self._has_lanes(value, statement, depth + 1):
                        return True
        return False

    def conjuncts(self, mask: ast.expr | None, statement: ast.stmt) -> tuple[ast.expr, ...]:
        """The parts of a mask that are all true where it is true."""
        return tuple(self._conjuncts(mask, statement, 0)) if mask is not None else ()

    def concerning(self, index: ast.expr, conjuncts: Collection[ast.expr], statement: ast.stmt) -> tuple[ast.expr, ...]:
        """The conjuncts that vary only along what `index` varies along, or is computed from."""
        own = self._computed_from(index, statement, 0)
        return tuple(c for c in conjuncts if self._varying(c, statement) <= own)

    def mixing(self, index: ast.expr, conjuncts: Collection[ast.expr], statement: ast.stmt) -> tuple[ast.expr, ...]:
        """The conjuncts that vary along what `index` varies along, and along something else."""
        own = self._varying(index, statement)
        return tuple(c for c in conjuncts if own & (found := self._varying(c, statement)) and not found <= own)

    # -------------------------------------------------------------------------------------------------------- addresses

    def _addends(self, node: ast.expr, statement: ast.stmt, depth: int) -> Iterator[tuple[bool, ast.expr]]:
        """(is negative, addend) of a sum; names are opened when they are pointers, or sums over several strides."""
        if depth > _DEPTH:
            raise NotAffine("goes through too many names")
        match node:
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                yield from self._addends(left, statement, depth)
                yield from self._addends(right, statement, depth)
            case ast.BinOp(left=left, op=ast.Sub(), right=right):
                yield from self._addends(left, statement, depth)
                yield from ((not negative, addend) for negative, addend in self._addends(right, statement, depth))
            case ast.Name():
                value = self._definitions.value_at(node.id, statement)
                if value is not None and (self._is_base(node) or self._is_mixed(value, statement, depth)):
                    yield from self._opened(node.id, value, statement, depth + 1)
                elif self._is_base(node) and (moved := self._definitions.moved_at(node.id, statement)) is not None:
                    yield from self._opened(node.id, moved.initial, statement, depth + 1)
                    yield False, moved.distance(self._tl)
                elif self._is_base(node) and self._definitions.bindings(node.id):
                    raise NotAffine(f"goes through `{node.id}`, which holds several values")
                else:
                    yield False, node
            case ast.Call(func=function, args=[argument, *_]) if last_name(function) in _TRANSPARENT:
                yield from self._addends(argument, statement, depth)
            case _:
                yield False, node

    def _opened(self, name: str, value: ast.expr, statement: ast.stmt, depth: int) -> Iterator[tuple[bool, ast.expr]]:
        """The addends of what `name` holds; `name` itself in it is the parameter of that name, before it was added to."""
        match value:
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as operator, right=right):
                yield from self._opened(name, left, statement, depth)
                negative = isinstance(operator, ast.Sub)
                yield from ((n != negative, a) for n, a in self._addends(right, statement, depth))
            case ast.Name(id=own) if own == name:
                yield False, value
            case _:
                yield from self._addends(value, statement, depth)

    def _is_mixed(self, value: ast.expr, statement: ast.stmt, depth: int) -> bool:
        """Whether a value is a sum over several strides, or an index times a stride."""
        try:
            addends = list(self._addends(value, statement, depth + 1))
        except NotAffine:
            return False
        keys = {self._split(addend, statement)[0] for _, addend in addends}
        return len(keys) > 1 or (keys != {()} and bool(self._varying(value, statement)))

    def _split(self, addend: ast.expr, statement: ast.stmt) -> tuple[tuple[str, ...], ast.expr]:
        """(strides, index) of one addend: `offs[:, None] * stride` or `(row * stride)[:, None]`."""
        factors = list(_factors(addend))
        strides = [f for f in factors if self._is_stride(f, statement)]
        rest = [f for f in factors if f not in strides]
        if strides and not rest:  # start_m * stride_cm, both arguments; an argument alone shifts what has stride 1
            rest = [f for f in strides if "stride" not in ast.unparse(f)]
            strides = [f for f in strides if f not in rest]
            if len(factors) > 1 and not (rest and strides):
                raise NotAffine(f"adds `{ast.unparse(addend)}`, of which nothing says what is stride and what is index")
            rest, strides = (rest, strides) if rest else (strides, rest)
        if not strides:
            return (), addend
        index = rest[0]
        for factor in rest[1:]:
            index = ast.BinOp(index, ast.Mult(), factor)
        return tuple(sorted(ast.unparse(_uncast(f)) for f in strides)), index

    def _is_stride(self, factor: ast.expr, statement: ast.stmt) -> bool:
        factor = _uncast(factor)
        names = {node.id for node in ast.walk(factor) if isinstance(node, ast.Name)}
        return bool(names & self._strides) and not self._varying(factor, statement) and self._is_scalar_text(factor)

    @staticmethod
    def _is_scalar_text(factor: ast.expr) -> bool:
        return not any(isinstance(node, (ast.Call, ast.Subscript)) for node in ast.walk(factor))

    def _varying(self, node: ast.expr, statement: ast.stmt, depth: int = 0) -> frozenset[str]:
        """The names an expression varies with from program to program or from lane to lane, opened as far as they can be;
        "" for what varies without a name."""
        found: set[str] = set()
        skipped: set[int] = set()
        for part in ast.walk(node):
            if id(part) in skipped:
                continue
            if isinstance(part, ast.Call):
                skipped.update(id(inner) for inner in ast.walk(part.func))
                skipped -= {id(inner) for inner in _receiver(part)}
                if last_name(part.func) in _VARYING_CALLS and isinstance(part.func, (ast.Attribute, ast.Name)):
                    found.add(ast.unparse(part))
            if isinstance(part, ast.Name) and part.id not in self._uniform | self._constexprs:
                found |= self._varying_name(part, statement, depth)
        return frozenset(found)

    # depth = offs_k + k * BLOCK_K; inside = offs_k + k * BLOCK_K < K
    def _computed_from(self, node: ast.expr, statement: ast.stmt, depth: int) -> frozenset[str]:
        """What an expression varies with, and what the names in it were computed from."""
        found = self._varying(node, statement)
        for name in {part.id for part in ast.walk(node) if isinstance(part, ast.Name)} if depth < _DEPTH else ():
            value = self._definitions.value_at(name, statement) if self._definitions.bindings(name) else None
            if value is not None and not mentions(value, name):
                found |= self._computed_from(value, statement, depth + 1)
        return found

    def _varying_name(self, node: ast.Name, statement: ast.stmt, depth: int) -> frozenset[str]:
        if not self._definitions.bindings(node.id):
            return frozenset({node.id} & self._parameters)  # a global: a constant, or a function
        value = self._definitions.value_at(node.id, statement)
        if value is None or depth > _DEPTH:
            return frozenset({node.id})
        if mentions(value, node.id):
            return frozenset({node.id})
        inner = self._varying(value, statement, depth + 1)
        # a test varies with what it tests; anything else is a direction of its own
        return inner if isinstance(value, ast.Compare) or not inner else frozenset({node.id})

    def _is_several(self, index: ast.expr, statement: ast.stmt) -> bool:
        """Whether an index runs through several dimensions: along two axes of the tile, or in steps of a compile-time
        number that is not the length of the tile."""
        addends = list(self._opened_addends(index, statement, 0))
        lanes = [addend for addend in addends if self._has_lanes(addend, statement, 0)]
        if len(self._tile_axes(index, statement, 0)) > 1:
            return True
        lengths = {ast.dump(n.args[1]) for a in lanes for n in ast.walk(a) if _is_arange(n)}
        for addend in addends:
            factors = [_uncast(factor) for factor in _factors(addend)]
            steps = [f for f in factors if self._is_compile_time(f)]
            if len(steps) < len(factors) and steps and self._varying(addend, statement):
                if not any(ast.dump(step) in lengths for step in steps):
                    return True
        return False

    def _opened_addends(self, node: ast.expr, statement: ast.stmt, depth: int) -> Iterator[ast.expr]:
        """The addends of an index, names and what is spread by `[:, None]` opened."""
        match node:
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub(), right=right):
                yield from self._opened_addends(left, statement, depth)
                yield from self._opened_addends(right, statement, depth)
            case ast.Subscript(value=value, slice=part) if not isinstance(value, ast.Subscript):
                for addend in self._opened_addends(value, statement, depth):
                    yield ast.Subscript(addend, part, ast.Load())
            case ast.Call(func=ast.Attribute(value=value, attr="to")):
                yield from self._opened_addends(value, statement, depth)
            case ast.Call(func=function, args=[argument, *_]) if last_name(function) in _TRANSPARENT:
                yield from self._opened_addends(argument, statement, depth)
            case ast.Name(id=name) if depth < _DEPTH:
                held = self._definitions.value_at(name, statement)
                if held is None or mentions(held, name):
                    yield node
                else:
                    yield from self._opened_addends(held, statement, depth + 1)
            case _:
                yield node

    def _is_compile_time(self, node: ast.expr) -> bool:
        names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        if not names:
            return isinstance(node, ast.Constant)
        return names <= self._constexprs and self._is_scalar_text(node)

    def _tile_axis(self, index: ast.expr, statement: ast.stmt) -> tuple[int | None, int]:
        """The axis that `offs[:, None]` puts its values along, None when there are several, and how many axes it spells."""
        found = self._tile_axes(index, statement, 0)
        if len(found) == 1:
            return next(iter(found))
        return None, max((rank for _, rank in found), default=0)

    def _tile_axes(self, index: ast.expr, statement: ast.stmt, depth: int) -> frozenset[tuple[int | None, int]]:
        found: set[tuple[int | None, int]] = set()
        for node in ast.walk(index):
            if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple):
                kept = [i for i, part in enumerate(node.slice.elts) if isinstance(part, ast.Slice)]
                found.add(((kept[0] if len(kept) == 1 else None), len(node.slice.elts)))
        for node in ast.walk(index) if not found else ():
            if isinstance(node, ast.Name) and depth < _DEPTH:
                value = self._definitions.value_at(node.id, statement)
                if value is not None and not mentions(value, node.id):
                    found |= self._tile_axes(value, statement, depth + 1)
        return frozenset(found)

    # ------------------------------------------------------------------------------------------------------------ masks

    def _conjuncts(self, mask: ast.expr, statement: ast.stmt, depth: int) -> Iterator[ast.expr]:
        match mask:
            case ast.BinOp(left=left, op=ast.BitAnd(), right=right):
                yield from self._conjuncts(left, statement, depth)
                yield from self._conjuncts(right, statement, depth)
            case ast.BoolOp(op=ast.And(), values=values):
                for value in values:
                    yield from self._conjuncts(value, statement, depth)
            case ast.Name(id=name) if depth < _DEPTH:
                held = self._definitions.value_at(name, statement)
                if held is not None and _is_conjunction(held):
                    yield from self._conjuncts(held, statement, depth + 1)
                else:
                    yield mask
            case _:
                yield mask


def _is_conjunction(value: ast.expr) -> bool:
    if isinstance(value, ast.BinOp):
        return isinstance(value.op, ast.BitAnd)
    return isinstance(value, ast.BoolOp) and isinstance(value.op, ast.And)


def _factors(node: ast.expr) -> Iterator[ast.expr]:
    """The factors of a product; `(a * b)[:, None]` has those of a and b, a's with the subscript."""
    match node:
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            yield from _factors(left)
            yield from _factors(right)
        case ast.Subscript(value=ast.BinOp(op=ast.Mult()) as product, slice=index):
            yield from (ast.Subscript(f, index, ast.Load()) for f in _factors(product))
        case _:
            yield node


def _uncast(node: ast.expr) -> ast.expr:
    """`stride` of `stride.to(tl.int64)` and of `stride[:, None]`, which a product inside a subscript gives."""
    match node:
        case ast.Call(func=ast.Attribute(value=inner, attr="to")):
            return _uncast(inner)
        case ast.Subscript(value=ast.Name() as inner):
            return inner
    return node


def is_widened(factor: ast.expr) -> bool:
    """Whether an expression is made 64 bits wide: `stride.to(tl.int64)`."""
    match factor:
        case ast.Call(func=ast.Attribute(attr="to"), args=[target]):
            return last_name(target) in ("int64", "uint64")
    return False


def _is_arange(node: ast.AST) -> TypeGuard[ast.Call]:
    """`tl.arange(0, LENGTH)`"""
    return isinstance(node, ast.Call) and last_name(node.func) == "arange" and len(node.args) == 2


def _receiver(call: ast.Call) -> Iterator[ast.AST]:
    """The object of a method call, whose names are values: `offs` of `offs.to(tl.int64)`."""
    if isinstance(call.func, ast.Attribute):
        yield from ast.walk(call.func.value)
