"""The block that a store or a load through a block pointer or a tensor descriptor has, as the compiled kernel makes it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from kernel_rewrite.ttir.parse import lengths_of, pointee_type, split_tensor
from kernel_rewrite.ttir.polynomials import (
    Key,
    Polynomial,
    around,
    constant,
    key,
    polynomial,
    summed,
    terms_within,
    times,
)
from kernel_rewrite.ttir.validate import Carried, Expression, Load, Store, Terms

_BOUNDS = re.compile(r"boundaryCheck = array<i32: ([\d, ]*)>")
_AXIS = re.compile(r"\{axis = (\d+) : i32\}")
_BELOW = re.compile(r"\s*slt\b")
_NOT_BELOW = re.compile(r"\s*sge\b")
_RANGE = "{{end = {} : i32, start = 0 : i32}}"


@dataclass(frozen=True, slots=True)
class Block:
    """Where a block lies: `base` is the pointer that it is made from; for each dimension the size of the buffer, the stride,
    where the block starts and how long it is. `checked` are the dimensions at whose bounds the store stops."""

    base: Expression
    sizes: tuple[Polynomial, ...]
    strides: tuple[Polynomial, ...]
    starts: tuple[Polynomial, ...]
    lengths: tuple[int, ...]
    checked: frozenset[int]

    def along(self, stride: Polynomial) -> int | None:
        """The one dimension that has a stride."""
        found = [number for number, own in enumerate(self.strides) if own == stride]
        return found[0] if len(found) == 1 else None

    def varies(self, type_: str) -> frozenset[int]:
        """The dimensions along which a value of a type may differ from element to element, aligned at the last one."""
        lengths = lengths_of(type_)
        rank = len(self.lengths)
        return frozenset(rank - len(lengths) + i for i, length in enumerate(lengths) if length != 1)

    def is_index(self, index: Polynomial, inside: Expression, dimension: int) -> bool:
        """Whether `index`, a part of the term `inside`, counts a dimension's elements: its start plus 0, 1, 2, ..., along
        that dimension when a value in the shape of `inside` is aligned at the last one."""
        rank = len(lengths_of(inside.type))
        along = dimension - len(self.lengths) + rank
        ranges = _ranges(inside, self.lengths[dimension])
        return any(
            index == summed(self.starts[dimension], {(factor,): 1}) and _lies_along(factor[1], rank) == along
            for factor in ranges
        )

    def is_inside(self, mask: Expression) -> bool:
        """Whether a mask is on for the elements of the block before the ends of all dimensions that are checked, and for no
        other behind one. Elements before the first of a dimension may be on, where no test says that they are off."""
        ends, starts = set(), set()
        for test in conjuncts(mask):
            end, start = self.bound(test), self.first(test)
            if end is None and start is None:
                return False
            ends |= {end} - {None}
            starts |= {start} - {None}
        return ends == self.checked and starts <= self.checked

    def first(self, test: Expression) -> int | None:
        """The dimension whose first element a test starts at: `index >= 0`."""
        compared = _compared(test, _NOT_BELOW)
        if compared is None or compared[1]:
            return None
        own = (d for d in range(len(self.lengths)) if self.is_index(compared[0], test, d))
        return next(own, None)

    def bound(self, test: Expression) -> int | None:
        """The dimension whose size a test stops at: true for the elements of the block before it, false for those behind."""
        compared = _compared(test, _BELOW)
        if compared is None:
            return None
        index, size = compared
        sized = (dimension for dimension, own in enumerate(self.sizes) if size == own)
        return next((dimension for dimension in sized if self.is_index(index, test, dimension)), None)


def _compared(test: Expression, how: re.Pattern[str]) -> tuple[Polynomial, Polynomial] | None:
    """The two sides of a comparison of integers, without the dimensions that are put around it; None for any other test."""
    axes: tuple[str, ...] = ()
    while test.operation == "tt.expand_dims":
        axes, test = around(test, axes), test.operands[0]
    if test.operation != "arith.cmpi" or not how.match(test.attributes):
        return None
    left, right = (polynomial(operand, axes) for operand in test.operands)
    return left, right


def stored_block(store: Store, terms: Terms) -> Block | None:
    """The block that a store writes; None when it is made where that cannot be seen, or chosen among several."""
    pointer = store.pointer
    steps: list[tuple[Polynomial, ...]] = []
    while pointer.operation == "tt.advance":
        steps.append(tuple(map(polynomial, pointer.operands[1:])))
        pointer = pointer.operands[0]
    return _block(pointer, steps, store.others, store.attributes, terms)


def loaded_block(terms: Terms, load: Load) -> Block | None:
    """The block that a load reads, likewise; also one that a loop advances once a round, and that of a descriptor which the
    kernel is given."""
    pointer = load.pointer
    steps: list[tuple[Polynomial, ...]] = []
    while pointer.operation == "tt.advance" or pointer in terms.carried:
        if pointer.operation == "tt.advance":
            steps.append(tuple(map(polynomial, pointer.operands[1:])))
            pointer = pointer.operands[0]
            continue
        carried = terms.carried[pointer]
        come = [_come(polynomial(step), carried) for step in carried.steps]
        if any(step is None for step in come):
            return None
        steps.append(tuple(step for step in come if step is not None))
        pointer = carried.first
    return _block(pointer, steps, load.others, load.attributes, terms)


def _come(step: Polynomial, carried: Carried) -> Polynomial | None:
    """How far a step a round has come when the loop has counted from its first value to this round's."""
    count = summed(polynomial(carried.counter), times({(): -1}, polynomial(carried.lower)))
    by = polynomial(carried.by)
    if step == by or not step:
        return count if step else {}
    return times(step, count) if by == {(): 1} else None


def _block(
    pointer: Expression,
    steps: list[tuple[Polynomial, ...]],
    others: tuple[Expression, ...],
    attributes: str,
    terms: Terms,
) -> Block | None:
    """The block of a pointer that was moved by `steps`. `others` and `attributes` are the access's own."""
    lengths = _block_lengths(pointer.type)
    rank = len(lengths)
    base, checked, starts = pointer, frozenset(range(rank)), others
    if pointer.operation == "tt.make_tensor_ptr" and len(pointer.operands) == 1 + 3 * rank:
        bounds = _BOUNDS.search(attributes)
        checked = frozenset(int(n) for n in bounds[1].split(",") if n.strip()) if bounds else frozenset()
        base, described, starts = pointer.operands[0], pointer.operands[1:], pointer.operands[1 + 2 * rank :]
    elif pointer.operation == "tt.make_tensor_descriptor" and len(pointer.operands) == 1 + 2 * rank:
        base, described = pointer.operands[0], pointer.operands[1:]
    elif pointer.operation == "parameter" and _is_descriptor(pointer):
        described = made_outside(pointer, terms)
    else:
        return None
    if any(split_tensor(term.type)[0] for term in starts):
        return None  # a scatter
    steps = [*steps, tuple(map(polynomial, starts))]
    if any(len(step) != rank for step in steps):
        return None
    strides = tuple(map(polynomial, described[rank : 2 * rank]))
    if base is pointer:
        strides = (*strides[:-1], constant(1))
    return Block(
        base,
        tuple(map(polynomial, described[:rank])),
        strides,
        tuple(summed(*(step[number] for step in steps)) for number in range(rank)),
        lengths,
        checked,
    )


def made_outside(descriptor: Expression, terms: Terms) -> tuple[Expression, ...]:
    """The sizes and the strides of a descriptor that the launcher makes: the parameters of the compiled kernel behind its
    own. Its last stride is 1, whatever that parameter."""
    rank, first = len(_block_lengths(descriptor.type)), int(descriptor.attributes) + 1
    types = ("i32",) * rank + ("i64",) * rank
    return tuple(terms.term("parameter", str(first + number), type_) for number, type_ in enumerate(types))


def _is_descriptor(pointer: Expression) -> bool:
    return pointer.type.startswith("!tt.tensordesc<")


def guarded(terms: Terms, load: Load, whole: Expression, off: Expression) -> Expression | None:
    """The value that the fused kernel has of a load: `whole` for the elements inside the bounds of its block, `off` beyond;
    None when it has none such."""
    block = loaded_block(terms, load)
    if block is None:
        return None
    for found in terms.choices(whole, off):
        if block.is_inside(found.operands[0]):
            return found
    return None


def conjuncts(mask: Expression) -> Iterator[Expression]:
    """The tests that are all true where a mask is, each without the shape it is spread to."""
    if mask.operation == "arith.andi":
        for operand in mask.operands:
            yield from conjuncts(operand)
    elif mask.operation in ("tt.splat", "tt.broadcast"):
        yield from conjuncts(mask.operands[0])
    else:
        yield mask


def is_block(pointer: Expression) -> bool:
    """Whether a pointer is one to a block, or a descriptor."""
    return bool(_block_lengths(pointer.type)) and not split_tensor(pointer.type)[0]


def _block_lengths(type_: str) -> tuple[int, ...]:
    """(64, 32) of `!tt.ptr<tensor<64x32xf16>>` and of `!tt.tensordesc<tensor<64x32xf16>>`."""
    return lengths_of(pointee_type(type_))


def _lies_along(axes: tuple[str, ...], rank: int) -> int | None:
    """The axis that a value with one axis lies along after it was expanded to a rank; `axes` are the expansions, outermost
    first."""
    position = 0
    for expansion in reversed(axes):
        found = _AXIS.fullmatch(expansion)
        if found is None:
            return None
        position += int(found[1]) <= position
    return position if rank == 1 + len(axes) else None


def _ranges(term: Expression, length: int) -> Iterator[Key]:
    """The factors within a term that are 0, 1, 2, ... up to a length."""
    wanted = _RANGE.format(length)
    for found, axes in terms_within(term):
        if found.operation == "tt.make_range" and found.attributes.strip() == wanted:
            yield key(found, axes)
