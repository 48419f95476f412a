"""Which sides of a kernel's compile-time branches one assignment of constexpr values takes.

A partial evaluation of the `ast`, helpers included: what depends on constexpr values alone is computed, the rest is
`RUNTIME`. Two assignments with the same decisions compile to the same operations, constants aside.
"""

from __future__ import annotations

import ast
import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from kernel_rewrite.model import Binding, Closure, Constant, Dtype, Function, FunctionRef, TritonObject
from kernel_rewrite.source.symbolic import BINARY, COMPARE, next_power_of_2
from kernel_rewrite.source.syntax import children, nodes_in, walk
from kernel_rewrite.source.usage import ATOMICS, DTYPES, ELEMENTWISE, FLOAT_MATH, SAME, binding_of

MAXIMUM_CALLS = 400
MAXIMUM_ROUNDS = 16


class _Sentinel(enum.Enum):
    RUNTIME = "runtime"
    UNKNOWN = "unknown"


RUNTIME = _Sentinel.RUNTIME
"""A value that exists only when the kernel runs: a tensor, or a number computed from one."""

UNKNOWN = _Sentinel.UNKNOWN
"""A value that may exist at compile time, but that this evaluation cannot find."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """A tensor argument (or a scalar one), of which only the dtype is known at compile time."""

    dtype: str = ""
    pointer: bool = True


MODULE_CONSTANT = "<module constant>"
"""Stands among the dependencies of a value that a constant of the file takes part in: it can be edited."""


ELEMENT_TYPE = "<element type>"
"""Stands among the dependencies of what is computed from the element type of an argument, which may be inferred."""


@dataclass(frozen=True, slots=True)
class Known:
    """A compile-time value (or RUNTIME, or UNKNOWN) and the parameters it was computed from."""

    value: object = UNKNOWN
    dependencies: frozenset[str] = frozenset()


NOTHING = Known()
TENSOR = Known(RUNTIME)
Environment = dict[str, Known]

Site = tuple[str, int, int, str]
"""File, line, column of a test, and the text that tells apart tests of one place."""


@dataclass(slots=True)
class Trace:
    """The decisions of one assignment, in order, and the parameters they depend on. `opaque` are tests that may be
    decided at compile time, in a way that this evaluation cannot follow."""

    decisions: list[tuple[Site, bool]] = field(default_factory=list)
    consulted: set[str] = field(default_factory=set)
    dependencies: dict[Site, frozenset[str]] = field(default_factory=dict)
    opaque: set[Site] = field(default_factory=set)
    rejected: list[frozenset[str]] = field(default_factory=list)
    """The parameters that each failing `tl.static_assert` depends on."""

    @property
    def key(self) -> tuple[tuple[Site, bool], ...]:
        return tuple(self.decisions)

    @property
    def sides(self) -> frozenset[tuple[Site, bool]]:
        return frozenset(self.decisions)


class Tracer:
    """Traces of one kernel; what does not depend on the arguments is computed once."""

    def __init__(self, closure: Closure) -> None:
        self.closure = closure
        self.sites: dict[ast.expr, Site] = {}
        self.stored: dict[int, tuple[str, ...]] = {}
        self.idle_statements: dict[FunctionRef, frozenset[ast.stmt]] = {}

    def trace(self, arguments: Mapping[str, object]) -> Trace:
        """The compile-time decisions with `arguments` (a value, a `Pointer`, or RUNTIME, by parameter)."""
        run = _Run(self)
        environment = {name: Known(value, frozenset((name,))) for name, value in arguments.items()}
        _Frame(run, self.closure.kernel).block(self.closure.kernel.node.body, environment)
        return run.trace

    def idle(self, function: Function) -> frozenset[ast.stmt]:
        """The assignments and calls of `function` that no compile-time decision can depend on."""
        if function.ref not in self.idle_statements:
            self.idle_statements[function.ref] = self._idle(function)
        return self.idle_statements[function.ref]

    def _idle(self, function: Function) -> frozenset[ast.stmt]:
        names = self.closure.bindings.get(function.ref.file, {})
        plain = [
            n for n in nodes_in(function.node) if isinstance(n, (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Expr))
        ]
        feeding: set[str] = set()
        for node in nodes_in(function.node):
            if isinstance(node, (ast.If, ast.While)):
                feeding |= _read(node.test)
            elif isinstance(node, (ast.For, ast.Return, ast.With)):
                parts = (
                    [node.iter] if isinstance(node, ast.For) else [node] if isinstance(node, ast.Return) else node.items
                )
                feeding |= {name for part in parts for name in _read(part)}
        pending = {node for node in plain if not _decides(node, names)}
        feeding |= {name for node in plain if node not in pending for name in _read(node)}
        while True:
            needed = {node for node in pending if _stored(node) & feeding}
            if not needed:
                return frozenset(pending)
            pending -= needed
            feeding |= {name for node in needed for name in _read(node)}

    def site(self, file: str, node: ast.expr) -> Site:
        if node not in self.sites:
            self.sites[node] = (file, node.lineno, node.col_offset, ast.unparse(node))
        return self.sites[node]

    def forget(self, loop: ast.For | ast.While, environment: Environment, known: Known) -> None:
        """What a loop assigns may change between its rounds: `known` is what is left to say about it."""
        if id(loop) not in self.stored:
            names = (n for s in loop.body for n in walk(s) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
            self.stored[id(loop)] = tuple(dict.fromkeys(n.id for n in names))
        for name in self.stored[id(loop)]:
            if name in environment:
                environment[name] = known


def trace(closure: Closure, arguments: Mapping[str, object]) -> Trace:
    """One trace of the closure's kernel; see `Tracer`."""
    return Tracer(closure).trace(arguments)


_BUILTINS = {
    "min": min,
    "max": max,
    "cdiv": lambda a, b: -(-a // b),
    "next_power_of_2": next_power_of_2,
    "abs": abs,
    "int": int,
    "len": len,
}


_DTYPE_QUESTIONS: Mapping[str, Callable[[str], bool]] = {
    "is_fp16": lambda name: name == "float16",
    "is_bf16": lambda name: name == "bfloat16",
    "is_fp32": lambda name: name == "float32",
    "is_fp64": lambda name: name == "float64",
    "is_fp8": lambda name: name.startswith("float8"),
    "is_floating": lambda name: name.startswith(("float", "bfloat")),
    "is_int": lambda name: name.startswith(("int", "uint")),
    "is_int_signed": lambda name: name.startswith("int") and name != "int1",
    "is_int_unsigned": lambda name: name.startswith("uint") or name == "int1",
    "is_int1": lambda name: name == "int1",
    "is_bool": lambda name: name == "int1",
    "is_int8": lambda name: name == "int8",
    "is_int16": lambda name: name == "int16",
    "is_int32": lambda name: name == "int32",
    "is_int64": lambda name: name == "int64",
    "is_uint8": lambda name: name == "uint8",
}
"""What a `tl.dtype` answers to `dtype.is_fp16()` and the like."""

TENSOR_OPERATIONS = (ELEMENTWISE | FLOAT_MATH | SAME | ATOMICS | frozenset((
    "load", "arange", "zeros", "full", "zeros_like", "full_like", "program_id", "num_programs", "dot",
    "dot_scaled", "cast", "make_block_ptr", "advance", "argmax", "argmin", "make_tensor_descriptor",
    "load_tensor_descriptor", "rand", "randn", "randint", "rand4x", "randint4x", "philox",
    "inline_asm_elementwise", "join", "cat", "split", "histogram", "umulhi", "mul_rn", "to_tensor",
))) - frozenset(("max", "min", "pow", "floor", "ceil", "round"))  # fmt: skip
"""Operations that give a tensor even when their arguments are compile-time values."""


class _Run:
    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer
        self.closure = tracer.closure
        self.trace = Trace()
        self.calls = 0
        self.active: list[FunctionRef] = []


class _Frame:
    def __init__(self, run: _Run, function: Function) -> None:
        self.run = run
        self.function = function
        self.names = run.closure.bindings.get(function.ref.file, {})
        self.returned: Known | None = None
        self.idle = run.tracer.idle(function)

    # statements ------------------------------------------------------------------------------------------------------

    def block(self, body: Iterable[ast.stmt], environment: Environment) -> bool:
        """Run `body`; True when it surely returned."""
        return any(statement not in self.idle and self.statement(statement, environment) for statement in body)

    def statement(self, node: ast.stmt, environment: Environment) -> bool:
        match node:
            case ast.Assign(targets=targets, value=value):
                result = self.value(value, environment)
                for target in targets:
                    _bind(target, result, environment)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                _bind(target, self.value(value, environment), environment)
            case ast.AugAssign(target=ast.Name(id=name), op=op, value=value):
                environment[name] = _binary(op, environment.get(name, NOTHING), self.value(value, environment))
            case ast.Expr(value=value):
                self.value(value, environment)
            case ast.If(test=test, body=body, orelse=orelse):
                taken = self.decide(test, environment)
                if taken is not None:
                    return self.block(body if taken else orelse, environment)
                one, other = dict(environment), dict(environment)
                ends = [self.block(body, one), self.block(orelse, other)]
                if all(ends) and orelse:
                    return True
                environment.update(_joined(one, other))
            case ast.For(target=target, iter=iterator, body=body, orelse=orelse):
                self.value(iterator, environment)
                if self.unrolled(target, iterator, body, environment):
                    return self.block(orelse, environment)
                # A loop at run time carries tensors; an unrolled one has compile-time values in each round.
                carried = TENSOR if _is_range(iterator) else NOTHING
                self.run.tracer.forget(node, environment, carried)
                _bind(target, carried, environment)
                self.block(body, environment)
                self.block(orelse, environment)
                self.run.tracer.forget(node, environment, carried)
            case ast.While(test=test, body=body):
                self.run.tracer.forget(node, environment, TENSOR)
                self.decide(test, environment)
                self.block(body, environment)
                self.run.tracer.forget(node, environment, TENSOR)
            case ast.With(items=items, body=body):
                for item in items:
                    self.value(item.context_expr, environment)
                return self.block(body, environment)
            case ast.Return(value=value):
                result = NOTHING if value is None else self.value(value, environment)
                same = self.returned is None or self.returned == result
                self.returned = result if same else NOTHING
                return True
        return False

    def unrolled(self, target: ast.expr, iterator: ast.expr, body: list[ast.stmt], environment: Environment) -> bool:
        """Run each round of `for target in tl.static_range(...)`; False when their number is unknown or large."""
        function = iterator.func if isinstance(iterator, ast.Call) else None
        if (
            not isinstance(function, ast.Attribute)
            or function.attr != "static_range"
            or not isinstance(iterator, ast.Call)
        ):
            return False
        bounds = [self.value(argument, environment) for argument in iterator.args]
        ends = [b.value for b in bounds if type(b.value) is int]
        if not ends or len(ends) < len(bounds):
            return False
        rounds = range(*ends)
        if len(rounds) > MAXIMUM_ROUNDS:
            return False
        dependencies: frozenset[str] = frozenset().union(*(b.dependencies for b in bounds))
        for index in rounds:
            _bind(target, Known(index, dependencies), environment)
            self.block(body, environment)
        return True

    def decide(self, node: ast.expr, environment: Environment) -> bool | None:
        """The outcome of a test, None at run time. Every atom of the test is a decision of its own."""
        match node:
            case ast.BoolOp(op=op, values=values):
                stop = isinstance(op, ast.Or)
                outcome: bool | None = not stop
                for value in values:
                    decided = self.decide(value, environment)
                    if decided is None:
                        outcome = None
                    elif decided is stop:
                        return stop
                return outcome
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                decided = self.decide(operand, environment)
                return None if decided is None else not decided
        known = self.value(node, environment)
        if known.value is UNKNOWN:
            self.run.trace.opaque.add(self.run.tracer.site(self.function.ref.file, node))
            return None
        if _runtime(known):
            return None
        outcome = bool(known.value)
        if known.dependencies:
            site = self.run.tracer.site(self.function.ref.file, node)
            self.run.trace.decisions.append((site, outcome))
            self.run.trace.consulted |= known.dependencies
            before = self.run.trace.dependencies.get(site, frozenset())
            self.run.trace.dependencies[site] = before | known.dependencies
        return outcome

    # expressions -----------------------------------------------------------------------------------------------------

    def value(self, node: ast.expr, environment: Environment) -> Known:
        try:
            return self._value(node, environment)
        except (ArithmeticError, TypeError, ValueError, LookupError):
            return NOTHING

    def _value(self, node: ast.expr, environment: Environment) -> Known:
        match node:
            case ast.Constant(value=value):
                return Known(value)
            case ast.Name(id=name):
                return environment[name] if name in environment else self.constant(node)
            case ast.Attribute():
                return self.attribute(node, environment)
            case ast.BinOp(left=left, op=op, right=right):
                return _binary(op, self.value(left, environment), self.value(right, environment))
            case ast.UnaryOp(op=ast.Not() | ast.USub() as op, operand=operand):
                known = self.value(operand, environment)
                if _runtime(known) or known.value is UNKNOWN:
                    return TENSOR if _runtime(known) else NOTHING
                value = not known.value if isinstance(op, ast.Not) else -known.value  # type: ignore[operator]
                return Known(value, known.dependencies)
            case ast.UnaryOp(operand=operand):
                return TENSOR if _runtime(self.value(operand, environment)) else NOTHING
            case ast.Compare():
                return self.comparison(node, environment)
            case ast.BoolOp():
                decided = self.decide(node, environment)
                if decided is None:  # at run time, or noted as opaque
                    return TENSOR
                consulted = frozenset(n.id for n in walk(node) if isinstance(n, ast.Name))
                dependencies: frozenset[str] = frozenset().union(
                    *(environment[n].dependencies for n in consulted if n in environment)
                )
                return Known(decided, dependencies)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                taken = self.decide(test, environment)
                if taken is None:
                    one, other = self.value(body, environment), self.value(orelse, environment)
                    return one if one == other else TENSOR
                return self.value(body if taken else orelse, environment)
            case ast.Tuple(elts=elements) | ast.List(elts=elements):
                items = [self.value(element, environment) for element in elements]
                return Known(tuple(items), frozenset().union(*(i.dependencies for i in items)))
            case ast.Subscript(value=container, slice=index):
                holder, key = self.value(container, environment), self.value(index, environment)
                if isinstance(holder.value, tuple) and isinstance(key.value, int):
                    item = holder.value[key.value]
                    return item if isinstance(item, Known) else Known(item, holder.dependencies)
                return TENSOR if _runtime(holder) else NOTHING
            case ast.Call():
                return self.call(node, environment)
        for child in children(node):
            if isinstance(child, ast.expr):
                self.value(child, environment)
        return NOTHING

    def constant(self, node: ast.expr) -> Known:
        binding = binding_of(node, self.names)
        if isinstance(binding, Constant):
            return Known(binding.value, frozenset({MODULE_CONSTANT}))
        if isinstance(binding, FunctionRef):
            return Known(binding)
        name = binding.attribute if isinstance(binding, TritonObject) else ""
        return Known(Dtype(name)) if name in DTYPES else NOTHING

    def attribute(self, node: ast.Attribute, environment: Environment) -> Known:
        root: ast.expr = node
        while isinstance(root, ast.Attribute):
            root = root.value
        if isinstance(root, ast.Name) and root.id not in environment:
            return self.constant(node)
        owner = self.value(node.value, environment)
        if isinstance(owner.value, Pointer):
            if node.attr in ("dtype", "type"):
                if owner.value.pointer:
                    return owner
                return _element_type(owner, owner.value)
            if node.attr == "element_ty" and owner.value.dtype:
                return _element_type(owner, owner.value)
        if node.attr in ("value", "T"):
            return owner
        if node.attr in ("dtype", "type") and isinstance(owner.value, (bool, int, float)):
            return NOTHING
        if isinstance(owner.value, Dtype) and node.attr == "primitive_bitwidth":
            digits = "".join(c for c in owner.value.name.removeprefix("float8").removeprefix("bfloat") if c.isdigit())
            return Known(8 if "float8" in owner.value.name else int(digits or 0), owner.dependencies)
        return NOTHING

    def comparison(self, node: ast.Compare, environment: Environment) -> Known:
        operands = [self.value(operand, environment) for operand in (node.left, *node.comparators)]
        dependencies: frozenset[str] = frozenset().union(*(o.dependencies for o in operands))
        for op, left, right in zip(node.ops, operands, operands[1:], strict=False):
            if isinstance(op, (ast.Is, ast.IsNot)):
                if UNKNOWN in (left.value, right.value):
                    return NOTHING
                if isinstance(left.value, Dtype) and isinstance(right.value, Dtype):  # dtype is tl.float16
                    outcome = (left.value == right.value) == isinstance(op, ast.Is)
                elif right.value is None:
                    outcome = (left.value is None) == isinstance(op, ast.Is)
                else:
                    return NOTHING
            elif UNKNOWN in (left.value, right.value):
                return TENSOR if _runtime(left) or _runtime(right) else NOTHING
            elif _runtime(left) or _runtime(right):
                if None in (left.value, right.value) and isinstance(op, (ast.Eq, ast.NotEq)):
                    outcome = isinstance(op, ast.NotEq)
                else:
                    return TENSOR
            else:
                outcome = bool(COMPARE[type(op)](_plain(left.value), _plain(right.value)))
            if not outcome:
                return Known(False, dependencies)
        return Known(True, dependencies)

    def call(self, node: ast.Call, environment: Environment) -> Known:
        function = node.func
        local = function
        while isinstance(local, ast.Attribute):
            local = local.value
        is_local = isinstance(local, ast.Name) and local.id in environment
        target = None if is_local else binding_of(function, self.names)
        if is_local and isinstance(function, ast.Name):  # a function handed over as a constexpr
            target = environment[function.id].value if isinstance(environment[function.id].value, FunctionRef) else None  # type: ignore[assignment]
        if isinstance(target, FunctionRef):
            called = self.run.closure.function(target)
            if called is not None:
                return self.helper(node, called, environment)
        if isinstance(target, TritonObject) and target.attribute == "static_assert" and node.args:
            asserted = self.value(node.args[0], environment)
            if not _runtime(asserted) and asserted.value is not UNKNOWN and not asserted.value:
                self.run.trace.rejected.append(asserted.dependencies)
            return NOTHING
        values = [self.value(a, environment) for a in node.args]
        values += [self.value(k.value, environment) for k in node.keywords]
        if isinstance(function, ast.Attribute) and (is_local or not isinstance(local, ast.Name)):
            receiver = self.value(function.value, environment)
            if isinstance(receiver.value, Dtype) and function.attr in _DTYPE_QUESTIONS and not values:
                return Known(_DTYPE_QUESTIONS[function.attr](receiver.value.name), receiver.dependencies)
            asked = function.attr.startswith(("is_", "has")) or function.attr == "numel"
            return TENSOR if _runtime(receiver) and not asked else NOTHING
        name = (
            function.attr
            if isinstance(function, ast.Attribute)
            else function.id
            if isinstance(function, ast.Name)
            else ""
        )
        if name == "constexpr" and values:
            return values[0]
        if name in _BUILTINS and values and all(isinstance(v.value, (int, float, tuple)) for v in values):
            result = _BUILTINS[name](*(_plain(v.value) for v in values))  # type: ignore[operator]
            return Known(result, frozenset().union(*(v.dependencies for v in values)))
        if name in TENSOR_OPERATIONS:
            return TENSOR
        # Of what is not Triton's, `hasattr(x, "T")` and the like are known at compile time.
        of_triton = isinstance(target, TritonObject) and not name.startswith(("is_", "has", "get_"))
        if any(_runtime(v) for v in values) and (of_triton or (name in _BUILTINS and name != "len")):
            return TENSOR
        return NOTHING

    def helper(self, node: ast.Call, function: Function, environment: Environment) -> Known:
        arguments = function.node.args
        names = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
        frame = _Frame(self.run, function)
        bound: Environment = {}
        defaults = list(zip(reversed(names), reversed(arguments.defaults), strict=False))
        defaults += [
            (a.arg, d) for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=False) if d is not None
        ]
        for name, default in defaults:
            bound[name] = frame.value(default, {})
        for name, argument in zip(names, node.args, strict=False):
            if isinstance(argument, ast.Starred):
                break
            bound[name] = self.value(argument, environment)
        for keyword in node.keywords:
            if keyword.arg is not None:
                bound[keyword.arg] = self.value(keyword.value, environment)
        for name in function.parameters:
            bound.setdefault(name, NOTHING)
        self.run.calls += 1
        if function.ref in self.run.active or self.run.calls > MAXIMUM_CALLS:
            return NOTHING
        self.run.active.append(function.ref)
        frame.block(function.node.body, bound)
        self.run.active.pop()
        return frame.returned or NOTHING


def _element_type(owner: Known, argument: Pointer) -> Known:
    return Known(Dtype(argument.dtype), owner.dependencies | {ELEMENT_TYPE}) if argument.dtype else NOTHING


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return tuple(_plain(v.value if isinstance(v, Known) else v) for v in value)
    return value


def _runtime(known: Known) -> bool:
    return known.value is RUNTIME or isinstance(known.value, Pointer)


def _is_range(node: ast.expr) -> bool:
    """Whether a loop over `node` runs at run time: `range(...)` or `tl.range(...)`."""
    function = node.func if isinstance(node, ast.Call) else None
    return (isinstance(function, ast.Attribute) and function.attr == "range") or (
        isinstance(function, ast.Name) and function.id == "range"
    )


def _binary(op: ast.operator, left: Known, right: Known) -> Known:
    if _runtime(left) or _runtime(right):
        return TENSOR
    if type(op) not in BINARY or any(not isinstance(k.value, (int, float, str)) for k in (left, right)):
        return NOTHING
    try:
        return Known(BINARY[type(op)](left.value, right.value), left.dependencies | right.dependencies)
    except (ArithmeticError, TypeError, ValueError):
        return NOTHING


def _bind(target: ast.expr, known: Known, environment: Environment) -> None:
    if isinstance(target, ast.Name):
        environment[target.id] = known
    elif isinstance(target, (ast.Tuple, ast.List)):
        items = known.value if isinstance(known.value, tuple) and len(known.value) == len(target.elts) else ()
        for index, element in enumerate(target.elts):
            item = items[index] if items else NOTHING
            _bind(element, item if isinstance(item, Known) else Known(item, known.dependencies), environment)


def _joined(one: Environment, other: Environment) -> Environment:
    names = {**one, **other}
    return {
        name: value if one.get(name) == other.get(name) else TENSOR if name in one and name in other else value
        for name, value in names.items()
    }


def _read(node: ast.AST) -> set[str]:
    """The names that `node` reads, or updates in place."""
    found = {n.id for n in walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    if isinstance(node, ast.AugAssign):
        found |= _stored(node)
    return found


def _stored(node: ast.AST) -> set[str]:
    return {n.id for n in walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def _decides(node: ast.AST, names: Mapping[str, Binding]) -> bool:
    """Whether running `node` can take a decision: it holds a test, or calls what may be a jit function."""
    for part in walk(node):
        if isinstance(part, (ast.IfExp, ast.BoolOp, ast.NamedExpr)):
            return True
        if isinstance(part, ast.Attribute) and part.attr == "static_assert":
            return True
        if isinstance(part, ast.Call):
            target = binding_of(part.func, names)
            method = isinstance(part.func, ast.Attribute) and target is None
            if not isinstance(target, TritonObject) and not method:
                return True
            if isinstance(target, FunctionRef):
                return True
    return False
