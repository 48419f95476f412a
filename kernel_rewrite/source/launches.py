"""Where a kernel is launched in its file, and what each argument tells about the parameter it is given to.

Everything is syntactic and within the launching function: every assignment to a name counts, whatever branch it stands
in, so that facts are "may" facts and allocations are reported as the set of what the name can be. Only for what overlaps
what, assignments are followed as they run (`aliasing`).
"""

from __future__ import annotations

import ast
import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from kernel_rewrite.model import Dtype, Span
from kernel_rewrite.source.aliasing import GIVEN, Conditions, Flow, Place, may_hold, overlaps
from kernel_rewrite.source.folding import TORCH_DTYPES
from kernel_rewrite.source.shapes import Shapes
from kernel_rewrite.source.symbolic import Evaluator, HostFunction, Unknown, module_names
from kernel_rewrite.source.syntax import children, last_name, nodes_in, walk

MAXIMUM_DEPTH = 12


class Allocation(enum.Enum):
    """What a launching function passes as a buffer."""

    EMPTY = "uninitialised"
    FILL = "filled"
    ARGUMENT = "the launcher's own argument"
    NONE = "nothing"
    OTHER = "something else"


@dataclass(frozen=True, slots=True)
class Fact:
    """What one argument expression can be, as far as it can be read.

    `kind`: "tensor", "int", "float", "bool", "none", "string", "dtype", "function", "tuple", "descriptor", or "" where
    unknown. `values` are the constants it can be. `dtype` is the element type of a tensor; `like` the names (of the
    launching function) whose element type it shares. `roots` are the tensors it can be or be a view of. `presence` is
    the name that a flag (`bias is not None`) asks about, with the flag's value when it is given.
    """

    kind: str = ""
    values: tuple[object, ...] = ()
    dtype: str = ""
    like: tuple[str, ...] = ()
    allocations: frozenset[Allocation] = frozenset()
    fills: tuple[object, ...] = ()
    roots: frozenset[str] = frozenset()
    presence: tuple[str, bool] | None = None
    block: tuple[ast.expr, ...] = field(default=(), hash=False, compare=False)
    items: tuple[Fact, ...] = ()
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Alias:
    """Two pointer parameters that one launch gives the same tensor. `certain` is False when only some paths do. `ways` are
    the conditions of the launching function under which it does, each way a set of them."""

    left: str
    right: str
    span: Span
    text: str
    certain: bool
    ways: tuple[Conditions, ...] = (frozenset(),)


@dataclass(frozen=True, slots=True)
class Launch:
    """One call that launches the kernel. `arguments` holds the expressions it passes, by parameter; `complete` is False
    when `*args` or `**kwargs` hide some. `positional` is the number of arguments passed by position, None when unknown.
    `certain` says that what is launched can be nothing but the kernel."""

    span: Span
    launcher: str
    function: ast.FunctionDef | ast.AsyncFunctionDef | None = field(hash=False)
    arguments: Mapping[str, ast.expr] = field(hash=False)
    facts: Mapping[str, Fact] = field(hash=False)
    complete: bool = True
    call: ast.Call | None = field(default=None, hash=False, compare=False)
    body: tuple[ast.stmt, ...] = field(default=(), hash=False, compare=False)
    positional: int | None = None
    certain: bool = True

    def places(self, parameter: str) -> frozenset[Place]:
        """The memory that the argument of `parameter` may be."""
        return _flow(self.function, self.body).places(self.arguments[parameter])

    @property
    def conditions(self) -> Conditions:
        """What the launch itself stands under."""
        return _flow(self.function, self.body).conditions_of(self.call) if self.call is not None else frozenset()

    def allows(self, way: Conditions, values: Mapping[str, object]) -> bool:
        """Whether `way` (of an `Alias`) can hold when the kernel is compiled with `values`: those of its constexpr
        parameters, by name, and None for the parameters that are None."""
        flow = _flow(self.function, self.body)
        found: dict[str, list[object]] = {}
        for name, argument in self.arguments.items():
            constants = flow.constants(argument, way)
            if constants is not None and name in values and not any(_same(values[name], c) for c in constants):
                return False
            if not isinstance(argument, ast.Constant):
                found.setdefault(flow.text(argument), []).append(values.get(name, GIVEN))
        known: dict[str, object] = {}
        for text, given in found.items():
            certain = [value for value in given if value is not GIVEN]
            if all(_same(value, certain[0]) for value in certain):
                known[text] = certain[0] if certain else GIVEN
        return may_hold(way, known)

    def allocation(self, parameter: str) -> frozenset[Allocation]:
        """What the launcher passes for `parameter`; empty when unknown."""
        fact = self.facts.get(parameter)
        return fact.allocations if fact else frozenset()


def launches(
    kernel: ast.FunctionDef, module: ast.Module, file: str = "", names: Mapping[str, object] | None = None
) -> tuple[Launch, ...]:
    """Every launch of `kernel` in its file, in source order.

    `names` are the file's module-level meanings; give `symbolic.ProjectNames` to follow imports within the project.
    """
    found = []
    names = module_names(module) if names is None else names
    aliases = {kernel.name, *_aliases(kernel.name, module.body)}
    if any(isinstance(node, ast.ClassDef) and kernel in node.body for node in nodes_in(module)):
        aliases.add(f".{kernel.name}")
    for function, owner in _functions(module):
        body = (
            function.body
            if function
            else [s for s in module.body if not isinstance(s, (ast.FunctionDef, ast.ClassDef))]
        )
        local = aliases | _aliases_within(aliases, body)
        scope: _Scope | None = None
        for call in _own_calls(body):
            if not _is_launch(call, local):
                continue
            if function is kernel:
                continue
            scope = scope or _Scope(function, body, names)
            arguments, complete, positional = _bound(call, kernel, scope)
            launcher = f"{owner}.{function.name}" if function and owner else function.name if function else ""
            facts = {name: scope.fact(node) for name, node in arguments.items()}
            span = Span.of(file, call)
            certain = _names_only(_launched(call), kernel.name, [*module.body, *body])
            found.append(
                Launch(span, launcher, function, arguments, facts, complete, call, tuple(body), positional, certain)
            )
    return tuple(sorted(found, key=lambda launch: launch.span))


def aliases(launch: Launch, pointers: Iterable[str]) -> tuple[Alias, ...]:
    """The pairs of `pointers` that `launch` may give the same tensor, or views of one."""
    found = []
    names = [p for p in pointers if p in launch.facts]
    places = {name: launch.places(name) for name in names}
    here = launch.conditions if names else frozenset()
    for index, left in enumerate(names):
        for right in names[index + 1 :]:
            ways = overlaps(places[left], places[right], here)
            if ways:
                certain = len(places[left]) == len(places[right]) == 1 and ways == (frozenset(),)
                certain = certain and all(a.covers(b) or b.covers(a) for a in places[left] for b in places[right])
                text = ast.unparse(launch.arguments[left])
                found.append(Alias(left, right, launch.span, text, certain, ways))
    return tuple(found)


def _same(one: object, other: object) -> bool:
    return one == other and (one is None) == (other is None)


@lru_cache(maxsize=32)
def _flow(function: ast.FunctionDef | ast.AsyncFunctionDef | None, body: tuple[ast.stmt, ...]) -> Flow:
    return Flow(function, body)


# ------------------------------------------------------------------------------------------------------ finding calls


def _functions(module: ast.Module) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef | None, str]]:
    """Every function of the file with the class that holds it, and None for the module's own code."""
    yield None, ""
    pending: list[tuple[ast.AST, str]] = [(module, "")]
    while pending:
        node, owner = pending.pop()
        for child in children(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield child, owner
            pending.append((child, child.name if isinstance(child, ast.ClassDef) else owner))


def _own_calls(body: Iterable[ast.stmt]) -> Iterator[ast.Call]:
    """The calls of a body, not those of functions nested in it."""
    pending: list[ast.AST] = list(body)
    while pending:
        node = pending.pop(0)
        if isinstance(node, ast.Call):
            yield node
        pending[:0] = (
            [
                child
                for child in children(node)
                if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
            ]
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
            else []
        )


def _is_launch(call: ast.Call, names: set[str]) -> bool:
    match call.func:
        case ast.Subscript(value=target):  # k[grid](...)
            return _names_kernel(target, names)
        case ast.Attribute(value=target, attr="run" | "warmup"):  # k.run(..., grid=grid)
            return _names_kernel(target, names) and any(k.arg in ("grid", None) for k in call.keywords)
    return False


def _names_kernel(node: ast.expr, names: set[str]) -> bool:
    match node:
        case ast.Name(id=name):
            return name in names
        case ast.Attribute(value=ast.Name(), attr=name):  # cls.kernel, for a kernel that a class holds
            return f".{name}" in names
        case ast.Call(args=[inner, *_]):  # wrap_triton(k), libentry()(k)
            return _names_kernel(inner, names)
        case ast.IfExp(body=body, orelse=orelse):
            return _names_kernel(body, names) or _names_kernel(orelse, names)
    return False


def _aliases(kernel: str, body: Iterable[ast.stmt]) -> set[str]:
    return _aliases_within({kernel}, body)


def _aliases_within(names: set[str], body: Iterable[ast.stmt]) -> set[str]:
    """Names assigned from the kernel in `body`: `fn = k`, `fn = k1 if c else k2`, `fn = wrap_triton(k)`."""
    found: set[str] = set()
    for statement in body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        for node in walk(statement):
            if isinstance(node, ast.Assign) and _is_alias(node.value, names | found):
                found |= {t.id for t in node.targets if isinstance(t, ast.Name)}
    return found


def _is_alias(node: ast.expr, names: set[str]) -> bool:
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Subscript) or (
            isinstance(node.func, ast.Attribute) and node.func.attr in ("run", "warmup")
        ):
            return False  # a launch, not a name for the kernel
        return len(node.args) >= 1 and _names_kernel(node.args[0], names)
    return _names_kernel(node, names)


def _launched(call: ast.Call) -> ast.expr:
    """`k` of `k[grid](...)` and `k.run(...)`."""
    assert isinstance(call.func, (ast.Subscript, ast.Attribute))
    return call.func.value


def _names_only(node: ast.expr, kernel: str, body: Iterable[ast.stmt], depth: int = 4) -> bool:
    """Whether the expression can mean nothing but `kernel`, by the assignments in `body`."""
    match node:
        case ast.Call(args=[inner, *_]):
            return _names_only(inner, kernel, body, depth)
        case ast.Attribute(attr=name):
            return name == kernel
        case ast.Name(id=name):
            nodes = [n for s in body for n in walk(s) if isinstance(n, (ast.Name, ast.Assign))]
            bound = [n for n in nodes if isinstance(n, ast.Name) and n.id == name and _stores(n)]
            values = [
                n.value for n in nodes if isinstance(n, ast.Assign) and any(target in bound for target in n.targets)
            ]
            if name != kernel and not values:
                return False
            return len(values) >= len(bound) and all(
                (isinstance(v, ast.Call) and name == kernel) or (depth > 0 and _names_only(v, kernel, body, depth - 1))
                for v in values
            )
    return False


def _stores(node: ast.Name) -> bool:
    return isinstance(node.ctx, (ast.Store, ast.Del))


def _bound(call: ast.Call, kernel: ast.FunctionDef, scope: _Scope) -> tuple[dict[str, ast.expr], bool, int | None]:
    """The argument expressions of a launch by parameter, defaults left out; whether all are known; and how many are
    passed by position, None when that is unknown."""
    parameters = [a.arg for a in (*kernel.args.posonlyargs, *kernel.args.args)]
    known = {*parameters, *(a.arg for a in kernel.args.kwonlyargs)}
    bound: dict[str, ast.expr] = {}
    complete = True
    position = 0
    positional: int | None = 0
    for argument in call.args:
        if isinstance(argument, ast.Starred):
            elements = scope.sequence(argument.value)
            if elements is None:
                complete, positional = False, None
                break
        else:
            elements = [argument]
        for element in elements:
            if position < len(parameters):
                bound[parameters[position]] = element
            position += 1
    positional = position if positional is not None else None
    for keyword in call.keywords:
        if keyword.arg is None:
            entries = scope.mapping(keyword.value)
            if entries is None:
                complete = False
                continue
            bound.update({name: node for name, node in entries.items() if name in known})
        elif keyword.arg in known:
            bound[keyword.arg] = keyword.value
    return bound, complete, positional


# ------------------------------------------------------------------------------------------------- reading a launcher

VIEWS = frozenset((
    "view", "view_as", "reshape", "reshape_as", "flatten", "t", "transpose", "permute", "squeeze", "unsqueeze",
    "expand", "expand_as", "detach", "contiguous", "narrow", "select", "movedim", "swapaxes", "as_strided",
    "unflatten", "data_ptr", "untyped_storage", "requires_grad_", "T", "mT", "data",
))  # fmt: skip
EMPTY = frozenset(["empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "empty_permuted"])
FILLED: Mapping[str, object] = {
    "zeros": 0, "zeros_like": 0, "new_zeros": 0, "ones": 1, "ones_like": 1, "new_ones": 1,
}  # fmt: skip
FULL = frozenset(("full", "full_like", "new_full"))
LIKE = frozenset(["empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like"])
NEW = frozenset(["new_empty", "new_zeros", "new_ones", "new_full", "new_empty_strided", "new_tensor"])
CREATING = frozenset((
    "rand", "randn", "randint", "arange", "tensor", "linspace", "as_tensor", "from_numpy", "stack", "cat",
    "concat",
))  # fmt: skip
CASTS: Mapping[str, str] = {
    "float": "float32", "half": "float16", "bfloat16": "bfloat16", "double": "float64", "int": "int32",
    "long": "int64", "short": "int16", "char": "int8", "byte": "uint8", "bool": "int1",
}  # fmt: skip
INTS = frozenset((
    "stride", "size", "numel", "dim", "nelement", "element_size", "storage_offset", "cdiv", "next_power_of_2",
    "len", "ceil", "floor", "get_device_properties", "num_programs", "bit_length", "ndimension", "prod",
))  # fmt: skip
INDEXING = frozenset(["argsort", "argmax", "argmin", "nonzero", "searchsorted", "bincount", "topk", "unique"])
SAME_DTYPE = frozenset((
    "clone", "sum", "max", "min", "abs", "neg", "mean", "cumsum", "index_select", "gather", "masked_fill",
    "roll", "flip", "repeat", "repeat_interleave", "copy_", "zero_", "fill_", "to_dense", "pin_memory", "cuda",
    "cpu", "clamp", "relu", "exp", "sqrt", "rsqrt", "sigmoid", "tanh", "mul", "add", "sub", "div",
))  # fmt: skip


_A_SIZE = ast.parse("len(x)", mode="eval").body
"""Stands for one part of an unpacked shape."""


class _Scope:
    """The names of one launching function."""

    def __init__(
        self,
        function: ast.FunctionDef | ast.AsyncFunctionDef | None,
        body: Iterable[ast.stmt],
        module: Mapping[str, object],
    ) -> None:
        self.module = module
        self.parameters: dict[str, ast.arg] = {}
        self.defaults: dict[str, ast.expr] = {}
        self.assigned: dict[str, list[ast.expr | None]] = {}
        if function is not None:
            arguments = function.args
            positional = [*arguments.posonlyargs, *arguments.args]
            self.parameters = {a.arg: a for a in (*positional, *arguments.kwonlyargs)}
            self.defaults = {a.arg: d for a, d in zip(reversed(positional), reversed(arguments.defaults), strict=False)}
            self.defaults |= {
                a.arg: d for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=False) if d is not None
            }
        body = tuple(body)
        self.shapes = Shapes(function, body)
        for statement in body:
            self._collect(statement)
        self.facts: dict[str, Fact] = {}
        self.active: set[str] = set()
        self.evaluator = Evaluator(module)

    def _collect(self, statement: ast.stmt) -> None:
        for node in walk(statement):
            match node:
                case ast.Assign(targets=targets, value=value):
                    for target in targets:
                        self._assign(target, value)
                case (
                    ast.AnnAssign(target=target, value=ast.expr() as value) | ast.NamedExpr(target=target, value=value)
                ):
                    self._assign(target, value)
                case ast.AugAssign(target=ast.Name(id=name)):
                    self.assigned.setdefault(name, []).append(None)
                case ast.For(target=target) | ast.comprehension(target=target):
                    self._assign(target, None)
                case ast.withitem(optional_vars=ast.expr() as target):
                    self._assign(target, None)

    def _assign(self, target: ast.expr, value: ast.expr | None) -> None:
        if isinstance(target, ast.Name):
            self.assigned.setdefault(target.id, []).append(value)
        elif isinstance(target, (ast.Tuple, ast.List)):
            elements: list[ast.expr | None] = [None] * len(target.elts)
            if isinstance(value, (ast.Tuple, ast.List)) and len(value.elts) == len(target.elts):
                elements = list(value.elts)
            elif value is not None and self._is_shape(value):  # M, N = x.shape
                elements = [None if t is None else _A_SIZE for t in target.elts]
            for element, part in zip(target.elts, elements, strict=True):
                self._assign(element.value if isinstance(element, ast.Starred) else element, part)

    @staticmethod
    def _is_shape(node: ast.expr) -> bool:
        match node:
            case ast.Attribute(attr="shape") | ast.Subscript(value=ast.Attribute(attr="shape")):
                return True
            case ast.Call(func=ast.Attribute(attr="size" | "stride")):
                return True
        return False

    def sequence(self, node: ast.expr) -> list[ast.expr] | None:
        """The elements of `*node`, when they are written out."""
        match node:
            case ast.Tuple(elts=elements) | ast.List(elts=elements):
                return list(elements) if not any(isinstance(e, ast.Starred) for e in elements) else None
            case ast.Name(id=name):
                values = self.assigned.get(name, [])
                if len(values) == 1 and values[0] is not None:
                    return self.sequence(values[0])
            case ast.Attribute(attr="shape", value=tensor):
                return self._parts(node, tensor, "size")
            case ast.Call(func=ast.Attribute(attr="stride" | "size" as method, value=tensor), args=[], keywords=[]):
                return self._parts(node, tensor, method)
        return None

    def _parts(self, node: ast.expr, tensor: ast.expr, method: str) -> list[ast.expr] | None:
        """`x.stride(0)`, `x.stride(1)` for `x.stride()`, when the number of dimensions is in sight."""
        count = self.shapes.dimensions(tensor)
        calls = (f"{ast.unparse(tensor)}.{method}({k})" for k in range(count or 0))
        parts = [ast.parse(call, mode="eval").body for call in calls]
        for inner in (inner for part in parts for inner in walk(part)):
            ast.copy_location(inner, node)
        return parts if count is not None else None

    def mapping(self, node: ast.expr) -> dict[str, ast.expr] | None:
        """The entries of `**node`, when they are written out."""
        match node:
            case ast.Dict(keys=keys, values=values):
                if all(isinstance(k, ast.Constant) for k in keys):
                    return {str(k.value): v for k, v in zip(keys, values, strict=False) if isinstance(k, ast.Constant)}
            case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords):
                return {k.arg: k.value for k in keywords if k.arg is not None}
            case ast.Name(id=name):
                assigned = self.assigned.get(name, [])
                if len(assigned) == 1 and assigned[0] is not None:
                    return self.mapping(assigned[0])
                found = self.module.get(name)
                if not assigned and isinstance(found, ast.expr):
                    return self.mapping(found)
        return None

    # facts -----------------------------------------------------------------------------------------------------------

    def fact(self, node: ast.expr, depth: int = 0) -> Fact:
        if depth > MAXIMUM_DEPTH:
            return Fact()
        match node:
            case ast.Constant(value=constant):
                return _constant_fact(constant)
            case ast.Name(id=name):
                return self.name(name, depth)
            case ast.Attribute():
                return self.attribute(node, depth)
            case ast.Call():
                return self.call(node, depth)
            case ast.Subscript(value=container):
                return self.subscript(node, container, depth)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                presence = _presence(test)
                joined = _joined([self.fact(body, depth + 1), self.fact(orelse, depth + 1)])
                if presence and _is_constant(body, True) and _is_constant(orelse, False):
                    return replace(joined, presence=presence)
                return joined
            case ast.BoolOp(op=op, values=values):
                facts = [self.fact(value, depth + 1) for value in values]
                if isinstance(op, ast.Or) and facts[-1].kind == "tensor":  # out or torch.empty_like(x)
                    return _joined(facts)
                return Fact("bool")
            case ast.Compare():
                return Fact("bool", presence=_presence(node))
            case ast.UnaryOp(op=ast.Not()):
                return Fact("bool")
            case ast.Tuple(elts=elements) | ast.List(elts=elements):
                return Fact("tuple", items=tuple(self.fact(element, depth + 1) for element in elements))
            case ast.Lambda():
                return Fact("function")
        value = self._value(node)
        if value is not None:
            return _constant_fact(value)
        if isinstance(node, ast.BinOp):
            return self.arithmetic(node, depth)
        return Fact()

    def _value(self, node: ast.expr) -> object:
        scope = {}
        for part in walk(node):
            if isinstance(part, ast.Name) and (part.id in self.assigned or part.id in self.parameters):
                values = self.assigned.get(part.id, [])
                if part.id in self.parameters or len(values) != 1:
                    return None
                fact = self.name(part.id, MAXIMUM_DEPTH - 4)
                if len(fact.values) != 1:
                    return None
                scope[part.id] = fact.values[0]
        try:
            found = self.evaluator.value(node, scope)
        except Unknown:
            return None
        return found if isinstance(found, (int, float, str, bool, Dtype)) else None

    def name(self, name: str, depth: int) -> Fact:
        if name in self.facts:
            return self.facts[name]
        if name in self.active:
            return Fact(kind="", roots=frozenset((name,)))
        self.active.add(name)
        try:
            result = self._name(name, depth)
        finally:
            self.active.discard(name)
        if not self.active:
            self.facts[name] = result
        return result

    def _name(self, name: str, depth: int) -> Fact:
        facts = []
        if name in self.parameters:
            facts.append(self.parameter(name))
        for value in self.assigned.get(name, []):
            if value is None:
                facts.append(Fact(allocations=frozenset((Allocation.OTHER,)), roots=frozenset((name,))))
                continue
            fact = self.fact(value, depth + 1)
            facts.append(fact)
        if facts:
            return _joined(facts)  # x = x.contiguous() is still the argument, whatever copy was made of it
        meaning = self.module.get(name)
        if isinstance(meaning, ast.FunctionDef):
            return Fact("function", values=(HostFunction(meaning),))
        constant = self._value(ast.Name(name, ast.Load())) if meaning is not None else None
        if constant is not None:
            return _constant_fact(constant)
        return Fact(roots=frozenset((name,)), allocations=frozenset((Allocation.OTHER,)))

    def parameter(self, name: str) -> Fact:
        annotation = self.parameters[name].annotation
        text = ast.unparse(annotation) if annotation is not None else ""
        default = self.defaults.get(name)
        values: tuple[object, ...] = ()
        optional = "None" in text or "Optional" in text
        if isinstance(default, ast.Constant):
            optional = optional or default.value is None
            values = (default.value,) if default.value is not None else ()
        kind = ""
        if "Tensor" in text:
            kind = "tuple" if text.startswith(("List", "list", "Tuple", "tuple", "Sequence")) else "tensor"
        elif text in ("int", "float", "bool", "str"):
            kind = {"str": "string"}.get(text, text)
        elif values:
            kind = _constant_fact(values[0]).kind
        return Fact(
            kind,
            values,
            like=(name,),
            allocations=frozenset((Allocation.ARGUMENT,)),
            roots=frozenset((name,)),
            optional=optional,
        )

    def attribute(self, node: ast.Attribute, depth: int) -> Fact:
        text = ast.unparse(node)
        if text.startswith(("torch.", "tl.")) and node.attr in TORCH_DTYPES:
            return Fact("dtype", (Dtype(TORCH_DTYPES[node.attr]),))
        if node.attr in ("T", "mT", "data", "H"):
            return self.fact(node.value, depth + 1)
        if node.attr in ("shape", "ndim", "itemsize"):
            return Fact("int" if node.attr != "shape" else "tuple")
        if node.attr == "dtype":
            return Fact("dtype")
        value = self._value(node)
        if value is not None:
            return _constant_fact(value)
        return Fact(like=(text,), roots=frozenset((text,)), allocations=frozenset((Allocation.OTHER,)))

    def subscript(self, node: ast.Subscript, container: ast.expr, depth: int) -> Fact:
        if isinstance(container, ast.Attribute) and container.attr == "shape":
            return Fact("int")
        value = self._value(node)
        if value is not None:
            return _constant_fact(value)
        fact = self.fact(container, depth + 1)
        if fact.kind == "tuple":
            if len(fact.items) and isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, int):
                return fact.items[node.slice.value] if node.slice.value < len(fact.items) else Fact()
            return Fact()
        if fact.kind in ("", "tensor"):
            return replace(fact, values=())
        return Fact()

    def arithmetic(self, node: ast.BinOp, depth: int) -> Fact:
        left, right = self.fact(node.left, depth + 1), self.fact(node.right, depth + 1)
        kinds = {left.kind, right.kind}
        if "tensor" in kinds:
            tensor = left if left.kind == "tensor" else right
            return Fact("tensor", like=tensor.like, dtype=tensor.dtype, allocations=frozenset((Allocation.OTHER,)))
        if "float" in kinds or isinstance(node.op, ast.Div):
            return Fact("float")
        if kinds == {"int"} or (isinstance(node.op, (ast.FloorDiv, ast.Mod)) and "int" in kinds):
            return Fact("int")
        if isinstance(node.op, ast.Pow) and isinstance(node.right, (ast.UnaryOp, ast.Constant)):
            exponent = ast.unparse(node.right)
            return Fact("float" if "." in exponent or "-" in exponent else "")
        return Fact()

    def call(self, node: ast.Call, depth: int) -> Fact:
        name = last_name(node.func)
        receiver = node.func.value if isinstance(node.func, ast.Attribute) else None
        keywords = {k.arg: k.value for k in node.keywords if k.arg is not None}
        if name in EMPTY or name in FILLED or name in FULL:
            return self.allocated(name, node, receiver, keywords, depth)
        if name == "from_tensor" and node.args:  # TensorDescriptor.from_tensor(x, [BM, BK])
            block = node.args[1] if len(node.args) > 1 else keywords.get("block_shape")
            return self.descriptor(node.args[0], block, depth)
        if name == "TensorDescriptor" and (node.args or "base" in keywords):
            block = node.args[3] if len(node.args) > 3 else keywords.get("block_shape")
            return self.descriptor(node.args[0] if node.args else keywords["base"], block, depth)
        if receiver is not None and name == "to" and (node.args or keywords):
            fact = self.fact(receiver, depth + 1)
            for argument in [*node.args, *keywords.values()]:
                fact = self._with_dtype(fact, argument, depth)
            return replace(fact, kind="tensor", values=())
        if receiver is not None and name in CASTS and not node.args and not self._is_module(receiver):
            fact = self.fact(receiver, depth + 1)
            return replace(fact, kind="tensor", dtype=CASTS[name], like=(), values=())
        if name == "view" and receiver is not None and len(node.args) == 1:
            fact = self.fact(receiver, depth + 1)
            return replace(self._with_dtype(fact, node.args[0], depth), kind="tensor", values=())
        if name in VIEWS and receiver is not None and not self._is_module(receiver):
            fact = self.fact(receiver, depth + 1)
            return replace(fact, kind=fact.kind or "tensor", values=())
        if name in INTS:
            return Fact("int")
        if name in ("sqrt", "rsqrt", "pow", "log", "log2") and receiver is not None and ast.unparse(receiver) == "math":
            return Fact("float")
        if name == "float":
            return Fact("float")
        if name in ("int", "round"):
            return Fact("int")
        if name in ("bool", "isinstance", "is_contiguous", "hasattr", "callable", "any", "all", "is_cuda"):
            return Fact("bool")
        value = self._value(node)
        if value is not None:
            return _constant_fact(value)
        if name == "item":
            return Fact()
        if name in ("min", "max") and receiver is None and node.args:
            facts = [self.fact(a, depth + 1) for a in node.args if not isinstance(a, ast.Starred)]
            return Fact("int") if any(f.kind == "int" for f in facts) else Fact()
        other = frozenset((Allocation.OTHER,))
        if name in INDEXING:
            return Fact("tensor", dtype="int64", allocations=other, roots=_made_at(node))
        made = _made_at(node)
        if name in CREATING and receiver is not None and self._is_module(receiver):
            fact = self._with_dtype(Fact("tensor", allocations=other, roots=made), keywords.get("dtype"), depth)
            if not fact.dtype and not fact.like and name in ("rand", "randn"):
                return replace(fact, dtype="float32")
            if not fact.dtype and not fact.like and name in ("arange", "randint"):
                return replace(fact, dtype="int64")
            return fact
        if receiver is not None and name in SAME_DTYPE and not self._is_module(receiver):
            fact = self.fact(receiver, depth + 1)
            if "dtype" in keywords:
                fact = self._with_dtype(fact, keywords["dtype"], depth)
            return Fact(
                "tensor" if fact.kind == "tensor" else "",
                like=fact.like,
                dtype=fact.dtype,
                allocations=other,
                roots=made,
            )
        if "contiguous" in name and node.args:  # ensure_contiguous(x)
            return self.fact(node.args[0], depth + 1)
        return Fact(allocations=other, roots=_made_at(node))

    def descriptor(self, base: ast.expr, block: ast.expr | None, depth: int) -> Fact:
        fact = self.fact(base, depth + 1)
        elements = self.sequence(block) if block is not None else None
        return replace(fact, kind="descriptor", values=(), block=tuple(elements or ()))

    @staticmethod
    def _is_module(node: ast.expr) -> bool:
        return isinstance(node, ast.Name) and node.id in ("torch", "F", "np", "math", "triton", "tl")

    def allocated(
        self, name: str, node: ast.Call, receiver: ast.expr | None, keywords: Mapping[str, ast.expr], depth: int
    ) -> Fact:
        new = _made_at(node)
        if name in EMPTY:
            fact = Fact("tensor", allocations=frozenset((Allocation.EMPTY,)), roots=new)
        else:
            value: object = FILLED.get(name)
            if name in FULL:
                given = node.args[1] if len(node.args) > 1 else keywords.get("fill_value")
                value = self._value(given) if given is not None else None
            fact = Fact("tensor", allocations=frozenset((Allocation.FILL,)), fills=(value,), roots=new)
        if "dtype" in keywords:
            return self._with_dtype(fact, keywords["dtype"], depth)
        like = node.args[0] if name in LIKE and node.args else receiver if name in NEW else None
        if like is None and name in LIKE:
            like = keywords.get("input")
        if like is not None:
            source = self.fact(like, depth + 1)
            return replace(fact, dtype=source.dtype, like=source.like)
        if name in FULL and fact.fills and isinstance(fact.fills[0], bool):
            return replace(fact, dtype="int1")
        if name in FULL and fact.fills and isinstance(fact.fills[0], int):
            return replace(fact, dtype="int64")
        return replace(fact, dtype="float32") if name not in FULL else fact

    def _with_dtype(self, fact: Fact, node: ast.expr | None, depth: int) -> Fact:
        """`fact` cast to the dtype `node`, if that is one."""
        if node is None:
            return fact
        if isinstance(node, ast.Attribute) and node.attr == "dtype":  # dtype=x.dtype
            source = self.fact(node.value, depth + 1)
            return replace(fact, dtype=source.dtype, like=source.like)
        found = self.fact(node, depth + 1) if isinstance(node, (ast.Name, ast.Attribute, ast.IfExp)) else Fact()
        dtypes = [v for v in found.values if isinstance(v, Dtype)]
        if found.kind == "dtype" or dtypes:
            return replace(fact, dtype=dtypes[0].name if dtypes else "", like=() if dtypes else fact.like)
        if isinstance(node, ast.Name) and "dtype" in node.id:
            return replace(fact, dtype="", like=())
        return fact


def _made_at(node: ast.expr) -> frozenset[str]:
    """The root of a tensor that the expression `node` makes."""
    return frozenset((f"<made at {node.lineno}:{node.col_offset}>",))


def _constant_fact(value: object) -> Fact:
    match value:
        case None:
            return Fact("none", (None,), allocations=frozenset((Allocation.NONE,)), optional=True)
        case bool():
            return Fact("bool", (value,))
        case int():
            return Fact("int", (value,))
        case float():
            return Fact("float", (value,))
        case str():
            return Fact("string", (value,))
        case Dtype():
            return Fact("dtype", (value,))
    return Fact()


def _joined(facts: list[Fact]) -> Fact:
    """What an expression can be that is one of `facts`."""
    present = [f for f in facts if f.kind != "none"]
    optional = len(present) < len(facts) or any(f.optional for f in facts)
    if not present:
        return facts[0]
    kinds = {f.kind for f in present if f.kind}
    kind = kinds.pop() if len(kinds) == 1 else "float" if kinds == {"int", "float"} else ""
    dtypes = {f.dtype for f in present}
    # Different element types on different paths: the first that is known.
    dtype = next((d for d in (f.dtype for f in present) if d), "") if len(dtypes) > 1 else dtypes.pop()
    likes = dict.fromkeys(name for f in present for name in f.like)
    roots: frozenset[str] = frozenset().union(*(f.roots for f in present))
    allocations: frozenset[Allocation] = frozenset().union(*(f.allocations for f in facts))
    values = tuple(dict.fromkeys(v for f in facts for v in f.values))
    fills = tuple(dict.fromkeys(v for f in present for v in f.fills))
    block = next((f.block for f in present if f.block), ())
    presence = present[0].presence if len(facts) == 1 else None
    items = present[0].items if len(present) == 1 else ()
    return Fact(kind, values, dtype, tuple(likes), allocations, fills, roots, presence, block, items, optional)


def _presence(node: ast.expr) -> tuple[str, bool] | None:
    """`bias is not None` as ("bias", True)."""
    match node:
        case ast.Compare(left=left, ops=[ast.Is() | ast.IsNot() as op], comparators=[ast.Constant(value=None)]):
            return ast.unparse(left), isinstance(op, ast.IsNot)
    return None


def _is_constant(node: ast.expr, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value
