"""Translation validation: the fused TTIR is the original, except that each store to the output stores E(value), and that
the original's own store may stand before it, into a buffer that only the fused kernel has; or that stores to a buffer that
only the original has are gone.

Both kernels are walked side by side. Pure operations become expressions (hash-consed over operation, attributes, type
and operands; calls are followed); what touches memory, prints, asserts or steers control is compared in order, region
by region. Dead arithmetic never takes part; a loop that may not end is no arithmetic. A load's result and a region's
results are named by their place, which is sound because everything before that place has been proved equal and the
output and the buffers that are kept, the only memory that differs, are never read.

The proof holds for all inputs of the specialization. Nothing here knows how the rewriter works.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kernel_rewrite.model import InternalError, Location
from kernel_rewrite.ttir import retyped as retyping
from kernel_rewrite.ttir.parse import (
    UNKNOWN_TYPE,
    Block,
    Function,
    Module,
    Operation,
    Parameter,
    Region,
    Value,
    element_type,
    split_tensor,
    with_shape_of,
)


@dataclass(frozen=True, slots=True, eq=False)
class Expression:
    """A value as a term. Equal terms are one object (see `Terms`), so they are compared by identity."""

    operation: str
    attributes: str = ""
    type: str = ""
    operands: tuple[Expression, ...] = ()
    identity: int = 0


@dataclass(frozen=True, slots=True)
class Carried:
    """A block pointer that a loop moves by the same `steps` at the end of each round: what it is before the loop (`first`),
    the loop's variable, its first value, and what it counts by."""

    first: Expression
    steps: tuple[Expression, ...]
    counter: Expression
    lower: Expression
    by: Expression


COMMUTATIVE = frozenset(
    f"arith.{name}"
    for name in ("addi", "muli", "andi", "ori", "xori", "addf", "mulf", "maxsi", "minsi", "maxui", "minui")
)
"""Operations whose operands may be swapped without changing a bit of the result."""

PURE_PREFIXES = ("arith.", "math.", "ub.")
PURE = frozenset(
    {
        *(f"tt.{name}" for name in ("addptr", "advance", "bitcast", "broadcast", "cat", "clampf", "dot", "dot_scaled")),
        *(
            f"tt.{name}"
            for name in ("expand_dims", "fp_to_fp", "gather", "get_num_programs", "get_program_id", "histogram")
        ),
        *(f"tt.{name}" for name in ("int_to_ptr", "join", "make_range", "make_tensor_descriptor", "make_tensor_ptr")),
        *(
            f"tt.{name}"
            for name in ("mulhiui", "precise_divf", "precise_sqrt", "ptr_to_int", "reduce", "reshape", "scan")
        ),
        *(f"tt.{name}" for name in ("splat", "split", "trans", "unsplat")),
        # a loop that counts ends; `scf.while` may not, so it is never dropped as dead arithmetic
        *("scf.for", "scf.if"),
    }
)
"""Operations that only compute. Anything else is compared in order, as if it had an effect."""

PURE_IF_DECLARED = frozenset({"tt.elementwise_inline_asm", "tt.extern_elementwise"})
"""Foreign code: it only computes when its `pure` attribute says so."""

CALL, RETURN = "tt.call", "tt.return"
_TERMINATORS = frozenset(
    {RETURN, "scf.yield", "scf.condition", "cf.br", "cf.cond_br", "tt.reduce.return", "tt.scan.return"}
)


ELEMENTWISE_PREFIXES = ("arith.", "math.")
ELEMENTWISE = frozenset(
    {"tt.fp_to_fp", "tt.precise_divf", "tt.precise_sqrt", "tt.mulhiui", "tt.clampf", "tt.extern_elementwise"}
)
_SPREADING = frozenset({"tt.splat", "tt.broadcast"})
_NUMBERED = re.compile(r"_\d+$")
_DENSE = re.compile(r"dense<([^\[\]\"]+)>")


class Terms:
    """The table that makes equal expressions one object, and brings a term to its one normal form.

    Spreading a value over a block and computing on it element by element commute, so `splat` and `broadcast` are moved
    outwards: f(splat(a), splat(b)) is splat(f(a, b)), and a constant block is the splat of its scalar.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Expression] = {}
        self._moved: dict[int, Expression] = {}
        self._names: dict[int, str] = {}
        self._named: dict[str, dict[int, Expression]] = {}
        self.carried: dict[Expression, Carried] = {}

    def choices(self, one: Expression, other: Expression) -> list[Expression]:
        """The terms that are `one` where some mask is on, and `other` elsewhere."""
        known = self._known.values()
        return [t for t in known if t.operation == "arith.select" and t.operands[1:] == (one, other)]

    def call_it(self, term: Expression, operation: Operation) -> None:
        """Remember the source variable that `operation` gives its result to, if any."""
        if operation.location_names and len(operation.results) == 1:
            self.name(term, operation.location_names[0])

    def name(self, term: Expression, name: str) -> None:
        self._names.setdefault(term.identity, name)
        self._named.setdefault(name, {})[term.identity] = term

    def carries(self, term: Expression, argument: Value) -> None:
        """Remember that a block's argument is another value of the source variable that it is printed by."""
        name = _NUMBERED.sub("", argument.name.removeprefix("%"))
        if name in self._named:
            self.name(term, name)

    def moves(self, argument: Expression, initial: Expression, step: Expression, loop: Sequence[Expression]) -> None:
        """Remember that a loop starts the pointer `argument` at `initial` and adds `step`, which is the same every time, in
        each round. `loop` is what counts its rounds, where it starts from and what is added to it."""
        self._moved[argument.identity] = self._term(MOVED, "", argument.type, (initial, step, *loop))

    def followed(self, pointer: Expression) -> Expression:
        """A pointer without what loops carry, as far as that is known: where it starts, and how often it was moved on."""
        if pointer.identity in self._moved:
            initial, *rest = self._moved[pointer.identity].operands
            return self._term(MOVED, "", pointer.type, (self.followed(initial), *rest))
        if pointer.operation not in _CARRYING or not pointer.operands:
            return pointer
        first = self.followed(pointer.operands[0])
        if first is pointer.operands[0]:
            return pointer
        return self.term(pointer.operation, pointer.attributes, pointer.type, (first, *pointer.operands[1:]))

    def named(self, name: str) -> tuple[Expression, ...]:
        """The terms that are called by the source variable `name`."""
        return tuple(self._named.get(name, {}).values())

    def shown(self, term: Expression, depth: int = 4) -> str:
        """A term as text, in terms of source variables where they are known, cut below `depth`."""
        inner = (self._shown(operand, depth) for operand in term.operands)
        return self._shown(term, depth) if not term.operands else f"{_bare(term)}({', '.join(inner)})"

    def _shown(self, term: Expression, depth: int) -> str:
        if term.operation == "arith.constant":
            return term.attributes
        if term.identity in self._names:
            return self._names[term.identity]
        if not term.operands:
            return f"{_bare(term)} {term.attributes.strip()}".strip()
        if depth == 0:
            return "..."
        return f"{_bare(term)}({', '.join(self._shown(operand, depth - 1) for operand in term.operands)})"

    def term(
        self, operation: str, attributes: str = "", type_: str = "", operands: Iterable[Expression] = ()
    ) -> Expression:
        operands = tuple(operands)
        if operation in _SPREADING:
            attributes = ""
        if operation == "arith.constant":
            dense = _DENSE.fullmatch(attributes.strip())
            if dense is not None:
                scalar = self._term(operation, dense[1], element_type(type_), ())
                return self._term("tt.splat", "", type_, (scalar,))
            return self._term(operation, attributes.strip(), type_, operands)
        if operation in ("tt.broadcast", "tt.expand_dims", "tt.reshape") and operands[0].operation == "tt.splat":
            return self._term("tt.splat", "", type_, operands[0].operands)
        if operation == "tt.broadcast" and operands[0].operation == "tt.broadcast":
            return self._term(operation, attributes, type_, operands[0].operands)
        if operation.startswith(ELEMENTWISE_PREFIXES) or operation in ELEMENTWISE:
            return self._elementwise(operation, attributes, type_, operands)
        return self._term(operation, attributes, type_, operands)

    def _elementwise(self, operation: str, attributes: str, type_: str, operands: tuple[Expression, ...]) -> Expression:
        spread = [operand for operand in operands if operand.operation in _SPREADING]
        if not operands or len(spread) != len(operands):
            return self._term(operation, attributes, type_, operands)
        element = element_type(type_)
        broadcast = [operand.operands[0] for operand in operands if operand.operation == "tt.broadcast"]
        shapes = {split_tensor(operand.type)[0] for operand in broadcast}
        if not broadcast:  # f(splat(a), splat(b)) -> splat(f(a, b))
            inner = self._elementwise(operation, attributes, element, tuple(o.operands[0] for o in operands))
            return self._term("tt.splat", "", type_, (inner,))
        if len(shapes) > 1:
            return self._term(operation, attributes, type_, operands)
        # f(broadcast(a), splat(b)) -> broadcast(f(a, splat(b)))
        smaller = tuple(
            operand.operands[0]
            if operand.operation == "tt.broadcast"
            else self._term(
                "tt.splat", "", with_shape_of(broadcast[0].type, element_type(operand.type)), operand.operands
            )
            for operand in operands
        )
        inner = self._elementwise(operation, attributes, with_shape_of(broadcast[0].type, element), smaller)
        return self.term("tt.broadcast", "", type_, (inner,))

    def _term(self, operation: str, attributes: str, type_: str, operands: tuple[Expression, ...]) -> Expression:
        if operation in COMMUTATIVE:
            operands = tuple(sorted(operands, key=lambda operand: operand.identity))
        key = (operation, attributes, type_, *[operand.identity for operand in operands])
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = Expression(operation, attributes, type_, operands, len(self._known))
        return known


def _bare(term: Expression) -> str:
    return term.operation.partition(".")[2] or term.operation


def parting(expected: Expression, found: Expression) -> tuple[Expression, Expression]:
    """The innermost pair of subterms that holds the whole difference between two terms."""
    while (expected.operation, expected.attributes, len(expected.operands)) == (
        found.operation,
        found.attributes,
        len(found.operands),
    ):
        pairs = zip(expected.operands, found.operands, strict=True)
        differing = [(mine, theirs) for mine, theirs in pairs if mine is not theirs]
        if len(differing) != 1:
            break
        expected, found = differing[0]
    return expected, found


@dataclass(frozen=True, slots=True)
class Difference:
    """Where the two kernels part. `expected` and `found` are terms of the source, as text. `about_operand`: the place where
    an operand is read could not be confirmed, all else is as planned up to there. `beside`: the other parameter whose stored
    values are not those at the place of the store, which the original alone decides."""

    what: str
    expected: str
    found: str
    location: Location | None = None
    about_operand: bool = False
    beside: str = ""


class _Mismatch(Exception):
    def __init__(self, difference: Difference) -> None:
        super().__init__(difference.what)
        self.difference = difference


OPERAND, OPERAND_LOAD = "operand", "operand load"
"""The operations of terms for a parameter that the fused kernel has beside the original's, and for what is read there."""

MOVED = "moved"
"""The operation of terms for a pointer that a loop moves on: where it starts, what is added in each round, the number that
counts the rounds, where that starts and what is added to it."""

KEPT = "kept"
"""The operation of the term for a parameter of the fused kernel alone that only takes what the original stores."""


@dataclass(frozen=True, slots=True)
class Store:
    """A store to the output as terms: where the original writes, under which mask (None: everywhere), and what each side
    stores. `others` are the remaining operands, `attributes` what else the store says. `beside` are the
    values that the original stores there to other parameters, by their names."""

    pointer: Expression
    mask: Expression | None
    value: Expression
    found: Expression
    others: tuple[Expression, ...] = ()
    attributes: str = ""
    beside: Mapping[str, Expression] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredValue:
    """What may stand in the fused kernel where the original stores a value: one of `candidates`, if no `objection` (in
    words, "" for none) is made to what it reads. `kept` is the parameter of the fused kernel that the original's own
    value must be stored to just before, at the same place ("": none). `beside` are the parameters of the original
    whose values, stored just before at the same place, take part."""

    candidates: Callable[[Terms, Store], Iterator[Expression]]
    objection: Callable[[Terms, Store], str] = lambda terms, store: ""
    kept: str = ""
    beside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Load:
    """A load of an input as terms: where the kernels read, under which mask (None: everywhere), what the fused kernel gets
    there, and what it has read of operands so far in the same block: first what no load uses yet, in order. `attributes`
    are what else the load says, `off` what lanes that are off hold in the fused kernel, if it says so."""

    pointer: Expression
    mask: Expression | None
    value: Expression
    reads: tuple[Expression, ...]
    others: tuple[Expression, ...] = ()
    attributes: str = ""
    off: Expression | None = None


@dataclass(frozen=True, slots=True)
class LoadedValue:
    """What the original's load gives, as a term over what the fused kernel loads: `result`, if no `objection` (in words,
    "" for none) is made to what it reads beside. `element` is the type of what the fused kernel loads, where that is
    another one."""

    result: Callable[[Terms, Load], Expression]
    objection: Callable[[Terms, Load, Expression], str] = lambda terms, load, result: ""
    element: str = ""


class NotPlanned(Exception):
    """A rule cannot say what a load gives, for the reason in its text."""


@dataclass(frozen=True, slots=True)
class ChangedStore:
    """A store to the output that the walk met: the original's location and whether the fused one stores E(value)."""

    location: Location | None


def validate(
    original: Module,
    fused: Module,
    is_output: Callable[[Operation, tuple[Location, ...]], StoredValue | None],
    operands: Collection[str] = (),
    is_input: Callable[[Operation, tuple[Location, ...]], LoadedValue | None] = lambda operation, path: None,
    retyped: Mapping[str, str] = {},
    kept: Collection[str] = (),
    is_beside: Callable[[Operation, tuple[Location, ...]], str] = lambda operation, path: "",
    gone: Collection[str] = (),
    is_dropped: Callable[[Operation], bool] = lambda operation: False,
) -> tuple[tuple[ChangedStore, ...], tuple[Difference, ...]]:
    """The changed stores, and the first difference that is not one (empty when the translation is right).

    `is_output(operation, call_path)` says, for a store of the original kernel, what the fused one may store instead;
    None for a store that must stay as it is. `is_input` says likewise what a load of the original gives, over what the fused
    one loads. `operands` are the parameters that the fused kernel has more: it may read there, and nothing but stores to the
    output and loads of inputs may depend on it. `retyped` gives the parameters that must point to elements of another type
    in the fused kernel, and that type. `kept` are further parameters that the fused kernel has more: what a `StoredValue`
    says is stored there is all that it does with them. `is_beside` says, for a store of the original, which parameter it is
    to, where the values stored there take part in those of outputs: then each of them must, once, in its block. `gone` are
    parameters that only the original has, and `is_dropped` says which stores in its kernel (none in a helper) the fused one
    lacks: those, and no other; then loads that nothing asks for take no part in either kernel.
    """
    walk = _Walk(
        original,
        fused,
        is_output,
        is_input,
        frozenset(operands),
        retyped,
        frozenset(kept),
        is_beside,
        frozenset(gone),
        is_dropped,
    )
    try:
        walk.kernels()
        walk.unused_reads()
        walk.all_taken()
    except _Mismatch as mismatch:
        return tuple(walk.changed), (mismatch.difference,)
    return tuple(walk.changed), ()


def function_terms(module: Module) -> Callable[..., Expression]:
    """The function that the module's kernel calls last, as a function on terms: (terms, one term an argument)."""
    calls = [operation for operation in module.kernel.walk() if operation.name == CALL]
    function = module.function(calls[-1].callee or "") if calls else None
    if function is None or len(function.body.reachable()) != 1:
        raise InternalError("a reference kernel must end by calling a function")

    def apply(terms: Terms, *arguments: Expression) -> Expression:
        side = Side(module, terms)
        parameters = (parameter.value for parameter in function.parameters)
        frame = dict(zip(parameters, arguments, strict=True))
        for operation in function.blocks[0].operations:
            if operation.name == RETURN:
                return frame[operation.operands[0]]
            side.define(operation, frame)
        raise InternalError("the reference function does not return")

    return apply


def operand_of(term: Expression) -> str:
    """The parameter of the fused kernel alone that a pointer, a descriptor or a number comes from; "" for any other."""
    while term.operands and term.operation in (*_CARRYING, OPERAND_LOAD):
        term = term.operands[0]
    return term.attributes if term.operation == OPERAND else ""


def is_added(term: Expression) -> bool:
    """Whether a pointer, a descriptor or a number comes from a parameter of the fused kernel alone."""
    return start_of(term).operation == KEPT or bool(operand_of(term))


def over(base: Expression, pointer: Expression, kept: str, terms: Terms) -> Expression | None:
    """The term of `pointer`, which starts from the parameter `kept` of the fused kernel alone, started from `base`, of the
    very type, instead; None for a pointer that does not start there."""
    start = start_of(pointer)
    return rebased(pointer, start, base, terms) if (start.operation, start.attributes) == (KEPT, kept) else None


def rebased(pointer: Expression, start: Expression, base: Expression, terms: Terms) -> Expression | None:
    """The term of a pointer with `base` for the parameter `start`, of the very type, that it starts from; None for a pointer
    that does not start there."""
    if pointer is start:
        return base if pointer.type == base.type else None
    if pointer.operation not in _CARRYING or not pointer.operands:
        return None
    first = rebased(pointer.operands[0], start, base, terms)
    rest = pointer.operands[1:]
    return first and terms.term(pointer.operation, pointer.attributes, pointer.type, (first, *rest))


def start_of(pointer: Expression) -> Expression:
    """What a pointer or a descriptor starts from."""
    while pointer.operands and pointer.operation in _CARRYING:
        pointer = pointer.operands[0]
    return pointer


def operand_terms(term: Expression) -> Iterator[Expression]:
    """Every operand that a term is made of, each once: what is read of one, or the number that one is."""
    for found in within(term):
        if found.operation == OPERAND_LOAD or (found.operation == OPERAND and not found.type.startswith("!tt.")):
            yield found


def operand_reads(term: Expression) -> Iterator[Expression]:
    """Every read of an operand that a term is made of, each once."""
    return (found for found in within(term) if found.operation == OPERAND_LOAD)


def within(term: Expression) -> Iterator[Expression]:
    """A term and all it is made of, each once; not what the place of a read is made of."""
    pending, seen = [term], {id(term)}
    while pending:
        found = pending.pop()
        yield found
        for operand in found.operands if found.operation != OPERAND_LOAD else ():
            if id(operand) not in seen:
                seen.add(id(operand))
                pending.append(operand)


_CARRYING = frozenset(
    f"tt.{name}"
    for name in (
        *("addptr", "splat", "broadcast", "expand_dims", "reshape", "trans", "make_tensor_ptr", "advance"),
        *("make_tensor_descriptor", "bitcast"),
    )
)


# ------------------------------------------------------------------------------------------------------------- one side


class Side:
    """One kernel: its functions, and the terms of its values. `is_dropped` says which of its stores are as if they were not
    there; then the loads that nothing else asks for are not there either (`without_idle_loads`)."""

    def __init__(
        self, module: Module, terms: Terms, is_dropped: Callable[[Operation], bool] = lambda operation: False
    ) -> None:
        self.module = module
        self.terms = terms
        self._is_dropped = is_dropped
        self._idle: frozenset[Operation] = frozenset()
        self._pure: dict[str, bool] = {}
        self._left_out = 0
        self._level = 0  # how many pure regions enclose the operation, those of the callers counted

    def without_idle_loads(self) -> None:
        """Leave out the loads whose values take part in nothing that is compared. A value of one has a name that the other
        kernel does not have, so that one which does take part in something is a difference."""
        self._idle = _idle_loads(self)

    def is_dropped(self, operation: Operation) -> bool:
        """Whether an operation is as if it were not there."""
        return self._is_dropped(operation) or operation in self._idle

    def leave_out(self, operation: Operation, frame: dict[Value, Expression]) -> None:
        """Put names for the results of such an operation into `frame`."""
        for result in operation.results:
            self._left_out += 1
            frame[result] = self.terms.term("left out", f"{id(self)} {self._left_out}", result.type)

    def callee(self, operation: Operation) -> Function:
        function = self.module.function(operation.callee or "")
        if function is None:
            raise InternalError(f"no function {operation.callee!r} in the lowered module")
        return function

    def reads_operand(self, operation: Operation, frame: Mapping[Value, Expression]) -> bool:
        """Whether `operation` reads a parameter that the fused kernel has more. Nothing writes there, so that what is read
        depends on the place alone, and is a term."""
        if operation.name not in _READS or operation.attribute("isVolatile") == "true":
            return False
        return bool(operand_of(values_of(operation, frame)[0]))

    def define_read(self, operation: Operation, frame: dict[Value, Expression]) -> Expression:
        """Put the term of what is read from an operand into `frame`."""
        operands = values_of(operation, frame)
        attributes = f"{operation.name} {operation.attributes}"
        term = self.terms.term(OPERAND_LOAD, attributes, operation.results[0].type, operands)
        frame[operation.results[0]] = term
        self.terms.call_it(term, operation)
        return term

    def is_pure(self, operation: Operation) -> bool:
        """Whether `operation` only computes: then it is a term, and takes no part in the order of effects."""
        if operation.name == CALL:
            return self._is_pure_function(self.callee(operation))
        if operation.name in PURE_IF_DECLARED:
            return operation.attribute("pure") == "true"
        if not (operation.name in PURE or operation.name.startswith(PURE_PREFIXES)):
            return False
        inner = (op for region in operation.regions for block in region.blocks for op in block.operations)
        simple = all(len(region.blocks) <= 1 for region in operation.regions)
        return simple and all(op.name in _TERMINATORS or self.is_dropped(op) or self.is_pure(op) for op in inner)

    def _is_pure_function(self, function: Function) -> bool:
        if function.name not in self._pure:
            self._pure[function.name] = False  # recursion is no pure term
            blocks = function.body.reachable()
            operations = [op for block in blocks for op in block.operations]
            # a function that is to stay a call is compared as one
            inlined = "noinline = true" not in function.attributes
            self._pure[function.name] = (
                inlined and len(blocks) == 1 and all(op.name == RETURN or self.is_pure(op) for op in operations)
            )
        return self._pure[function.name]

    def define(self, operation: Operation, frame: dict[Value, Expression]) -> None:
        """Put the terms of a pure operation's results into `frame`."""
        if operation.name == CALL:
            found = self._call(operation, frame)
        elif operation.name == "tt.bitcast" and self._stores_bools(operation, frame):
            found = values_of(operation, frame)
        else:
            operands = values_of(operation, frame)
            carried = operands[3:] if operation.name == "scf.for" else ()
            regions = [self._region(region, frame, carried) for region in operation.regions]
            attributes = operation.attributes + "".join(text for text, _ in regions)
            if UNKNOWN_TYPE in operation.result_types:
                attributes += f" : {operation.types}"
            types = retyping.result_types(operation, [o.type for o in operands], regions[0][1] if regions else ())
            found = tuple(
                self.terms.term(operation.name, f"{attributes}{_number(operation, index)}", type_, operands)
                for index, type_ in enumerate(types)
            )
        for result, term in zip(operation.results, found, strict=True):
            frame[result] = term
            self.terms.call_it(term, operation)

    @staticmethod
    def _stores_bools(operation: Operation, frame: Mapping[Value, Expression]) -> bool:
        (pointer,) = values_of(operation, frame)
        return retyping.is_store_of_bools(operation, pointer.type)

    def _call(self, operation: Operation, frame: dict[Value, Expression]) -> tuple[Expression, ...]:
        function = self.callee(operation)
        inner = {
            parameter.value: operand
            for parameter, operand in zip(function.parameters, values_of(operation, frame), strict=True)
        }
        for each in function.blocks[0].operations:
            if each.name == RETURN:
                return values_of(each, inner)
            self.define(each, inner)
        raise InternalError(f"{function.name} does not return")

    def _region(
        self, region: Region, frame: Mapping[Value, Expression], carried: Sequence[Expression] = ()
    ) -> tuple[str, tuple[str, ...]]:
        """A pure region as text that is equal for equal regions, the identities of the terms it yields; and their types.

        Its arguments are named by how many regions enclose them, so that those of an outer loop are never taken for
        those of an inner one, not even when the inner one stands in a helper. `carried` are the first values of a loop's
        arguments, behind the one that counts.
        """
        inner = dict(frame)
        parts = []
        yielded: tuple[str, ...] = ()
        self._level += 1
        for index, argument in enumerate(region.arguments):
            type_ = carried[index - 1].type if carried and index else argument.type
            inner[argument] = self.terms.term("region argument", f"{self._level}.{index}", type_)
        for operation in region.blocks[0].operations if region.blocks else ():
            if operation.name in _TERMINATORS:
                terms = values_of(operation, inner)
                yielded = tuple(term.type for term in terms)
                parts.append(
                    f"{operation.name}{operation.attributes}({','.join(str(term.identity) for term in terms)})"
                )
            elif self.is_dropped(operation):
                self.leave_out(operation, inner)
            else:
                self.define(operation, inner)
        self._level -= 1
        return "{" + ";".join(parts) + "}", yielded


def _idle_loads(side: Side) -> frozenset[Operation]:
    """The loads of the kernel itself that are only for stores which are dropped: no other operation that does something asks
    for their values, on whatever way."""
    asked: set[Operation] = set()
    made: dict[Value, Operation] = {}
    pending: list[Operation] = []

    def look_at(operations: Iterable[Operation]) -> None:
        for operation in operations:
            if side.is_dropped(operation):
                continue
            if _is_quiet(operation, side):
                made.update(dict.fromkeys(operation.results, operation))
            else:
                pending.append(operation)

    look_at(operation for block in side.module.kernel.blocks for operation in block.operations)
    while pending:
        operation = pending.pop()
        if operation in asked:
            continue
        asked.add(operation)
        inside = (
            [operand for inner in operation.walk() for operand in inner.operands] if side.is_pure(operation) else []
        )
        look_at(o for region in operation.regions for block in region.blocks for o in block.operations)
        makers = (made.get(operand) for operand in (*operation.operands, *inside))
        pending += (maker for maker in dict.fromkeys(makers) if maker is not None)
    return frozenset(o for o in side.module.kernel.walk() if _is_plain_load(o) and o not in asked)


def _is_plain_load(operation: Operation) -> bool:
    return operation.name in _READS and operation.attribute("isVolatile") != "true"


def _is_quiet(operation: Operation, side: Side) -> bool:
    """Whether nobody would miss an operation whose results nothing asks for, stores that are dropped left aside."""
    if _is_plain_load(operation) or side.is_pure(operation):
        return True
    blocks = [block for region in operation.regions for block in region.blocks]
    if operation.name not in PURE or any(len(region.blocks) > 1 for region in operation.regions):
        return False
    inner = (o for block in blocks for o in block.operations)
    return all(o.name in _TERMINATORS or side.is_dropped(o) or _is_quiet(o, side) for o in inner)


def values_of(operation: Operation, frame: Mapping[Value, Expression]) -> tuple[Expression, ...]:
    """The terms of an operation's operands."""
    missing = next((operand for operand in operation.operands if operand not in frame), None)
    if missing is not None:
        raise InternalError(f"{missing.name} is used before it is defined: {operation.text}")
    return tuple(frame[operand] for operand in operation.operands)


def _number(operation: Operation, index: int) -> str:
    return f"#{index}" if len(operation.results) > 1 else ""


# ---------------------------------------------------------------------------------------------------- both side by side


class _Walk:
    def __init__(
        self,
        original: Module,
        fused: Module,
        is_output: Callable[[Operation, tuple[Location, ...]], StoredValue | None],
        is_input: Callable[[Operation, tuple[Location, ...]], LoadedValue | None],
        operands: frozenset[str],
        retyped: Mapping[str, str],
        kept: frozenset[str],
        is_beside: Callable[[Operation, tuple[Location, ...]], str],
        gone: frozenset[str],
        is_dropped: Callable[[Operation], bool],
    ) -> None:
        self.terms = Terms()
        self._gone = gone
        self._is_beside = is_beside
        self._parameters: dict[str, Expression] = {}  # of the original, by name
        self._beside: dict[str, tuple[tuple[int, ...], Operation, tuple[Expression, ...]]] = {}  # not taken yet
        self._operand_names = operands
        self._kept_names = kept
        self._retyped = retyped
        self._changes: dict[str, frozenset[str]] = {}  # of the elements of pointers: from the original to the fused
        self._original = Side(original, self.terms, is_dropped)
        self._fused = Side(fused, self.terms)
        if gone:
            self._original.without_idle_loads()
            self._fused.without_idle_loads()
        self._is_output = is_output
        self._is_input = is_input
        self._place = 0
        self._depth = 0
        self._block: tuple[int, ...] = ()  # the blocks around the operation, outermost first
        self._reads: dict[tuple[Expression, tuple[int, ...]], Location | None] = {}
        self._used: dict[tuple[int, ...], list[Expression]] = {}  # reads of operands, by the block whose loads use them
        self._aliases: tuple[dict[Value, Value], dict[Value, Value]] = ({}, {})
        self.changed: list[ChangedStore] = []

    def kernels(self) -> None:
        one, other = self._original.module.kernel, self._fused.module.kernel
        added = [self._added_as(p) for p in other.parameters]
        kept = [p for p, operation in zip(other.parameters, added, strict=True) if not operation]
        expected = [f"{self._new_type(p)} {p.attributes}" for p in one.parameters if p.name not in self._gone]
        self._same("parameters", str(expected), str([f"{p.type} {p.attributes}" for p in kept]), one.location)
        self._same("function attributes", one.attributes, other.attributes, one.location)
        arguments = [self.terms.term("parameter", str(i), p.type) for i, p in enumerate(one.parameters)]
        for parameter, argument in zip(one.parameters, arguments, strict=True):
            self.terms.name(argument, parameter.name)
            self._parameters[parameter.name] = argument
        mine = (a for p, a in zip(one.parameters, arguments, strict=True) if p.name not in self._gone)
        theirs = [
            self.terms.term(operation, p.name, p.type) if operation else next(mine)
            for p, operation in zip(other.parameters, added, strict=True)
        ]
        self._bodies(one, other, arguments, theirs, ())

    def _added_as(self, parameter: Parameter) -> str:
        """The operation of the term for a parameter that the fused kernel has more; "" for one of the original's."""
        if parameter.name in self._kept_names:
            return KEPT
        return OPERAND if parameter.name in self._operand_names else ""

    def _new_type(self, parameter: Parameter) -> str:
        """The type of the original's `parameter` in the fused kernel."""
        if parameter.name not in self._retyped:
            return parameter.type
        element, new = retyping.element_of(parameter.type), self._retyped[parameter.name]
        self._changes[element] = self._changes.get(element, frozenset()) | {new}
        return retyping.with_elements(parameter.type, new)

    def _bodies(
        self,
        one: Function,
        other: Function,
        arguments: Sequence[Expression],
        its_arguments: Sequence[Expression],
        path: tuple[Location, ...],
    ) -> Sequence[Expression] | None:
        """Walk two function bodies; the terms returned when each has one block, else None."""
        frames: tuple[dict[Value, Expression], dict[Value, Expression]] = (
            {p.value: a for p, a in zip(one.parameters, arguments, strict=True)},
            {p.value: a for p, a in zip(other.parameters, its_arguments, strict=True)},
        )
        return self._regions(one.body, other.body, frames, path)

    def _regions(
        self,
        one: Region,
        other: Region,
        frames: tuple[dict[Value, Expression], dict[Value, Expression]],
        path: tuple[Location, ...],
        loop: Sequence[Expression] = (),
    ) -> Sequence[Expression] | None:
        """Walk two regions; `loop` are the operands of the `scf.for` that they are the body of."""
        first, second = one.reachable(), other.reachable()
        self._same("number of blocks", str(len(first)), str(len(second)), None)
        labels = tuple({b.label: (i, b) for i, b in enumerate(blocks)} for blocks in (first, second))
        self._aliases[0].update(_single_values(first))
        self._aliases[1].update(_single_values(second))
        place = self._next()
        for index, (block, twin) in enumerate(zip(first, second, strict=True)):
            arguments = [a for a in block.arguments if a not in self._aliases[0] and a not in frames[0]]
            its_arguments = [a for a in twin.arguments if a not in self._aliases[1] and a not in frames[1]]
            self._same("block arguments", str(len(arguments)), str(len(its_arguments)), None)
            for number, (argument, its_twin) in enumerate(zip(arguments, its_arguments, strict=True)):
                self._same_types("type of a block argument", [argument.type], [its_twin.type], None)
                name = self.terms.term("block argument", f"{place}.{index}.{number}", argument.type)
                frames[0][argument] = frames[1][its_twin] = name
                self.terms.carries(name, argument)
        if loop and len(first) == 1:
            self._note_moved(first[0], frames[0], loop)
            self._note_carried(first[0], frames[0], loop)
        returned: Sequence[Expression] | None = None
        for block, twin in zip(first, second, strict=True):
            returned = self._blocks(block, twin, frames, labels, path)
        return returned if len(first) == 1 else None

    def _blocks(
        self,
        block: Block,
        twin: Block,
        frames: tuple[dict[Value, Expression], dict[Value, Expression]],
        labels: tuple[Labels, ...],
        path: tuple[Location, ...],
    ) -> Sequence[Expression]:
        """Walk two blocks; the operands of the terminator, as terms."""
        for its_block, frame, aliases in zip((block, twin), frames, self._aliases, strict=True):
            for argument in its_block.arguments:
                if argument in aliases:
                    frame[argument] = frame[aliases[argument]]
        returned: Sequence[Expression] = ()
        around, self._block = self._block, (*self._block, self._next())
        for operation, its_twin, behind in self._lockstep(block, twin, frames):
            if operation.name in _TERMINATORS:
                returned = self._terminators(operation, its_twin, frames, labels)
                continue
            rule = self._is_input(operation, path) if operation.name in _READS else None
            stored = self._is_output(operation, path) if operation.name in STORED_OPERAND else None
            if stored is not None and stored.kept:
                its_twin = self._kept(operation, its_twin, frames, stored.kept, behind)
            if rule is None:
                self._effect(operation, its_twin, frames, path)
            else:
                self._loaded(operation, its_twin, frames, rule, behind)
        self._block = around
        return returned

    def _lockstep(
        self, block: Block, twin: Block, frames: tuple[dict[Value, Expression], dict[Value, Expression]]
    ) -> Iterator[tuple[Operation, Operation, _Cursor]]:
        """The operations whose order matters, side by side, with the cursor behind the fused one."""
        one = _Cursor(block, self._original, frames[0])
        other = _Cursor(twin, self._fused, frames[1], self._note_read)
        while True:
            operation, its_twin = one.next(), other.next()
            if operation is None or its_twin is None:
                self._same("operations", _head(operation), _head(its_twin), None)
                return
            yield operation, its_twin, other

    def _effect(
        self,
        one: Operation,
        other: Operation,
        frames: tuple[dict[Value, Expression], dict[Value, Expression]],
        path: tuple[Location, ...],
    ) -> None:
        """Compare two operations whose order matters, and give their results the same names."""
        self._same("operation", one.name, other.name, one.location)
        self._same_types("result types", one.result_types, other.result_types, one.location)
        returned: Sequence[Expression] | None = None
        if one.name == CALL:
            returned = self._calls(one, other, frames, path)
        else:
            self._others(one, other, frames, path)
        place = self._next()
        for index, (result, twin) in enumerate(zip(one.results, other.results, strict=True)):
            name = returned[index] if returned else self.terms.term(one.name, f"at {place}.{index}", result.type)
            frames[0][result] = frames[1][twin] = name
            self.terms.call_it(name, one)

    def _loaded(
        self,
        one: Operation,
        other: Operation,
        frames: tuple[dict[Value, Expression], dict[Value, Expression]],
        rule: LoadedValue,
        behind: _Cursor,
    ) -> None:
        """Compare two loads of an input. What the original gets is P of what the fused kernel gets, by the rule; that the
        fused kernel computes it too, wherever the value is used, is what every later comparison asks."""
        self._same("operation", one.name, other.name, one.location)
        (own,) = one.result_types
        type_ = with_shape_of(own, rule.element) if rule.element else own
        self._same("result type", type_, other.results[0].type, one.location)
        self._same("attributes", one.attributes, other.attributes, one.location)
        if not rule.element:
            self._same("types", one.types, other.types, one.location)
        filled = _FILL if rule.element and one.name == "tt.load" else -1
        operands = self._operands(one, other, frames, f"of {one.name}", filled)
        value = self.terms.term(one.name, f"at {self._next()}.0", type_)
        frames[1][other.results[0]] = value
        behind.look()  # what is read of operands in the same expression
        used = self._used.setdefault(self._block, [])
        reads = (*(read for read, block in self._reads if block == self._block), *used)
        mask = operands[1] if one.name == "tt.load" and len(operands) > 1 else None
        fills = values_of(other, frames[1])[_FILL : _FILL + 1] if one.name == "tt.load" else ()
        load = Load(operands[0], mask, value, reads, operands[1:], one.attributes, *fills)
        try:
            result = rule.result(self.terms, load)
        except NotPlanned as reason:
            raise _Mismatch(Difference(str(reason), "nothing known", self.terms.shown(value), one.location)) from None
        self._same("type of a loaded value", own, result.type, one.location)
        objection = rule.objection(self.terms, load, result)
        if objection:
            raise _Mismatch(Difference(objection, "", self.terms.shown(result), one.location, about_operand=True))
        for read in operand_reads(result):
            self._reads.pop((read, self._block), None)
            used.append(read)
        frames[0][one.results[0]] = result
        self.terms.call_it(result, one)

    def _others(
        self,
        one: Operation,
        other: Operation,
        frames: tuple[dict[Value, Expression], dict[Value, Expression]],
        path: tuple[Location, ...],
    ) -> None:
        """Compare two operations that are no calls: a store to the output may store something else."""
        self._same("attributes", one.attributes, other.attributes, one.location)
        if not (self._changes and one.name in retyping.TYPED_BY_OPERANDS):
            self._same("types", one.types, other.types, one.location)
        rule = self._is_output(one, path) if one.name in STORED_OPERAND else None
        if rule is None:
            self._operands(one, other, frames, f"of {one.name}")
            self._note_beside(one, frames[0], path)
        else:
            stored = STORED_OPERAND[one.name] % len(one.operands)
            expected = self._operands(one, other, frames, f"of {one.name}", stored)
            others = tuple(term for index, term in enumerate(expected) if index not in (0, stored))
            mask = others[0] if one.name == "tt.store" and others else None
            found = values_of(other, frames[1])[stored]
            beside = {name: self._taken(name, one, expected, stored) for name in rule.beside}
            self._stored(Store(expected[0], mask, expected[stored], found, others, one.attributes, beside), rule, one)
        self._same("number of regions", str(len(one.regions)), str(len(other.regions)), one.location)
        loop = values_of(one, frames[0]) if one.name == "scf.for" else ()
        for region, twin in zip(one.regions, other.regions, strict=True):
            self._regions(region, twin, (dict(frames[0]), dict(frames[1])), path, loop)

    def _note_carried(self, block: Block, frame: Mapping[Value, Expression], loop: Sequence[Expression]) -> None:
        """Note each block pointer that a loop moves by the same steps at the end of each round."""
        counter, *arguments = block.arguments
        last = block.operations[-1] if block.operations else None
        if not arguments or last is None or last.name != "scf.yield":
            return  # nothing is carried
        lower, _, by, *first = map(_uncast, loop)
        makers = {result: operation for operation in block.operations for result in operation.results}
        outer = {value: term for value, term in frame.items() if value not in block.arguments}
        for argument, before, yielded in zip(arguments, first, last.operands, strict=True):
            move = makers.get(yielded)
            if move is None or move.name != "tt.advance" or move.operands[0] != argument:
                continue
            made = [_made_before(step, makers, outer, self._original) for step in move.operands[1:]]
            if all(step is not None for step in made):
                steps = tuple(step for step in made if step is not None)
                self.terms.carried[frame[argument]] = Carried(before, steps, frame[counter], lower, by)

    def _note_moved(self, block: Block, frame: Mapping[Value, Expression], loop: Sequence[Expression]) -> None:
        """Note the pointers that a loop of the original moves on by the same step in every round."""
        counter, *carried = block.arguments
        if not carried:
            return
        invariant = {value: term for value, term in frame.items() if value not in block.arguments}
        defined: dict[Value, Operation] = {}
        for operation in block.operations[:-1]:
            defined.update(dict.fromkeys(operation.results, operation))
            if self._original.is_pure(operation) and all(o in invariant for o in operation.operands):
                if not operation.regions:  # whose values would not show here
                    self._original.define(operation, invariant)
        first, _, step, *initial = loop
        for argument, value, start in zip(carried, block.operations[-1].operands, initial, strict=True):
            moved = defined.get(value)
            if moved is None or moved.name != "tt.addptr" or moved.operands[0] != argument:
                continue
            if moved.operands[1] in invariant:
                distance = invariant[moved.operands[1]]
                self.terms.moves(frame[argument], start, distance, (frame[counter], first, step))

    def _kept(
        self,
        one: Operation,
        other: Operation,
        frames: tuple[dict[Value, Expression], dict[Value, Expression]],
        kept: str,
        behind: _Cursor,
    ) -> Operation:
        """Compare a store of the original with the one of the fused kernel that keeps its value: the same in all but the
        parameter that its pointer starts from. The operation behind that one."""
        where = f"of the store to `{kept}`"
        self._same(f"operation in place {where}", one.name, other.name, one.location)
        self._same(f"attributes {where}", one.attributes, other.attributes, one.location)
        self._same(f"types {where}", one.types, other.types, one.location)
        expected, found = values_of(one, frames[0]), values_of(other, frames[1])
        self._same(f"number of operands {where}", str(len(expected)), str(len(found)), one.location)
        for index, (mine, theirs) in enumerate(zip(expected, found, strict=True)):
            same = theirs if index else over(start_of(mine), theirs, kept, self.terms)
            if mine is not same:
                raise self._mismatch(f"operand {index + 1} {where}", mine, theirs, one.location)
        following = behind.next()
        if following is None:
            raise _Mismatch(Difference("operations", _head(one), _head(None), one.location))
        return following

    def _operands(
        self,
        one: Operation,
        other: Operation,
        frames: tuple[dict[Value, Expression], dict[Value, Expression]],
        where: str,
        except_for: int = -1,
    ) -> tuple[Expression, ...]:
        """The operands of two operations, which must be equal but for one position."""
        expected, found = values_of(one, frames[0]), values_of(other, frames[1])
        self._same(f"number of operands {where}", str(len(expected)), str(len(found)), one.location)
        for index, (mine, theirs) in enumerate(zip(expected, found, strict=True)):
            if mine is not theirs and index != except_for:
                raise self._mismatch(f"operand {index + 1} {where}", mine, theirs, one.location)
        return expected

    def _stored(self, store: Store, rule: StoredValue, operation: Operation) -> None:
        allowed = []
        for candidate in rule.candidates(self.terms, store):
            if candidate is store.found:
                objection = rule.objection(self.terms, store)
                if objection:
                    shown = self.terms.shown(store.found)
                    raise _Mismatch(Difference(objection, "", shown, operation.location, about_operand=True))
                for read in operand_reads(store.found) if self._reads else ():
                    self._reads.pop((read, self._block), None)
                self.changed.append(ChangedStore(operation.location))
                return
            allowed.append(candidate)
        what = "the value stored to the output"
        if not allowed:
            raise _Mismatch(Difference(what, "nothing known", self.terms.shown(store.found), operation.location))
        raise self._mismatch(what, allowed[0], store.found, operation.location)

    def _note_beside(self, one: Operation, frame: Mapping[Value, Expression], path: tuple[Location, ...]) -> None:
        """Remember a store whose value one to an output is to take."""
        name = self._is_beside(one, path) if one.name in STORED_OPERAND else ""
        if not name:
            return
        self.all_taken(name)
        self._beside[name] = self._block, one, values_of(one, frame)

    def _taken(self, name: str, one: Operation, expected: tuple[Expression, ...], stored: int) -> Expression:
        """The value that was stored to the parameter `name` at the place where `one` stores, in the same block."""
        block, operation, operands = self._beside.pop(name, ((), one, ()))
        if not operands or block != self._block:
            what = f"no store to `{name}` stands just before this one, in the same block"
            raise _Mismatch(Difference(what, "one", "none", one.location, beside=name))
        at = rebased(operands[0], self._parameters[name], start_of(expected[0]), self.terms)
        ways = [(o.name, o.attributes, len(o.operands)) for o in (one, operation)]
        others = [
            [term for index, term in enumerate(terms) if index not in (0, stored)] for terms in (expected, operands)
        ]
        if at is not expected[0] or ways[0] != ways[1] or any(a is not b for a, b in zip(*others, strict=True)):
            shown = self.terms.shown(expected[0]), self.terms.shown(operands[0])
            what = f"the store to `{name}` before it is to another place, under another mask, or of another kind"
            raise _Mismatch(Difference(what, *shown, one.location, beside=name))
        return operands[stored]

    def all_taken(self, name: str = "") -> None:
        """Every value (stored to `name`, if given) that is to be taken by a store to an output has been."""
        for stored_to, (_, operation, operands) in self._beside.items():
            if name in ("", stored_to):
                what = f"no store to the output takes what this one stores to `{stored_to}`"
                shown = self.terms.shown(operands[0])
                raise _Mismatch(Difference(what, "none", shown, operation.location, beside=stored_to))

    def _calls(
        self,
        one: Operation,
        other: Operation,
        frames: tuple[dict[Value, Expression], dict[Value, Expression]],
        path: tuple[Location, ...],
    ) -> Sequence[Expression] | None:
        """Follow two calls; the terms they return when each function has one block, else None."""
        function, twin = self._original.callee(one), self._fused.callee(other)
        arguments, its_arguments = values_of(one, frames[0]), values_of(other, frames[1])
        added = [is_added(argument) for argument in its_arguments]
        kept = [p for p, is_added in zip(twin.parameters, added, strict=True) if not is_added]
        both = (function.parameters, kept)
        types = [[p.type for p in parameters] for parameters in both]
        self._same_types("parameters of a helper", types[0], types[1], one.location)
        attributes = [[p.attributes for p in parameters] for parameters in both]
        self._same("parameters of a helper", str(attributes[0]), str(attributes[1]), one.location)
        self._same("attributes of a helper", function.attributes, twin.attributes, one.location)
        theirs = [argument for argument, is_added in zip(its_arguments, added, strict=True) if not is_added]
        for index, (mine, argument) in enumerate(zip(arguments, theirs, strict=True)):
            if mine is not argument:
                raise self._mismatch(
                    f"operand {index + 1} of the call of {function.name}", mine, argument, one.location
                )
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _Mismatch(Difference("the depth of calls", f"at most {_MAX_DEPTH}", "more", one.location))
        inner = (*path, one.location) if one.location else path
        returned = self._bodies(function, twin, arguments, its_arguments, inner)
        self._depth -= 1
        return returned

    def _terminators(
        self,
        one: Operation,
        other: Operation,
        frames: tuple[dict[Value, Expression], dict[Value, Expression]],
        labels: tuple[Labels, ...],
    ) -> Sequence[Expression]:
        self._same("terminator", one.name, other.name, one.location)
        targets = [
            [label[s.label][0] for s in operation.successors]
            for operation, label in zip((one, other), labels, strict=True)
        ]
        self._same("branch targets", str(targets[0]), str(targets[1]), one.location)
        if not one.successors:
            self._same("attributes", one.attributes, other.attributes, one.location)
            return self._operands(one, other, frames, f"of {one.name}")
        carried = [
            [frame[value] for value in _carried(operation, aliases, label)]
            for operation, frame, aliases, label in zip((one, other), frames, self._aliases, labels, strict=True)
        ]
        self._same("number of values carried by a branch", str(len(carried[0])), str(len(carried[1])), one.location)
        for index, (mine, theirs) in enumerate(zip(*carried, strict=True)):
            if mine is not theirs:
                raise self._mismatch(f"operand {index + 1} of {one.name}", mine, theirs, one.location)
        return carried[0]

    def _note_read(self, term: Expression, operation: Operation) -> None:
        self._reads.setdefault((term, self._block), operation.location)

    def unused_reads(self) -> None:
        """Every read of an operand must be for a store of the same block: one that stands elsewhere may run where the store
        does not."""
        for (term, _), location in self._reads.items():
            what = "a read of an operand that no store in its place uses"
            raise _Mismatch(Difference(what, "nothing", self.terms.shown(term), location))

    def _mismatch(self, what: str, expected: Expression, found: Expression, location: Location | None) -> _Mismatch:
        inner, theirs = parting(expected, found)
        shown = self.terms.shown(inner), self.terms.shown(theirs)
        if shown[0] == shown[1]:  # names hide the difference
            shown = _numbered(inner), _numbered(theirs)
        return _Mismatch(Difference(what, *shown, location))

    def _same(self, what: str, expected: str, found: str, location: Location | None) -> None:
        if expected != found:
            raise _Mismatch(Difference(what, expected, found, location))

    def _same_types(self, what: str, expected: Sequence[str], found: Sequence[str], location: Location | None) -> None:
        """Two lists of types, equal but for the elements of pointers that a retyped output gives them. What such a pointer
        comes from is in its term."""
        pairs = zip(expected, found, strict=False)
        if len(expected) != len(found) or not all(
            retyping.same_but_for_elements(mine, theirs, self._changes) for mine, theirs in pairs
        ):
            raise _Mismatch(Difference(what, str(tuple(expected)), str(tuple(found)), location))

    def _next(self) -> int:
        self._place += 1
        return self._place


Labels = Mapping[str, tuple[int, Block]]


def _single_values(blocks: Sequence[Block]) -> dict[Value, Value]:
    """The block arguments that are handed one value only, whatever way control comes, and that value."""
    by_label = {block.label: block for block in blocks}
    handed: dict[Value, set[Value]] = {}
    for block in blocks:
        for operation in block.operations:
            for successor in operation.successors:
                target = by_label[successor.label]
                for argument, value in zip(target.arguments, successor.operands, strict=True):
                    handed.setdefault(argument, set()).add(value)
    single: dict[Value, Value] = {}
    found = True
    while found:
        found = False
        for argument, values in handed.items():
            sources = {single.get(value, value) for value in values} - {argument}
            if argument not in single and len(sources) == 1:
                single[argument] = sources.pop()
                found = True
    return {argument: _last(argument, single) for argument in single}


def _last(value: Value, single: Mapping[Value, Value]) -> Value:
    seen = set()
    while value in single and value not in seen:
        seen.add(value)
        value = single[value]
    return value


def _carried(operation: Operation, aliases: Mapping[Value, Value], labels: Labels) -> Iterator[Value]:
    """The condition of a branch, and the values it hands to arguments that are not always the same one."""
    handed = sum(len(successor.operands) for successor in operation.successors)
    yield from operation.operands[: len(operation.operands) - handed]
    for successor in operation.successors:
        arguments = labels[successor.label][1].arguments
        yield from (v for v, a in zip(successor.operands, arguments, strict=True) if a not in aliases)


def _uncast(term: Expression) -> Expression:
    """A term without casts to its own type, which Triton puts around the bounds of a loop."""
    while term.operation == "arith.bitcast" and term.operands[0].type == term.type:
        (term,) = term.operands
    return term


def _made_before(
    value: Value, makers: Mapping[Value, Operation], frame: Mapping[Value, Expression], side: Side
) -> Expression | None:
    """The term of a value that is known before a block runs (`frame`), or that is a constant."""
    if value in frame:
        return frame[value]
    maker = makers.get(value)
    if maker is None or maker.operands or maker.name != "arith.constant":
        return None
    inner = dict(frame)
    side.define(maker, inner)
    return inner[value]


_READS = frozenset({"tt.load", "tt.descriptor_load"})
"""What may read an operand of the epilogue."""

_FILL = 2
"""Which operand of a `tt.load` is what lanes hold that are off."""

_MAX_DEPTH = 64

STORED_OPERAND = {"tt.store": 1, "tt.descriptor_store": -1, "tt.descriptor_scatter": -1}
"""Which operand of a store is the value."""


class _Cursor:
    """Steps through a block: pure operations become terms on the way, the others are handed out."""

    def __init__(
        self,
        block: Block,
        side: Side,
        frame: dict[Value, Expression],
        note_read: Callable[[Expression, Operation], None] | None = None,
    ) -> None:
        self._operations = iter(block.operations)
        self._side = side
        self._frame = frame
        self._note_read = note_read
        self._pending: list[Operation | None] = []

    def look(self) -> None:
        """Step to the next operation that is handed out, without handing it out."""
        if not self._pending:
            self._pending.append(self._step())

    def next(self) -> Operation | None:
        return self._pending.pop() if self._pending else self._step()

    def _step(self) -> Operation | None:
        for operation in self._operations:
            if operation.name in _TERMINATORS:
                return operation
            if self._side.is_dropped(operation):
                self._side.leave_out(operation, self._frame)
                continue
            if self._side.is_pure(operation):
                self._side.define(operation, self._frame)
            elif self._note_read is not None and self._side.reads_operand(operation, self._frame):
                self._note_read(self._side.define_read(operation, self._frame), operation)
            else:
                return operation
        return None


def _head(operation: Operation | None) -> str:
    return operation.name if operation is not None else "the end of the block"


def _numbered(term: Expression) -> str:
    """A term whose operands are told apart by number."""
    operands = ", ".join(f"{_bare(operand)} {operand.type} #{operand.identity}" for operand in term.operands)
    return f"{_bare(term)}{{{term.attributes}}}({operands}): {term.type}"
