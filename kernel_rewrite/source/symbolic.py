"""Values of host code, found by reading it: literals, comprehensions, simple functions and loops over them.

A small interpreter over the `ast` with a step budget. It knows a closed set of pure operations, calls nothing of the
user's but functions of the same file, which it reads in the same way, and gives up (`Unknown`) at anything else.
"""

from __future__ import annotations

import ast
import itertools
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kernel_rewrite.model import Dtype
from kernel_rewrite.source.files import Project, SourceFile
from kernel_rewrite.source.folding import TORCH_DTYPES, TRITON_DTYPES
from kernel_rewrite.source.syntax import last_name, nodes_in

MAXIMUM_STEPS = 20_000
MAXIMUM_ITEMS = 4_096
MAXIMUM_DEPTH = 20


class Unknown(Exception):
    """The value cannot be found without running code."""


@dataclass(frozen=True, slots=True)
class Config:
    """One `triton.Config`: its constexpr values and its launch options."""

    values: Mapping[str, object] = field(hash=False)
    options: Mapping[str, object] = field(default_factory=dict, hash=False)
    pre_hook: bool = False


@dataclass(frozen=True, slots=True)
class HostFunction:
    """A `def` or `lambda` of the user's file."""

    node: ast.FunctionDef | ast.Lambda
    scope: Mapping[str, object] = field(default_factory=dict, hash=False)
    names: Mapping[str, object] | None = field(default=None, hash=False)  # of its file, when that is another one


@dataclass(frozen=True, slots=True)
class Foreign:
    """An expression of another file, with that file's names."""

    node: ast.expr
    names: Mapping[str, object] = field(hash=False)


class _Return(Exception):
    def __init__(self, value: object) -> None:
        self.value = value


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


Scope = dict[str, object]

BINARY: Mapping[type[ast.operator], Callable[[Any, Any], object]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}
COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}


def next_power_of_2(value: object) -> int:
    if not isinstance(value, int):
        raise Unknown("next_power_of_2 of a value that is not an int")
    return 1 << max(0, (value - 1).bit_length())


def _cdiv(a: int, b: int) -> int:
    return -(-a // b)


CALLS: Mapping[str, Callable[..., object]] = {
    "range": lambda *a: list(itertools.islice(range(*a), MAXIMUM_ITEMS)),
    "list": lambda a=(): list(a),
    "tuple": lambda a=(): tuple(a),
    "len": len,
    "min": min,
    "max": max,
    "sum": sum,
    "abs": abs,
    "int": int,
    "float": float,
    "bool": bool,
    "str": str,
    "sorted": sorted,
    "set": lambda a=(): list(dict.fromkeys(a)),
    "enumerate": lambda a, start=0: list(enumerate(a, start)),
    "zip": lambda *a, strict=False: list(zip(*a, strict=bool(strict))),
    "reversed": lambda a: list(reversed(a)),
    "any": any,
    "all": all,
    "round": round,
    "next_power_of_2": next_power_of_2,
    "cdiv": _cdiv,
    "product": lambda *a, repeat=1: list(itertools.islice(itertools.product(*a, repeat=repeat), MAXIMUM_ITEMS)),
    "log2": math.log2,
    "ceil": math.ceil,
    "sqrt": math.sqrt,
}

DTYPE_MODULES = frozenset(("torch", "tl", "language", "triton.language", "th"))


class Evaluator:
    """Reads the values of one file. `names` are its module-level meanings: an `ast` node (an assigned expression, a
    `def`) or a value."""

    def __init__(self, names: Mapping[str, object], guess: bool = False) -> None:
        self.names = names
        self.steps = 0
        self.active: set[str] = set()
        self.guess = guess
        """The outcome taken for a condition that cannot be read."""
        self.guessed: set[str] = set()
        """The conditions that could not be read."""

    def value(self, node: ast.expr, scope: Mapping[str, object] | None = None) -> object:
        """The value of `node`, or raises `Unknown`."""
        try:
            return self.evaluate(node, dict(scope or {}))
        except Unknown:
            raise
        except Exception as error:  # any arithmetic or type error of the code read
            raise Unknown(str(error)) from error

    def evaluate(self, node: ast.expr, scope: Scope) -> object:
        self.steps += 1
        if self.steps > MAXIMUM_STEPS:
            raise Unknown("too long")
        match node:
            case ast.Constant(value=constant):
                return constant
            case ast.Name(id=name):
                return self.name(name, scope)
            case ast.Tuple(elts=elements):
                return tuple(self.items(elements, scope))
            case ast.List(elts=elements) | ast.Set(elts=elements):
                return self.items(elements, scope)
            case ast.Dict(keys=keys, values=values):
                result: dict[object, object] = {}
                for key, value_node in zip(keys, values, strict=False):
                    value = self.evaluate(value_node, scope)
                    if key is None:
                        result.update(_mapping(value))
                    else:
                        result[self.evaluate(key, scope)] = value
                return result
            case (
                ast.ListComp(elt=element, generators=generators)
                | ast.GeneratorExp(elt=element, generators=generators)
                | ast.SetComp(elt=element, generators=generators)
            ):
                return [self.evaluate(element, inner) for inner in self.comprehension(generators, scope)]
            case ast.DictComp(key=key, value=value_node, generators=generators):
                return {
                    self.evaluate(key, inner): self.evaluate(value_node, inner)
                    for inner in self.comprehension(generators, scope)
                }
            case ast.BinOp(left=left, op=op, right=right):
                one, other = self.evaluate(left, scope), self.evaluate(right, scope)
                if isinstance(op, ast.Pow):
                    if isinstance(one, (int, float)) and isinstance(other, (int, float)) and abs(other) <= 64:
                        return one**other
                    raise Unknown("a power")
                if type(op) not in BINARY:
                    raise Unknown("an operator")
                if isinstance(op, ast.LShift) and not (isinstance(other, int) and other <= 64):
                    raise Unknown("a shift")
                return _bounded(BINARY[type(op)](one, other))
            case ast.UnaryOp(op=op, operand=operand):
                value = self.evaluate(operand, scope)
                if isinstance(op, ast.Not):
                    return not value
                if isinstance(value, (int, float)):
                    return -value if isinstance(op, ast.USub) else value if isinstance(op, ast.UAdd) else ~int(value)
                raise Unknown("an operator")
            case ast.BoolOp(op=op, values=values):
                result_value: object = None
                for value_node in values:
                    result_value = self.evaluate(value_node, scope)
                    if bool(result_value) != isinstance(op, ast.And):
                        break
                return result_value
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                current = self.evaluate(left, scope)
                for compare, comparator in zip(ops, comparators, strict=False):
                    other = self.evaluate(comparator, scope)
                    if not COMPARE[type(compare)](current, other):
                        return False
                    current = other
                return True
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self.evaluate(body if self.test(test, scope) else orelse, scope)
            case ast.Subscript(value=container, slice=index):
                found = self.evaluate(container, scope)
                if isinstance(index, ast.Slice):
                    parts = [
                        None if p is None else self.evaluate(p, scope) for p in (index.lower, index.upper, index.step)
                    ]
                    return found[slice(*parts)]  # type: ignore[index]
                return found[self.evaluate(index, scope)]  # type: ignore[index]
            case ast.Attribute():
                return self.attribute(node, scope)
            case ast.Call():
                return self.call(node, scope)
            case ast.Lambda():
                return HostFunction(node, scope)
            case ast.JoinedStr(values=values):
                return "".join(str(self.evaluate(v, scope)) for v in values)
            case ast.FormattedValue(value=inner_node):
                return self.evaluate(inner_node, scope)
            case ast.Starred(value=inner_node):
                return self.evaluate(inner_node, scope)
        raise Unknown(f"an expression of the form {type(node).__name__}")

    def name(self, name: str, scope: Scope) -> object:
        if name in scope:
            return scope[name]
        if name not in self.names:
            if name in ("int", "float", "bool"):
                raise Unknown("a type")
            raise Unknown(f"`{name}`")
        meaning = self.names[name]
        if isinstance(meaning, ast.FunctionDef):
            return HostFunction(meaning)
        if isinstance(meaning, Foreign):
            return self.elsewhere(meaning.names, lambda other: other.evaluate(meaning.node, {}))
        if not isinstance(meaning, ast.expr):
            return meaning
        if name in self.active:
            raise Unknown(f"`{name}` refers to itself")
        self.active.add(name)
        try:
            return self.evaluate(meaning, {})
        finally:
            self.active.discard(name)

    def elsewhere(self, names: Mapping[str, object], action: Callable[[Evaluator], object]) -> object:
        """`action` with the names of another file, on the same budget."""
        if len(self.active) > MAXIMUM_DEPTH:
            raise Unknown("too deep")
        other = Evaluator(names, self.guess)
        other.steps, other.guessed, other.active = self.steps, self.guessed, {*self.active, f"file {id(names)}"}
        try:
            return action(other)
        finally:
            self.steps = other.steps

    def attribute(self, node: ast.Attribute, scope: Scope) -> object:
        owner = ast.unparse(node.value)
        if owner in DTYPE_MODULES and (node.attr in TORCH_DTYPES or node.attr in TRITON_DTYPES):
            return Dtype(TORCH_DTYPES.get(node.attr, node.attr))
        if owner == "math" and node.attr in ("inf", "pi", "e", "nan"):
            return getattr(math, node.attr)
        if node.attr == "value":  # constexpr.value
            return self.evaluate(node.value, scope)
        raise Unknown(f"`{ast.unparse(node)}`")

    def items(self, nodes: Iterable[ast.expr], scope: Scope) -> list[object]:
        result: list[object] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                result += _sequence(self.evaluate(node.value, scope))
            else:
                result.append(self.evaluate(node, scope))
        return result

    def comprehension(self, generators: list[ast.comprehension], scope: Scope) -> list[Scope]:
        scopes = [dict(scope)]
        for generator in generators:
            inner = []
            for outer in scopes:
                for item in _sequence(self.evaluate(generator.iter, outer)):
                    candidate = dict(outer)
                    _bind(generator.target, item, candidate)
                    if all(self.test(condition, candidate) for condition in generator.ifs):
                        inner.append(candidate)
                    if len(inner) > MAXIMUM_ITEMS:
                        raise Unknown("too many items")
            scopes = inner
        return scopes

    def test(self, node: ast.expr, scope: Scope) -> bool:
        """The truth of `node`; one that cannot be read counts as `guess`, and is noted in `guessed`."""
        try:
            return bool(self.evaluate(node, scope))
        except (Unknown, ArithmeticError, TypeError, ValueError, LookupError):
            if self.steps > MAXIMUM_STEPS:
                raise
            self.guessed.add(ast.unparse(node))
            return self.guess

    # calls -----------------------------------------------------------------------------------------------------------

    def call(self, node: ast.Call, scope: Scope) -> object:
        name = last_name(node.func)
        if name == "Config":
            return self.config(node, scope)
        if isinstance(node.func, ast.Attribute) and name in (
            "append",
            "extend",
            "copy",
            "keys",
            "items",
            "values",
            "get",
            "update",
            "pop",
        ):
            return self.method(node.func, node, scope)
        function = scope.get(name) if isinstance(node.func, ast.Name) else None
        if function is None and isinstance(node.func, ast.Name) and name in self.names:
            function = self.name(name, scope)
        if isinstance(function, HostFunction):
            return self.apply(function, self.items(node.args, scope), self.keywords(node, scope), name)
        if name == "dict":
            result: dict[object, object] = {}
            for value in self.items(node.args, scope):
                result.update(_mapping(value))
            result.update(self.keywords(node, scope))
            return result
        if name == "constexpr" and len(node.args) == 1:
            return self.evaluate(node.args[0], scope)
        if name in ("map", "filter") and len(node.args) == 2:
            function = self.evaluate(node.args[0], scope)
            items = _sequence(self.evaluate(node.args[1], scope))
            if not isinstance(function, HostFunction):
                raise Unknown("a function")
            results = [self.apply(function, [item], {}, name) for item in items]
            return results if name == "map" else [i for i, r in zip(items, results, strict=False) if r]
        if name not in CALLS or not (
            isinstance(node.func, ast.Name) or _owner(node.func) in ("triton", "itertools", "math", "tl")
        ):
            raise Unknown(f"a call of `{ast.unparse(node.func)}`")
        return _bounded(CALLS[name](*self.items(node.args, scope), **self.keywords(node, scope)))

    def keywords(self, node: ast.Call, scope: Scope) -> dict[str, object]:
        result: dict[str, object] = {}
        for keyword in node.keywords:
            value = self.evaluate(keyword.value, scope)
            if keyword.arg is None:
                result.update({str(k): v for k, v in _mapping(value).items()})
            else:
                result[keyword.arg] = value
        return result

    def config(self, node: ast.Call, scope: Scope) -> Config:
        values: Mapping[object, object] = {}
        if node.args:
            values = _mapping(self.evaluate(node.args[0], scope))
        options: dict[str, object] = {}
        hook = False
        for keyword in node.keywords:
            if keyword.arg == "kwargs":
                values = _mapping(self.evaluate(keyword.value, scope))
            elif keyword.arg == "pre_hook":
                hook = not (isinstance(keyword.value, ast.Constant) and keyword.value.value is None)
            elif keyword.arg is not None:
                try:
                    options[keyword.arg] = self.evaluate(keyword.value, scope)
                except Unknown:
                    continue  # num_warps and the like do not change the TTIR
        return Config({str(k): v for k, v in values.items()}, options, hook)

    def method(self, function: ast.Attribute, node: ast.Call, scope: Scope) -> object:
        owner = self.evaluate(function.value, scope)
        arguments = self.items(node.args, scope)
        match owner, function.attr:
            case list(), "append":
                owner.append(arguments[0])
                return None
            case list(), "extend":
                owner.extend(_sequence(arguments[0]))
                return None
            case list() | dict(), "copy":
                return owner.copy()
            case dict(), "keys":
                return list(owner)
            case dict(), "values":
                return list(owner.values())
            case dict(), "items":
                return list(owner.items())
            case dict(), "get":
                return owner.get(*arguments)
            case dict(), "update":
                for argument in arguments:
                    owner.update(_mapping(argument))
                owner.update(self.keywords(node, scope))
                return None
        raise Unknown(f"a call of `.{function.attr}`")

    def apply(
        self, function: HostFunction, positional: list[object], keywords: Mapping[str, object], name: str
    ) -> object:
        if function.names is not None:
            here = HostFunction(function.node, function.scope)
            return self.elsewhere(function.names, lambda other: other.apply(here, positional, keywords, name))
        arguments = function.node.args
        names = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
        scope: Scope = dict(function.scope)
        for parameter, default in zip(reversed(names), reversed(arguments.defaults), strict=False):
            scope[parameter] = self.evaluate(default, {})
        for keyword_only, keyword_default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=False):
            if keyword_default is not None:
                scope[keyword_only.arg] = self.evaluate(keyword_default, {})
        if len(positional) > len(names):
            raise Unknown("too many arguments")
        scope.update(zip(names, positional, strict=False))
        scope.update(keywords)
        if isinstance(function.node, ast.Lambda):
            return self.evaluate(function.node.body, scope)
        if name in self.active:
            raise Unknown("a recursive function")
        self.active.add(name)
        try:
            self.block(function.node.body, scope)
        except _Return as result:
            return result.value
        finally:
            self.active.discard(name)
        return None

    def block(self, body: Iterable[ast.stmt], scope: Scope) -> None:
        for statement in body:
            self.statement(statement, scope)

    def statement(self, node: ast.stmt, scope: Scope) -> None:
        self.steps += 1
        match node:
            case ast.Return(value=value):
                raise _Return(None if value is None else self.evaluate(value, scope))
            case ast.Assign(targets=targets, value=value):
                result = self.maybe(value, scope)
                for target in targets:
                    _bind(target, result, scope)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                scope[name] = self.maybe(value, scope)
            case ast.AugAssign(target=ast.Name(id=name), op=ast.Add(), value=value):
                added = self.evaluate(value, scope)
                current = self.name(name, scope)
                scope[name] = [*current, *_sequence(added)] if isinstance(current, list) else current + added  # type: ignore[operator]
            case ast.Expr(value=value):
                if isinstance(value, ast.Call):
                    self.evaluate(value, scope)
            case ast.If(test=test, body=body, orelse=orelse):
                self.block(body if self.test(test, scope) else orelse, scope)
            case ast.For(target=target, iter=iterator, body=body):
                for item in _sequence(self.evaluate(iterator, scope)):
                    _bind(target, item, scope)
                    try:
                        self.block(body, scope)
                    except _Continue:
                        continue
                    except _Break:
                        break
            case ast.Continue():
                raise _Continue
            case ast.Break():
                raise _Break
            case ast.Pass() | ast.Import() | ast.ImportFrom() | ast.Assert() | ast.Global():
                return
            case ast.FunctionDef(name=name):
                scope[name] = HostFunction(node, scope)
            case _:
                raise Unknown(f"a statement of the form {type(node).__name__}")

    def maybe(self, node: ast.expr, scope: Scope) -> object:
        """The value, or a stand-in that fails when it is used."""
        try:
            return self.evaluate(node, scope)
        except Unknown:
            return _Missing()


class _Missing:
    def __bool__(self) -> bool:
        raise Unknown("a value")

    def __eq__(self, other: object) -> bool:
        raise Unknown("a value")

    __hash__ = None  # type: ignore[assignment]


def contains_unknown(value: object) -> bool:
    if isinstance(value, _Missing):
        return True
    if isinstance(value, Config):
        return any(contains_unknown(v) for v in value.values.values())
    if isinstance(value, (list, tuple)):
        return any(contains_unknown(v) for v in value)
    return False


def module_names(module: ast.Module) -> dict[str, object]:
    """The module-level names of a file: the expression last assigned to each, and its functions."""
    names: dict[str, object] = {}
    for node in _module_statements(module.body):
        match node:
            case ast.FunctionDef(name=name):
                names[name] = node
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    if isinstance(target, ast.Name):
                        names[target.id] = value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                names[name] = value
            case ast.AugAssign(target=ast.Name(id=name), op=op, value=value) if isinstance(names.get(name), ast.expr):
                names[name] = ast.copy_location(ast.BinOp(names[name], op, value), node)  # type: ignore[arg-type]
    return names


class ProjectNames(Mapping[str, object]):
    """The module-level names of a file, those it imports from files of its project among them."""

    def __init__(self, file: SourceFile, project: Project) -> None:
        self.file, self.project = file, project
        self.local = module_names(file.tree)
        self.imports: dict[str, tuple[str, int, str]] = {}
        self.open: set[str] = set()
        for node in nodes_in(file.tree):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    self.imports.setdefault(alias.asname or alias.name, (node.module or "", node.level, alias.name))

    def __getitem__(self, name: str) -> object:
        if name in self.local:
            return self.local[name]
        module, level, original = self.imports[name]
        if name in self.open:  # two files that import it from each other
            raise KeyError(name)
        self.open.add(name)
        try:
            return self._imported(name, module, level, original)
        finally:
            self.open.discard(name)

    def _imported(self, name: str, module: str, level: int, original: str) -> object:
        file = self.project.module(module, self.file, level)
        if file is None or file is self.file:
            raise KeyError(name)
        key = ("names", file)
        names = self.project.memory.get(key)
        if not isinstance(names, ProjectNames):
            names = self.project.memory[key] = ProjectNames(file, self.project)
        meaning = names[original]
        if isinstance(meaning, ast.FunctionDef):
            return HostFunction(meaning, names=names)
        return Foreign(meaning, names) if isinstance(meaning, ast.expr) else meaning

    def __iter__(self) -> Iterator[str]:
        return iter({**self.local, **self.imports})

    def __len__(self) -> int:
        return len({**self.local, **self.imports})

    def __contains__(self, name: object) -> bool:
        try:
            self[str(name)]
        except KeyError:
            return False
        return True


def _module_statements(body: Iterable[ast.stmt]) -> Iterable[ast.stmt]:
    """Statements of module level; of `if`/`else` and `try`, every branch, the first one last so that it wins."""
    for node in body:
        if isinstance(node, ast.If):
            yield from _module_statements(node.orelse)
            yield from _module_statements(node.body)
        elif isinstance(node, ast.Try):
            for handler in node.handlers:
                yield from _module_statements(handler.body)
            yield from _module_statements(node.body)
        else:
            yield node


def _bind(target: ast.expr, value: object, scope: Scope) -> None:
    if isinstance(target, ast.Name):
        scope[target.id] = value
    elif isinstance(target, (ast.Tuple, ast.List)):
        items = _sequence(value)
        if len(items) != len(target.elts):
            raise Unknown("an unpacking")
        for element, item in zip(target.elts, items, strict=False):
            _bind(element, item, scope)
    elif isinstance(target, ast.Subscript):
        raise Unknown("an item assignment")


def _bounded(value: object) -> object:
    if isinstance(value, (list, tuple, str)) and len(value) > MAXIMUM_ITEMS:
        raise Unknown("too many items")
    if isinstance(value, int) and value.bit_length() > 256:
        raise Unknown("a large number")
    return value


def _sequence(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value)
    if isinstance(value, (list, tuple, str)):
        return list(value)
    raise Unknown("a sequence")


def _mapping(value: object) -> Mapping[object, object]:
    if isinstance(value, dict):
        return value
    raise Unknown("a dict")


def _owner(node: ast.expr) -> str:
    return ast.unparse(node.value) if isinstance(node, ast.Attribute) else ""
