"""May the values that an in-place kernel stores be changed? Yes, where no load reads what a store of the kernel wrote.

Within one program: every load of the buffer comes before every store to it, and no loop holds both. Each store goes to the
place of a load, under its mask, so that a program touches what it loaded and nothing else. That no two programs touch the
same element is the caller's to know.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kernel_rewrite.model import Location, MemoryAccess, MemoryEffect
from kernel_rewrite.ttir.parse import Block, Module, Operation, Region, Value
from kernel_rewrite.ttir.validate import CALL, RETURN, Expression, Side, Terms, values_of

_LOAD, _STORE = "tt.load", "tt.store"


@dataclass(frozen=True, slots=True)
class _Event:
    """A load of the buffer or a store to it: where, and the loops around it."""

    is_store: bool
    pointer: Expression
    mask: Expression | None
    loops: tuple[int, ...]
    location: Location | None


@dataclass(frozen=True, slots=True)
class Objection:
    """Why the kernel may not be changed, at a place of the source."""

    why: str
    location: Location | None


def objection_to_change(module: Module, accesses: tuple[MemoryAccess, ...], buffer: str) -> Objection | None:
    """Why what is stored to `buffer`, which the kernel also loads, may not be changed; None when it may."""
    here = [access for access in accesses if buffer in access.roots]
    for access in here:
        plain = access.operation == (_LOAD if access.effect is MemoryEffect.READ else _STORE)
        if not plain or access.roots != {buffer} or access.bitcast_pointer or access.block_pointer:
            return Objection("it is accessed in another way than by loads and stores of its own", access.location)
    walk = _Walk(module, {(access.operation, access.location) for access in here})
    try:
        walk.kernel()
    except _Unseen as unseen:
        return Objection(str(unseen), unseen.location)
    return _judged(walk.events)


def _judged(events: list[_Event]) -> Objection | None:
    stored: list[_Event] = []
    for event in events:
        if event.is_store:
            stored.append(event)
        elif stored:
            return Objection("it is loaded after a store to it, which this load may read", event.location)
    loads = [event for event in events if not event.is_store]
    for store in stored:
        if any(set(store.loops) & set(load.loops) for load in loads):
            return Objection(
                "a loop holds both a load of it and a store to it, which the next turn may read", store.location
            )
        if not any(store.pointer is load.pointer and store.mask is load.mask for load in loads):
            return Objection("this store does not go to the place of a load, under its mask", store.location)
    return None


class _Unseen(Exception):
    """The order of accesses cannot be told."""

    def __init__(self, why: str, location: Location | None) -> None:
        super().__init__(why)
        self.location = location


class _Walk:
    """Steps through a kernel in program order; calls are followed, branches one after the other."""

    def __init__(self, module: Module, places: set[tuple[str, Location]]) -> None:
        self._places = places
        self._terms = Terms()
        self._side = Side(module, self._terms)
        self._module = module
        self._count = 0
        self.events: list[_Event] = []

    def kernel(self) -> None:
        kernel = self._module.kernel
        arguments = (self._terms.term("parameter", str(i), p.type) for i, p in enumerate(kernel.parameters))
        frame = {p.value: argument for p, argument in zip(kernel.parameters, arguments, strict=True)}
        self._blocks(kernel.body, frame, ())

    def _blocks(self, region: Region, frame: dict[Value, Expression], loops: tuple[int, ...]) -> None:
        blocks = region.reachable()
        if any(_goes_back(blocks, block) for block in blocks):
            raise _Unseen("its accesses stand in a loop whose order cannot be told", None)
        for block in blocks:
            for argument in block.arguments:
                frame.setdefault(argument, self._fresh("block argument", argument))
            for operation in block.operations:
                self._step(operation, frame, loops)

    def _step(self, operation: Operation, frame: dict[Value, Expression], loops: tuple[int, ...]) -> None:
        if operation.name in _ENDS:
            return
        if self._side.is_pure(operation):
            self._side.define(operation, frame)
            return
        if operation.name == CALL:
            self._call(operation, frame, loops)
            return
        if (operation.name, operation.location) in self._places:
            self._note(operation, frame, loops)
        for region in operation.regions:
            inside = (*loops, self._next()) if operation.name in ("scf.for", "scf.while") else loops
            self._blocks(region, frame, inside)
        for result in operation.results:
            frame[result] = self._fresh(operation.name, result)

    def _call(self, operation: Operation, frame: dict[Value, Expression], loops: tuple[int, ...]) -> None:
        function = self._side.callee(operation)
        if self._next() > _MOST_STEPS:
            raise _Unseen("it is accessed through too many calls", operation.location)
        arguments = values_of(operation, frame)
        inner = {p.value: argument for p, argument in zip(function.parameters, arguments, strict=True)}
        self._blocks(function.body, inner, loops)
        returned = [op for block in function.body.reachable() for op in block.operations if op.name == RETURN]
        for index, result in enumerate(operation.results):
            known = inner.get(returned[0].operands[index]) if len(returned) == 1 else None
            frame[result] = known if known is not None else self._fresh(operation.name, result)

    def _note(self, operation: Operation, frame: Mapping[Value, Expression], loops: tuple[int, ...]) -> None:
        operands = values_of(operation, frame)
        is_store = operation.name == _STORE
        rest = operands[2:] if is_store else operands[1:]
        self.events.append(_Event(is_store, operands[0], rest[0] if rest else None, loops, operation.location))

    def _fresh(self, what: str, value: Value) -> Expression:
        return self._terms.term(what, f"at {self._next()}", value.type)

    def _next(self) -> int:
        self._count += 1
        return self._count


_MOST_STEPS = 200_000
_ENDS = frozenset({RETURN, "scf.yield", "scf.condition", "cf.br", "cf.cond_br"})


def _goes_back(blocks: tuple[Block, ...], block: Block) -> bool:
    """Whether control may go back from a block to itself or to one before it."""
    order = {each.label: index for index, each in enumerate(blocks)}
    return any(order[label] <= order[block.label] for label in _successors(block))


def _successors(block: Block) -> Iterator[str]:
    for operation in block.operations:
        yield from (successor.label for successor in operation.successors)
