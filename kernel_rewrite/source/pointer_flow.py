"""Which kernel parameters each pointer expression of the source may point into, whatever branch is taken.

TTIR shows the branches that one specialization compiles; this walks all of them at once (both sides of every `if`, loops
to a fixed point) and so covers what no specialization reached. It over-approximates: an expression may point into every
parameter that a name in it may.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from kernel_rewrite.model import Closure, Function, FunctionRef, MemoryEffect, TritonObject
from kernel_rewrite.source.accesses import POINTER_STYLES, HelperCall, SourceCalls, calls_in
from kernel_rewrite.source.names import callee
from kernel_rewrite.source.syntax import children, walk

Roots = frozenset[str]
Environment = dict[str, Roots]
_NOTHING: Roots = frozenset()

# `p.dtype`, `p.shape`: a fact about a pointer, not a pointer.
_FACTS = {"dtype", "type", "shape", "numel", "rank", "block_type", "element_ty"}
_DATA = {
    form.callee
    for form in POINTER_STYLES
    if form.effect in (MemoryEffect.READ, MemoryEffect.ACCUMULATE) and not form.callee.startswith(".")
}
"""Functions that return what is (or was) in memory."""

_MAY_GIVE_POINTERS = (ast.Add, ast.Sub, ast.Mult)
"""Operators that may give an address: pointer + offset, and (p, q) * 2. Triton rejects an address in any other."""

_RANGES = {"triton.language.range", "triton.language.static_range"}

MAXIMUM_PATHS = 20000
"""How many ways through helper calls are followed before they are called too many."""


@dataclass(frozen=True, slots=True)
class Reached:
    """A call that is handed a pointer of one parameter, and the helper calls that lead to it, outermost first."""

    path: tuple[HelperCall, ...]
    call: ast.Call
    function: Function
    environment: Environment = field(repr=False, hash=False, compare=False)
    callers: tuple[Function, ...] = field(default=(), repr=False, hash=False, compare=False)


@dataclass(slots=True, eq=False)
class _Context:
    """One function under one assignment of roots to its parameters: the names as they stand at each call in it, and what
    each of its `return`s gives, item by item for a tuple."""

    function: Function
    at_call: dict[int, Environment]
    returned: list[tuple[Roots, ...]] = field(default_factory=list)


class PointerFlow:
    """The parameters that each name, at each call of each function of a closure, may point into.

    Helpers are followed once for each assignment of roots to their parameters, so that a helper shared by two buffers is
    two helpers.
    """

    def __init__(self, closure: Closure, calls: SourceCalls) -> None:
        self._closure = closure
        self._helper_calls = {id(c.node): c for f in closure.functions for c in calls.helper_calls_of(f.ref)}
        self._contexts: dict[tuple[FunctionRef, frozenset[tuple[str, Roots]]], _Context] = {}
        constexprs = closure.constexpr_parameters(closure.kernel)
        entry = {p: frozenset({p}) for p in closure.kernel.parameters if p not in constexprs}
        self._current = _Context(closure.kernel, {})
        self._kernel = self._enter(closure.kernel, entry)

    def roots(self, expression: ast.expr, call: ast.Call, function: Function) -> Roots:
        """The kernel parameters that `expression`, an argument of `call` in `function`, may point into in any context."""
        found = _NOTHING
        for context in self._contexts.values():
            if context.function.ref == function.ref:
                found |= self._roots(expression, context.at_call.get(id(call), {}), function)
        return found

    def environments(self, function: Function) -> Iterator[tuple[Environment, Environment]]:
        """For each way to enter `function`: what its parameters may point into, and what any name may at some call in it."""
        for (ref, entry), context in self._contexts.items():
            if ref == function.ref:
                names = dict(entry)
                for environment in context.at_call.values():
                    names = _join(names, environment)
                yield dict(entry), names

    def roots_in(self, expression: ast.expr, names: Environment, function: Function) -> Roots:
        """The kernel parameters that `expression` may point into where names do as `names` says."""
        return self._roots(expression, names, function)

    def roots_at(self, reached: Reached, expression: ast.expr) -> Roots:
        """The kernel parameters that `expression`, a part of the call, may point into when it is reached that way."""
        return self._roots(expression, reached.environment, reached.function)

    def reached(self, parameter: str) -> Iterator[Reached]:
        """Every call, by every way of helper calls, that `parameter` may be an argument (or the receiver) of, other than
        the helper calls themselves. Stops after `MAXIMUM_PATHS`."""
        yield from itertools.islice(self._reached(parameter, self._kernel, (), ()), MAXIMUM_PATHS)

    def _reached(
        self, parameter: str, context: _Context, path: tuple[HelperCall, ...], callers: tuple[Function, ...]
    ) -> Iterator[Reached]:
        for node in calls_in(context.function):
            environment = context.at_call.get(id(node), {})
            helper_call = self._helper_calls.get(id(node))
            target = self._closure.function(helper_call.callee) if helper_call is not None else None
            if helper_call is None or target is None:
                parts = [node.func, *node.args, *(keyword.value for keyword in node.keywords)]
                if any(parameter in self._roots(part, environment, context.function) for part in parts):
                    yield Reached(path, node, context.function, environment, callers)
                continue
            entry = self._entry(helper_call, target, environment, context.function)
            inner = self._contexts.get((target.ref, frozenset(entry.items())))
            if inner is not None and helper_call not in path and any(parameter in roots for roots in entry.values()):
                yield from self._reached(parameter, inner, (*path, helper_call), (*callers, context.function))

    def _enter(self, function: Function, entry: Environment) -> _Context:
        key = function.ref, frozenset(entry.items())
        if key in self._contexts:
            return self._contexts[key]
        context = self._contexts[key] = _Context(function, {})
        outer, self._current = self._current, context
        self._block(function.node.body, dict(entry), function)
        self._current = outer
        for node in calls_in(function):
            helper_call = self._helper_calls.get(id(node))
            target = self._closure.function(helper_call.callee) if helper_call is not None else None
            if helper_call is not None and target is not None:
                self._enter(target, self._entry(helper_call, target, context.at_call.get(id(node), {}), function))
        return context

    def _entry(self, call: HelperCall, target: Function, environment: Environment, function: Function) -> Environment:
        """What the parameters of a helper may point into at one call of it."""
        entry: Environment = {}
        for parameter, argument in bound_arguments(call.node, target):
            roots = self._roots(argument, environment, function)
            if roots:
                entry[parameter] = entry.get(parameter, _NOTHING) | roots
        return entry

    def _roots(self, expression: ast.AST, environment: Environment, function: Function) -> Roots:
        if isinstance(expression, ast.Name):
            return environment.get(expression.id, _NOTHING)
        if _is_no_pointer(expression):
            return _NOTHING
        if isinstance(expression, ast.IfExp):  # what the test asks is not what it gives
            return self._roots(expression.body, environment, function) | self._roots(
                expression.orelse, environment, function
            )
        if isinstance(expression, ast.Call):
            bound = callee(expression, function, self._closure)
            if isinstance(bound, TritonObject) and bound.dotted in _DATA:
                return _NOTHING
            if bound is None and isinstance(expression.func, ast.Attribute) and expression.func.attr == "load":
                return _NOTHING  # descriptor.load(...)
            items = self._returned(expression, environment, function)
            if items is not None:
                return frozenset().union(*items)
        found = _NOTHING
        for child in children(expression):
            found |= self._roots(child, environment, function)
        return found

    def _is_range(self, iterator: ast.expr, function: Function) -> bool:
        """Whether a loop counts: then its variable is a number, whatever the bounds were computed from."""
        if not isinstance(iterator, ast.Call):
            return False
        if isinstance(iterator.func, ast.Name) and iterator.func.id == "range":
            return "range" not in self._closure.bindings.get(function.ref.file, {})
        bound = callee(iterator, function, self._closure)
        return isinstance(bound, TritonObject) and bound.dotted in _RANGES

    def _returned(self, call: ast.Call, environment: Environment, function: Function) -> tuple[Roots, ...] | None:
        """What a helper call may return, item by item for a tuple of one length; None for any other call."""
        helper_call = self._helper_calls.get(id(call))
        target = self._closure.function(helper_call.callee) if helper_call is not None else None
        if helper_call is None or target is None:
            return None
        returned = self._enter(target, self._entry(helper_call, target, environment, function)).returned
        if len({len(items) for items in returned}) > 1:
            return (frozenset().union(*(roots for items in returned for roots in items)),)
        return tuple(frozenset().union(*column) for column in zip(*returned, strict=True))

    # ------------------------------------------------------------------------------------------ abstract interpretation

    def _block(self, statements: Iterable[ast.stmt], environment: Environment, function: Function) -> Environment:
        for statement in statements:
            environment = self._statement(statement, environment, function)
        return environment

    def _statement(self, statement: ast.stmt, environment: Environment, function: Function) -> Environment:
        match statement:
            case ast.If(test=test, body=body, orelse=orelse):
                self._expression(test, environment, function)
                then = self._block(body, dict(environment), function)
                return _join(then, self._block(orelse, dict(environment), function))
            case ast.For(target=target, iter=iterator, body=body, orelse=orelse):
                self._expression(iterator, environment, function)
                counts = self._is_range(iterator, function)
                roots = _NOTHING if counts else self._roots(iterator, environment, function)
                return self._loop([*body, *orelse], environment, function, [(target, roots)])
            case ast.While(test=test, body=body, orelse=orelse):
                return self._loop([ast.Expr(test), *body, *orelse], environment, function, [])
            case ast.With(items=items, body=body):
                for item in items:
                    self._expression(item.context_expr, environment, function)
                return self._block(body, environment, function)
            case ast.Return(value=ast.expr() as value):
                self._expression(value, environment, function)
                parts = value.elts if isinstance(value, ast.Tuple) else [value]
                self._current.returned.append(tuple(self._roots(part, environment, function) for part in parts))
            case ast.Assign(targets=targets, value=value):
                self._expression(value, environment, function)
                for target in targets:
                    self._assign(target, value, environment, function)
            case ast.AugAssign(target=target, value=value):
                self._expression(value, environment, function)
                roots = self._roots(target, environment, function) | self._roots(value, environment, function)
                _bind(target, roots, environment)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self._expression(value, environment, function)
                _bind(target, self._roots(value, environment, function), environment)
            case _:
                for child in children(statement):
                    if isinstance(child, ast.stmt):
                        environment = _join(environment, self._statement(child, dict(environment), function))
                    else:
                        self._expression(child, environment, function)
        return environment

    def _loop(
        self,
        body: list[ast.stmt],
        environment: Environment,
        function: Function,
        targets: list[tuple[ast.expr, Roots]],
    ) -> Environment:
        while True:
            inside = dict(environment)
            for target, roots in targets:
                _bind(target, roots, inside)
            after = _join(environment, self._block(body, inside, function))
            if after == environment:
                return environment
            environment = after

    # a, b = p, q keeps p and q apart
    def _assign(self, target: ast.expr, value: ast.expr, environment: Environment, function: Function) -> None:
        sequences = (ast.Tuple, ast.List)
        if isinstance(target, sequences) and isinstance(value, sequences) and len(target.elts) == len(value.elts):
            found = [self._roots(part, environment, function) for part in value.elts]
            for part, roots in zip(target.elts, found, strict=True):
                _bind(part, roots, environment)
            return
        if isinstance(target, sequences) and isinstance(value, ast.Call):
            items = self._returned(value, environment, function)
            if items is not None and len(items) == len(target.elts):
                for part, roots in zip(target.elts, items, strict=True):
                    _bind(part, roots, environment)
                return
        _bind(target, self._roots(value, environment, function), environment)

    def _expression(self, expression: ast.AST, environment: Environment, function: Function) -> None:
        """Note the names as they stand at each call inside."""
        for node in walk(expression):
            if isinstance(node, ast.NamedExpr):
                _bind(node.target, self._roots(node.value, environment, function), environment)
            if not isinstance(node, ast.Call):
                continue
            at_call = self._current.at_call
            at_call[id(node)] = _join(at_call.get(id(node), {}), environment)


def _is_no_pointer(expression: ast.AST) -> bool:
    """Whether an expression gives a number or a fact about a pointer, whatever its parts are."""
    match expression:
        case ast.Attribute(attr=attribute):
            return attribute in _FACTS
        case ast.Compare() | ast.UnaryOp():  # p == q, p is None, not p
            return True
        case ast.BinOp(op=operator):
            return not isinstance(operator, _MAY_GIVE_POINTERS)
    return False


def _join(one: Environment, other: Environment) -> Environment:
    return {name: one.get(name, _NOTHING) | other.get(name, _NOTHING) for name in one.keys() | other.keys()}


def _bind(target: ast.expr, roots: Roots, environment: Environment) -> None:
    if isinstance(target, ast.Name):
        environment[target.id] = roots
        return
    # a tuple, or an element of one: every name in it may hold any of the value
    for node in walk(target):
        if isinstance(node, ast.Name):
            environment[node.id] = environment.get(node.id, _NOTHING) | roots


def bound_arguments(call: ast.Call, target: Function) -> Iterator[tuple[str, ast.expr]]:
    """(parameter, argument) pairs of a helper call; a starred argument may land in every parameter."""
    parameters = target.parameters
    for index, argument in enumerate(call.args):
        if isinstance(argument, ast.Starred):
            yield from ((parameter, argument.value) for parameter in parameters[index:])
            return
        if index < len(parameters):
            yield parameters[index], argument
    for keyword in call.keywords:
        if keyword.arg is not None:
            yield keyword.arg, keyword.value
        else:
            yield from ((parameter, keyword.value) for parameter in parameters)
