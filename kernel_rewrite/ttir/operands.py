"""Is an operand of the epilogue read where it belongs? The judge of what the rewriter wrote, on terms of the compiler.

For a store to `base + m * stride_m + n * stride_n` under a mask:
- an operand of the output's shape is read at `operand + m * stride_m + n * stride_n`, under the same mask;
- one value a column is read at `operand + n`, under the part of the mask that depends on n.

Addresses are compared as sums of products (polynomials over what cannot be taken apart), so that the order in which an
address was put together does not matter. Extensions of an integer to a wider one are looked through.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from kernel_rewrite.ttir.polynomials import Key, Monomial, Polynomial, divides, factors_within, joined, key, polynomial
from kernel_rewrite.ttir.validate import OPERAND, Expression, Store, Terms, operand_of, operand_reads
from kernel_rewrite.ttir.written import Names, is_written


class Follows(enum.Enum):
    """What the place of an operand follows from."""

    TILE = "the place of the store"
    AXIS = "the index of the store in one direction"
    INDEX = "an index that the user wrote"
    NOTHING = "nothing: it is one value"


@dataclass(frozen=True, slots=True)
class ExpectedOperand:
    """An operand as the request has it: its parameter of the fused kernel, for AXIS the parameters of the original whose
    product is the stride of its direction (none: 1), for INDEX the texts of the indices it is read at."""

    parameter: str
    follows: Follows
    strides: tuple[str, ...] = ()
    indices: tuple[str, ...] = ()


def objection(terms: Terms, store: Store, expected: Mapping[str, ExpectedOperand], names: Names) -> str:
    """Why what the stored term reads is not right, in words; "" when it is. `names` are those of the original's parameters
    that stand for numbers."""
    for read in operand_reads(store.found):
        operand = expected.get(operand_of(read.operands[0]))
        if operand is None:
            return f"a read of `{operand_of(read.operands[0])}`, which the epilogue does not name"
        problem = _embellished(store, read) or _CHECKS[operand.follows](terms, store, read, operand, names)
        if problem:
            return f"the read of `{operand.parameter}`: {problem}"
    return ""


def _embellished(store: Store, read: Expression) -> str:
    """A read is plain, but for the bounds check of a block pointer, which must be that of the store."""
    operation, _, attributes = read.attributes.partition(" ")
    if len(read.operands) > 2 and operation == "tt.load":
        return "it has a value for lanes that are off"
    if _BOUNDS.findall(attributes) != _BOUNDS.findall(store.attributes):
        return "its bounds are not checked as those of the store are"
    return "it has a cache modifier or the like" if _MODIFIERS.search(attributes) else ""


_BOUNDS = re.compile(r"boundaryCheck = array<[^>]*>")
_MODIFIERS = re.compile(r"cacheModifier|evictionPolicy|isVolatile|padding")


def _one_value(terms: Terms, store: Store, read: Expression, operand: ExpectedOperand, _: object) -> str:
    return "" if read.operands == (_base(read.operands[0]),) else "it is not at the pointer itself"


def _tile(terms: Terms, store: Store, read: Expression, operand: ExpectedOperand, _: object) -> str:
    base = _base(store.pointer)
    moved = _replaced(terms, read.operands[0], _base(read.operands[0]), base)
    if moved is not store.pointer and polynomial(moved) != polynomial(store.pointer):
        return "it is not at the place of the store"
    guards = read.operands[1:]
    if read.attributes.startswith("tt.descriptor_load"):
        return "" if guards == store.others else "its offsets are not those of the store"
    if store.mask is None:
        return "" if not guards else "it has a mask where the store has none"
    return "" if guards[:1] == (store.mask,) else "its mask is not that of the store"


def _axis(terms: Terms, store: Store, read: Expression, operand: ExpectedOperand, names: Names) -> str:
    parameters = names.parameters
    index = _offsets(read.operands[0])
    place = _offsets(store.pointer)
    stride: Monomial = ()
    for name in operand.strides:
        if name not in parameters:
            return f"the stride `{name}` is no parameter of this specialization"
        stride = joined(stride, (key(parameters[name]),))
    along = {joined(monomial, stride): count for monomial, count in index.items()}
    rest = dict(place)
    for monomial, count in along.items():
        if rest.get(monomial, 0) != count:
            return "its index times the stride is no part of the place of the store"
        rest.pop(monomial)
    for monomial in rest:
        if stride and divides(stride, monomial):
            return "its index is only a part of the index of the store"
        if not stride and not _has_factor_and_stride(monomial, parameters):
            return "its index is only a part of the index of the store"
    return _guarded(store, read, index, parameters)


def _written(terms: Terms, store: Store, read: Expression, operand: ExpectedOperand, names: Names) -> str:
    index = _offsets(read.operands[0])
    found = [is_written(text, index, read.operands[0], terms, names) for text in operand.indices]
    if found and all(verdict is False for verdict in found):
        return "its index is not the one that was written"
    return _guarded(store, read, index, names.parameters, factors_within(read.operands[0]))


_CHECKS = {Follows.NOTHING: _one_value, Follows.TILE: _tile, Follows.AXIS: _axis, Follows.INDEX: _written}


def _guarded(
    store: Store,
    read: Expression,
    index: Polynomial,
    parameters: Mapping[str, Expression],
    more: Iterable[Key] = (),
) -> str:
    """The read must be on where the store is, and off where the store's mask turns off its index."""
    mask = read.operands[1] if len(read.operands) > 1 else None
    tests = set(_conjuncts(store.mask)) if store.mask is not None else set()
    own = set(_conjuncts(mask)) if mask is not None else set()
    if not own <= tests:
        return "its mask is off where the store is on"
    along = {factor for monomial in index for factor in monomial} | set(more)
    for test in tests - own:
        found = set(_directions(test, parameters, ()))
        if found and found <= along:
            return "it is not masked where the store's mask turns its index off"
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


def _conjuncts(mask: Expression) -> Iterator[Expression]:
    """The tests that are all true where a mask is, each without the shape it is spread to."""
    if mask.operation == "arith.andi":
        for operand in mask.operands:
            yield from _conjuncts(operand)
    elif mask.operation in ("tt.splat", "tt.broadcast"):
        yield from _conjuncts(mask.operands[0])
    else:
        yield mask


def _directions(test: Expression, parameters: Mapping[str, Expression], axes: tuple[str, ...]) -> Iterator[Key]:
    """What a test varies with: the factors of what it compares, without the arguments of the kernel."""
    if test.operation == "tt.expand_dims":
        yield from _directions(test.operands[0], parameters, (*axes, test.attributes.strip()))
        return
    if test.operation in ("tt.splat", "tt.broadcast"):
        yield from _directions(test.operands[0], parameters, axes)
        return
    known = {key(term, ()) for term in parameters.values()}
    compared = test.operands if test.operation == "arith.cmpi" else (test,)
    for operand in compared:
        yield from (f for monomial in polynomial(operand, axes) for f in monomial if f not in known)
