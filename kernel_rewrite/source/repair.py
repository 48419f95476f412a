"""Guesses put right by what Triton says about them.

A guessed type or value that is wrong usually makes Triton reject the kernel, with a message and a line. `repair` lists
other specializations to try, the likeliest first; only what was weakly inferred is ever changed.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from kernel_rewrite.model import Closure, Dtype, Evidence, Function, FunctionRef, Location, Specialization
from kernel_rewrite.source.branches import RUNTIME, Pointer, Tracer
from kernel_rewrite.source.signatures import DTYPE_NAMES, FLOAT_TYPES, Parameter, Signature
from kernel_rewrite.source.specializations import Failure, SpecializationPlan, plan

TRIES = 30

_SURE = frozenset((Evidence.OVERRIDE, Evidence.AUTOTUNE))
_FIRM = frozenset((Evidence.LAUNCH, Evidence.ALLOCATION, Evidence.DEFAULT))


@dataclass(frozen=True, slots=True)
class _Change:
    """One parameter with another type, or another constexpr value."""

    parameter: str
    type: str | None = None
    value: object = None
    constexpr: bool = False

    def apply(self, specialization: Specialization) -> Specialization:
        if self.constexpr:
            values = {**dict(specialization.constexprs), self.parameter: self.value}
            changed = specialization.with_types(**{self.parameter: "constexpr"})
        else:
            values = {k: v for k, v in specialization.constexprs if k != self.parameter}
            changed = specialization.with_types(**{self.parameter: self.type})
        ordered = tuple(
            (name, values[name]) for name, kind in changed.signature if kind == "constexpr" and name in values
        )
        return replace(changed, constexprs=ordered)


def repair(
    failure: Failure, specialization: Specialization, closure: Closure, signature: Signature
) -> Iterator[Specialization]:
    """Other specializations to try after `failure`, likeliest first, each different from `specialization`."""
    tried = {repr((specialization.signature, specialization.constexprs))}
    for changes in _Repairer(failure, specialization, closure, signature).candidates():
        candidate = specialization
        for change in changes:
            candidate = change.apply(candidate)
        identity = repr((candidate.signature, candidate.constexprs))
        if identity not in tried:
            tried.add(identity)
            yield candidate


def search(
    closure: Closure,
    signature: Signature,
    specialization: Specialization,
    failure: Failure,
    lower: Callable[[Specialization], Failure | None],
    tries: int = TRIES,
) -> Specialization | None:
    """A specialization near `specialization` that `lower` accepts (returns None for), within `tries` attempts.

    A candidate that fails later in the kernel than the one before counts as progress and becomes the new start.
    """
    current, known = specialization, {repr((specialization.signature, specialization.constexprs))}
    while tries > 0:
        progress = False
        for candidate in repair(failure, current, closure, signature):
            identity = repr((candidate.signature, candidate.constexprs))
            if identity in known:
                continue
            known.add(identity)
            tries -= 1
            result = lower(candidate)
            if result is None:
                return candidate
            if _position(result, closure) > _position(failure, closure):
                current, failure, progress = candidate, result, True
                break
            if tries <= 0:
                return None
        if not progress:
            return None
    return None


class Effort:
    """How many statements may still be compiled in tries, those of a static loop each time: not seconds, so that the answer
    does not depend on the machine."""

    def __init__(self, statements: int) -> None:
        self.left = statements

    def note(self, kind: str, statements: int) -> None:
        """After a try of so many statements. One that did not just fail ("rejected") but was too long, or made the compiler
        hang or crash, is the last."""
        self.left = self.left - statements if kind in ("", "rejected") else 0


def adopt(signature: Signature, base: Specialization, repaired: Specialization) -> Signature:
    """`signature` with the types and first values that `repaired` changed."""
    types, values = dict(repaired.signature), dict(repaired.constexprs)
    old_types, old_values = dict(base.signature), dict(base.constexprs)
    parameters = []
    for parameter in signature.parameters:
        name = parameter.name
        kind, old = types[name], old_types[name]
        if kind == "constexpr" and (kind != old or _differ(values.get(name), old_values.get(name))):
            first = values.get(name)
            kept = [v for v in parameter.values if _differ(v, first)] if old == "constexpr" else []
            if parameter.evidence is Evidence.GUESS or (
                parameter.values and type(parameter.values[0]) is not type(first)
            ):
                kept = [v for v in kept if type(v) is type(first)]
            parameters.append(
                replace(parameter, kind="constexpr", type="constexpr", values=(first, *kept), evidence=Evidence.REPAIR)
            )
        elif kind != old:
            changed = "pointer" if isinstance(kind, str) and kind.startswith("*") else "scalar"
            if parameter.kind == "descriptor" and isinstance(kind, str):
                kind, changed = kind.split("[")[0] + ">", "descriptor"
            parameters.append(replace(parameter, kind=changed, type=kind, values=(), evidence=Evidence.REPAIR))
        else:
            parameters.append(parameter)
    return replace(signature, parameters=tuple(parameters))


def repaired_plan(
    closure: Closure,
    current: SpecializationPlan,
    failure: Failure,
    lower: Callable[[Specialization], Failure | None],
    tries: int = TRIES,
) -> SpecializationPlan | None:
    """A new plan whose base `lower` accepts, after `failure` of `current`'s base; None when none is found."""
    repaired = search(closure, current.signature, current.base, failure, lower, tries)
    if repaired is None:
        return None
    return plan(closure, adopt(current.signature, current.base, repaired))


class Alternatives:
    """Rejected specializations put right one after another: what helped one is tried first on the next. Each keeps the
    compile-time decisions that it was made for."""

    def __init__(self, closure: Closure, signature: Signature) -> None:
        self.closure = closure
        self.signature = signature
        self.tracer = Tracer(closure)
        self.helped: list[dict[str, object]] = []

    def repaired(
        self,
        failure: Failure,
        failed: Specialization,
        lower: Callable[[Specialization], Failure | None],
        tries: int = 10,
    ) -> Specialization | None:
        """A specialization that takes the decisions of `failed` and that `lower` accepts; None when none is found."""
        decisions = self.decisions(failed)

        def accepted(candidate: Specialization) -> Failure | None:
            return lower(candidate) if self.decisions(candidate) == decisions else failure

        for types in self.helped:
            candidate = failed.with_types(**{n: t for n, t in types.items() if failed.type_of(n) != "constexpr"})
            if candidate != failed and accepted(candidate) is None:
                return candidate
        found = search(self.closure, self.signature, failed, failure, accepted, tries)
        if found is not None:
            changed = {n: t for n, t in found.signature if t != failed.type_of(n) and t != "constexpr"}
            self.helped += [changed] if changed else []
        return found

    def decisions(self, specialization: Specialization) -> object:
        values = dict(specialization.constexprs)
        arguments: dict[str, object] = {}
        for name, kind in specialization.signature:
            if kind == "constexpr":
                arguments[name] = values.get(name)
            elif isinstance(kind, str) and not kind.startswith("tensordesc"):
                element = kind.removeprefix("*")
                arguments[name] = Pointer(DTYPE_NAMES.get(element, ""), kind.startswith("*"))
            else:
                arguments[name] = RUNTIME if isinstance(kind, tuple) else Pointer()
        return self.tracer.trace(arguments).key


def _differ(one: object, other: object) -> bool:
    return type(one) is not type(other) or one != other


def _position(failure: Failure, closure: Closure) -> tuple[int, int]:
    """How far Triton came: the place in the kernel itself."""
    for place in reversed(failure.places):
        if place.file == closure.kernel.ref.file:
            return place.line, len(failure.places)
    return 0, 0


# --------------------------------------------------------------------------------------------------------- candidates

_TYPE_WORDS: Mapping[str, str] = {
    "fp16": "fp16", "bf16": "bf16", "fp32": "fp32", "fp64": "fp64", "int8": "i8", "int16": "i16", "int32": "i32",
    "int64": "i64", "uint8": "u8", "uint16": "u16", "uint32": "u32", "uint64": "u64", "int1": "i1",
    "fp8e4nv": "fp8e4nv", "fp8e5": "fp8e5", "fp8e4b8": "fp8e4b8",
}  # fmt: skip
_BY_WIDTH = {
    1: ("i1",),
    8: ("fp8e4nv", "u8", "i8"),
    16: ("fp16", "bf16", "i16"),
    32: ("i32", "fp32", "u32"),
    64: ("i64", "fp64"),
}
_STRINGS = ("ieee", "tf32", "relu", "none", "sum", "mean")
_SIZES = (64, 32, 16, 128, 8, 4, 2, 1, 256, 512)


class _Repairer:
    def __init__(
        self, failure: Failure, specialization: Specialization, closure: Closure, signature: Signature
    ) -> None:
        self.failure = failure
        self.message = failure.message
        self.closure = closure
        self.signature = signature
        self.values = dict(specialization.constexprs)
        self.types = dict(specialization.signature)
        self.blamed = self._blamed()
        self.parameters = [signature[name] for name in self.blamed]

    # whom to blame ---------------------------------------------------------------------------------------------------

    def _blamed(self) -> list[str]:
        """The kernel's parameters behind the failing line, nearest first, then all others."""
        found: dict[str, None] = {}
        kernel = self.closure.kernel
        named = re.search(r"(?:variable|[Mm]ismatched type for|name) `?'?(\w+)", self.message)
        if named:
            for name in _behind(kernel.node, {named[1]}):
                found.setdefault(name)
        for place in reversed(self.failure.places):
            function = self._function_at(place)
            if function is not kernel:
                continue
            statement = _statement_at(function.node, place.line)
            if statement is not None:
                names = _ordered_names(statement, place)
                for name in _behind(kernel.node, dict.fromkeys(names)):
                    found.setdefault(name)
            break
        return [name for name in found if name in self.types] + [n for n in self.types if n not in found]

    def _function_at(self, place: Location) -> Function | None:
        for function in self.closure.functions:
            node = function.node
            if function.ref.file == place.file and node.lineno <= place.line <= (node.end_lineno or node.lineno):
                return function
        return None

    def movable(self, *kinds: str) -> list[Parameter]:
        """The parameters of these kinds whose type or value may be changed: guesses before readings."""
        chosen = [p for p in self.parameters if p.kind in kinds and p.evidence not in _SURE]
        return [p for p in chosen if p.evidence not in _FIRM] + [p for p in chosen if p.evidence in _FIRM]

    # candidates by message -------------------------------------------------------------------------------------------

    def candidates(self) -> Iterator[tuple[_Change, ...]]:
        yield from self.by_message()
        yield from self.generic()

    def by_message(self) -> Iterator[tuple[_Change, ...]]:
        message = self.message
        if self.failure.error == "CompileTimeAssertionFailure" or "static_assert" in message:
            yield from self.assertion()
        if found := re.search(r"Cannot bitcast data-type of size (\d+) to data-type of size (\d+)", message):
            for element in _BY_WIDTH.get(int(found[2]), ()):
                yield from self.elements(element)
        if "Mask must have boolean" in message:
            yield from self.elements("i1")
        if found := re.search(r"type (fp8\w+) not supported in this architecture.*\(([^)]*)\)", message):
            supported = re.findall(r"fp8\w+", found[2])
            for element in ("fp8e4nv", "fp8e5"):
                if element in supported:
                    yield self.instead_of(found[1], element)
        if found := re.search(r"Scalar (-?\d+) is out of range for type (u?)int(\d+)", message):
            value = int(found[1])
            for element in ("i32", "u32", "i64", "u64", "i16", "u16"):
                if _fits(value, element):
                    yield from self.integers(element)
        if found := re.search(r"[Bb]oth operands must be same dtype\. Got (\w+) and (\w+)", message):
            for word in (found[1], found[2], "fp16", "bf16", "fp32"):
                if word in _TYPE_WORDS:
                    yield from self.all_floats(_TYPE_WORDS[word])
                    yield from self.elements(_TYPE_WORDS[word])
        if re.search(r"initial type <?\[?.*int32>? but is re-?assigned to .*fp", message) or (
            "acc" in message and "int32" in message
        ):
            yield self.dot_operands("i8")  # acc = tl.zeros(..., tl.int32); acc += tl.dot(a, b)
        if found := re.search(r"initial type <?\[?.*?(\w+)>? but is re-?assigned to <?\[?.*?(\w+)>? in", message):
            word = _TYPE_WORDS.get(found[2])
            if word:
                yield from self.retyped(word)
        for found_words in re.findall(r"(?:type|and|then|else)\s+`?<?\[?[^a-z]*((?:bf|fp|u?int)\d+\w*)", message):
            if found_words in _TYPE_WORDS and "type" in message.lower() and "ismatch" in message:
                yield from self.retyped(_TYPE_WORDS[found_words])
        if "pointer<" in message or "ptr type" in message or "Expected pointer" in message:
            yield from self.kinds()
        if re.search(r"arange|power of 2|reshape|incompatible|shape|broadcast|numel|K >= |>= 16", message):
            yield from self.sizes()
        if "has no attribute" in message or "object is not" in message or "NoneType" in message:
            yield from self.attributes()
        if re.search(
            r"unexpected type (fp|bf)\d+|invalid operands|cannot be (used|interpreted)|must be (an )?int|Expected dt",
            message,
        ):
            yield from self.elements("i32")
            for parameter in self.movable("scalar"):
                yield (_Change(parameter.name, "i32" if self.types[parameter.name] in FLOAT_TYPES else "fp32"),)
        if "Expected dtype ['fp32', 'fp64']" in message:
            for parameter in self.movable("scalar", "pointer"):
                yield (self.typed(parameter, "fp32"),)

    def generic(self) -> Iterator[tuple[_Change, ...]]:
        """Any other type or value for the parameters behind the failing line."""
        streams = [self.alternatives(p) for p in self.parameters[:12] if p.evidence not in _SURE]
        for group in itertools.zip_longest(*streams):
            for change in group:
                if change is not None:
                    yield (change,)

    def alternatives(self, parameter: Parameter) -> Iterator[_Change]:
        if parameter.kind == "pointer":
            for element in ("i32", "fp16", "i64", "bf16", "i1", "u8", "i8", "fp32"):
                yield self.typed(parameter, element)
        elif parameter.kind == "scalar":
            for kind in ("fp32", "i32", "*fp32", "i64", "*i32"):
                yield _Change(parameter.name, kind)
            if parameter.optional:
                yield _Change(parameter.name, value=None, constexpr=True)
        elif parameter.kind == "constexpr":
            for value in self.other_values(parameter):
                yield self.valued(parameter, value)

    def other_values(self, parameter: Parameter) -> Iterator[object]:
        current = self.values.get(parameter.name)
        yield from parameter.values[1:]
        if isinstance(current, bool):
            yield not current
            yield from (1, None, 64)
            return
        if current is None:
            yield from (False, 64, 1, Dtype("float32"), True)
        elif isinstance(current, int):
            yield from (v for v in (16, 128, 1, 2, 32, 4, 8) if v != current)
            yield from (False, True, None, Dtype("float32"), "ieee", 0.5)
        elif isinstance(current, float):
            yield from (1, None)
        elif isinstance(current, Dtype):
            for name in ("float16", "float32", "bfloat16", "int32", "int64", "int8"):
                yield Dtype(name)
            yield from (None, 1)
        elif isinstance(current, str):
            yield from (None, Dtype("float32"), 0)
        elif isinstance(current, FunctionRef):
            yield None

    # kinds of change -------------------------------------------------------------------------------------------------

    def typed(self, parameter: Parameter, element: str) -> _Change:
        if parameter.kind == "pointer":
            return _Change(parameter.name, f"*{element}")
        if parameter.kind == "descriptor":
            shape = str(self.types[parameter.name]).partition("[")[2]
            return _Change(parameter.name, f"tensordesc<{element}[{shape}")
        return _Change(parameter.name, element)

    @staticmethod
    def valued(parameter: Parameter, value: object) -> _Change:
        return _Change(parameter.name, value=value, constexpr=True)

    def elements(self, element: str) -> Iterator[tuple[_Change, ...]]:
        """Each pointer near the failure with that element type; also a constexpr dtype."""
        for parameter in self.movable("pointer", "descriptor")[:8]:
            yield (self.typed(parameter, element),)
        for parameter in self.movable("constexpr"):
            if isinstance(self.values.get(parameter.name), Dtype) and element in DTYPE_NAMES:
                yield (self.valued(parameter, Dtype(DTYPE_NAMES[element])),)

    def instead_of(self, old: str, element: str) -> tuple[_Change, ...]:
        """`element` for every pointer of type `old`, and for every constexpr dtype that is it."""
        dtypes = (p for p in self.movable("constexpr") if self.values.get(p.name) == Dtype(DTYPE_NAMES.get(old, "")))
        return (
            *(self.typed(p, element) for p in self.movable("pointer", "descriptor") if self._element(p) == old),
            *(self.valued(p, Dtype(DTYPE_NAMES[element])) for p in dtypes),
        )

    def integers(self, element: str) -> Iterator[tuple[_Change, ...]]:
        for parameter in self.movable("pointer", "scalar"):
            if str(self.types[parameter.name]).removeprefix("*") not in FLOAT_TYPES:
                yield (self.typed(parameter, element),)

    def all_floats(self, element: str) -> Iterator[tuple[_Change, ...]]:
        """Every float pointer that is not read from the source, and every float dtype, at once."""
        changes = [
            self.typed(p, element)
            for p in self.movable("pointer", "descriptor")
            if self._element(p) in FLOAT_TYPES and p.evidence not in _FIRM
        ]
        dtypes = [
            self.valued(p, Dtype(DTYPE_NAMES[element]))
            for p in self.movable("constexpr")
            if isinstance(self.values.get(p.name), Dtype) and p.evidence not in _FIRM
        ]
        yield tuple(changes)
        if dtypes:
            yield (*changes, *dtypes)
            yield tuple(dtypes)

    def dot_operands(self, element: str) -> tuple[_Change, ...]:
        usage = self.signature.usage
        return tuple(self.typed(p, element) for p in self.movable("pointer", "descriptor") if usage.of(p.name).dot)

    def _element(self, parameter: Parameter) -> str:
        kind = str(self.types[parameter.name])
        return kind.removeprefix("*").removeprefix("tensordesc<").partition("[")[0]

    def retyped(self, word: str) -> Iterator[tuple[_Change, ...]]:
        for parameter in self.movable("scalar", "pointer"):
            if (self._element(parameter) in FLOAT_TYPES) == (word in FLOAT_TYPES):
                yield (self.typed(parameter, word),)
        for parameter in self.movable("scalar", "pointer"):
            yield (self.typed(parameter, word),)

    def kinds(self) -> Iterator[tuple[_Change, ...]]:
        """Pointers that are scalars after all, and the reverse."""
        for parameter in self.movable("pointer"):
            element = self._element(parameter)
            yield (_Change(parameter.name, element),)
        for parameter in self.movable("scalar"):
            yield (_Change(parameter.name, f"*{self.types[parameter.name]}"),)
            yield (_Change(parameter.name, "*fp32"),)

    def attributes(self) -> Iterator[tuple[_Change, ...]]:
        """A constexpr of the wrong kind: an int where a dtype, a string or None stands."""
        wants: tuple[object, ...] = (None, Dtype("float32"), "ieee", 64, False)
        if re.search(r"'(lower|upper|startswith)'", self.message):
            wants = _STRINGS
        elif re.search(r"'(element_ty|is_\w+|primitive_bitwidth|scalar|to_ir|name)'", self.message):
            wants = (Dtype("float32"), Dtype("float16"), None)
        for parameter in self.movable("constexpr"):
            for value in wants:
                yield (self.valued(parameter, value),)

    def sizes(self) -> Iterator[tuple[_Change, ...]]:
        """Other sizes: all equal first, then one by one with the sizes of the message."""
        sizes = [
            p for p in self.movable("constexpr")
            if isinstance(self.values.get(p.name), int) and not isinstance(self.values.get(p.name), bool)
        ]  # fmt: skip
        mentioned = [int(n) for n in re.findall(r"\b\d+\b", self.message) if 0 < int(n) <= 4096]
        for parameter in sizes[:5]:
            for value in dict.fromkeys((*mentioned, *_SIZES)):
                if value != self.values[parameter.name]:
                    yield (self.valued(parameter, value),)
                if len(mentioned) + 2 < value.bit_length():
                    break
        if "must fit" in self.message:  # D_TAIL = D_QK - D_V is negative
            for one, other in itertools.permutations(sizes[:6], 2):
                larger = self.values[other.name]
                assert isinstance(larger, int)
                yield (self.valued(one, larger + 64),)
        guessed = [p for p in sizes if p.evidence not in _FIRM]
        for value in (16, 32, 128):
            yield tuple(self.valued(p, value) for p in guessed)

    # static assertions -----------------------------------------------------------------------------------------------

    def assertion(self) -> Iterator[tuple[_Change, ...]]:
        """Values that make the failing `tl.static_assert(CONDITION)` true."""
        for place in self.failure.places:
            function = self._function_at(place)
            call = _call_at(function.node, place.line) if function is not None else None
            if call is None or not call.args:
                continue
            names = [n for n in dict.fromkeys(n.id for n in ast.walk(call.args[0]) if isinstance(n, ast.Name))]
            movable = {p.name: p for p in self.movable("constexpr")}
            chosen = [n for n in names if n in movable][:4]
            literals: list[object] = [n.value for n in ast.walk(call.args[0]) if isinstance(n, ast.Constant)]
            near = [
                v for n in literals if isinstance(n, int) and not isinstance(n, bool) for v in (n * 2, n + 1, n - 1)
            ]
            pool: list[object] = list(dict.fromkeys([*literals, *near, *_SIZES[:8], True, False, None]))[:18]
            found = 0
            ranked = (
                sorted(
                    itertools.product(*([self.values.get(n), *pool] for n in chosen)),
                    key=lambda values: sum(
                        _differ(v, self.values.get(n)) for n, v in zip(chosen, values, strict=False)
                    ),
                )
                if len(chosen) <= 3
                else []
            )
            for values in ranked:
                if _holds(call.args[0], {**self.values, **dict(zip(chosen, values, strict=False))}):
                    yield tuple(self.valued(movable[n], v) for n, v in zip(chosen, values, strict=False))
                    found += 1
                    if found >= 6:
                        break


def _fits(value: int, element: str) -> bool:
    bits = int(element[1:])
    return -(1 << (bits - 1)) <= value < 1 << (bits - 1) if element[0] == "i" else 0 <= value < 1 << bits


def _holds(condition: ast.expr, values: Mapping[str, object]) -> bool:
    """Whether `condition` is true, a small calculator on constexpr values."""
    from kernel_rewrite.source.symbolic import Evaluator, Unknown

    try:
        return bool(Evaluator({}).value(condition, values))
    except Unknown:
        return False


def _statement_at(function: ast.FunctionDef, line: int) -> ast.stmt | None:
    """The innermost statement that covers `line`; of a compound one only its head counts."""
    best: ast.stmt | None = None
    for node in ast.walk(function):
        if isinstance(node, ast.stmt) and node is not function:
            end = node.end_lineno or node.lineno
            if node.lineno <= line <= end and (best is None or node.lineno >= best.lineno):
                best = node
    return best


def _call_at(function: ast.FunctionDef, line: int) -> ast.Call | None:
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and node.lineno <= line <= (node.end_lineno or line):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name == "static_assert":
                return node
    return None


def _ordered_names(statement: ast.stmt, place: Location) -> list[str]:
    """The names a statement reads, those of the failing expression first."""
    parts: list[ast.AST] = [statement]
    if isinstance(statement, (ast.If, ast.While)):
        parts = [statement.test]
    elif isinstance(statement, ast.For):
        parts = [statement]  # loop-carried: what its body assigns
    near: list[str] = []
    rest: list[str] = []
    for part in parts:
        for node in ast.walk(part):
            if isinstance(node, ast.Name):
                hit = node.lineno == place.line and node.col_offset >= place.column
                (near if hit else rest).append(node.id)
    return [*near, *rest]


def _behind(function: ast.FunctionDef, names: object) -> list[str]:
    """The names that the values of `names` are computed from, breadth first, themselves included."""
    assigned: dict[str, list[ast.expr]] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                for part in ast.walk(target):
                    if isinstance(part, ast.Name):
                        assigned.setdefault(part.id, []).append(node.value)
        elif isinstance(node, (ast.AugAssign, ast.AnnAssign)) and isinstance(node.target, ast.Name) and node.value:
            assigned.setdefault(node.target.id, []).append(node.value)
        elif isinstance(node, ast.For) and isinstance(node.target, ast.Name):
            assigned.setdefault(node.target.id, []).append(node.iter)
    order: dict[str, None] = {}
    pending = list(names)  # type: ignore[call-overload]
    while pending:
        name = pending.pop(0)
        if name in order:
            continue
        order[name] = None
        for value in assigned.get(name, []):
            pending += [n.id for n in ast.walk(value) if isinstance(n, ast.Name)]
    return list(order)
