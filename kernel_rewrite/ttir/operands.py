"""Is an operand of the epilogue read where it belongs? The judge of what the rewriter wrote, on terms of the compiler.

For a store to `base + m * stride_m + n * stride_n` under a mask:
- an operand of the output's shape is read at `operand + m * stride_m + n * stride_n`, under the same mask;
- one value a column is read at `operand + n`, under the part of the mask that depends on n.
For a store of a block, whose pointer or descriptor carries strides and bounds, m and n are where the block starts plus
0, 1, 2, ..., and the bound of each is its mask.

Addresses are compared as sums of products (polynomials over what cannot be taken apart), so that the order in which an
address was put together does not matter. Extensions of an integer to a wider one are looked through.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from kernel_rewrite.ttir.blocks import Block, conjuncts, is_block, stored_block
from kernel_rewrite.ttir.parse import split_tensor
from kernel_rewrite.ttir.polynomials import (
    Key,
    Monomial,
    Polynomial,
    around,
    constant,
    divides,
    factors_within,
    key,
    polynomial,
    summed,
    times,
)
from kernel_rewrite.ttir.validate import (
    MOVED,
    OPERAND,
    Expression,
    Store,
    Terms,
    operand_of,
    operand_reads,
    within,
)
from kernel_rewrite.ttir.written import Names, is_written


class Follows(enum.Enum):
    """What the place of an operand follows from."""

    TILE = "the place of the store"
    AXIS = "the index of the store in one direction"
    AXES = "the indices of the store, in directions that each have a stride of the operand's own"
    INDEX = "an index that the user wrote"
    NOTHING = "nothing: it is one value"


@dataclass(frozen=True, slots=True)
class Direction:
    """A direction of the output: the parameters of the original (and numbers) whose product is its stride (none: 1), and the
    parameter of the fused kernel that is the operand's own stride in it ("": it has 1)."""

    strides: tuple[str, ...] = ()
    own: str = ""


@dataclass(frozen=True, slots=True)
class ExpectedOperand:
    """An operand as the request has it: its parameter of the fused kernel, for AXIS its one direction, for AXES all that
    the output has, for INDEX the texts of the indices it is read at."""

    parameter: str
    follows: Follows
    directions: tuple[Direction, ...] = ()
    indices: tuple[str, ...] = ()


def objection(terms: Terms, store: Store, expected: Mapping[str, ExpectedOperand], names: Names) -> str:
    """Why what the stored term reads is not right, in words; "" when it is. `names` are those of the original's parameters
    that stand for numbers. What the stored value itself reads was judged where it was loaded."""
    store = replace(store, pointer=terms.followed(store.pointer))
    of_prologues = {id(read) for read in operand_reads(store.value)}
    counters = {term.operands[_COUNTER] for term in within(store.pointer) if term.operation == MOVED}
    for read in operand_reads(store.found):
        operand = expected.get(operand_of(read.operands[0]))
        if operand is None:
            if id(read) in of_prologues:
                continue
            return f"a read of `{operand_of(read.operands[0])}`, which the epilogue does not name"
        narrow = operand.follows is not Follows.INDEX and _is_narrow(store, read, counters)
        problem = "its place is computed in 32 bits, where that of the store is not" if narrow else ""
        problem = problem or _embellished(store, read) or _CHECKS[operand.follows](terms, store, read, operand, names)
        if problem:
            return f"the read of `{operand.parameter}`: {problem}"
    return ""


def _embellished(store: Store, read: Expression) -> str:
    """A read is plain, but for the bounds check of a block pointer."""
    operation, _, attributes = read.attributes.partition(" ")
    if len(read.operands) > 2 and operation == "tt.load":
        return "it has a value for lanes that are off"
    return "it has a cache modifier or the like" if _MODIFIERS.search(attributes) else ""


_COUNTER = 2
"""Which operand of a `MOVED` term counts the rounds of the loop."""


def _is_narrow(store: Store, read: Expression, counters: Collection[Expression]) -> bool:
    """Whether a product in the place of a read may overflow where the place of the store does not: one in 32 bits of what
    the store multiplies in 64, of what counts the rounds of a loop that moves its pointer, or of the indices of a block."""
    place = set(within(store.pointer))
    wide = {factor for term in place if _is_product(term) and _is_wide(term) for factor in _factors(term)}
    in_block = is_block(store.pointer)
    for product in (t for t in within(read.operands[0]) if _is_product(t) and not _is_wide(t)):
        if any(term in counters for term in within(product)):
            return True
        if product not in place and ((in_block and split_tensor(product.type)[0]) or wide & set(_factors(product))):
            return True
    return False


def _is_product(term: Expression) -> bool:
    return term.operation == "arith.muli"


def _is_wide(term: Expression) -> bool:
    return split_tensor(term.type)[1] == "i64"


_SAME_NUMBER = frozenset({"arith.extsi", "arith.trunci", "tt.splat", "tt.broadcast", "tt.expand_dims"})


def _factors(product: Expression) -> Iterator[Expression]:
    """What a product is of, but for numbers and parameters, without the types and shapes that it takes there."""
    for factor in product.operands:
        while factor.operation in _SAME_NUMBER:
            factor = factor.operands[0]
        if _is_product(factor):
            yield from _factors(factor)
        elif factor.operation not in ("parameter", "arith.constant", OPERAND):
            yield factor


_BOUNDS = re.compile(r"boundaryCheck = array<[^>]*>")
_MODIFIERS = re.compile(r"cacheModifier|evictionPolicy|isVolatile|padding")


def _one_value(terms: Terms, store: Store, read: Expression, operand: ExpectedOperand, _: object) -> str:
    return "" if read.operands == (_base(read.operands[0]),) else "it is not at the pointer itself"


def _tile(terms: Terms, store: Store, read: Expression, operand: ExpectedOperand, _: object) -> str:
    base = _base(store.pointer)
    moved = _replaced(terms, read.operands[0], _base(read.operands[0]), base)
    if moved is not store.pointer and polynomial(moved) != polynomial(store.pointer):
        return "it is not at the place of the store"
    if _BOUNDS.findall(read.attributes) != _BOUNDS.findall(store.attributes):
        return "its bounds are not checked as those of the store are"
    guards = read.operands[1:]
    if read.attributes.startswith("tt.descriptor_load"):
        return "" if guards == store.others else "its offsets are not those of the store"
    if store.mask is None:
        return "" if not guards else "it has a mask where the store has none"
    return "" if guards[:1] == (store.mask,) else "its mask is not that of the store"


def _axis(terms: Terms, store: Store, read: Expression, operand: ExpectedOperand, names: Names) -> str:
    (direction,) = operand.directions
    index = _own_index(_offsets(read.operands[0]), direction, terms) if direction.own else _offsets(read.operands[0])
    stride = _stride(direction.strides, names)
    if isinstance(stride, str):
        return stride
    if index is None:
        return f"its index is not multiplied by `{direction.own}`"
    if not is_block(store.pointer):
        return _part(index, stride, _offsets(store.pointer), names) or _guarded(store, read, index, names.parameters)
    block = stored_block(store, terms)
    if block is None:
        return "the block of the store could not be followed"
    dimension = block.along(stride)
    if dimension is None:
        return (
            _beside(block, stride, names) or _part(index, stride, _offsets(block.base), names) or _within(block, read)
        )
    if not block.is_index(index, read.operands[0], dimension):
        return "its index is not that of the block in its direction"
    return _part({}, stride, _offsets(block.base), names) or _within(block, read)


def _axes(terms: Terms, store: Store, read: Expression, operand: ExpectedOperand, names: Names) -> str:
    offsets, place = _offsets(read.operands[0]), _offsets(store.pointer)
    block = stored_block(store, terms) if is_block(store.pointer) else None
    if block is None and is_block(store.pointer):
        return "the block of the store could not be followed"
    whole: Polynomial = {}
    dimensions: set[int] = set()
    strides = [_stride(direction.strides, names) for direction in operand.directions]
    numbers = [_apart(s.get((), 0), names) for s in strides if isinstance(s, dict) and s.keys() <= {()}]
    if (len(set(numbers)) < len(numbers)) and block is None:
        return "two of its directions have strides that are numbers, which cannot be told apart"
    for direction, stride in zip(operand.directions, strides, strict=True):
        own = _own_key(direction, terms)
        mine = {monomial: count for monomial, count in offsets.items() if own in monomial}
        offsets = {monomial: count for monomial, count in offsets.items() if own not in monomial}
        index = _own_index(mine, direction, terms)
        if isinstance(stride, str) or index is None:
            return stride if isinstance(stride, str) else f"its index is multiplied by `{direction.own}` more than once"
        dimension = block.along(stride) if block is not None else None
        if block is not None and dimension is not None:
            if not block.is_index(index, read.operands[0], dimension):
                return "its index is not that of the block in each direction"
            dimensions.add(dimension)
            continue
        step = times(index, stride)
        others = [s for s in strides if isinstance(s, dict) and s is not stride]
        if any(_holds(monomial, count, other, names) for other in others for monomial, count in step.items()):
            return "its index in one direction holds a part of another"
        whole = summed(whole, step)
    if offsets:
        return "a part of its place has no stride of its own"
    if block is not None:  # made from a pointer that was moved in the directions that are left
        whole_block = len(dimensions) == len(block.lengths) and whole == _offsets(block.base)
        return _within(block, read) if whole_block else "its place is only a part of that of the store"
    if whole != place:
        return "its place is not that of the store"
    masks = read.operands[1:2]
    return "" if masks == (() if store.mask is None else (store.mask,)) else "its mask is not that of the store"


def _holds(monomial: Monomial, count: int, stride: Polynomial, names: Names) -> bool:
    """Whether a part of a place is a multiple of a stride that is not 1."""
    factors, own = next(iter(stride), ()), _apart(stride.get((), 0), names)
    return bool(factors or own) and _runs_along(monomial, count, stride, names)


def _own_key(direction: Direction, terms: Terms) -> Key:
    return key(terms.term(OPERAND, direction.own, "i32"))


def _own_index(offsets: Polynomial, direction: Direction, terms: Terms) -> Polynomial | None:
    """The index of which `offsets` is the product with the operand's own stride; None when it is none."""
    own = _own_key(direction, terms)
    if any(monomial.count(own) != 1 for monomial in offsets):
        return None
    return {tuple(f for f in monomial if f != own): count for monomial, count in offsets.items()}


def _stride(names_of_it: Iterable[str], names: Names) -> Polynomial | str:
    """The product of parameters and numbers as a polynomial; why not, in words."""
    stride = constant(1)
    for name in names_of_it:
        if name in names.parameters:
            stride = times(stride, {(key(names.parameters[name]),): 1})
        elif name in names.constants or name.isdigit():
            stride = times(stride, constant(names.constants[name] if name in names.constants else int(name)))
        else:
            return f"the stride `{name}` is no parameter of this specialization"
    return stride


def _part(index: Polynomial, stride: Polynomial, place: Polynomial, names: Names) -> str:
    """Whether a place is an index times a stride, and nothing else along that stride."""
    rest = dict(place)
    for monomial, count in times(index, stride).items():
        if rest.get(monomial, 0) != count:
            return "its index times the stride is no part of the place of the store"
        rest.pop(monomial)
    if any(_runs_along(monomial, count, stride, names) for monomial, count in rest.items()):
        number = stride.get((), 0)
        if number in names.constants.values() and not _apart(number, names):
            return (
                f"its stride is the number {number} here, which cannot be told from what other directions are made of"
            )
        return "its index is only a part of the index of the store"
    return ""


def _runs_along(monomial: Monomial, count: int, stride: Polynomial, names: Names) -> bool:
    """Whether a part of a place, `count` times the product `monomial`, may be a step along a stride."""
    factors = next(iter(stride), ())
    if factors:
        return divides(factors, monomial)
    own = _apart(stride.get((), 0), names)
    if own:
        return all(count % number == 0 for number in own)
    return not _apart(count, names) and not _has_factor_and_stride(monomial, names.parameters)


def _apart(count: int, names: Names) -> frozenset[int]:
    """The compile-time strides that a number is a multiple of, of those that can be told from all other numbers."""
    return frozenset(number for number in names.apart if count and count % number == 0)


def _beside(block: Block, stride: Polynomial, names: Names) -> str:
    """Whether no dimension of a block runs along a stride, which only its base was moved by."""
    steps = [(monomial, count) for own in block.strides for monomial, count in own.items()]
    lies = any(_may_lie(monomial, count, stride, names) for monomial, count in steps)
    return "its index is only a part of the index of the store" if lies else ""


def _may_lie(monomial: Monomial, count: int, stride: Polynomial, names: Names) -> bool:
    """Whether a dimension with the stride `count` times `monomial` may run along `stride`."""
    if not monomial and not _apart(count, names):
        return True
    return stride != constant(1) and _runs_along(monomial, count, stride, names)


def _written(terms: Terms, store: Store, read: Expression, operand: ExpectedOperand, names: Names) -> str:
    index = _offsets(read.operands[0])
    found = [is_written(text, index, read.operands[0], terms, names) for text in operand.indices]
    if found and all(verdict is False for verdict in found):
        return "its index is not the one that was written"
    if not is_block(store.pointer):
        return _guarded(store, read, index, names.parameters, factors_within(read.operands[0]))
    if is_block(read.operands[0]):
        return "it is read as a block"
    block = stored_block(store, terms)
    if block is None:
        whole = not split_tensor(read.operands[0].type)[0] and len(read.operands) == 1
        return "" if whole else "the block of the store could not be followed"
    return _within(block, read)


_CHECKS = {
    Follows.NOTHING: _one_value,
    Follows.TILE: _tile,
    Follows.AXIS: _axis,
    Follows.AXES: _axes,
    Follows.INDEX: _written,
}


def _guarded(
    store: Store,
    read: Expression,
    index: Polynomial,
    parameters: Mapping[str, Expression],
    more: Iterable[Key] = (),
) -> str:
    """The read must be on where the store is, and off where the store's mask turns off its index."""
    mask = read.operands[1] if len(read.operands) > 1 else None
    tests = set(conjuncts(store.mask)) if store.mask is not None else set()
    own = set(conjuncts(mask)) if mask is not None else set()
    if not own <= tests:
        return "its mask is off where the store is on"
    along = {factor for monomial in index for factor in monomial} | set(more)
    for test in tests - own:
        found = set(_directions(test, parameters, ()))
        if found and found <= along:
            return "it is not masked where the store's mask turns its index off"
    return ""


def _within(block: Block, read: Expression) -> str:
    """The read must be on where the store of the block is, and off behind the bounds of the dimensions it varies along."""
    tests = list(conjuncts(read.operands[1])) if len(read.operands) > 1 else []
    bounds = {block.bound(test) for test in tests}
    if not bounds <= block.checked:
        return "its mask is off where the store is on"
    if not block.varies(read.operands[0].type) & block.checked <= bounds:
        return "it is not masked where the store's bounds turn its index off"
    return ""


# ------------------------------------------------------------------------------------------------------------ addresses


def _has_factor_and_stride(monomial: Monomial, parameters: Mapping[str, Expression]) -> bool:
    """Whether a product is an index times an argument: a direction of its own."""
    known = {key(term, ()) for term in parameters.values()}
    return len(monomial) > 1 and any(factor in known for factor in monomial)


def _offsets(pointer: Expression) -> Polynomial:
    """The address without its base."""
    base = _base(pointer)
    return {m: c for m, c in polynomial(pointer).items() if m != (key(base),)}


def _base(pointer: Expression) -> Expression:
    """The parameter that an address starts from: the first operand, all the way down."""
    while pointer.operands and pointer.operation not in ("parameter", OPERAND):
        pointer = pointer.operands[0]
    return pointer


def _replaced(terms: Terms, term: Expression, old: Expression, new: Expression) -> Expression:
    """`term` with `new` for `old`, and the pointer types that follow."""
    memory: dict[int, Expression] = {id(old): new}
    types = _element(old.type), _element(new.type)

    def replaced(each: Expression) -> Expression:
        if id(each) not in memory:
            operands = tuple(replaced(operand) for operand in each.operands)
            if all(a is b for a, b in zip(operands, each.operands, strict=True)):
                memory[id(each)] = each
            else:
                type_ = each.type.replace(f"ptr<{types[0]}", f"ptr<{types[1]}")
                attributes = each.attributes.replace(f"ptr<{types[0]}", f"ptr<{types[1]}")
                memory[id(each)] = terms.term(each.operation, attributes, type_, operands)
        return memory[id(each)]

    return replaced(term)


def _element(pointer_type: str) -> str:
    return pointer_type.partition("ptr<")[2].split(",")[0].rstrip(">")


# ---------------------------------------------------------------------------------------------------------------- masks


def _directions(test: Expression, parameters: Mapping[str, Expression], axes: tuple[str, ...]) -> Iterator[Key]:
    """What a test varies with: the factors of what it compares, without the arguments of the kernel."""
    if test.operation == "tt.expand_dims":
        yield from _directions(test.operands[0], parameters, around(test, axes))
        return
    if test.operation in ("tt.splat", "tt.broadcast"):
        yield from _directions(test.operands[0], parameters, axes)
        return
    known = {key(term, ()) for term in parameters.values()}
    compared = test.operands if test.operation == "arith.cmpi" else (test,)
    for operand in compared:
        yield from (f for monomial in polynomial(operand, axes) for f in monomial if f not in known)
