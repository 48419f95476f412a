"""Is what a kernel stores a function of single elements of what it loads: each load at the store's own place, or of one
value, or along rows or columns where that is asked for, and nothing but arithmetic between."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from kernel_rewrite.model import Location
from kernel_rewrite.ttir.blocks import conjuncts
from kernel_rewrite.ttir.elementwise import foreign_operation, is_elementwise
from kernel_rewrite.ttir.parse import Module, Operation, Value
from kernel_rewrite.ttir.polynomials import Polynomial, key, polynomial, summed, times
from kernel_rewrite.ttir.validate import CALL, RETURN, Expression, Side, Terms, values_of, within

_LOAD, _STORE = "tt.load", "tt.store"
_HINTS = frozenset({"llvm.intr.assume"})
"""Operations that tell the compiler something and do nothing."""

_CARRYING = frozenset({"tt.splat", "tt.broadcast", "tt.expand_dims", "tt.reshape"})

PARAMETER = "parameter"
"""The operation of the term for a parameter of the kernel."""


@dataclass(frozen=True, slots=True)
class StoredElements:
    """What a kernel stores, as a term over what it loads of each parameter (`loaded`) and over its parameters."""

    terms: Terms
    value: Expression
    loaded: Mapping[str, Expression]
    parameters: Mapping[str, Expression]


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a kernel is not pointwise, in words that follow its name, and the places that lead there, outermost first."""

    words: str
    places: tuple[Location, ...]


def stored_elements(
    module: Module, x: str, out: str, single: Collection[str] = (), along: Mapping[str, bool] = {}
) -> StoredElements | Objection:
    """What the module's kernel stores to `out`, if each element is a function of the same element of what it loads, of the
    one value that a parameter of `single` points to, or of the element of a parameter of `along` in the same column (or, if
    that says False, in the same row)."""
    kernel = module.kernel
    blocks = kernel.body.reachable()
    if len(blocks) > 1:
        return _objection("branches or returns early at run time", blocks[0].operations[-1])
    terms = Terms()
    side = Side(module, terms)
    parameters = {p.name: terms.term(PARAMETER, str(i), p.type) for i, p in enumerate(kernel.parameters)}
    names = {term: name for name, term in parameters.items()}
    frame: dict[Value, Expression] = {p.value: parameters[p.name] for p in kernel.parameters}
    stores = [operation for operation in kernel.walk() if operation.name == _STORE]
    if len(stores) != 1:
        return Objection(f"makes {len(stores)} stores where its source has one", ())
    store = stores[0]
    loads: dict[Operation, str] = {}
    loaded: dict[str, Expression] = {}
    for operation in blocks[0].operations:
        if operation is store:
            break
        if operation.name == _LOAD:
            if operation.attribute("isVolatile") == "true":
                return _objection("makes a volatile load", operation)
            name = names.get(_base(values_of(operation, frame)[0]), "")
            term = terms.term("loaded", name, operation.results[0].type)
            frame[operation.results[0]] = term
            loads[operation] = name
            loaded[name] = term
        elif operation.name not in _HINTS and not side.is_pure(operation):
            return _objection(f"does more than load, compute and store: it makes `{operation.name}`", operation)
        elif operation.name not in _HINTS:
            side.define(operation, frame)
    else:
        return _objection("stores inside of a loop or a branch", store)
    foreign = _foreign(module, store.operands[1], loads)
    if foreign is not None:
        return foreign
    pointer, _, *mask = values_of(store, frame)
    if names.get(_base(pointer), "") != out:
        return _objection(f"stores to another buffer than `{out}`", store)
    for operation, name in loads.items():
        where, *given = values_of(operation, frame)
        if not name:
            return _objection("loads through something else than a pointer that it is given", operation)
        if name in single:
            if where is not parameters[name]:
                return _objection(f"loads `{name}` at a place that is not its first element", operation)
            continue
        if name in along:
            numbers = [term for term in parameters.values() if not term.type.startswith("!tt.")]
            lies = _in_column if along[name] else _in_row
            if not lies(_offset(where), _offset(pointer), where, numbers):
                what = "column" if along[name] else "row"
                return _objection(f"does not show that it loads `{name}` at the {what} it stores to", operation)
            if given and not set(conjuncts(given[0])) <= (set(conjuncts(mask[0])) if mask else set()):
                return _objection(f"loads `{name}` under another mask than the one it stores under", operation)
            continue
        if _place(where) != _place(pointer):
            return _objection(f"loads `{name}` at another place than the one it stores to", operation)
        if given and (not mask or given[0] is not mask[0]):
            return _objection(f"loads `{name}` under another mask than the one it stores under", operation)
    if x not in loaded:
        return _objection(f"loads nothing from `{x}`", store)
    return StoredElements(terms, frame[store.operands[1]], loaded, parameters)


def _objection(words: str, operation: Operation) -> Objection:
    return Objection(words, (operation.location,) if operation.location is not None else ())


def _foreign(module: Module, stored: Value, loads: Collection[Operation]) -> Objection | None:
    """The first operation between the loads and the stored value that is not one of single elements."""
    made = {result: operation for operation in module.kernel.walk() for result in operation.results}
    pending, seen = [stored], {stored}
    while pending:
        operation = made.get(pending.pop())
        if operation is None or operation in loads:
            continue
        if operation.name == CALL:
            callee = module.function(operation.callee or "")
            places = (operation.location,) if operation.location is not None else ()
            found = foreign_operation(module, callee, places) if callee is not None else None
            if callee is None or found is not None:
                words = f"makes `{found.operation if found else CALL}` of what it stores"
                return Objection(words, found.places if found else places)
        elif operation.name == RETURN or not is_elementwise(operation):
            return _objection(_words(operation), operation)
        pending += [operand for operand in operation.operands if operand not in seen]
        seen |= set(operation.operands)
    return None


def _words(operation: Operation) -> str:
    if operation.name in ("tt.get_program_id", "tt.get_num_programs", "tt.make_range"):
        return f"stores a value that depends on where it is stored (`{operation.name}`)"
    if operation.name.startswith(("scf.", "cf.")):
        return f"loops or branches at run time (`{operation.name}`)"
    return f"stores what is no function of single elements: it makes `{operation.name}`"


def _in_column(index: Polynomial, place: Polynomial, where: Expression, numbers: Sequence[Expression]) -> bool:
    """Whether an index is the column of a place: `place % n`, or all of it that is no multiple of an argument.

    row * stride + cols, w_ptr + cols
    """
    if _divided(index, place, where, "arith.remsi", "arith.remui"):
        return True
    rest = summed(place, times({(): -1}, index))
    return bool(rest) and any(
        all(key(number) in monomial for monomial in rest) and not any(key(number) in monomial for monomial in index)
        for number in numbers
    )


def _in_row(index: Polynomial, place: Polynomial, where: Expression, numbers: Sequence[Expression]) -> bool:
    """Whether an index is the row of a place: `place // n`, or what an argument multiplies in it."""
    if _divided(index, place, where, "arith.divsi", "arith.divui"):
        return True
    parts = ({m: count for m, count in place.items() if key(number) in m} for number in numbers)
    return any(part and part == times(index, {(key(n),): 1}) for part, n in zip(parts, numbers, strict=True))


def _divided(index: Polynomial, place: Polynomial, where: Expression, *operations: str) -> bool:
    """Whether an index is what one of `operations` makes of a place and of one number."""
    found = (term for term in within(where) if term.operation in operations and index == polynomial(term))
    return any(polynomial(term.operands[0]) == place and term.operands[1].operation == "tt.splat" for term in found)


def _offset(pointer: Expression) -> Polynomial:
    """An address without the pointer it starts from, as a sum of products."""
    base = (key(_base(pointer)),)
    return {monomial: count for monomial, count in polynomial(pointer).items() if monomial != base}


def _base(pointer: Expression) -> Expression:
    """The pointer that an address starts from."""
    while pointer.operation == "tt.addptr" or pointer.operation in _CARRYING:
        pointer = pointer.operands[0]
    return pointer


def _place(pointer: Expression) -> tuple[object, ...]:
    """An address without the pointer it starts from: equal for equal offsets."""
    steps: list[object] = []
    while pointer.operation == "tt.addptr" or pointer.operation in _CARRYING:
        steps.append((pointer.operation, *(offset.identity for offset in pointer.operands[1:])))
        pointer = pointer.operands[0]
    return tuple(steps)
