"""Which parameter each memory access of a lowered kernel may go through: `memory_accesses(module)`.

A forward data flow to a fixed point. Every pointer value holds the set of parameters ("roots") it may come from, and a
root travels along every edge by which MLIR moves a value: operands of the operations in `POINTER_FLOW`, block
arguments, values carried by loops (from before the loop and from its `yield`), results of branches, arguments and
results of calls. A pointer that no root reaches, or that is made from something else, has the root `ANYWHERE`. An
address at an operation that is not followed is an access of UNKNOWN effect. Calls are analysed once for each
combination of roots they are given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from kernel_rewrite.model import (
    ANYWHERE,
    FlowStep,
    InternalError,
    Location,
    MemoryAccess,
    MemoryEffect,
    Specialization,
)
from kernel_rewrite.ttir.effects import (
    CASTS,
    CODE,
    CONTROL,
    EFFECTS,
    POINTER_FLOW,
    SHOWS_POINTERS,
    Touch,
    escape_reason,
    is_bool_representation,
    is_known,
    is_pointer_bitcast,
    opaque_code,
)
from kernel_rewrite.ttir.parse import (
    Function,
    Module,
    Operation,
    Region,
    Value,
    element_type,
    is_pointer,
    pointee_type,
)


@dataclass(frozen=True, slots=True, order=True)
class _Token:
    """One parameter a pointer may come from, and whether it was cast to another pointee type on the way."""

    root: str
    bitcast: bool = False


_Roots = frozenset[_Token]
_Steps = tuple[FlowStep, ...]
_NOTHING: _Roots = frozenset()
_ELSEWHERE = _Token(ANYWHERE)


@dataclass(frozen=True, slots=True)
class _Way:
    """How a token came to a value: the argument of the function it entered by, as which token (None for one made
    inside), and the steps since."""

    argument: int | None = None
    entered: _Token = _ELSEWHERE
    steps: _Steps = ()


@dataclass(frozen=True, slots=True)
class _Origin:
    """The first edge that brought a token to a value: from `source` holding `token`; with no source it starts here."""

    source: Value | None
    token: _Token
    argument: int | None = None
    steps: _Steps = ()


@dataclass(frozen=True, slots=True)
class _Access:
    """A `MemoryAccess` of one function under one combination of argument roots, not yet joined to a caller's way."""

    effect: MemoryEffect
    operation: str
    ways: tuple[tuple[_Token, _Way], ...]
    location: Location
    call_path: tuple[Location, ...] = ()
    value_type: str = ""
    element_type: str = ""
    implicit_cast: str | None = None
    reason: str = ""
    block_pointer: bool = False


@dataclass(frozen=True, slots=True)
class _Summary:
    """What a call does: for each result the tokens it may hold, and the accesses it makes."""

    results: tuple[tuple[tuple[_Token, _Way], ...], ...]
    accesses: tuple[_Access, ...]


_Context = tuple[_Roots, ...]

_RESHAPED = frozenset({"tt.splat", "tt.broadcast", "tt.expand_dims", "tt.reshape"})
"""Operations that lay a number out over a block."""

# A helper that calls a helper twice, and so on, has exponentially many call paths: beyond this many accesses in one
# function only one call path is kept for each.
_MAX_CALL_PATHS = 2000


# ------------------------------------------------------------------------------------------------------------ the flow


class _Analysis:
    """The summaries of one module."""

    def __init__(self, module: Module, every_root: frozenset[str]) -> None:
        self.module = module
        self.every_root = every_root
        self._summaries: dict[tuple[str, _Context], _Summary] = {}
        self._running: list[str] = []

    def summary(self, function: Function, context: _Context) -> _Summary:
        key = (function.name, context)
        found = self._summaries.get(key)
        if found is None:
            if function.name in self._running or not function.blocks:
                return self._opaque(function, context)
            self._running.append(function.name)
            found = self._summaries[key] = _Frame(self, function, context).summary()
            self._running.pop()
        return found

    def _opaque(self, function: Function, context: _Context) -> _Summary:
        """A function that calls itself, or has no body: anything may happen to what it is given."""
        calls_itself = function.name in self._running
        name = source_name(function.name)
        reason = f"`{name}` calls itself" if calls_itself else f"`{name}` has no body"
        ways: dict[_Token, _Way] = {}
        for index, tokens in enumerate(context):
            for token in tokens:
                ways.setdefault(token, _Way(index, token))
        result = ((_ELSEWHERE, _Way()),)
        results = tuple(result if is_pointer(type_) else () for type_ in function.result_types)
        for root in self.every_root if not calls_itself else ():
            ways.setdefault(_Token(root), _Way())
        if not ways:
            return _Summary(results, ())
        where = function.location or _UNKNOWN_LOCATION
        return _Summary(results, (_Access(MemoryEffect.UNKNOWN, "tt.call", _sorted(ways), where, reason=reason),))


_UNKNOWN_LOCATION = Location("", 0, 0)


@dataclass(slots=True)
class _Frame:
    """One function under one combination of argument roots."""

    analysis: _Analysis
    function: Function
    context: _Context
    roots: dict[Value, _Roots] = field(default_factory=dict)
    origin: dict[tuple[Value, _Token], _Origin] = field(default_factory=dict)
    users: dict[Value, list[Operation]] = field(default_factory=dict)
    changed: bool = False

    def summary(self) -> _Summary:
        for index, (parameter, tokens) in enumerate(zip(self.function.parameters, self.context, strict=True)):
            for token in tokens:
                self._add(parameter.value, token, _Origin(None, token, index))
        self.changed = True
        while self.changed:
            self.changed = False
            self._region(self.function.body)
        accesses = list(self._accesses())
        if len(accesses) > _MAX_CALL_PATHS:
            accesses = list({_without_path(access): access for access in accesses}.values())
        return _Summary(self._results(), tuple(accesses))

    # -- edges

    def _add(self, value: Value, token: _Token, origin: _Origin) -> None:
        held = self.roots.get(value, _NOTHING)
        if token not in held:
            self.roots[value] = held | {token}
            self.origin[value, token] = origin
            self.changed = True

    def _edge(self, source: Value, target: Value, steps: _Steps = (), *, bitcast: bool = False) -> None:
        for token in self.roots.get(source, _NOTHING):
            self._add(target, _Token(token.root, token.bitcast or bitcast), _Origin(source, token, None, steps))

    def _seed(self, value: Value) -> None:
        if is_pointer(value.type):
            self._add(value, _ELSEWHERE, _Origin(None, _ELSEWHERE))

    # -- one round over the operations; `parent` is the operation whose region this is

    def _region(self, region: Region, parent: Operation | None = None) -> None:
        for block in region.reachable():
            for operation in block.operations:
                self._visit(operation, region, parent)

    def _visit(self, operation: Operation, region: Region, parent: Operation | None) -> None:
        name = operation.name
        flow = POINTER_FLOW.get(name)
        if flow is not None:
            self._flow(operation, flow)
        elif name == "tt.call":
            self._call(operation)
        elif name == "scf.for":
            self._for(operation)
        elif name == "scf.while":
            self._while(operation)
        elif name in ("scf.yield", "scf.condition"):
            self._terminator(operation, parent)
        elif name == "scf.if":
            for branch in operation.regions:
                self._region(branch, operation)
        elif operation.successors:
            self._branch(operation, region)
        else:
            for result in operation.results:
                self._seed(result)
            for inner in operation.regions:
                self._region(inner, operation)

    def _flow(self, operation: Operation, operands: Sequence[int]) -> None:
        bitcast = is_pointer_bitcast(operation)
        words = _FLOW_WORDS.get(operation.name, "is cast to another type" if bitcast else "")
        for index in operands:
            for result in operation.results:
                self._edge(operation.operands[index], result, _steps(operation, words), bitcast=bitcast)

    def _for(self, operation: Operation) -> None:
        # scf.for %j = %low to %high step %step iter_args(%q = %init) -> ...
        arguments = operation.regions[0].arguments[1:]
        for init, argument, result in zip(operation.operands[3:], arguments, operation.results, strict=True):
            self._edge(init, argument, _carried(operation, argument))
            self._edge(init, result)
        self._region(operation.regions[0], operation)

    def _while(self, operation: Operation) -> None:
        # scf.while (%q = %init) : (T) -> T { ... scf.condition(%c) %q } do { ^bb0(%q): ... scf.yield %q }
        before, after = operation.regions
        for init, argument in zip(operation.operands, before.arguments, strict=True):
            self._edge(init, argument, _carried(operation, argument))
        self._region(before, operation)
        self._region(after, operation)

    def _terminator(self, operation: Operation, parent: Operation | None) -> None:
        values = operation.operands
        if parent is None or parent.name not in ("scf.for", "scf.while", "scf.if"):
            raise InternalError(f"`{operation.name}` stands outside a loop or a branch: {operation.text}")
        if operation.name == "scf.condition":
            for value, argument, result in zip(values[1:], parent.regions[1].arguments, parent.results, strict=True):
                self._edge(value, argument)
                self._edge(value, result)
        elif parent.name == "scf.if":
            for value, result in zip(values, parent.results, strict=True):
                self._edge(value, result, _named(parent, result, "becomes {} in a branch"))
        elif parent.name == "scf.for":
            arguments = parent.regions[0].arguments[1:]
            for value, argument, result in zip(values, arguments, parent.results, strict=True):
                self._edge(value, argument, _named(parent, argument, "becomes {} in the next iteration"))
                self._edge(value, result, _named(parent, result, "leaves the loop as {}"))
        else:
            for value, argument in zip(values, parent.regions[0].arguments, strict=True):
                self._edge(value, argument, _named(parent, argument, "becomes {} in the next iteration"))

    def _branch(self, operation: Operation, region: Region) -> None:
        # cf.cond_br %0, ^bb1(%x, %o : f32, !tt.ptr<f16>), ^bb2
        by_label = {block.label: block for block in region.blocks}
        for successor in operation.successors:
            arguments = by_label[successor.label].arguments
            for value, argument in zip(successor.operands, arguments, strict=True):
                self._edge(value, argument, _named(operation, argument, "goes on as {} after a branch"))

    def _call(self, operation: Operation) -> None:
        summary = self._callee(operation)
        if summary is None:
            for result in operation.results:
                self._seed(result)
            return
        words = f"is returned by `{source_name(operation.callee or '')}`"
        for result, ways in zip(operation.results, summary.results, strict=True):
            for token, way in ways:
                source = None if way.argument is None else operation.operands[way.argument]
                steps = (*way.steps, *_steps(operation, words))
                self._add(result, token, _Origin(source, way.entered, None, steps))

    def _callee(self, operation: Operation) -> _Summary | None:
        function = self.analysis.module.function(operation.callee or "")
        if function is None or len(function.parameters) != len(operation.operands):
            return None
        return self.analysis.summary(function, tuple(self._held(v) for v in operation.operands))

    # -- what came of it

    def _held(self, value: Value) -> _Roots:
        return self.roots.get(value, _NOTHING)

    def _pointing(self, value: Value) -> _Roots:
        """What a value may point into, once all is known: a pointer nothing reached may point anywhere."""
        return self._held(value) or (frozenset({_ELSEWHERE}) if is_pointer(value.type) else _NOTHING)

    def _way(self, value: Value, token: _Token) -> _Way:
        """How `token` came to `value`: first edges only, so the way has no cycle."""
        steps: list[_Steps] = []
        while (origin := self.origin.get((value, token))) is not None:
            steps.append(origin.steps)
            if origin.source is None:
                return _Way(origin.argument, origin.token, _joined(steps))
            value, token = origin.source, origin.token
        return _Way(None, token, _joined(steps))

    def _results(self) -> tuple[tuple[tuple[_Token, _Way], ...], ...]:
        results: list[dict[_Token, _Way]] = [{} for _ in self.function.result_types]
        for block in self.function.body.reachable():
            for operation in block.operations:
                if operation.name == "tt.return":
                    for held, value in zip(results, operation.operands, strict=True):
                        for token in self._held(value):
                            held.setdefault(token, self._way(value, token))
        return tuple(_sorted(held) for held in results)

    def _accesses(self) -> Iterator[_Access]:
        definitions = {result: operation for operation in self.function.walk() for result in operation.results}
        start = self.function.location or _UNKNOWN_LOCATION
        yield from self._region_accesses(self.function.body, start, definitions)

    def _region_accesses(
        self, region: Region, enclosing: Location, definitions: dict[Value, Operation]
    ) -> Iterator[_Access]:
        for block in region.reachable():
            for operation in block.operations:
                here = operation.location or enclosing
                yield from self._operation_accesses(operation, here, definitions)
                for inner in operation.regions:
                    yield from self._region_accesses(inner, here, definitions)

    def _operation_accesses(
        self, operation: Operation, here: Location, definitions: dict[Value, Operation]
    ) -> Iterator[_Access]:
        name = operation.name
        touch = EFFECTS.get(name)
        if touch is not None:
            yield self._touch(operation, touch, here, definitions)
        elif name == "tt.call":
            yield from self._call_accesses(operation, here)
            return
        elif name in CODE:
            reason = opaque_code(operation)
            if reason is not None:
                yield self._anything(operation, here, reason)
        elif not is_known(name):
            yield self._anything(operation, here, f"the effect of `{name}` is not known")
        if name == "tt.ptr_to_int" and self._only_compared(operation.results[0]):
            return  # `if ptr:`, `ptr % 16 == 0`: addresses are the same in the fused kernel
        followed = _followed(operation, touch)
        for index, value in enumerate(operation.operands):
            if index not in followed and (tokens := self._pointing(value)):
                yield _Access(
                    MemoryEffect.UNKNOWN, name, self._ways(value, tokens), here, reason=escape_reason(operation)
                )

    def _only_compared(self, number: Value) -> bool:
        """Whether nothing comes of an address but the outcome of comparisons."""
        if not self.users:
            for operation in self.function.walk():
                for operand in operation.operands:
                    self.users.setdefault(operand, []).append(operation)
        pending, seen = [number], {number}
        while pending:
            for user in self.users.get(pending.pop(), ()):
                if user.name in ("arith.cmpi", "arith.cmpf"):
                    continue
                if not user.name.startswith("arith.") and user.name not in _RESHAPED:
                    return False
                fresh = [result for result in user.results if result not in seen]
                seen.update(fresh)
                pending += fresh
        return True

    def _ways(self, value: Value, tokens: Iterable[_Token]) -> tuple[tuple[_Token, _Way], ...]:
        return tuple((token, self._way(value, token)) for token in sorted(tokens))

    def _anything(self, operation: Operation, here: Location, reason: str) -> _Access:
        ways = tuple((_Token(root), _Way()) for root in sorted(self.analysis.every_root))
        return _Access(MemoryEffect.UNKNOWN, operation.name, ways, here, reason=reason)

    def _touch(
        self, operation: Operation, touch: Touch, here: Location, definitions: dict[Value, Operation]
    ) -> _Access:
        address = operation.operands[touch.address]
        element = element_type(pointee_type(address.type))
        value_type, cast = "", None
        if touch.value is not None:
            value_type, cast = _stored(operation, operation.operands[touch.value], definitions)
        made = definitions.get(address)
        if made is not None and is_bool_representation(made) and made.location == operation.location:
            # tt.store of `tt.bitcast %p : !tt.ptr<i1> -> !tt.ptr<i8>`: how Triton accesses a buffer of bools
            address, element = made.operands[0], "i1"
            if value_type == "i1":
                value_type, cast = self._before_truth(operation, touch, definitions)
        ways = self._ways(address, self._pointing(address))
        block = address.type.startswith("!tt.ptr<tensor<")
        return _Access(touch.effect, operation.name, ways, here, (), value_type, element, cast, block_pointer=block)

    def _before_truth(
        self, operation: Operation, touch: Touch, definitions: dict[Value, Operation]
    ) -> tuple[str, str | None]:
        """What the source stores to a buffer of bools, given that an i1 is what gets there. Triton 3.9 makes it by a
        comparison with zero; earlier, a comparison at the store's location is the source's own."""
        assert touch.value is not None
        made = definitions.get(operation.operands[touch.value])
        compared = definitions.get(made.operands[0]) if made is not None else None
        if (
            self.analysis.module.call_locations
            and compared is not None
            and compared.name in ("arith.cmpi", "arith.cmpf")
            and compared.location == operation.location
        ):
            return element_type(compared.operand_types[0]), compared.name
        return "i1", None

    def _call_accesses(self, operation: Operation, here: Location) -> Iterator[_Access]:
        summary = self._callee(operation)
        if summary is None:
            yield self._anything(operation, here, f"`{source_name(operation.callee or '')}` is not in the module")
            return
        step = FlowStep(here, f"is passed to `{source_name(operation.callee or '')}`")
        for access in summary.accesses:
            ways = []
            for token, way in access.ways:
                if way.argument is not None:
                    before = self._way(operation.operands[way.argument], way.entered)
                    way = replace(before, steps=(*before.steps, step, *way.steps))
                ways.append((token, way))
            yield replace(access, ways=tuple(ways), call_path=(here, *access.call_path))


def _sorted(ways: dict[_Token, _Way]) -> tuple[tuple[_Token, _Way], ...]:
    return tuple((token, ways[token]) for token in sorted(ways))


def _without_path(access: _Access) -> tuple[object, ...]:
    tokens = tuple(token for token, _ in access.ways)
    return (access.effect, access.operation, tokens, access.location, access.value_type, access.element_type)


def _followed(operation: Operation, touch: Touch | None) -> frozenset[int] | range:
    """The operands whose pointers some rule accounts for; an address at any other operand escapes."""
    name = operation.name
    if touch is not None:
        return frozenset({touch.address})
    if name in POINTER_FLOW:
        return frozenset(POINTER_FLOW[name])
    if name == "scf.for":
        return range(3, len(operation.operands))
    if name in ("scf.condition", "scf.if"):
        return range(1, len(operation.operands))
    if name in ("cf.br", "cf.cond_br"):
        handed = sum(len(successor.operands) for successor in operation.successors)
        return range(len(operation.operands) - handed, len(operation.operands))
    if name in CONTROL or name in SHOWS_POINTERS:
        return range(len(operation.operands))
    return frozenset()


def _stored(operation: Operation, value: Value, definitions: dict[Value, Operation]) -> tuple[str, str | None]:
    """The element type of what the source stores, and the cast the store made of it (`arith.truncf`), if any."""
    cast = definitions.get(value)
    if cast is None or cast.name not in CASTS or cast.location is None or cast.location != operation.location:
        return element_type(value.type), None
    source = cast.operands[0]
    inner = definitions.get(source)
    # bf16 -> f16 is made of two casts: arith.extf to f32, arith.truncf
    if inner is not None and inner.name in ("arith.extf", "tt.fp_to_fp") and inner.location == operation.location:
        if cast.name in ("arith.truncf", "tt.fp_to_fp"):
            source = inner.operands[0]
    return element_type(source.type), cast.name


# ------------------------------------------------------------------------------------------------------- steps in words

_FLOW_WORDS = {
    "arith.select": "is one of the pointers chosen from here",
    "tt.make_tensor_descriptor": "is put into a tensor descriptor",
    "tt.make_tensor_ptr": "is put into a block pointer",
}


def _steps(operation: Operation, words: str) -> _Steps:
    return (FlowStep(operation.location, words),) if words and operation.location is not None else ()


def _variable(value: Value) -> str:
    """The source variable a value was named after; "" for a number."""
    name = value.name[1:].split("#")[0]
    stem, _, suffix = name.rpartition("_")
    name = stem if stem and suffix.isdigit() else name
    return "" if name.isdigit() or name.startswith("arg") else name


def _named(operation: Operation, value: Value, words: str) -> _Steps:
    variable = _variable(value)
    return _steps(operation, words.format(f"`{variable}`" if variable else "another value"))


def _carried(operation: Operation, argument: Value) -> _Steps:
    return _named(operation, argument, "is carried by the loop as {}")


def _joined(reverse: list[_Steps]) -> _Steps:
    return tuple(step for steps in reversed(reverse) for step in steps)


def source_name(symbol: str) -> str:
    """The name a jit function has in its source: `__main__.helper__Pfp16_i32` -> "helper"."""
    for segment in symbol.split("."):
        if segment.startswith("__") and segment.endswith("__"):
            continue
        cut = segment.find("__", 1)
        if cut > 0:
            return segment[:cut]
    return symbol


# ---------------------------------------------------------------------------------------------- parameters and the door


def _flattened(name: str, path: str, kind: object) -> Iterator[tuple[str, str, object]]:
    """(root, dotted path, type) of each TTIR parameter a source parameter stands for: `ins` with ("*fp32", "i32") gives
    ("ins[0]", "ins.0", "*fp32") and ("ins[1]", "ins.1", "i32")."""
    if isinstance(kind, (tuple, list)):
        for index, inner in enumerate(kind):
            yield from _flattened(f"{name}[{index}]", f"{path}.{index}", inner)
    elif kind is not None and kind != "constexpr":
        yield name, path, kind


def parameter_roots(kernel: Function, specialization: Specialization | None = None) -> tuple[str, ...]:
    """The source parameter of each TTIR parameter of `kernel`, in order: "x", "ins[0]" for an element of a tuple.

    A tensor descriptor stands for several TTIR parameters. Raises `InternalError` where the signature and the names
    that TTIR carries do not agree.
    """
    if specialization is None:
        return _roots_by_name(kernel)
    pending = list(kernel.parameters)
    roots: list[str] = []
    for source, kind in specialization.signature:
        for root, path, type_ in _flattened(source, source, kind):
            if not pending:
                raise InternalError(f"no TTIR parameter is left for `{root}` of `{kernel.name}`")
            parameter = pending.pop(0)
            names = (source, path)
            if parameter.name not in names or _kind_of(parameter.type) != _kind_of_signature(type_):
                raise InternalError(
                    f"TTIR parameter `{parameter.name}: {parameter.type}` of `{kernel.name}` "
                    f"does not agree with `{root}: {type_}`"
                )
            roots.append(root)
            # d: !tt.tensordesc<...>, then its shape and strides: d, d, ... (3.9: d.shape.0, d.stride.0)
            while (
                _kind_of(parameter.type) == "descriptor"
                and pending
                and _kind_of(pending[0].type) == "scalar"
                and (pending[0].name == parameter.name or pending[0].name.startswith(f"{path}."))
            ):
                pending.pop(0)
                roots.append(root)
    if pending:
        raise InternalError(f"TTIR parameter `{pending[0].name}` of `{kernel.name}` is not in the signature")
    return tuple(roots)


def _roots_by_name(kernel: Function) -> tuple[str, ...]:
    """Roots without a signature: elements of a tuple are told apart by their order."""
    names = [parameter.name for parameter in kernel.parameters]
    pointers = [p.name for p in kernel.parameters if is_pointer(p.type)]
    counts: dict[str, int] = {}
    roots = []
    for name, parameter in zip(names, kernel.parameters, strict=True):
        if is_pointer(parameter.type) and pointers.count(name) > 1:
            roots.append(f"{name}[{counts.get(name, 0)}]")
            counts[name] = counts.get(name, 0) + 1
        else:
            roots.append(name)
    return tuple(roots)


def _kind_of(type_: str) -> str:
    if "!tt.tensordesc" in type_:
        return "descriptor"
    return "pointer" if is_pointer(type_) else "scalar"


def _kind_of_signature(type_: object) -> str:
    text = str(type_)
    if text.startswith("tensordesc"):
        return "descriptor"
    return "pointer" if text.startswith("*") or text == "nvTmaDesc" else "scalar"


def memory_accesses(module: Module, specialization: Specialization | None = None) -> tuple[MemoryAccess, ...]:
    """Every memory access of the module's kernel, in printed order, helpers' accesses where they are called.

    `specialization` (the one the module was lowered for) gives parameters their source names; without it they keep
    those of the TTIR.
    """
    kernel = module.kernel
    names = parameter_roots(kernel, specialization)
    is_address = [is_pointer(parameter.type) for parameter in kernel.parameters]
    every = frozenset(name for name, address in zip(names, is_address, strict=True) if address)
    context = tuple(
        frozenset({_Token(name)}) if address else _NOTHING for name, address in zip(names, is_address, strict=True)
    )
    summary = _Analysis(module, every).summary(kernel, context)
    return tuple(_public(access) for access in summary.accesses)


def _public(access: _Access) -> MemoryAccess:
    witness: dict[str, _Steps] = {}
    for token, way in access.ways:
        if token.root not in witness or token.bitcast:
            witness[token.root] = way.steps
    longest = max(witness.values(), key=len, default=())
    return MemoryAccess(
        effect=access.effect,
        operation=access.operation,
        roots=frozenset(witness),
        location=access.location,
        call_path=access.call_path,
        value_type=access.value_type,
        element_type=access.element_type,
        implicit_cast=access.implicit_cast,
        bitcast_pointer=any(token.bitcast for token, _ in access.ways),
        block_pointer=access.block_pointer,
        flow=tuple(step.location for step in longest),
        reason=access.reason,
        witness=tuple(sorted(witness.items())),
    )
