"""Which loads that feed a `tt.dot` get the same elements for many tiles: `rereads(module, loads, changing)`.

A kernel tells its tiles apart by coordinates: its program ids, and what loops, divisions and remainders make of them
(`pid_m = pid // n`, `pid_n = pid % n`). What a load reads is a function of the coordinates that its pointer, its mask and
the branches around it depend on. Where a store depends on a coordinate that these neither hold nor determine, the load
gets the same elements for each of its values. What cannot be followed depends on everything, and is not reported.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from kernel_rewrite.model import Location, MemoryEffect
from kernel_rewrite.ttir.effects import EFFECTS
from kernel_rewrite.ttir.parse import Function, Module, Operation, Region, Value, element_type, lengths_of

Place = tuple[str, Location | None, tuple[Location, ...]]
"""An access: its operation, its location, and the calls that lead to it, outermost first."""


@dataclass(frozen=True, slots=True)
class Coordinate:
    """A number that tells tiles apart; `kind` and `key` tell it from other ones. `axis`: of the program id along it. `name`:
    the source variable, "" where it has none."""

    kind: str
    key: tuple[int, ...]
    name: str = field(default="", compare=False)
    axis: int | None = None


_PROGRAM, _LOOP, _DIVISION, _REMAINDER, _ANYTHING = "program", "loop", "division", "remainder", "anything"
_BASES = frozenset({_PROGRAM, _LOOP})
_SPLITS = {
    "arith.divsi": _DIVISION,
    "arith.divui": _DIVISION,
    "arith.floordivsi": _DIVISION,
    "arith.remsi": _REMAINDER,
    "arith.remui": _REMAINDER,
}
_UNKNOWN = Coordinate(_ANYTHING, ())


@dataclass(frozen=True, slots=True)
class Reread:
    """One load that gets the same `shape` of elements for each value of each of `again`, in a loop or not; `stores` are the
    places of the stores that these coordinates move."""

    load: Place
    again: tuple[Coordinate, ...]
    shape: tuple[int, ...]
    element: str
    in_loop: bool
    stores: tuple[Place, ...]


def rereads(module: Module, loads: Collection[Place], changing: Collection[Place]) -> tuple[Reread, ...]:
    """The rereads among `loads` of the module's kernel. What is loaded at `changing` may be another value each time."""
    if not any(op.name in _DOTS for function in module.functions for op in function.walk()):
        return ()
    walk = _Walk(module, frozenset(changing))
    try:
        walk.kernel()
    except _TooLarge:
        return ()
    origins = _Origins(walk.over, walk.divided)
    found = []
    for place in loads:
        load = walk.loads.get(place)
        if load is None or place not in walk.multiplied or sum(length > 1 for length in load.shape) < 2:
            continue
        moved = {
            coordinate: tuple(store for store, own in walk.stores.items() if coordinate in own)
            for coordinate in origins.missing(load.depends, frozenset().union(*walk.stores.values()))
        }
        if moved:
            again = tuple(sorted(moved, key=lambda c: (c.kind, c.key)))
            stores = tuple(dict.fromkeys(store for coordinate in again for store in moved[coordinate]))
            found.append(Reread(place, again, load.shape, load.element, load.in_loop, stores))
    return tuple(found)


_DOTS = frozenset({"tt.dot", "tt.dot_scaled"})


@dataclass(frozen=True, slots=True)
class _Origins:
    """What each coordinate is made of; of a quotient or a remainder, what it divides as well."""

    over: Mapping[Coordinate, Collection[Coordinate]]
    divided: Mapping[Coordinate, Collection[Coordinate]]

    def lineage(self, coordinates: Iterable[Coordinate]) -> frozenset[Coordinate]:
        """The coordinates, those that they are made of, and so on."""
        found: set[Coordinate] = set()
        pending = list(coordinates)
        while pending:
            coordinate = pending.pop()
            if coordinate not in found:
                found.add(coordinate)
                pending += self.over.get(coordinate, ())
        return frozenset(found)

    def axes(self, coordinate: Coordinate) -> frozenset[int]:
        return frozenset(c.axis for c in self.lineage([coordinate]) if c.axis is not None)

    def bases(self, coordinate: Coordinate) -> frozenset[Coordinate]:
        """The program ids and loop counters that divisions and remainders have made it of."""
        found: set[Coordinate] = set()
        pending, seen = [coordinate], set[Coordinate]()
        while pending:
            part = pending.pop()
            if part.kind in _BASES:
                found.add(part)
            elif part not in seen:
                seen.add(part)
                pending += self.over.get(part, ())
        return frozenset(found)

    def determined(self, coordinates: Iterable[Coordinate]) -> frozenset[Coordinate]:
        """`coordinates`, what a quotient and its remainder determine together, and what is made of these."""
        known = set(coordinates)
        while True:
            quotients = {c.key for c in known if c.kind == _DIVISION}
            pairs = [c for c in known if c.kind == _REMAINDER and c.key in quotients]
            more = {part for pair in pairs for part in self.over[pair]}
            # a loop counter takes many values in one program
            more |= {c for c, over in self.over.items() if c.kind not in _BASES and known.issuperset(over)}
            if more <= known:
                return frozenset(known)
            known |= more

    def missing(self, load: frozenset[Coordinate], stores: frozenset[Coordinate]) -> Iterator[Coordinate]:
        """The coordinates of the stores that what is loaded does not follow."""
        if _UNKNOWN in load:
            return
        known = self.determined(load)
        behind = self.lineage(known)
        for coordinate in stores - behind - {_UNKNOWN}:
            axes = self.axes(coordinate)
            # a coordinate of another loop over the same programs may be the same number
            sharing = any(base.kind in _BASES and self.axes(base) & axes for base in behind)
            if not sharing or (self.bases(coordinate) <= behind and self._of_one_system(coordinate, behind)):
                yield coordinate

    def _of_one_system(self, coordinate: Coordinate, others: Collection[Coordinate]) -> bool:
        """Whether each is divided in one way only: quotients and remainders are then digits, and no digits say anything
        about another one."""
        ways: dict[Coordinate, set[tuple[int, ...]]] = {}
        for split in {*self.lineage([coordinate]), *others}:
            for part in self.divided.get(split, ()):
                ways.setdefault(part, set()).add(split.key)
        return all(len(found) == 1 for found in ways.values())


# ------------------------------------------------------------------------------------------------------------- the walk


@dataclass(frozen=True, slots=True)
class _Fact:
    """What is known of a value: the coordinates and the loads that it depends on, and a number that equal values share."""

    depends: frozenset[Coordinate] = frozenset()
    loaded: frozenset[Place] = frozenset()
    number: int = -1

    def joined(self, *others: _Fact) -> _Fact:
        """What depends on all of them, without a number."""
        return _Fact(
            self.depends.union(*(other.depends for other in others)),
            self.loaded.union(*(other.loaded for other in others)),
        )


@dataclass(frozen=True, slots=True)
class _Loaded:
    depends: frozenset[Coordinate]
    shape: tuple[int, ...]
    element: str
    in_loop: bool


class _TooLarge(Exception):
    """The kernel takes more steps than a note is worth."""


_MOST_STEPS = 200_000

Frame = dict[Value, _Fact]
Returned = list[tuple[_Fact, ...]]


class _Walk:
    """The kernel, helpers where they are called, loops until nothing changes."""

    def __init__(self, module: Module, changing: frozenset[Place]) -> None:
        self.module = module
        self.changing = changing
        self.loads: dict[Place, _Loaded] = {}
        self.stores: dict[Place, frozenset[Coordinate]] = {}
        self.multiplied: set[Place] = set()
        self.over: dict[Coordinate, set[Coordinate]] = {}
        self.divided: dict[Coordinate, set[Coordinate]] = {}
        self._numbers: dict[tuple[object, ...], int] = {}
        self._steps = 0

    def kernel(self) -> None:
        kernel = self.module.kernel
        arguments = tuple(_Fact(number=self._number("parameter", i)) for i in range(len(kernel.parameters)))
        self._function(kernel, arguments, (), _Fact(), False)

    def _number(self, *key: object) -> int:
        return self._numbers.setdefault(key, len(self._numbers))

    def _function(
        self, function: Function, arguments: tuple[_Fact, ...], path: tuple[Location, ...], under: _Fact, looped: bool
    ) -> tuple[_Fact, ...]:
        """What a function returns. `under` is what decides whether it runs, `looped` that it runs in a loop."""
        if len(path) > _DEEPEST:
            raise _TooLarge
        frame: Frame = dict(zip((p.value for p in function.parameters), arguments, strict=True))
        returned: Returned = []
        _Body(self, path, frame, returned).region(function.body, under, looped)
        if len(returned) == 1:
            return returned[0]
        return tuple(facts[0].joined(*facts[1:], under) for facts in zip(*returned, strict=True))

    def step(self) -> None:
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise _TooLarge


_DEEPEST = 32


@dataclass(slots=True)
class _Body:
    """One function in one call."""

    walk: _Walk
    path: tuple[Location, ...]
    frame: Frame
    returned: Returned

    def region(self, region: Region, under: _Fact, looped: bool) -> tuple[_Fact, ...]:
        """What the region yields. Where control branches between its blocks, each of them depends on every condition."""
        blocks = region.reachable()
        if len(blocks) == 1:
            return self._operations(blocks[0].operations, under, looped)
        handed = [(s, op) for block in blocks for op in block.operations for s in op.successors]
        by_label = {block.label: block for block in blocks}
        while True:
            before = dict(self.frame)
            for successor, _ in handed:
                facts = (fact.joined(under) for fact in self._all(successor.operands))
                self._carry(by_label[successor.label].arguments, facts)
            conditions = [self._of(v) for _, op in handed if op.name == "cf.cond_br" for v in op.operands[:1]]
            under = under.joined(*conditions)
            self.returned.clear()
            for block in blocks:
                self._operations(block.operations, under, True)
            if self.frame == before:
                return ()

    def _operations(self, operations: Iterable[Operation], under: _Fact, looped: bool) -> tuple[_Fact, ...]:
        yielded: tuple[_Fact, ...] = ()
        for operation in operations:
            self.walk.step()
            if operation.name in _YIELDS:
                yielded = self._all(operation.operands)
            elif operation.name == "tt.return":
                self.returned.append(self._all(operation.operands))
            elif operation.name == "tt.call":
                self._call(operation, under, looped)
            elif operation.name == "scf.for":
                self._for(operation, under)
            elif operation.name == "scf.while":
                self._while(operation, under)
            elif operation.name == "scf.if":
                self._if(operation, under, looped)
            else:
                self._other(operation, under, looped)
        return yielded

    def _call(self, operation: Operation, under: _Fact, looped: bool) -> None:
        function = self.walk.module.function(operation.callee or "")
        if function is None or not function.blocks:
            self._give(operation, (_Fact(frozenset({_UNKNOWN})),) * len(operation.results))
            return
        path = (*self.path, operation.location) if operation.location else self.path
        self._give(operation, self.walk._function(function, self._all(operation.operands), path, under, looped))

    # scf.for %j = %low to %high step %step iter_args(%q = %init) -> ...
    def _for(self, operation: Operation, under: _Fact) -> None:
        counter, *carried = operation.regions[0].arguments
        low, high, step, *first = self._all(operation.operands)
        # how far it counts is left out: programs that stop earlier read a part of the same elements
        self.frame[counter] = self._counter(counter, low.joined(step))
        last = self._repeated(operation.regions[0], carried, tuple(first), under)
        bounds = low.joined(high, step)
        self._give(operation, tuple(fact.joined(bounds) for fact in last))

    # scf.while (%q = %init) : (T) -> T { ... scf.condition(%c) %q } do { ^bb0(%q): ... scf.yield %q }
    def _while(self, operation: Operation, under: _Fact) -> None:
        before, after = operation.regions
        first = self._all(operation.operands)
        condition = _Fact()
        while True:
            known = dict(self.frame)
            self._carry(before.arguments, first)
            went, *handed = self.region(before, under.joined(condition), True)
            condition = condition.joined(went)
            self._carry(after.arguments, (fact.joined(condition) for fact in handed))
            first = self.region(after, under.joined(condition), True)
            if self.frame == known:
                self._give(operation, tuple(fact.joined(condition) for fact in handed))
                return

    def _repeated(
        self, region: Region, carried: Iterable[Value], handed: tuple[_Fact, ...], under: _Fact
    ) -> tuple[_Fact, ...]:
        """What the arguments that a loop carries come to, from what is handed to them first."""
        carried = tuple(carried)
        while True:
            known = dict(self.frame)
            self._carry(carried, handed)
            handed = self.region(region, under, True)
            if self.frame == known:
                return self._all(carried)

    def _carry(self, arguments: Iterable[Value], facts: Iterable[_Fact]) -> None:
        """Hand values to the arguments of a block. A number that comes in several ways is a coordinate of its own."""
        for argument, fact in zip(arguments, facts, strict=True):
            number = _INTEGER.fullmatch(argument.type)
            self._grow(argument, self._counter(argument, fact) if number else fact.joined())

    def _counter(self, argument: Value, fact: _Fact) -> _Fact:
        """A number that a loop counts: where it starts at some coordinate it is one itself."""
        number = self.walk._number(id(argument), self.path)
        own = Coordinate(_LOOP, (number,), _variable(argument))
        over = fact.depends - {own}
        if not over:
            return _Fact(fact.depends, fact.loaded, number)
        self.walk.over.setdefault(own, set()).update(over)
        return _Fact(frozenset({own}), fact.loaded, number)

    def _if(self, operation: Operation, under: _Fact, looped: bool) -> None:
        condition = self._of(operation.operands[0])
        ways = [self.region(region, under.joined(condition), looped) for region in operation.regions]
        self._give(operation, tuple(condition.joined(*facts) for facts in zip(*ways, strict=True)))

    def _other(self, operation: Operation, under: _Fact, looped: bool) -> None:
        operands = self._all(operation.operands)
        place = (operation.name, operation.location, self.path)
        touch = EFFECTS.get(operation.name)
        together = _Fact().joined(*operands)
        if touch is not None and touch.effect is MemoryEffect.READ and operation.results:
            depends = together.joined(under).depends
            self._note_load(place, operation, depends, looped)
            seen = {_UNKNOWN} if place in self.walk.changing else set()
            facts = _Fact(together.depends | seen, together.loaded | {place})
            self._give(operation, (facts,) * len(operation.results))
            return
        if touch is not None:
            value = None if touch.value is None else touch.value % len(operands)
            placing = [fact for index, fact in enumerate(operands) if index != value]
            self.walk.stores[place] = self.walk.stores.get(place, frozenset()).union(*(f.depends for f in placing))
            self._give(operation, (together.joined(_Fact(frozenset({_UNKNOWN}))),) * len(operation.results))
            return
        if operation.name in _DOTS:
            self.walk.multiplied.update(*(fact.loaded for fact in operands[:2]))
        for region in operation.regions:  # of a reduction, whose operands are the block's own
            for argument in region.arguments:
                self.frame[argument] = _Fact()
            self.region(region, under, looped)
        self._give(operation, (self._computed(operation, operands, together),) * len(operation.results))

    def _note_load(self, place: Place, operation: Operation, depends: frozenset[Coordinate], looped: bool) -> None:
        known = self.walk.loads.get(place)
        type_ = operation.results[0].type
        shape = lengths_of(type_)
        depends = depends | known.depends if known is not None else depends
        self.walk.loads[place] = _Loaded(depends, shape, element_type(type_), looped)

    def _computed(self, operation: Operation, operands: tuple[_Fact, ...], together: _Fact) -> _Fact:
        """A program id, a quotient or a remainder of coordinates, or what depends on its operands."""
        if operation.name == "tt.get_program_id":
            axis = _AXES.get(operation.attributes.strip()[:1])
            if axis is None:
                return _Fact(frozenset({_UNKNOWN}))
            number = self.walk._number(_PROGRAM, axis)
            coordinate = Coordinate(_PROGRAM, (axis,), _called(operation), axis)
            return _Fact(frozenset({coordinate}), number=number)
        numbers = tuple(fact.number for fact in operands)
        plain = -1 not in numbers and len(operation.results) == 1 and not operation.regions
        here = (operation.name, operation.attributes, operation.results[0].type, *numbers) if plain else ()
        number = self.walk._number(*(here or (id(operation), self.path))) if operation.results else -1
        kind = _SPLITS.get(operation.name)
        if kind is None or not operands[0].depends or _UNKNOWN in together.depends:
            return _Fact(together.depends, together.loaded, number)
        key = numbers if plain else (number,)
        split = Coordinate(kind, key, _called(operation))
        self.walk.over.setdefault(split, set()).update(together.depends - {split})
        self.walk.divided.setdefault(split, set()).update(operands[0].depends - {split})
        return _Fact(frozenset({split}), together.loaded, number)

    # -- facts

    def _of(self, value: Value) -> _Fact:
        return self.frame.get(value, _Fact())

    def _all(self, values: Iterable[Value]) -> tuple[_Fact, ...]:
        return tuple(map(self._of, values))

    def _grow(self, value: Value, fact: _Fact) -> None:
        known = self.frame.get(value)
        number = fact.number if fact.number >= 0 else self.walk._number(id(value), self.path)
        if known is not None:
            fact, number = known.joined(fact), known.number if known.number == number else number
        self.frame[value] = _Fact(fact.depends, fact.loaded, number)

    def _give(self, operation: Operation, facts: Iterable[_Fact]) -> None:
        for result, fact in zip(operation.results, facts, strict=True):
            number = fact.number if fact.number >= 0 else self.walk._number(id(result), self.path)
            self.frame[result] = _Fact(fact.depends, fact.loaded, number)


_YIELDS = frozenset({"scf.yield", "scf.condition", "tt.reduce.return", "tt.scan.return", "tt.map_elementwise.return"})
_INTEGER = re.compile(r"i\d+|index")
_AXES: Mapping[str, int] = {"x": 0, "y": 1, "z": 2}


def _called(operation: Operation) -> str:
    """The source variable that a value was last bound to; "" for a part of an expression."""
    return next(iter(operation.location_names), "")


def _variable(value: Value) -> str:
    """The source variable that a region's argument is named after; "" for a number."""
    stem, _, suffix = value.name[1:].rpartition("_")
    name = stem if stem and suffix.isdigit() else value.name[1:]
    return "" if name.isdigit() or name.startswith("arg") else name
