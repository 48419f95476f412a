"""What the body of a kernel says about its parameters: an abstract run over the `ast`, helpers included.

Every expression has a `Value`: the parameters it comes from (as a pointer, as a number, as an element loaded from
memory) and the class of number it holds. Operations leave votes on the parameters behind their operands: a dereferenced
value votes for a pointer, an index votes for an int, an argument of `tl.exp` for a float, the bound of `tl.arange` for
a block size. Both sides of every branch are followed, so the votes hold for the kernel as written, not for one
specialization of it.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from kernel_rewrite.model import Binding, Closure, Constant, Dtype, Function, FunctionRef, Namespace, TritonObject
from kernel_rewrite.source.syntax import last_name

MAXIMUM_DEPTH = 12
MAXIMUM_CALLS = 3000
MAXIMUM_PATHS = 4


@dataclass(frozen=True, slots=True)
class Source:
    """A parameter behind a value: itself, or an element loaded through it. A `scaled` one was multiplied, so that it
    cannot be a pointer any more."""

    parameter: str
    element: bool = False
    scaled: bool = False


@dataclass(frozen=True, slots=True)
class Value:
    """An expression's meaning: `kind` is "index" (computed from the program's position), "int", "float", "bool",
    "dtype", "string", "none", "block pointer", "descriptor", or "" where unknown."""

    sources: tuple[Source, ...] = ()
    kind: str = ""
    literal: object = None
    items: tuple[Value, ...] | None = None
    dtype: str = ""
    others: tuple[tuple[Source, ...], ...] = ()  # the sources on other paths: `p = a if c else b`
    step: str = ""  # the parameter it is a multiple of: `pid * BLOCK_M`

    def scaled(self) -> Value:
        every = (*self.sources, *(s for path in self.others for s in path))
        return replace(self, sources=tuple(dict.fromkeys(replace(s, scaled=True) for s in every)), others=())


UNKNOWN = Value()
INDEX = Value(kind="index")
BOOL = Value(kind="bool")
FLOAT = Value(kind="float")


@dataclass(slots=True)
class Votes:
    """What was seen of one parameter. `classes` are votes on its own number class, `elements` on that of its elements:
    (kind, weight) pairs, weight 2 where Triton would reject anything else."""

    pointer: bool = False
    descriptor_rank: int = 0
    descriptor_block: tuple[Value, ...] = ()
    tuple_length: int = 0
    classes: set[tuple[str, int]] = field(default_factory=set)
    elements: set[tuple[str, int]] = field(default_factory=set)
    roles: set[str] = field(default_factory=set)  # "block" "bool" "dtype" "none" "called" "range" "static range"
    compared: set[object] = field(default_factory=set)
    partners: set[Source] = field(default_factory=set)  # what its elements are stored from, or its number mixed with
    dot: bool = False
    loaded: bool = False
    written: bool = False


@dataclass(slots=True)
class Usage:
    """The votes on every parameter of a kernel, by name."""

    votes: dict[str, Votes]
    uses_dot: bool = False
    pairs: frozenset[tuple[str, str]] = frozenset()
    """Parameters that are compared with each other: `D > ROT`."""

    merged: frozenset[tuple[str, ...]] = frozenset()
    """Pointers of one element type: `tl.where(c, q_ptr, k_ptr)`."""

    def of(self, parameter: str) -> Votes:
        return self.votes.get(parameter) or Votes()


def usage(closure: Closure) -> Usage:
    """What the kernel's body, with the helpers it calls, says about the kernel's parameters."""
    pointers: frozenset[str] = frozenset()
    result = Usage({})
    for _ in range(2):  # the second run knows which operand of `a + b` is the pointer
        run = _Run(closure, pointers)
        run.kernel()
        result = Usage(dict(run.votes), run.uses_dot, frozenset(run.pairs), frozenset(run.merged))
        pointers = frozenset(name for name, votes in run.votes.items() if votes.pointer)
    return result


# --------------------------------------------------------------------------------------------------- names and tables

POINTER_HINTS = ("ptr", "pointer", "Ptr")

SAME = frozenset((
    "multiple_of", "max_contiguous", "max_constancy", "reshape", "view", "broadcast_to", "trans", "ravel",
    "expand_dims", "permute", "flip", "broadcast", "sort", "topk", "swizzle2d", "cumsum", "cumprod", "sum",
    "max", "min", "reduce", "associative_scan", "debug_barrier", "interleave", "squeeze", "unsqueeze",
    "bitonic_merge", "xor_sum", "flatten", "item", "gather", "reduce_or",
))  # fmt: skip
FLOAT_MATH = frozenset((
    "exp", "exp2", "exp10", "log", "log2", "log10", "log1p", "expm1", "sqrt", "rsqrt", "sqrt_rn", "sin", "cos",
    "tan", "sinh", "cosh", "tanh", "asin", "acos", "atan", "sigmoid", "softmax", "erf", "erfc", "rcp", "floor",
    "ceil", "round", "rint", "nearbyint", "trunc", "fdiv", "div_rn", "pow", "fast_expf", "fast_logf",
    "fast_dividef", "fast_powf", "fast_tanhf", "fast_sinf", "fast_cosf", "gelu", "silu", "llrint", "isnan",
    "isinf", "isfinited", "lgamma", "log_sigmoid", "div_rz", "fmod", "ffs", "atan2", "asinh", "acosh", "atanh",
    "cbrt",
))  # fmt: skip
ELEMENTWISE = frozenset(["maximum", "minimum", "abs", "clamp", "fma", "where"])
ATOMICS = frozenset((
    "atomic_add", "atomic_max", "atomic_min", "atomic_and", "atomic_or", "atomic_xor", "atomic_xchg",
    "atomic_cas", "atomic_load", "atomic_store", "atomic_poll",
))  # fmt: skip
INTEGRAL_ATOMICS = frozenset(["atomic_and", "atomic_or", "atomic_xor", "atomic_cas", "atomic_poll"])
NO_VALUE = frozenset(
    ["static_assert", "static_print", "device_assert", "device_print", "debug_barrier", "assume", "print"]
)
INT_DTYPES = frozenset(["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
FLOAT_DTYPES = frozenset((
    "float16", "bfloat16", "float32", "float64", "float8e5", "float8e4nv", "float8e4b15", "float8e4b8",
    "float8e5b16",
))  # fmt: skip
SCALED_FORMATS: Mapping[str, str] = {
    "e4m3": "float8e4nv", "e5m2": "float8e5", "e2m1": "uint8", "bf16": "bfloat16", "fp16": "float16"
}  # fmt: skip
OPTIONS: Mapping[str, str] = {
    "eviction_policy": "", "cache_modifier": "", "padding_option": "zero", "input_precision": "ieee", "sem": "relaxed",
    "scope": "gpu",
}  # fmt: skip
"""Keyword arguments of operations that take a string, and one they accept."""
DTYPES = INT_DTYPES | FLOAT_DTYPES | {"int1"}
SHAPED = frozenset(["zeros", "full", "empty", "arange", "zeros_like", "full_like"])
ITERATIONS = frozenset(("range", "static_range"))


def dtype_kind(dtype: str) -> str:
    """The class of numbers of a Triton dtype name: "int", "float", "bool", or "" for anything else."""
    if dtype in INT_DTYPES:
        return "int"
    if dtype in FLOAT_DTYPES:
        return "float"
    return "bool" if dtype == "int1" else ""


def looks_like_pointer(name: str) -> bool:
    return any(hint in name for hint in POINTER_HINTS)


def binding_of(node: ast.expr, names: Mapping[str, Binding]) -> Binding | None:
    """What a dotted name of a jit function means; None for an expression of any other form."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if not isinstance(node, ast.Attribute):
        return None
    owner = binding_of(node.value, names)
    if isinstance(owner, Namespace):
        return owner.members.get(node.attr)
    if isinstance(owner, TritonObject):
        return TritonObject(owner.dotted, node.attr)
    return None


# --------------------------------------------------------------------------------------------------- the abstract run


Environment = dict[str, Value]


class _Run:
    def __init__(self, closure: Closure, pointers: frozenset[str]) -> None:
        self.closure = closure
        self.known = pointers
        self.votes: dict[str, Votes] = defaultdict(Votes)
        self.uses_dot = False
        self.pairs: set[tuple[str, str]] = set()
        self.merged: set[tuple[str, ...]] = set()
        self.calls = 0
        self.finished: dict[tuple[FunctionRef, tuple[tuple[str, Value], ...]], Value] = {}

    def kernel(self) -> None:
        function = self.closure.kernel
        environment = {name: Value((Source(name),)) for name in function.parameters}
        _Body(self, function, 0).run(function.node.body, environment)

    # votes -----------------------------------------------------------------------------------------------------------

    def vote(self, value: Value, kind: str, weight: int) -> None:
        """`value` takes part where numbers of class `kind` stand."""
        if value.items is not None:
            for item in value.items:
                self.vote(item, kind, weight)
        for source in value.sources:
            if source.element:
                self.votes[source.parameter].elements.add((kind, weight))
            elif source.parameter not in self.known:
                self.votes[source.parameter].classes.add((kind, weight))

    def role(self, value: Value, role: str) -> None:
        if value.items is not None:
            for item in value.items:
                self.role(item, role)
        for source in value.sources:
            if not source.element:
                self.votes[source.parameter].roles.add(role)

    def compare(self, value: Value, literal: object) -> None:
        for source in value.sources:
            if not source.element and not source.scaled:
                self.votes[source.parameter].compared.add(literal)

    def mix(self, left: Value, right: Value) -> None:
        """A number and an element in one arithmetic operation."""
        for one, other in ((left, right), (right, left)):
            for source in one.sources:
                if not source.element:
                    self.votes[source.parameter].partners.update(s for s in other.sources if s.element)

    def dereference(self, value: Value) -> str:
        """The parameter that `value` points into ("" if none is found), which is a pointer from now on. Of several on
        different paths, the first."""
        roots = [self._dereference(replace(value, sources=path)) for path in (value.sources, *value.others)]
        if len(set(roots) - {""}) > 1:
            self.merged.add(tuple(sorted(set(roots) - {""})))
        return next(filter(None, roots), "")

    def _dereference(self, value: Value) -> str:
        candidates = [s.parameter for s in value.sources if not s.element and not s.scaled]
        root = _most_likely(candidates, self.known)
        if root:
            self.votes[root].pointer = True
        for source in value.sources:
            if source.parameter != root or source.element:
                pointer_in_memory = not root and source.element and not source.scaled
                vote = ("int64" if pointer_in_memory else "int", 2)
                votes = self.votes[source.parameter]
                if source.element:
                    votes.elements.add(vote)
                elif source.parameter not in self.known:
                    votes.classes.add(vote)
        return root

    # calls of helpers ------------------------------------------------------------------------------------------------

    def call(self, function: Function, environment: Environment, depth: int) -> Value:
        key = (function.ref, tuple(sorted(environment.items(), key=lambda item: item[0])))
        if key not in self.finished and (depth > MAXIMUM_DEPTH or self.calls > MAXIMUM_CALLS):
            return UNKNOWN
        if key not in self.finished:
            self.calls += 1
            self.finished[key] = UNKNOWN  # what a recursive call sees
            self.finished[key] = _Body(self, function, depth).run(function.node.body, dict(environment))
        return self.finished[key]


def _most_likely(candidates: list[str], known: frozenset[str]) -> str:
    for preferred in (
        [c for c in candidates if c in known],
        [c for c in candidates if looks_like_pointer(c)],
        candidates,
    ):
        if preferred:
            return preferred[0]
    return ""


class _Body:
    """The run over the body of one function, for one tuple of arguments."""

    def __init__(self, run: _Run, function: Function, depth: int) -> None:
        self.facts = run
        self.function = function
        self.names = run.closure.bindings.get(function.ref.file, {})
        self.depth = depth
        self.returned: Value | None = None

    def run(self, body: list[ast.stmt], environment: Environment) -> Value:
        self.block(body, environment)
        return self.returned or UNKNOWN

    # statements ------------------------------------------------------------------------------------------------------

    def block(self, body: Iterable[ast.stmt], environment: Environment) -> None:
        for statement in body:
            self.statement(statement, environment)

    def statement(self, node: ast.stmt, environment: Environment) -> None:
        match node:
            case ast.Assign(targets=targets, value=value):
                result = self.value(value, environment)
                for target in targets:
                    self.bind(target, result, environment)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self.bind(target, self.value(value, environment), environment)
            case ast.AugAssign(target=ast.Name(id=name) as target, op=op, value=value):
                left = environment.get(name, UNKNOWN)
                environment[name] = self.arithmetic(op, left, self.value(value, environment))
            case ast.Expr(value=value):
                self.value(value, environment)
            case ast.If(test=test, body=body, orelse=orelse):
                self.truth(test, environment)
                taken, skipped = dict(environment), dict(environment)
                self.block(body, taken)
                self.block(orelse, skipped)
                environment.update(_joined(taken, skipped))
            case ast.For(target=target, iter=iterator, body=body, orelse=orelse):
                item = self.iteration(iterator, environment)
                for _ in range(2):
                    before = dict(environment)
                    self.bind(target, item, environment)
                    self.block(body, environment)
                    environment.update(_joined(before, environment))
                self.block(orelse, environment)
            case ast.While(test=test, body=body):
                for _ in range(2):
                    self.truth(test, environment)
                    before = dict(environment)
                    self.block(body, environment)
                    environment.update(_joined(before, environment))
            case ast.Return(value=ast.expr() as value):
                result = self.value(value, environment)
                self.returned = result if self.returned is None else join(self.returned, result)
            case ast.With(items=items, body=body):
                for with_item in items:
                    self.value(with_item.context_expr, environment)
                self.block(body, environment)
            case ast.Assert(test=test):
                self.truth(test, environment)
            case _:
                return

    def bind(self, target: ast.expr, value: Value, environment: Environment) -> None:
        if isinstance(target, ast.Name):
            environment[target.id] = value
        elif isinstance(target, (ast.Tuple, ast.List)):
            if value.items is not None and len(value.items) == len(target.elts):
                parts: Iterable[Value] = value.items
            else:
                parts = [replace(value, items=None)] * len(target.elts)
            for element, part in zip(target.elts, parts, strict=False):
                self.bind(element, part, environment)

    def iteration(self, node: ast.expr, environment: Environment) -> Value:
        if isinstance(node, ast.Call) and last_name(node.func) in ITERATIONS:
            step = ""
            for position, argument in enumerate(node.args):
                value = self.value(argument, environment)
                step = _alone(value) if position == 2 else step
                self.facts.vote(value, "int", 2)
                self.facts.role(value, "static range" if last_name(node.func) == "static_range" else "range")
            for keyword in node.keywords:
                self.value(keyword.value, environment)
            return Value(kind="index", step=step)
        value = self.value(node, environment)
        if value.items:
            result = value.items[0]
            for item in value.items[1:]:
                result = join(result, item)
            return result
        for source in value.sources:
            if not source.element:
                self.facts.votes[source.parameter].roles.add("tuple")
        return replace(value, items=None)

    def truth(self, node: ast.expr, environment: Environment) -> None:
        """`node` is used for its truth value."""
        match node:
            case ast.BoolOp(values=values):
                for value in values:
                    self.truth(value, environment)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                self.truth(operand, environment)
            case _:
                tested = self.value(node, environment)
                if isinstance(node, (ast.Name, ast.Attribute)):
                    self.facts.role(tested, "bool")

    # expressions -----------------------------------------------------------------------------------------------------

    def value(self, node: ast.expr, environment: Environment) -> Value:
        match node:
            case ast.Name(id=name):
                return environment[name] if name in environment else self.constant(node)
            case ast.Constant(value=literal):
                return _literal(literal)
            case ast.BinOp(left=left, op=op, right=right):
                return self.arithmetic(op, self.value(left, environment), self.value(right, environment))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                self.truth(operand, environment)
                return BOOL
            case ast.UnaryOp(op=ast.Invert(), operand=operand):
                value = self.value(operand, environment)
                self.facts.vote(value, "integral", 2)
                return value.scaled()
            case ast.UnaryOp(op=op, operand=operand):
                value = self.value(operand, environment)
                if isinstance(op, ast.USub) and isinstance(value.literal, (int, float)):
                    return _literal(-value.literal)
                return value.scaled()
            case ast.Compare():
                return self.comparison(node, environment)
            case ast.BoolOp(values=values):
                for value_node in values:
                    self.truth(value_node, environment)
                return BOOL
            case ast.IfExp(test=test, body=body, orelse=orelse):
                self.truth(test, environment)
                return join(self.value(body, environment), self.value(orelse, environment))
            case ast.Subscript():
                return self.subscript(node, environment)
            case ast.Attribute():
                return self.attribute(node, environment)
            case ast.Tuple(elts=elements) | ast.List(elts=elements):
                return Value(items=tuple(self.value(element, environment) for element in elements))
            case ast.Call():
                return self.call(node, environment)
            case ast.NamedExpr(target=ast.Name(id=name), value=value_node):
                environment[name] = self.value(value_node, environment)
                return environment[name]
            case ast.Starred(value=value_node):
                return self.value(value_node, environment)
            case _:
                return UNKNOWN

    def constant(self, node: ast.expr) -> Value:
        binding = binding_of(node, self.names)
        if isinstance(binding, Constant):
            return _literal(binding.value)
        if isinstance(binding, TritonObject) and binding.attribute in DTYPES:
            return Value(kind="dtype", dtype=binding.attribute)
        # `tl.float32` where the names are not resolved
        if isinstance(node, ast.Attribute) and node.attr in DTYPES:
            return Value(kind="dtype", dtype=node.attr)
        return UNKNOWN

    def arithmetic(self, op: ast.operator, left: Value, right: Value) -> Value:
        kind = _combined(left, right)
        if isinstance(op, (ast.Add, ast.Sub)):
            if left.items is not None and right.items is not None:
                return Value(items=left.items + right.items)
            self.facts.mix(left, right)
            for one, other in ((left, right), (right, left)):
                if one.kind == "float":
                    self.facts.vote(other, "float", 1)
            if kind == "float":
                return FLOAT
            others = tuple(_merged(path, right.sources) for path in left.others)
            others += tuple(_merged(left.sources, path) for path in right.others)
            step = left.step or right.step
            return Value(_merged(left.sources, right.sources), kind, others=others[:MAXIMUM_PATHS], step=step)
        if isinstance(op, (ast.Mult, ast.Pow)):
            self.facts.mix(left, right)
            for one, other in ((left, right), (right, left)):
                if one.kind == "float":
                    self.facts.vote(other, "float", 1)
            sources = () if kind == "float" else _merged(left.scaled().sources, right.scaled().sources)
            loaded = any(not v.kind and any(s.element for s in v.sources) for v in (left, right))
            if loaded and kind == "index":  # x * j: what a loaded number is says x, not j
                kind = ""
            return Value(sources, kind, step=_alone(right) or _alone(left))
        if isinstance(op, ast.Div):
            for one, other in ((left, right), (right, left)):
                if one.kind == "float":
                    self.facts.vote(other, "float", 1)
            self.facts.vote(left, "float", 1)
            return FLOAT
        if isinstance(op, (ast.FloorDiv, ast.Mod)):
            for value in (left, right):
                self.facts.vote(value, "int", 2 if isinstance(op, ast.FloorDiv) else 1)
            sources = _merged(left.scaled().sources, right.scaled().sources)
            return Value(sources, "index" if "index" in (left.kind, right.kind) else "int")
        if isinstance(op, (ast.LShift, ast.RShift)):
            for value in (left, right):
                self.facts.vote(value, "int", 2)
            return Value(_merged(left.scaled().sources, right.scaled().sources), kind or "int")
        # a & b, a | b, a ^ b
        for one, other in ((left, right), (right, left)):
            self.facts.vote(other, "int" if one.kind in ("int", "index") else "integral", 2)
        return Value(_merged(left.scaled().sources, right.scaled().sources), kind)

    def comparison(self, node: ast.Compare, environment: Environment) -> Value:
        operands = [self.value(operand, environment) for operand in (node.left, *node.comparators)]
        for op, left, right in zip(node.ops, operands, operands[1:], strict=False):
            if isinstance(op, (ast.Is, ast.IsNot)):
                if right.kind == "none" and _alone(left):
                    self.facts.role(left, "none")
                continue
            if isinstance(op, (ast.In, ast.NotIn)):
                for item in right.items or ():
                    self.compared(left, item)
                continue
            for one, other in ((left, right), (right, left)):
                self.compared(one, other, equality=isinstance(op, (ast.Eq, ast.NotEq)))
            names = [{s.parameter for s in side.sources if not s.element} for side in (left, right)]
            if all(len(of_side) == 1 for of_side in names) and names[0] != names[1]:
                self.facts.pairs.add((min(names[0]), min(names[1])))
        return BOOL

    def compared(self, value: Value, other: Value, equality: bool = True) -> None:
        if other.kind == "index":
            self.facts.vote(value, "int", 2)
        elif other.kind == "float":
            self.facts.vote(value, "float", 1)
        elif other.kind == "int" and (equality or (isinstance(other.literal, int) and other.literal < 0)):
            self.facts.vote(value, "int", 1)
        if other.kind == "dtype":
            self.facts.role(value, "dtype")
            if other.dtype:
                self.facts.compare(value, Dtype(other.dtype))
        elif other.kind == "none":
            self.facts.role(value, "none")
        elif other.literal is not None:
            self.facts.compare(value, other.literal if equality else ("order", other.literal))

    def subscript(self, node: ast.Subscript, environment: Environment) -> Value:
        value = self.value(node.value, environment)
        index = node.slice
        if value.items is not None:
            position = _position(index)
            if position is not None and -len(value.items) <= position < len(value.items):
                return value.items[position]
            if value.items:
                return value.items[0]
        position = _position(index)
        if position is not None:  # ptrs[0]: a tuple parameter
            for source in value.sources:
                if not source.element and not source.scaled:
                    votes = self.facts.votes[source.parameter]
                    votes.roles.add("tuple")
                    votes.tuple_length = max(votes.tuple_length, position + 1)
        elif not isinstance(index, (ast.Tuple, ast.Slice, ast.Constant)):
            for source in value.sources:  # ptrs[i]: a tuple parameter in a static loop
                if not source.element and not source.scaled:
                    self.facts.votes[source.parameter].roles.add("tuple")
        return value

    def attribute(self, node: ast.Attribute, environment: Environment) -> Value:
        root = node
        while isinstance(root, ast.Attribute):
            root = root.value  # type: ignore[assignment]
        if isinstance(root, ast.Name) and root.id not in environment:
            return self.constant(node)
        value = self.value(node.value, environment)
        if node.attr == "element_ty":
            self.facts.dereference(value)
            return Value(kind="dtype")
        if node.attr in ("dtype", "type"):
            return Value(value.sources if isinstance(node.value, ast.Name) else (), "dtype")
        if node.attr in ("T", "value", "handle"):
            return value
        if node.attr in ("shape", "block_shape", "strides", "block_type"):
            if value.kind != "dtype" and node.attr in ("block_shape", "block_type"):
                self.descriptor(value)
            return Value(kind="int")
        if value.kind == "dtype":
            return Value(kind="int" if "width" in node.attr else "dtype")
        return UNKNOWN

    # calls -----------------------------------------------------------------------------------------------------------

    def call(self, node: ast.Call, environment: Environment) -> Value:
        function = node.func
        if isinstance(function, ast.Subscript):
            self.value(function, environment)
            return self.unknown_call(node, environment)
        if isinstance(function, ast.Name) and function.id in environment:
            self.facts.role(environment[function.id], "called")
            return self.unknown_call(node, environment)
        target = self.target(node, environment)
        if isinstance(target, FunctionRef):
            called = self.facts.closure.function(target)
            if called is not None:
                return self.helper(node, called, environment)
        if isinstance(function, ast.Attribute) and self.is_local(function.value, environment):
            receiver = self.value(function.value, environment)
            return self.operation(function.attr, node, environment, receiver)
        name = target.attribute if isinstance(target, TritonObject) and target.attribute else last_name(function)
        return self.operation(name, node, environment, None)

    def target(self, node: ast.Call, environment: Environment) -> Binding | None:
        if self.is_local(node.func, environment):
            return None
        return binding_of(node.func, self.names)

    def is_local(self, node: ast.expr, environment: Environment) -> bool:
        while isinstance(node, ast.Attribute):
            node = node.value
        return not isinstance(node, ast.Name) or node.id in environment

    def helper(self, node: ast.Call, function: Function, environment: Environment) -> Value:
        given = function.node.args
        names = [a.arg for a in (*given.posonlyargs, *given.args)]
        bound: Environment = {}
        defaults = [
            *zip(reversed(names), reversed(given.defaults), strict=False),
            *zip((a.arg for a in given.kwonlyargs), given.kw_defaults, strict=False),
        ]
        for name, default in defaults:
            if default is not None:
                bound[name] = _Body(self.facts, function, self.depth + 1).value(default, {})
        position = 0
        for argument in node.args:
            if isinstance(argument, ast.Starred):
                packed = self.value(argument.value, environment)
                for item in packed.items or ():
                    if position < len(names):
                        bound[names[position]] = item
                        position += 1
                continue
            if position < len(names):
                bound[names[position]] = self.value(argument, environment)
            elif given.vararg is not None:
                old = bound.get(given.vararg.arg, Value(items=()))
                bound[given.vararg.arg] = Value(items=(*(old.items or ()), self.value(argument, environment)))
            position += 1
        for keyword in node.keywords:
            value = self.value(keyword.value, environment)
            if keyword.arg is not None:
                bound[keyword.arg] = value
        for name in function.parameters:
            bound.setdefault(name, UNKNOWN)
        return self.facts.call(function, bound, self.depth + 1)

    def unknown_call(self, node: ast.Call, environment: Environment) -> Value:
        values = [self.value(argument, environment) for argument in node.args]
        values += [self.value(keyword.value, environment) for keyword in node.keywords]
        return values[0].scaled() if values else UNKNOWN

    def operation(self, name: str, node: ast.Call, environment: Environment, receiver: Value | None) -> Value:
        """A call of Triton's `name`, as `tl.name(...)` or as the method of a value."""
        positional = [self.value(argument, environment) for argument in node.args]
        keywords = {k.arg: self.value(k.value, environment) for k in node.keywords if k.arg is not None}
        for keyword, value in keywords.items():
            if keyword in OPTIONS:
                self.facts.role(value, f"option {keyword}")
            elif keyword in (
                "allow_tf32",
                "propagate_nan",
                "keep_dims",
                "volatile",
                "can_reorder",
                "is_pure",
                "descending",
            ):
                self.facts.role(value, "bool")
            elif keyword == "out_dtype":
                self.facts.role(value, "dtype")
        if receiver is not None:
            if name in ("load", "store", "gather", "scatter", "scatter_add") or name.startswith("atomic"):
                return self.descriptor_access(name, receiver, positional, keywords)
            positional = [receiver, *positional]

        def argument(position: int, *names: str) -> Value | None:
            if position < len(positional):
                return positional[position]
            return next((keywords[n] for n in names if n in keywords), None)

        first = argument(0, "input", "x", "base", "pointer", "tensor") or UNKNOWN
        facts = self.facts
        match name:
            case "load":
                return self.load(argument(0, "pointer") or UNKNOWN, argument(1, "mask"), argument(2, "other"))
            case "store":
                self.store(argument(0, "pointer") or UNKNOWN, argument(1, "value"), argument(2, "mask"))
                return UNKNOWN
            case _ if name in ATOMICS:
                return self.atomic(name, first, argument(1, "val", "cmp"), keywords.get("mask"))
            case "arange":
                for value in positional:
                    facts.vote(value, "int", 2)
                    facts.role(value, "block")
                return INDEX
            case "zeros" | "full" | "empty":
                shape = argument(0, "shape") or UNKNOWN
                facts.role(shape, "block")
                dtype = argument(1 if name != "full" else 2, "dtype")
                filled = argument(1, "value") if name == "full" else None
                if dtype is not None:
                    if dtype.kind != "dtype":
                        facts.role(dtype, "dtype")
                    known = dtype_kind(dtype.dtype)
                    if known:
                        return Value(kind=known, dtype=dtype.dtype)
                return filled or UNKNOWN
            case "zeros_like" | "full_like":
                return first.scaled()
            case "program_id" | "num_programs":
                return INDEX
            case "cdiv":
                for value in (*positional, *keywords.values()):
                    facts.vote(value, "int", 2)
                return Value(_merged(*(v.scaled().sources for v in positional)), "index")
            case "next_power_of_2":
                facts.role(first, "block")
                return Value(first.scaled().sources, "int")
            case "to" | "cast":
                return self.cast(first, argument(1, "dtype"), "bitcast" in keywords or len(positional) > 2)
            case "pointer_type":
                return Value(kind="dtype", dtype="pointer")
            case "dot" | "dot_scaled":
                return self.dot(name, positional, keywords)
            case "make_block_ptr":
                return self.block_pointer(argument)
            case "advance":
                facts.vote(argument(1, "offsets") or UNKNOWN, "int", 2)
                return argument(0, "base") or UNKNOWN
            case "make_tensor_descriptor" | "_experimental_make_tensor_descriptor":
                return self.block_pointer(argument, kind="descriptor")
            case "load_tensor_descriptor" | "_experimental_descriptor_load":
                return self.descriptor_access("load", first, positional[1:], keywords)
            case "store_tensor_descriptor" | "_experimental_descriptor_store":
                rest = positional[1:]
                if name.startswith("_"):  # (descriptor, value, offsets)
                    rest = list(reversed(rest[:2]))
                return self.descriptor_access("store", first, rest, keywords)
            case "where":
                chosen = join(argument(1, "x") or UNKNOWN, argument(2, "y") or UNKNOWN)
                self.condition(argument(0, "condition"))
                return chosen.scaled() if chosen.kind else chosen
            case "maximum" | "minimum" | "max" | "min" if len(positional) > 1 and name[0] == "m" and receiver is None:
                second = argument(1, "y") or UNKNOWN
                if name in ("max", "min") and second.kind in ("int", "index") and second.literal is not None:
                    return first.scaled()  # tl.max(x, axis) or max(n, 1)
                facts.mix(first, second)
                for one, other in ((first, second), (second, first)):
                    if one.kind == "float":
                        facts.vote(other, "float", 1)
                return join(first, second).scaled()
            case "argmax" | "argmin":
                return INDEX
            case "rand" | "randn" | "randint" | "rand4x" | "randint4x" | "philox":
                for value in positional[:2]:
                    facts.vote(value, "int", 2)
                return FLOAT if name in ("rand", "randn", "rand4x") else Value(kind="int")
            case "range" | "static_range":
                for value in positional:
                    facts.vote(value, "int", 2)
                return INDEX
            case "len":
                for source in first.sources:
                    facts.votes[source.parameter].roles |= {"tuple", "length"}
                return Value(kind="int")
            case "constexpr" | "int" | "to_tensor":
                return first
            case "float":
                return FLOAT
            case "bool" | "isnan" | "isinf":
                return BOOL
            case "inline_asm_elementwise":
                return Value(kind="")
            case "join" | "cat" | "ravel":
                return join(*positional[:2]) if len(positional) > 1 else first
            case "split":
                return Value(items=(first, first))
            case "reshape" | "view" | "broadcast_to" | "expand_dims":
                for shape in (*positional[1:], *keywords.values()):
                    facts.role(shape, "block")
                return first
            case "sum" | "max" | "min" if "return_indices" in keywords:
                return Value(items=(first.scaled(), INDEX))
            case "sum" | "max" | "min":
                return first.scaled()
            case "is_block" | "is_ptr" | "is_floating" | "is_fp8" | "is_int":
                return BOOL
        if name in NO_VALUE:
            if name in ("assume", "device_assert", "static_assert") and node.args:
                self.truth(node.args[0], environment)
            return UNKNOWN
        if name in FLOAT_MATH:
            for value in positional:
                facts.vote(value, "float", 2)
            return FLOAT
        if name in SAME:
            return first
        if name in ("mulhi", "umulhi"):
            return Value(kind="int")
        if name in ELEMENTWISE:
            result = first
            for value in positional[1:]:
                facts.mix(result, value)
                if value.kind == "float":
                    facts.vote(first, "float", 1)
                result = join(result, value)
            return result.scaled()
        return first.scaled() if positional else UNKNOWN

    def condition(self, mask: Value | None) -> None:
        """`mask` selects lanes: an element used so is a bool."""
        if mask is not None:
            for source in mask.sources:
                if source.element:
                    self.facts.votes[source.parameter].elements.add(("mask", 1))

    def load(self, pointer: Value, mask: Value | None, other: Value | None) -> Value:
        self.condition(mask)
        root = self.facts.dereference(pointer)
        if not root:
            return Value(kind="bool") if pointer.kind == "bool" else UNKNOWN
        votes = self.facts.votes[root]
        votes.loaded = True
        if other is not None and other.kind == "float":
            votes.elements.add(("float", 1))
        if other is not None and other.kind == "bool":
            votes.elements.add(("bool", 1))
        if other is not None and isinstance(other.literal, int) and other.literal not in (0, 1):
            votes.elements.add(("int", 1))
        return Value((Source(root, element=True),))

    def store(self, pointer: Value, value: Value | None, mask: Value | None) -> None:
        self.condition(mask)
        root = self.facts.dereference(pointer)
        if not root or value is None:
            return
        votes = self.facts.votes[root]
        votes.written = True
        if value.kind in ("index", "bool"):
            votes.elements.add((value.kind, 1))
        elif value.kind == "float":
            votes.elements.add(("float", 1))
        elif value.dtype and value.kind == "int":
            votes.elements.add((value.dtype, 1))
        votes.partners.update(s for s in value.sources)

    def atomic(self, name: str, pointer: Value, value: Value | None, mask: Value | None) -> Value:
        self.condition(mask)
        root = self.facts.dereference(pointer)
        if not root:
            return UNKNOWN
        votes = self.facts.votes[root]
        votes.written = votes.loaded = True
        if name in INTEGRAL_ATOMICS:
            votes.elements.add(("int", 2))
        elif (value is not None and (value.kind in ("int", "index"))) or (
            value is not None and name == "atomic_xchg" and value.kind == "int"
        ):
            votes.elements.add(("int", 1))
        elif value is not None and value.kind == "float":
            votes.elements.add(("float", 1))
        elif value is not None:
            votes.partners.update(s for s in value.sources)
        return Value((Source(root, element=True),))

    def cast(self, value: Value, dtype: Value | None, bitcast: bool) -> Value:
        if dtype is None:
            return value
        if dtype.dtype == "pointer":
            if any(not s.element for s in value.sources):
                return value
            for source in value.sources:
                self.facts.votes[source.parameter].elements.add(("int64", 2))
            return replace(value, kind="")
        if any(not s.element and s.parameter in self.facts.known for s in dtype.sources):  # address.to(out_ptr.dtype)
            for source in value.sources:
                if source.element:
                    self.facts.votes[source.parameter].elements.add(("int64", 2))
            return replace(value, kind="")
        if dtype.kind != "dtype":  # `.to(x.dtype)` says nothing about x
            self.facts.role(dtype, "dtype")
        kind = dtype_kind(dtype.dtype)
        if bitcast:
            for source in value.sources:
                if source.element and dtype.dtype in DTYPES:
                    self.facts.votes[source.parameter].elements.add((f"width {_width(dtype.dtype)}", 2))
            return Value(kind=kind, dtype=dtype.dtype)
        if kind == "float":
            if not value.kind:
                self.facts.vote(value, "float", 1)
            return Value(kind="float", dtype=dtype.dtype)
        if kind in ("int", "bool"):
            if dtype.dtype in ("int32", "int64", "uint32", "uint64") and not value.kind:
                self.facts.vote(value, "int", 1)
            if kind == "bool":
                self.facts.vote(value, "bool", 1)
            result = "index" if value.kind == "index" else kind
            return Value(value.scaled().sources, result, dtype=dtype.dtype)
        return replace(value, kind=value.kind if value.kind == "float" else "", literal=None)

    def dot(self, name: str, positional: list[Value], keywords: Mapping[str, Value]) -> Value:
        self.facts.uses_dot = True
        operands = positional[:2] + [v for k, v in keywords.items() if k in ("input", "other", "lhs", "rhs")]
        for value in operands:
            for source in value.sources:
                if source.element:
                    self.facts.votes[source.parameter].dot = True
        if name == "dot_scaled":  # (lhs, lhs_scale, lhs_format, rhs, rhs_scale, rhs_format)
            given = dict(
                zip(("lhs", "lhs_scale", "lhs_format", "rhs", "rhs_scale", "rhs_format"), positional, strict=False)
            ) | dict(keywords)
            for side in ("lhs", "rhs"):
                self._elements(given.get(f"{side}_scale"), "uint8")
                form = given.get(f"{side}_format", UNKNOWN).literal
                if form in SCALED_FORMATS:
                    self._elements(given.get(side), SCALED_FORMATS[str(form)])
        return FLOAT

    def _elements(self, value: Value | None, dtype: str) -> None:
        for source in value.sources if value is not None else ():
            if source.element:
                self.facts.votes[source.parameter].elements.add((dtype, 2))

    def block_pointer(self, argument: object, kind: str = "block pointer") -> Value:
        take = argument
        assert callable(take)
        base: Value = take(0, "base") or UNKNOWN
        self.facts.dereference(base)
        for position, name in ((1, "shape"), (2, "strides")):
            value = take(position, name)
            if value is not None:
                self.facts.vote(value, "int", 2)
                if name == "strides" and kind == "descriptor" and value.items:
                    self.facts.role(value.items[-1], "unit stride")
        offsets = take(3, "offsets") if kind == "block pointer" else None
        if offsets is not None:
            self.facts.vote(offsets, "int", 2)
        block = take(4 if kind == "block pointer" else 3, "block_shape")
        if block is not None:
            self.facts.role(block, "block")
        return Value(base.sources, kind)

    def descriptor(self, value: Value) -> str:
        """The parameter that holds the descriptor `value`; "" for one made in the kernel."""
        if value.kind in ("descriptor", "block pointer"):
            return ""
        candidates = [s.parameter for s in value.sources if not s.element and not s.scaled]
        if not candidates:
            return ""
        votes = self.facts.votes[candidates[0]]
        votes.descriptor_rank = max(votes.descriptor_rank, 1)
        return candidates[0]

    def descriptor_access(
        self, name: str, receiver: Value, positional: list[Value], keywords: Mapping[str, Value]
    ) -> Value:
        root = self.descriptor(receiver)
        gather = name in ("gather", "scatter")
        if not root and receiver.kind not in ("descriptor", "block pointer"):
            return receiver.scaled() if gather else UNKNOWN
        if not root:
            candidates = [s.parameter for s in receiver.sources if not s.element and not s.scaled]
            root = _most_likely(candidates, self.facts.known)
        offsets = positional[0] if positional else keywords.get("offsets", UNKNOWN)
        value = positional[1] if len(positional) > 1 else keywords.get("value")
        if name in ("scatter",) and positional:
            value, offsets = positional[0], Value(items=tuple(positional[1:3]))
        self.facts.vote(offsets, "int", 2)
        if not root:
            return UNKNOWN
        votes = self.facts.votes[root]
        if name in ("load", "store") and offsets.items is not None and receiver.kind != "descriptor":
            votes.descriptor_rank = max(votes.descriptor_rank, len(offsets.items))
            votes.descriptor_block = votes.descriptor_block or offsets.items
        if name == "load":
            votes.loaded = True
        else:
            votes.written = True
            if value is not None:
                votes.partners.update(value.sources)
        return Value((Source(root, element=True),))


# ------------------------------------------------------------------------------------------------------- small pieces


def join(left: Value, right: Value) -> Value:
    """A value that is one or the other."""
    if left.items is not None and right.items is not None and len(left.items) == len(right.items):
        return Value(items=tuple(join(a, b) for a, b in zip(left.items, right.items, strict=False)))
    kind = left.kind if left.kind == right.kind else _combined(left, right)
    if "none" in (left.kind, right.kind):
        kind = left.kind if right.kind == "none" else right.kind
    for special in ("block pointer", "descriptor"):
        if special in (left.kind, right.kind):
            kind = special
    literal = left.literal if left.literal == right.literal else None
    items = left.items if left.items is not None else right.items
    dtype = left.dtype if left.dtype == right.dtype else ""
    one, other = _pointer_candidate(left), _pointer_candidate(right)
    if one and other and one != other and kind in ("", "block pointer", "descriptor"):
        paths = tuple(dict.fromkeys((*left.others, right.sources, *right.others)))[:MAXIMUM_PATHS]
        return Value(left.sources, kind, literal, items, dtype, paths)
    others = tuple(dict.fromkeys((*left.others, *right.others)))[:MAXIMUM_PATHS]
    return Value(_merged(left.sources, right.sources), kind, literal, items, dtype, others)


def _alone(value: Value) -> str:
    """The parameter that `value` is; "" for anything computed."""
    single = len(value.sources) == 1 and not value.sources[0].element and not value.sources[0].scaled
    return value.sources[0].parameter if single else ""


def _pointer_candidate(value: Value) -> str:
    """The parameter that `value` would point into."""
    return next((s.parameter for s in value.sources if not s.element and not s.scaled), "")


def _joined(one: Environment, other: Environment) -> Environment:
    names = {**one, **other}
    return {n: join(one[n], other[n]) if n in one and n in other and one[n] != other[n] else names[n] for n in names}


def _merged(*sources: tuple[Source, ...]) -> tuple[Source, ...]:
    return tuple(dict.fromkeys(source for group in sources for source in group))[:24]


def _combined(left: Value, right: Value) -> str:
    kinds = (left.kind, right.kind)
    if "block pointer" in kinds or "descriptor" in kinds:
        return "block pointer" if "block pointer" in kinds else "descriptor"
    for kind in ("float", "index"):
        if kind in kinds:
            return kind
    if left.kind == right.kind:
        return left.kind
    return ""


def _literal(literal: object) -> Value:
    if isinstance(literal, bool):
        return Value(kind="bool", literal=literal)
    if isinstance(literal, int):
        return Value(kind="int", literal=literal)
    if isinstance(literal, float):
        return Value(kind="float", literal=literal)
    if isinstance(literal, str):
        return Value(kind="string", literal=literal)
    if literal is None:
        return Value(kind="none")
    if isinstance(literal, (tuple, list)):
        return Value(items=tuple(_literal(item) for item in literal))
    if isinstance(literal, Dtype):
        return Value(kind="dtype", dtype=literal.name)
    return UNKNOWN


def _position(node: ast.expr) -> int | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, int) and not isinstance(node.value, bool):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        return -node.operand.value if isinstance(node.operand.value, int) else None
    return None


def _width(dtype: str) -> int:
    digits = "".join(c for c in dtype.replace("float8", "f8") if c.isdigit())
    return 8 if dtype.startswith("float8") else int(digits or 32)
