"""The block that a store through a block pointer or a tensor descriptor writes, as the compiled kernel makes it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from kernel_rewrite.ttir.parse import lengths_of, pointee_type, split_tensor
from kernel_rewrite.ttir.polynomials import Key, Polynomial, around, constant, key, polynomial, summed, terms_within
from kernel_rewrite.ttir.validate import Expression, Store, Terms

_BOUNDS = re.compile(r"boundaryCheck = array<i32: ([\d, ]*)>")
_AXIS = re.compile(r"\{axis = (\d+) : i32\}")
_BELOW = re.compile(r"\s*slt\b")
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

    def bound(self, test: Expression) -> int | None:
        """The dimension whose size a test stops at: true for the elements of the block before it, false for those behind."""
        axes: tuple[str, ...] = ()
        inside = test
        while test.operation == "tt.expand_dims":
            axes, test = around(test, axes), test.operands[0]
        if test.operation != "arith.cmpi" or not _BELOW.match(test.attributes):
            return None
        index, size = (polynomial(operand, axes) for operand in test.operands)
        for dimension, own in enumerate(self.sizes):
            if size == own and self.is_index(index, inside, dimension):
                return dimension
        return None


def stored_block(store: Store, terms: Terms) -> Block | None:
    """The block that a store writes; None when it is made where that cannot be seen, or chosen among several."""
    pointer = store.pointer
    steps: list[tuple[Expression, ...]] = []
    while pointer.operation == "tt.advance":
        steps.append(pointer.operands[1:])
        pointer = pointer.operands[0]
    lengths = _block_lengths(pointer.type)
    rank = len(lengths)
    if pointer.operation == "tt.make_tensor_ptr" and len(pointer.operands) == 1 + 3 * rank:
        bounds = _BOUNDS.search(store.attributes)
        checked = frozenset(int(n) for n in bounds[1].split(",") if n.strip()) if bounds else frozenset()
        steps.append(pointer.operands[1 + 2 * rank :])
    elif pointer.operation == "tt.make_tensor_descriptor" and len(pointer.operands) == 1 + 2 * rank:
        checked = frozenset(range(rank))
        steps.append(store.others)
    elif pointer.operation == "parameter" and not steps:
        described = made_outside(pointer, terms)
        sizes = tuple(map(polynomial, described[:rank]))
        strides = (*map(polynomial, described[rank:-1]), constant(1))
        starts = store.others
        if len(starts) != rank or any(split_tensor(term.type)[0] for term in starts):
            return None  # a scatter
        return Block(pointer, sizes, strides, tuple(map(polynomial, starts)), lengths, frozenset(range(rank)))
    else:
        return None
    if any(len(step) != rank or any(split_tensor(term.type)[0] for term in step) for step in steps):
        return None  # a scatter
    return Block(
        pointer.operands[0],
        tuple(map(polynomial, pointer.operands[1 : 1 + rank])),
        tuple(map(polynomial, pointer.operands[1 + rank : 1 + 2 * rank])),
        tuple(summed(*(polynomial(step[number]) for step in steps)) for number in range(rank)),
        lengths,
        checked,
    )


def made_outside(descriptor: Expression, terms: Terms) -> tuple[Expression, ...]:
    """The sizes and the strides of a descriptor that the launcher makes: the parameters of the compiled kernel behind its
    own. Its last stride is 1, whatever that parameter."""
    rank, first = len(_block_lengths(descriptor.type)), int(descriptor.attributes) + 1
    types = ("i32",) * rank + ("i64",) * rank
    return tuple(terms.term("parameter", str(first + number), type_) for number, type_ in enumerate(types))


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
