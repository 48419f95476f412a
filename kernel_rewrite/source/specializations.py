"""The ways a kernel can be compiled, enumerated so that every decision its compile-time branches can take is seen."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from kernel_rewrite.model import Closure, Dtype, Evidence, FunctionRef, Location, ParameterFact, Specialization
from kernel_rewrite.source.autotune import HeuristicKind, Tuning
from kernel_rewrite.source.branches import ELEMENT_TYPE, MODULE_CONSTANT, RUNTIME, Pointer, Site, Trace, Tracer
from kernel_rewrite.source.launches import Launch
from kernel_rewrite.source.names import locals_of
from kernel_rewrite.source.signatures import (
    DTYPE_NAMES,
    NO_OVERRIDES,
    Overrides,
    Signature,
    infer,
)

LIMIT = 32
"""How many specializations a plan holds."""

MAXIMUM_TRACES = 600
"""How many assignments are traced in search of new decisions."""

MAXIMUM_EXTRA_TRACES = 100
"""How many more are traced once there are too many to keep."""

Assignment = tuple[tuple[str, object], ...]
"""What differs from the base: (axis, choice) pairs in order. An axis is a parameter or "autotune"."""


class Failure(Protocol):
    """What is read of a `ttir.lower.LoweringFailure`."""

    @property
    def message(self) -> str: ...
    @property
    def error(self) -> str: ...
    @property
    def places(self) -> tuple[Location, ...]: ...


AUTOTUNE = "autotune"
ABSENT = "absent"
TYPE_OF = "type of "
"""Before a parameter's name: the axis of its element types, for kernels that ask for them."""

FLOATS = ("fp32", "fp16", "bf16")
ELEMENTS = (*FLOATS, "fp64", "i32", *(short for short in DTYPE_NAMES if short not in (*FLOATS, "fp64", "i32")))
"""The element types to try for what a kernel writes, and for what it only reads: there, all that Triton has."""


@dataclass(frozen=True, slots=True)
class SpecializationPlan:
    """The specializations to prove and validate, the base first.

    `complete` says that they take every combination of compile-time decisions that the known values allow. `undecided`
    are the sides of compile-time tests (with the outcome) that none of them takes. `opaque` are tests that may be
    decided at compile time in a way that could not be followed. `unknown` are constexpr parameters without any value.
    `spare` are combinations of what `specializations` takes one by one, for when those do not compile.
    """

    specializations: tuple[Specialization, ...]
    complete: bool
    signature: Signature
    undecided: tuple[tuple[Site, bool], ...] = ()
    opaque: tuple[Site, ...] = ()
    unknown: tuple[str, ...] = ()
    typed: bool = False
    """Whether some test asks for an element type: then what holds for the types at hand may not hold for others."""
    spare: tuple[Specialization, ...] = ()
    search: _Search | None = field(default=None, repr=False, compare=False)

    def of_at_most(self, limit: int) -> SpecializationPlan:
        """The plan for the same parameters with fewer specializations, of those that were found for this one."""
        assert self.search is not None
        return _planned(self.search, limit)

    @property
    def base(self) -> Specialization:
        return self.specializations[0]

    @property
    def facts(self) -> tuple[ParameterFact, ...]:
        return self.signature.facts


def specializations(
    closure: Closure,
    launches: tuple[Launch, ...] = (),
    tuning: Tuning = Tuning(),
    overrides: Overrides = NO_OVERRIDES,
    limit: int = LIMIT,
) -> SpecializationPlan:
    """The plan for the closure's kernel, as launched by `launches` and decorated with `tuning`."""
    signature = infer(closure, launches, tuning, overrides)
    return plan(closure, signature, limit)


def plan(closure: Closure, signature: Signature, limit: int = LIMIT) -> SpecializationPlan:
    """The plan for parameters already inferred (or repaired)."""
    axes = _Axes(signature)
    return _planned(_Search(axes, *_explore(closure, axes)), limit)


@dataclass(frozen=True, slots=True)
class _Search:
    """What was found among the axes of a kernel, and whether that is all; plans of any size are made of it."""

    axes: _Axes
    found: list[tuple[Assignment, Trace]]
    exhausted: bool


def _planned(search: _Search, limit: int) -> SpecializationPlan:
    axes, found, exhausted, signature = search.axes, search.found, search.exhausted, search.axes.signature
    base = axes.specialization(())
    chosen, spare, whole = _chosen(found, limit)
    sides = {side for _, t in found for side in t.sides}
    untaken = {(site, not outcome) for site, outcome in sides if (site, not outcome) not in sides}
    undecided = tuple(sorted(side for side in untaken if not _settled(side[0], found, axes, exhausted)))
    result = {_identity(base): base}
    for assignment in chosen:
        specialization = axes.specialization(assignment)
        result.setdefault(_identity(specialization), specialization)
    for index in range(1, len(axes.configs)):
        if len(result) >= limit:
            break
        specialization = axes.specialization(((AUTOTUNE, index),))
        result.setdefault(_identity(specialization), specialization)
    others = (axes.specialization(assignment) for assignment in spare)
    spared = {_identity(other): other for other in others if _identity(other) not in result}
    unknown = tuple(p.name for p in signature.parameters if p.kind == "constexpr" and not p.values)
    opaque = tuple(sorted({site for _, t in found for site in t.opaque}))
    complete = exhausted and whole and not opaque
    typed = any(ELEMENT_TYPE in names for _, t in found for names in t.dependencies.values())
    more = tuple(spared.values())[: LIMIT - len(result)]
    every = tuple(result.values())
    return SpecializationPlan(every, complete, signature, undecided, opaque, unknown, typed, more, search)


def impossible(failure: Failure, current: SpecializationPlan, closure: Closure) -> bool:
    """Whether no launch can take the decisions of a specialization that Triton rejects: under them the kernel raises, or
    reads a local variable that was never assigned, whatever the types of its arguments are."""
    if "unsupported AST node type: Raise" in failure.message:  # raise ValueError: nothing compiles that
        return not current.opaque and not current.typed
    match = re.fullmatch(r"(\w+) is not defined", failure.message)
    if match is None or failure.error != "NameError" or current.typed or current.opaque or not failure.places:
        return False
    place = failure.places[0]
    for function in closure.functions:
        node = function.node
        if function.ref.file == place.file and node.lineno <= place.line <= (node.end_lineno or node.lineno):
            return match[1] in locals_of(node) and match[1] not in closure.bindings.get(function.ref.file, {})
    return False


def _settled(site: Site, found: list[tuple[Assignment, Trace]], axes: _Axes, exhausted: bool) -> bool:
    """Whether a test depends only on what no launch can change, the autotuner's values or those given by the user, or on
    element types of which all were tried."""
    signature = axes.signature
    fixed = {Evidence.OVERRIDE, Evidence.AUTOTUNE} if signature.tuning.complete else {Evidence.OVERRIDE}
    names = frozenset().union(*(trace.dependencies.get(site, frozenset()) for _, trace in found))
    tried = {
        n for n, types in axes.elements.items() if exhausted and ELEMENT_TYPE in names and len(types) == len(ELEMENTS)
    }
    names = names - {ELEMENT_TYPE} - tried
    return MODULE_CONSTANT not in names and all(signature[name].evidence in fixed for name in names)


def _identity(specialization: Specialization) -> str:
    return repr((specialization.signature, specialization.constexprs))


# ----------------------------------------------------------------------------------------- choices and what they mean


class _Axes:
    """What can be chosen, and the specialization that a choice makes."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.configs: list[dict[str, object]] = []
        tuned = {p.name for p in signature.parameters if p.kind == "constexpr" and p.evidence is Evidence.AUTOTUNE}
        for config in signature.tuning.configs:
            values = {n: v for n, v in {**config.options, **config.values}.items() if n in tuned}
            if values not in self.configs:
                self.configs.append(values)
        self.tuned = tuned
        self.presence = _presence_flags(signature)
        self.choices: dict[str, tuple[object, ...]] = {}
        for parameter in signature.parameters:
            if parameter.name in tuned and signature.tuning.complete:
                continue
            if parameter.kind == "constexpr" and len(parameter.values) > 1:
                self.choices[parameter.name] = parameter.values[1:]
            elif parameter.kind != "constexpr" and parameter.optional:
                self.choices[parameter.name] = (ABSENT,)
        self.elements = {
            p.name: FLOATS if signature.usage.of(p.name).written else ELEMENTS
            for p in signature.parameters
            if p.kind in ("pointer", "scalar") and p.evidence is not Evidence.OVERRIDE
        }
        if len(self.configs) > 1:
            self.choices[AUTOTUNE] = tuple(range(1, len(self.configs)))

    def axis(self, parameter: str) -> tuple[str, ...]:
        """The axes that can change `parameter`."""
        names = [parameter] if parameter in self.choices else []
        if parameter in self.tuned and AUTOTUNE in self.choices:
            names.append(AUTOTUNE)
        return tuple(names)

    def values(self, assignment: Assignment) -> tuple[dict[str, object], set[str]]:
        """The constexpr values of an assignment and the parameters that are None."""
        chosen = dict(assignment)
        config = self.configs[_index(chosen.get(AUTOTUNE, 0))] if self.configs else {}
        values: dict[str, object] = {}
        absent = {name for name, choice in assignment if choice is ABSENT}
        for parameter in self.signature.parameters:
            if parameter.kind != "constexpr":
                continue
            default = parameter.values[0] if parameter.values else None
            values[parameter.name] = config.get(parameter.name, default)
            if parameter.name in chosen:
                values[parameter.name] = chosen[parameter.name]
        for flag, (pointer, present) in self.presence.items():
            if pointer in absent and flag not in chosen:
                values[flag] = not present
            elif flag in values and flag not in chosen and pointer not in absent:
                values[flag] = present
        return values, absent

    def specialization(self, assignment: Assignment) -> Specialization:
        values, absent = self.values(assignment)
        chosen = dict(assignment)
        signature: list[tuple[str, object]] = []
        constexprs: list[tuple[str, object]] = []
        for parameter in self.signature.parameters:
            name = parameter.name
            if name in absent:
                signature.append((name, "constexpr"))
                constexprs.append((name, None))
            elif parameter.kind == "constexpr":
                signature.append((name, "constexpr"))
                constexprs.append((name, values[name]))
            elif parameter.kind == "descriptor":
                shape = ", ".join(str(_size(b, values)) for b in parameter.block)
                signature.append((name, f"{str(parameter.type)[:-1]}[{shape}]>"))
            elif TYPE_OF + name in chosen:
                signature.append((name, ("*" if parameter.kind == "pointer" else "") + str(chosen[TYPE_OF + name])))
            else:
                signature.append((name, parameter.type))
        return Specialization(tuple(signature), tuple(constexprs), self.origin(assignment))

    def origin(self, assignment: Assignment) -> str:
        parts = []
        chosen = dict(assignment)
        if len(self.configs) > 1:
            parts.append(f"autotune config {_index(chosen.get(AUTOTUNE, 0)) + 1}")
        for name, choice in assignment:
            if name.startswith(TYPE_OF):
                parts.append(f"{name.removeprefix(TYPE_OF)}: {choice}")
            elif name != AUTOTUNE:
                parts.append(f"{name}={'None' if choice is ABSENT else shown(choice)}")
        return ", ".join(parts)

    def arguments(self, assignment: Assignment) -> dict[str, object]:
        """What `branches.trace` runs with."""
        values, absent = self.values(assignment)
        chosen = dict(assignment)
        arguments: dict[str, object] = {}
        for parameter in self.signature.parameters:
            if parameter.name in absent:
                arguments[parameter.name] = None
            elif parameter.kind == "constexpr":
                arguments[parameter.name] = values[parameter.name]
            elif parameter.kind in ("pointer", "scalar") and isinstance(parameter.type, str):
                element = str(chosen.get(TYPE_OF + parameter.name, parameter.type.removeprefix("*")))
                arguments[parameter.name] = Pointer(DTYPE_NAMES.get(element, ""), parameter.kind == "pointer")
            else:
                arguments[parameter.name] = RUNTIME if parameter.kind == "tuple" else Pointer()
        return arguments


def _presence_flags(signature: Signature) -> dict[str, tuple[str, bool]]:
    """Flags that say whether a pointer is given: by a heuristic, or by the launch (`HAS_BIAS=bias is not None`)."""
    found: dict[str, tuple[str, bool]] = {}
    parameters = {p.name: p for p in signature.parameters}
    for heuristic in signature.tuning.heuristics:
        if heuristic.kind is HeuristicKind.PRESENCE and heuristic.parameter in parameters:
            found[heuristic.name] = (heuristic.parameter, heuristic.present)
    for launch in signature.launches:
        for name, fact in launch.facts.items():
            if fact.presence is None or name in found:
                continue
            asked, present = fact.presence
            for other, other_fact in launch.facts.items():
                if other != name and parameters[other].kind != "constexpr" and asked in other_fact.roots:
                    found[name] = (other, present)
                    break
    overridden = {p.name for p in signature.parameters if p.evidence is Evidence.OVERRIDE}
    return {flag: tie for flag, tie in found.items() if flag in parameters and flag not in overridden}


def _index(choice: object) -> int:
    assert isinstance(choice, int)
    return choice


def _size(block: object, values: Mapping[str, object]) -> object:
    return values.get(block, block) if isinstance(block, str) else block


def shown(value: object) -> str:
    """A constexpr value as the user would write it."""
    if isinstance(value, Dtype):
        return f"tl.{value.name}"
    if isinstance(value, FunctionRef):
        return value.name
    return repr(value)


# ------------------------------------------------------------------------------------------------------------- search


def _explore(closure: Closure, axes: _Axes) -> tuple[list[tuple[Assignment, Trace]], bool]:
    """One assignment for each sequence of decisions that is found, and whether the search saw them all."""
    found: dict[tuple[tuple[Site, bool], ...], tuple[Assignment, Trace]] = {}
    fresh: deque[Assignment] = deque([()])
    stale: deque[Assignment] = deque()  # from assignments that took decisions already seen
    seen: set[str] = {repr(())}
    tracer = Tracer(closure)
    sides: set[tuple[Site, bool]] = set()
    budget, extra = MAXIMUM_TRACES, MAXIMUM_EXTRA_TRACES
    while (fresh or stale) and budget > 0:
        budget -= 1
        if len(found) > LIMIT:  # they will not all be used: what is left to find are new sides
            extra -= 1
            if extra < 0 or all((site, not outcome) in sides for site, outcome in sides):
                break
        assignment = fresh.popleft() if fresh else stale.popleft()
        current = tracer.trace(axes.arguments(assignment))
        if assignment and _rejected(current, axes.values(assignment)[0]):
            continue
        queue = stale if current.key in found else fresh
        found.setdefault(current.key, (assignment, current))
        sides |= current.sides
        for neighbour in _neighbours(assignment, current, axes):
            name = repr(neighbour)
            if name not in seen:
                seen.add(name)
                queue.append(neighbour)
    return list(found.values()), not fresh and not stale


def _rejected(current: Trace, values: Mapping[str, object]) -> bool:
    """Whether a `tl.static_assert` rules the assignment out. One about sizes does not: sizes may be wrong guesses,
    while flags and strings take every value that matters."""
    settled = (bool, str, Dtype, type(None))
    fixed = {name for name, value in values.items() if isinstance(value, settled)}
    return any(names and names <= fixed for names in current.rejected)


def _neighbours(assignment: Assignment, current: Trace, axes: _Axes) -> Iterator[Assignment]:
    chosen = dict(assignment)
    typed = {name for names in current.dependencies.values() if ELEMENT_TYPE in names for name in names}
    for parameter in sorted(typed & axes.elements.keys()):
        for element in axes.elements[parameter]:
            if TYPE_OF + parameter not in chosen:
                yield tuple(sorted([*assignment, (TYPE_OF + parameter, element)], key=lambda pair: pair[0]))
    for parameter in sorted(current.consulted):
        for axis in axes.axis(parameter):
            for choice in axes.choices[axis]:
                if axis not in chosen:
                    yield tuple(sorted([*assignment, (axis, choice)], key=lambda pair: pair[0]))


def _chosen(found: list[tuple[Assignment, Trace]], limit: int) -> tuple[list[Assignment], list[Assignment], bool]:
    """All assignments when they fit; else the base, those that show sides not seen yet, greedily, even where these alone are
    more than `limit`, and single changes; then what is left, the shortest first."""
    if len(found) <= limit:
        return [assignment for assignment, _ in found], [], True
    chosen = [found[0][0]]
    covered = set(found[0][1].sides)
    rest = found[1:]
    while len(chosen) < LIMIT and rest:
        best = max(rest, key=lambda item: (len(item[1].sides - covered), -len(item[0])))
        if best[1].sides <= covered:
            break
        chosen.append(best[0])
        covered |= best[1].sides
        rest.remove(best)
    # what more combinations do, the source is searched for
    singles = [assignment for assignment, _ in rest if len(assignment) <= 1]
    combined = sorted((assignment for assignment, _ in rest if len(assignment) > 1), key=len)
    return [*chosen, *singles[: max(0, limit - len(chosen))]], combined, False
