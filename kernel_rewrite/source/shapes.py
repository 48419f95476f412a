"""The shapes of a launching function's tensors, as far as its text says: dimensions, sizes by name, contiguity.

A size is written as text that means the same wherever it occurs: "x.shape[0]" for what `M, N = x.shape` calls M, a name
for what cannot be resolved further. Two sizes of equal text are equal; others may be.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass

from kernel_rewrite.source.syntax import walk

_ALLOCATIONS = frozenset(
    ("empty", "zeros", "ones", "full", "rand", "randn", "new_empty", "new_zeros", "new_ones", "new_full")
)
_LIKE = frozenset(("empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like"))
_SAME_SHAPE = frozenset((
    "contiguous", "clone", "detach", "to", "float", "half", "bfloat16", "double", "int", "long", "cuda", "cpu",
    "requires_grad_", "zero_", "fill_", "type", "type_as",
))  # fmt: skip
_VIEWS = frozenset(("view", "reshape"))
_DEPTH = 12


@dataclass(frozen=True, slots=True)
class _Binding:
    """What a name is bound to: `value`, or its part `index` of `count` when it is unpacked; no value when unknown."""

    value: ast.expr | None
    index: int = 0
    count: int = 0
    line: int = 0


class Shapes:
    """What the body of one function says about the shapes of its tensors."""

    def __init__(self, function: ast.FunctionDef | ast.AsyncFunctionDef | None, body: Iterable[ast.stmt]) -> None:
        self._bindings: dict[str, list[_Binding]] = {}
        self._counts: dict[str, set[int]] = {}
        self._always: dict[str, list[int]] = {}
        if function is not None:
            for argument in (n for n in walk(function.args) if isinstance(n, ast.arg)):
                self._bindings[argument.arg] = [_Binding(None)]
        body = tuple(body)
        for statement in body:
            for node in walk(statement):
                self._collect(node, in_loop=False)
                if isinstance(node, (ast.For, ast.AsyncFor, ast.While, ast.comprehension)):
                    for inner in walk(node):  # what a loop binds has several values
                        self._collect(inner, in_loop=True)
        for statement in _always_run(body):
            self._certain(statement)

    def _collect(self, node: ast.AST, in_loop: bool) -> None:
        match node:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self._bind(target, None if in_loop else value)
            case ast.AnnAssign(target=target, value=ast.expr() as value) | ast.NamedExpr(target=target, value=value):
                self._bind(target, None if in_loop else value)
            case ast.AugAssign(target=target):
                self._bind(target, None)
            case ast.For(target=target) | ast.AsyncFor(target=target) | ast.comprehension(target=target):
                self._bind(target, None)
            case ast.withitem(optional_vars=ast.expr() as target):
                self._bind(target, None)

    def _bind(self, target: ast.expr, value: ast.expr | None) -> None:
        if isinstance(target, ast.Name):
            self._bindings.setdefault(target.id, []).append(_Binding(value, line=target.lineno))
        elif isinstance(target, (ast.Tuple, ast.List)):
            count = len(target.elts)
            starred = any(isinstance(e, ast.Starred) for e in target.elts)
            for index, element in enumerate(target.elts):
                inner = element.value if isinstance(element, ast.Starred) else element
                if isinstance(value, (ast.Tuple, ast.List)) and len(value.elts) == count and not starred:
                    self._bind(inner, value.elts[index])
                elif isinstance(inner, ast.Name):
                    part = _Binding(None if starred else value, index, count, target.lineno)
                    self._bindings.setdefault(inner.id, []).append(part)
                else:
                    self._bind(inner, None)

    def _certain(self, statement: ast.stmt) -> None:
        """Take note of what a statement that always runs says about the number of dimensions, or makes contiguous."""
        match statement:
            case ast.Assert(test=ast.BoolOp(op=ast.And(), values=tests)):
                for test in tests:
                    self._certain(ast.Assert(test))
            case (
                ast.Assert(test=ast.Compare(left=left, ops=[ast.Eq()], comparators=[ast.Constant(value=int(count))]))
                | ast.If(
                    test=ast.Compare(left=left, ops=[ast.NotEq()], comparators=[ast.Constant(value=int(count))]),
                    body=[ast.Raise()],
                )
            ):
                tensor = _counted(left)
                if tensor is not None:
                    self._counts.setdefault(tensor, set()).add(count)
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=value):
                owner = _shape_owner(value)
                if isinstance(owner, ast.Name) and not any(isinstance(t, ast.Starred) for t in targets):
                    self._counts.setdefault(owner.id, set()).add(len(targets))
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=ast.Attribute(attr="contiguous"))):
                self._always.setdefault(name, []).append(statement.lineno)
            case ast.If(
                test=ast.UnaryOp(op=ast.Not(), operand=ast.Call(func=ast.Attribute(attr="is_contiguous", value=asked))),
                body=[ast.Assign(targets=[target]) as inner],
                orelse=[],
            ) if ast.unparse(asked) == ast.unparse(target):  # if not x.is_contiguous(): x = x.contiguous()
                self._certain(inner)

    # questions -------------------------------------------------------------------------------------------------------

    def dimensions(self, tensor: ast.expr) -> int | None:
        """The number of dimensions of `tensor`."""
        shape = self.shape(tensor)
        return None if shape is None else len(shape)

    def shape(self, tensor: ast.expr, depth: int = 0) -> tuple[str, ...] | None:
        """The sizes of `tensor`, outermost first; None when not even their number is known."""
        if depth > _DEPTH:
            return None
        match tensor:
            case ast.Name(id=name):
                binding = self._binding(name)
                if binding is not None and binding.value is not None and not binding.count:
                    return self.shape(binding.value, depth + 1) or self._given(name)
                return self._given(name) if binding is not None else None
            case ast.Attribute(attr="T", value=inner):
                shape = self.shape(inner, depth + 1)
                return shape[::-1] if shape is not None and len(shape) == 2 else None
            case ast.Call(func=ast.Attribute(attr=method, value=receiver), args=arguments):
                if method in _LIKE and arguments:
                    return self.shape(arguments[0], depth + 1)
                if _makes(method, receiver):
                    return self._sizes(tensor, arguments, depth)
                if method in _SAME_SHAPE:
                    return self.shape(receiver, depth + 1)
                if method in _VIEWS:
                    return self._sizes(tensor, arguments, depth)
                if method == "t" and not arguments:
                    shape = self.shape(receiver, depth + 1)
                    return shape[::-1] if shape is not None and len(shape) == 2 else None
            case ast.IfExp(body=body, orelse=orelse):
                shape = self.shape(body, depth + 1)
                return shape if shape == self.shape(orelse, depth + 1) else None
        return None

    def size(self, expression: ast.expr, depth: int = 0) -> str | None:
        """The text of a size: equal texts are equal sizes. None when it cannot be told."""
        if depth > _DEPTH:
            return None
        match expression:
            case ast.Constant(value=int(number)) if not isinstance(number, bool):
                return str(number)
            case ast.Name(id=name):
                binding = self._binding(name)
                if binding is None:
                    return None
                if binding.value is not None and not binding.count:
                    return self.size(binding.value, depth + 1) or name
                owner = _shape_owner(binding.value) if binding.value is not None else None
                found = self._extent(owner, binding.index, depth) if owner is not None else None
                return found or name
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                factors = (self.size(left, depth + 1), self.size(right, depth + 1))
                return _product(f for f in factors if f) if all(factors) else None
            case ast.Call(func=ast.Attribute(attr="numel" | "nelement", value=tensor), args=[]):
                shape = self.shape(tensor)
                if shape is not None:
                    return _product(shape)
                root = self.root(tensor)
                return f"{root}.numel()" if root else None
        part = _shape_part(expression)
        return self._extent(*part, depth) if part is not None else None

    def root(self, tensor: ast.expr, depth: int = 0) -> str | None:
        """The name of a tensor that has the shape of `tensor`, followed as far as it goes."""
        if depth > _DEPTH:
            return None
        match tensor:
            case ast.Name(id=name):
                binding = self._binding(name)
                if binding is None:
                    return None
                inner = binding.value if not binding.count else None
                return (self.root(inner, depth + 1) if inner is not None else None) or name
            case ast.Call(func=ast.Attribute(attr=method), args=[like, *_]) if method in _LIKE:
                return self.root(like, depth + 1)
            case ast.Call(func=ast.Attribute(attr=method, value=receiver)) if method in _SAME_SHAPE:
                return self.root(receiver, depth + 1)
        return None

    def is_contiguous(self, tensor: ast.expr, depth: int = 0) -> bool:
        """Whether `tensor` is certainly contiguous."""
        if depth > _DEPTH:
            return False
        match tensor:
            case ast.Name(id=name):
                bindings = self._bindings.get(name, [])
                since = max((line for line in self._always.get(name, ()) if line < tensor.lineno), default=-1)
                later = [b for b in bindings if b.line >= since and (b.line or since < 0)]
                return bool(later) and all(
                    b.value is not None and not b.count and self.is_contiguous(b.value, depth + 1) for b in later
                )
            case ast.IfExp(body=body, orelse=orelse):
                return self.is_contiguous(body, depth + 1) and self.is_contiguous(orelse, depth + 1)
            case ast.Call(func=ast.Attribute(attr=method, value=receiver), args=arguments, keywords=keywords):
                formats = [ast.unparse(k.value) for k in keywords if k.arg in ("memory_format", "layout", "out", None)]
                if formats == ["torch.contiguous_format"]:
                    return _makes(method, receiver) or method in _LIKE | _SAME_SHAPE
                if formats:
                    return False
                if _makes(method, receiver) or method == "contiguous":
                    return True
                if method in _LIKE:
                    return bool(arguments) and self.is_contiguous(arguments[0], depth + 1)
                if method in _SAME_SHAPE or method in _VIEWS | {"flatten", "unsqueeze", "squeeze"}:
                    return self.is_contiguous(receiver, depth + 1)
        return False

    def bound_before(self, name: str, line: int) -> bool:
        """Whether every assignment to `name` stands above `line`."""
        return all(binding.line < line for binding in self._bindings.get(name, ()))

    def binding(self, name: str) -> tuple[ast.expr, int, int, int] | None:
        """(value, index, count, line) of the one assignment to `name`; count is 0 where it is not a part of the value."""
        found = self._binding(name)
        return None if found is None or found.value is None else (found.value, found.index, found.count, found.line)

    # ------------------------------------------------------------------------------------------------------------------

    def _binding(self, name: str) -> _Binding | None:
        """The one meaning of `name` in the function, `x = x.contiguous()` aside; None when it has several, or none."""
        bindings = [b for b in self._bindings.get(name, []) if b.value is None or not _keeps(b.value, name)]
        if not bindings and name not in self._bindings:
            return _Binding(None)  # a global name
        return bindings[0] if len(bindings) == 1 else None

    def _given(self, name: str) -> tuple[str, ...] | None:
        counts = self._counts.get(name, set())
        return tuple(f"{name}.shape[{k}]" for k in range(*counts)) if len(counts) == 1 else None

    def _sizes(self, call: ast.Call, arguments: list[ast.expr], depth: int) -> tuple[str, ...] | None:
        """The sizes that an allocation or a view is given."""
        if not arguments:
            arguments = [k.value for k in call.keywords if k.arg in ("size", "shape")]
        filled = isinstance(call.func, ast.Attribute) and call.func.attr in ("full", "new_full")
        if not arguments:
            return None
        first = arguments[0]
        if filled or len(arguments) == 1:
            if isinstance(first, ast.Name):
                found = self._binding(first.id)
                if found is not None and found.value is not None and not found.count:
                    first = found.value
            owner = _shape_owner(first)
            if owner is not None:
                return self.shape(owner, depth + 1)
            arguments = list(first.elts) if isinstance(first, (ast.Tuple, ast.List)) else [first]
        if any(isinstance(a, ast.Starred) for a in arguments):
            return None
        if len(arguments) == 1 and arguments[0] is first and not _is_number(first):
            return None  # what may be a whole shape
        own = f"<{call.lineno}:{call.col_offset}>"
        sizes = [self.size(a, depth + 1) for a in arguments]
        return tuple(
            size if size is not None and size != "-1" else f"{own}[{index}]" for index, size in enumerate(sizes)
        )

    def _extent(self, tensor: ast.expr, index: int, depth: int) -> str | None:
        shape = self.shape(tensor, depth + 1)
        if shape is not None:
            return shape[index] if -len(shape) <= index < len(shape) else None
        root = self.root(tensor)
        return f"{root}.shape[{index}]" if root else None


def _is_number(node: ast.expr) -> bool:
    """Whether an expression is certainly one size: `8`, `x.shape[0]`, `x.numel()`."""
    if literal(node) is not None or _shape_part(node) is not None:
        return True
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "numel"


def _makes(method: str, receiver: ast.expr) -> bool:
    """Whether `receiver.method` is an allocation of PyTorch whose first arguments are the shape."""
    return method in _ALLOCATIONS and (method.startswith("new_") or ast.unparse(receiver) == "torch")


def _product(factors: Iterable[str]) -> str:
    parts = sorted(part for factor in factors for part in factor.split(" * ") if part != "1")
    return " * ".join(parts) or "1"


def _counted(node: ast.expr) -> str | None:
    """`x` of `x.dim()`, `x.ndim` and `len(x.shape)`."""
    match node:
        case ast.Call(func=ast.Attribute(attr="dim" | "ndimension", value=ast.Name(id=name)), args=[]):
            return name
        case ast.Attribute(attr="ndim", value=ast.Name(id=name)):
            return name
        case ast.Call(func=ast.Name(id="len"), args=[ast.Attribute(attr="shape", value=ast.Name(id=name))]):
            return name
    return None


def _shape_owner(node: ast.expr | None) -> ast.expr | None:
    """`x` of `x.shape` and `x.size()`."""
    match node:
        case ast.Attribute(attr="shape", value=tensor):
            return tensor
        case ast.Call(func=ast.Attribute(attr="size", value=tensor), args=[], keywords=[]):
            return tensor
    return None


def _shape_part(node: ast.expr) -> tuple[ast.expr, int] | None:
    """(x, k) of `x.shape[k]`, `x.size(k)` and `x.size()[k]`."""
    match node:
        case ast.Subscript(value=inner, slice=index):
            owner, number = _shape_owner(inner), literal(index)
            return (owner, number) if owner is not None and number is not None else None
        case ast.Call(func=ast.Attribute(attr="size", value=tensor), args=[index], keywords=[]):
            number = literal(index)
            return (tensor, number) if number is not None else None
    return None


def literal(node: ast.expr) -> int | None:
    """The number that `2` and `-1` are."""
    match node:
        case ast.Constant(value=int(number)):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int(number))):
            return -number
    return None


def _keeps(value: ast.expr, name: str) -> bool:
    """Whether `name = value` leaves the shape of `name` as it is: `x = x.contiguous()`, also under a condition."""
    match value:
        case ast.Name(id=other):
            return other == name
        case ast.IfExp(body=body, orelse=orelse):
            return _keeps(body, name) and _keeps(orelse, name)
        case ast.Call(func=ast.Attribute(attr=method, value=receiver)) if method in _SAME_SHAPE:
            return _keeps(receiver, name)
    return False


def _always_run(body: Iterable[ast.stmt]) -> Iterable[ast.stmt]:
    """The statements that run whenever the end of `body` is reached."""
    for statement in body:
        yield statement
        if isinstance(statement, (ast.With, ast.AsyncWith)):
            yield from _always_run(statement.body)
