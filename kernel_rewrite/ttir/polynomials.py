"""Integer and pointer terms as sums of products: equal polynomials are equal addresses, however they were put together."""

from __future__ import annotations

from collections.abc import Iterator

from kernel_rewrite.ttir.parse import split_tensor
from kernel_rewrite.ttir.validate import MOVED, Expression

Key = tuple[int, tuple[str, ...]]
"""A factor: a term and, when it has a shape, the expansions around it, outermost first, which tell the axis it lies along."""

Monomial = tuple[Key, ...]
"""A product, its factors sorted."""

Polynomial = dict[Monomial, int]

_EXTENSIONS = frozenset({"arith.extsi", "arith.extui", "arith.index_cast"})


def polynomial(term: Expression, axes: tuple[str, ...] = ()) -> Polynomial:
    """A term that lies along `axes` as a sum of products. What cannot be taken apart is a factor; an extension of an integer
    to a wider one is looked through."""
    operation = term.operation
    if operation in ("arith.addi", "tt.addptr"):
        return summed(*(polynomial(operand, axes) for operand in term.operands))
    if operation in ("arith.subi", "arith.muli"):
        left, right = (polynomial(operand, axes) for operand in term.operands)
        return times(left, right) if operation == "arith.muli" else summed(left, times({(): -1}, right))
    same = operation == "arith.bitcast" and term.operands[0].type == term.type  # of the bounds of a loop
    if same or operation in _EXTENSIONS or operation in ("tt.splat", "tt.broadcast"):
        return polynomial(term.operands[0], axes)
    if operation == "tt.expand_dims":
        return polynomial(term.operands[0], around(term, axes))
    if operation == MOVED:
        moved = _moved(term, axes)
        if moved is not None:
            return moved
    if operation == "arith.constant":
        value = _integer(term.attributes)
        if value is not None:
            return constant(value)
    return {(key(term, axes),): 1}


def _moved(term: Expression, axes: tuple[str, ...]) -> Polynomial | None:
    """Where a pointer is that a loop moves on: so often as the loop's counter, which starts from somewhere, was added to.
    None where the distance of a round is no multiple of what is added to the counter."""
    initial, distance, counter, first, step = term.operands
    added = polynomial(step)
    if len(added) != 1:
        return None
    ((divisor, count),) = added.items()
    each: Polynomial = {}
    for monomial, times_it in polynomial(distance, axes).items():
        if not divides(divisor, monomial) or times_it % count:
            return None
        left = list(monomial)
        for factor in divisor:
            left.remove(factor)
        each[tuple(left)] = times_it // count
    rounds = summed(polynomial(counter), times({(): -1}, polynomial(first)))
    return summed(polynomial(initial, axes), times(each, rounds))


def constant(value: int) -> Polynomial:
    return {(): value} if value else {}


def summed(*parts: Polynomial) -> Polynomial:
    result: Polynomial = {}
    for part in parts:
        for monomial, count in part.items():
            total = result.get(monomial, 0) + count
            if total:
                result[monomial] = total
            else:
                result.pop(monomial, None)
    return result


def times(one: Polynomial, other: Polynomial) -> Polynomial:
    pairs = ((mine, count, theirs, more) for mine, count in one.items() for theirs, more in other.items())
    return summed(*({joined(mine, theirs): count * more} for mine, count, theirs, more in pairs))


def joined(one: Monomial, other: Monomial) -> Monomial:
    """The product of two products."""
    return tuple(sorted((*one, *other)))


def divides(divisor: Monomial, monomial: Monomial) -> bool:
    left = list(monomial)
    for factor in divisor:
        if factor not in left:
            return False
        left.remove(factor)
    return True


def key(term: Expression, axes: tuple[str, ...] = ()) -> Key:
    return term.identity, axes if split_tensor(term.type)[0] else ()


def factors_within(term: Expression) -> Iterator[Key]:
    """Every factor at any depth: of `offs % n` that of `offs` too."""
    return (key(found, axes) for found, axes in terms_within(term))


def terms_within(term: Expression) -> Iterator[tuple[Expression, tuple[str, ...]]]:
    """Every term at any depth, each with the axes it lies along."""
    pending: list[tuple[Expression, tuple[str, ...]]] = [(term, ())]
    seen = set()
    while pending:
        found, axes = pending.pop()
        if (found.identity, axes) in seen:
            continue
        seen.add((found.identity, axes))
        yield found, axes
        inner = around(found, axes) if found.operation == "tt.expand_dims" else axes
        pending += ((operand, inner) for operand in found.operands)


def around(expansion: Expression, axes: tuple[str, ...]) -> tuple[str, ...]:
    """The axes of what is expanded, inside an expansion that lies along `axes`."""
    return (*axes, expansion.attributes.strip("% "))


def _integer(attributes: str) -> int | None:
    try:
        return int(attributes.strip().split(" ")[0])
    except ValueError:
        return None
